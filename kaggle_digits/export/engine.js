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
  const edges = image.data.filter((_, i) => i % image.width < 2 || i < 2 * image.width);
  const isBoard = percentile(edges, 50) < percentile(image.data, 50) - .02 || percentile(edges, 50) < .35;
  const data = isBoard ? image.data.map(value => 1 - value) : image.data, cells = 8;
  const paper = picture(cells, cells, Float32Array.from({length: cells * cells}, (_, k) => {
    const [x, y] = [k % cells, Math.floor(k / cells)].map((at, i) => Math.floor(at * [image.width, image.height][i] / cells));
    const [right, bottom] = [x + Math.ceil(image.width / cells), y + Math.ceil(image.height / cells)];
    return percentile(cropped({...image, data}, [x, y, Math.min(right, image.width), Math.min(bottom, image.height)]).data, 80);
  }));
  const light = resized(paper, image.width, image.height);
  return picture(image.width, image.height, data.map((value, i) => clip(value / Math.max(.05, light.data[i]))));
}
