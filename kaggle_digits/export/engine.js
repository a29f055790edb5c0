// ── what the worker answers ──
onmessage = ({data: {id, what, drawing}}) => {
  try {
    const read = pixels => classify(MODEL, pixels);
    const digits = readDrawing(what === "photo" ? evenlyLit(drawing) : drawing, read, MODEL.threshold);
    if (what === "why") for (const digit of digits.slice(-1)) // the one that is shown
      digit.why = explain(digit.pixels, digit.digit, pixels => classify(QUICK, pixels));
    postMessage({id, digits});
  } catch (error) { postMessage({id, error: error.message}); }
};

// Divide a photograph by the brightness of the paper around each place; light ink on dark paper is inverted before.
function evenlyLit(image) {
  const {width, height} = image, cells = 8, middle = values => percentile(sorted(values), 50);
  const edge = middle(image.data.filter((_, i) => i % width < 2 || i < 2 * width));
  const isBoard = edge < Math.max(.35, middle(image.data) - .02), inked = mapped(image, value => isBoard ? 1 - value : value);
  const paper = mapped(picture(cells, cells), (_, k) => {
    const left = Math.floor(k % cells * width / cells), top = Math.floor(Math.floor(k / cells) * height / cells);
    const box = [left, top, Math.min(width, left + Math.ceil(width / cells)), Math.min(height, top + Math.ceil(height / cells))];
    return percentile(sorted(cropped(inked, box).data), 80);
  });
  const light = resized(paper, width, height);
  return mapped(inked, (value, i) => clip(value / Math.max(.05, light.data[i])));
}
