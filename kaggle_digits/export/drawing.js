// ── from a drawing to pixels as in train.csv: the steps of handwriting/, which are explained in the documentation ──
// A picture has a width, a height and data, row by row. Strokes have a box, right and bottom just outside, and a mask of it.

const picture = (width, height, data = new Float32Array(width * height)) => ({width, height, data});
const toEven = value => { // round halves to the even number, as NumPy does
  const whole = Math.floor(value), part = value - whole;
  return part > .5 || (part === .5 && whole % 2) ? whole + 1 : whole;
};
const total = values => values.reduce((one, other) => one + other, 0);
const clip = value => Math.min(1, Math.max(0, value));

function largest(values) { // loops are several times as fast as callbacks, and these arrays are large
  let most = -Infinity;
  for (const value of values) if (value > most) most = value;
  return most;
}

function mapped({width, height, data}, change, kind = Float32Array) {
  const result = new kind(data.length);
  for (let i = 0; i < data.length; i++) result[i] = change(data[i], i);
  return picture(width, height, result);
}
const masked = (image, isInk) => mapped(image, value => isInk(value) ? 1 : 0, Uint8Array);

function cropped({width, data}, [left, top, right, bottom]) {
  const part = picture(right - left, bottom - top, new data.constructor((right - left) * (bottom - top)));
  for (let y = top; y < bottom; y++) part.data.set(data.subarray(y * width + left, y * width + right), (y - top) * part.width);
  return part;
}

function framed({width, height, data}, margin) {
  const wide = width + 2 * margin, high = height + 2 * margin, larger = picture(wide, high, new data.constructor(wide * high));
  for (let y = 0; y < height; y++) larger.data.set(data.subarray(y * width, (y + 1) * width), (y + margin) * wide + margin);
  return larger;
}

// As Pillow resamples: bicubic if a side grows, else by means over areas.
function resized(image, width, height) {
  const grows = width > image.width || height > image.height, support = grows ? 2 : .5;
  const weigh = grows
    ? x => (x = Math.abs(x)) < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -.5 : 0
    : x => x > -.5 && x <= .5 ? 1 : 0;
  const windowsOf = (from, to) => Array.from({length: to}, (_, i) => {
    const scale = from / to, wide = Math.max(1, scale), centre = (i + .5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * wide + .5));
    const end = Math.min(from, Math.trunc(centre + support * wide + .5));
    const weights = Array.from({length: end - first}, (_, k) => weigh((k + first - centre + .5) / wide));
    const sum = total(weights);
    return [first, weights.map(weight => weight / sum)];
  });
  const across = windowsOf(image.width, width), down = windowsOf(image.height, height);
  const narrow = picture(width, image.height), result = picture(width, height);
  for (let y = 0; y < image.height; y++) across.forEach(([first, weights], x) => {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += image.data[y * image.width + first + k] * weights[k];
    narrow.data[y * width + x] = sum;
  });
  down.forEach(([first, weights], y) => {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += narrow.data[(first + k) * width + x] * weights[k];
      result.data[y * width + x] = sum;
    }
  });
  return result;
}

const rescaled = (image, factor) =>
  resized(image, Math.max(1, toEven(image.width * factor)), Math.max(1, toEven(image.height * factor)));

const sorted = values => new Float64Array(values).sort();
function percentile(values, percent) { // of sorted values
  const at = (values.length - 1) * percent / 100, whole = Math.floor(at);
  return values[whole] + (at - whole) * ((values[whole + 1] ?? values[whole]) - values[whole]);
}

function otsu(values) { // sorted ones
  const least = values[0], most = values.at(-1), bins = 256;
  const counts = new Float64Array(bins), centres = Array.from(counts, (_, i) => least + (i + .5) * (most - least) / bins);
  for (const value of values) counts[Math.min(bins - 1, Math.floor((value - least) / (most - least) * bins))]++;
  const sum = centres.reduce((sum, centre, i) => sum + counts[i] * centre, 0);
  let below = 0, sumBelow = 0, best = -1, found = least;
  for (let i = 0; i < bins - 1; i++) {
    below += counts[i];
    sumBelow += counts[i] * centres[i];
    const above = values.length - below, between = below * above * (sumBelow / below - (sum - sumBelow) / above) ** 2;
    if (between > best) [best, found] = [between, centres[i]];
  }
  return found;
}

// The ink of a drawing, 0–1; null if nothing stands out.
function inkOf({width, height, data}) {
  const values = sorted(data);
  if (values.at(-1) - values[0] < .08) return null;
  const limit = otsu(values), first = values.findIndex(value => value >= limit);
  const paper = percentile(values.subarray(first), 50), ink = percentile(values.subarray(0, first), 25);
  return mapped({width, height, data}, value => clip((paper - value) / (paper - ink)));
}

// Connected parts of a mask. Pixels that touch at a corner are connected.
function separate(mask, smallest = 6) {
  const left = framed(mask, 1), {width} = left, found = []; // with a frame, no neighbour lies outside
  const around = [-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1];
  for (let start = left.data.indexOf(1); start >= 0; start = left.data.indexOf(1, start)) {
    const members = [start];
    left.data[start] = 0;
    for (let k = 0; k < members.length; k++) for (const step of around) if (left.data[members[k] + step]) {
      left.data[members[k] + step] = 0;
      members.push(members[k] + step);
    }
    const box = boxAround(members, width), wide = box[2] - box[0], own = new Uint8Array(wide * (box[3] - box[1]));
    for (const at of members) own[(Math.floor(at / width) - box[1]) * wide + at % width - box[0]] = 1;
    found.push({box: box.map(side => side - 1), mask: own, area: members.length});
  }
  return found.filter(piece => sizeOf(piece) >= smallest);
}

function boxAround(places, width) {
  const box = [Infinity, Infinity, 0, 0];
  for (const at of places) {
    const x = at % width, y = (at - x) / width;
    if (x < box[0]) box[0] = x;
    if (y < box[1]) box[1] = y;
    if (x >= box[2]) box[2] = x + 1;
    if (y >= box[3]) box[3] = y + 1;
  }
  return box;
}

const widthOf = ({box}) => box[2] - box[0], heightOf = ({box}) => box[3] - box[1];
const sizeOf = piece => Math.max(widthOf(piece), heightOf(piece));
const maskOf = piece => picture(widthOf(piece), heightOf(piece), piece.mask);

function union(one, other) {
  const box = [0, 1].map(i => Math.min(one.box[i], other.box[i]));
  box.push(...[2, 3].map(i => Math.max(one.box[i], other.box[i])));
  const wide = box[2] - box[0], mask = new Uint8Array(wide * (box[3] - box[1]));
  for (const piece of [one, other]) piece.mask.forEach((isInk, i) => {
    const wideOf = widthOf(piece), x = i % wideOf, y = (i - x) / wideOf;
    if (isInk) mask[(y + piece.box[1] - box[1]) * wide + x + piece.box[0] - box[0]] = 1;
  });
  return {box, mask, area: total(mask)};
}

function boxOf({width, data}) { // of a mask
  const places = [];
  for (let at = data.indexOf(1); at >= 0; at = data.indexOf(1, at + 1)) places.push(at);
  return boxAround(places, width);
}

// A pixel is kept if any pixel of the 3 × 3 around it is (grow), or if all are (shrink).
function spreadMask({width, height, data}, grow) {
  const result = picture(width, height, new Uint8Array(data.length));
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    let any = false, all = true;
    for (let j = y - 1; j <= y + 1; j++) for (let i = x - 1; i <= x + 1; i++) {
      const isInk = j >= 0 && j < height && i >= 0 && i < width && data[j * width + i];
      any ||= isInk;
      all &&= isInk;
    }
    result.data[y * width + x] = (grow ? any : all) ? 1 : 0;
  }
  return result;
}

// Cut strokes out of the ink, with their soft edge.
function cutOut(piece, ink) {
  const [left, top] = piece.box, own = framed(maskOf(piece), 2), mask = spreadMask(spreadMask(own, true), true);
  const around = mapped(mask, (_, i) => {
    const x = i % mask.width + left - 2, y = Math.floor(i / mask.width) + top - 2;
    return x < 0 || y < 0 || x >= ink.width || y >= ink.height ? 0 : ink.data[y * ink.width + x];
  });
  const dark = Math.max(.5, percentile(sorted(around.data.filter((_, i) => own.data[i])), 75));
  return mapped(around, (value, i) => mask.data[i] ? clip(value / dark) : 0);
}

// The distance of every pixel of a mask to the nearest one outside.
function distances({width, height, data}) {
  const far = width + height, down = new Float64Array(data.length);
  for (let x = 0; x < width; x++) {
    let last = -far;
    for (let y = 0; y < height; y++) { if (!data[y * width + x]) last = y; down[y * width + x] = y - last; }
    last = height + far;
    for (let y = height - 1; y >= 0; y--) {
      if (!data[y * width + x]) last = y;
      down[y * width + x] = Math.min(down[y * width + x], last - y);
    }
  }
  return Float64Array.from(data, (isInk, at) => {
    if (!isInk) return 0;
    const x = at % width, row = at - x;
    let least = down[at] ** 2;
    for (let k = 1; k * k < least; k++)
      for (const i of [x - k, x + k]) if (i >= 0 && i < width) least = Math.min(least, k * k + down[row + i] ** 2);
    return Math.sqrt(least);
  });
}

function strokeWidth(mask) {
  const inside = distances(framed(mask, 1)).filter(distance => distance > 0);
  return 4 * (total(inside) / inside.length - .5) + 1;
}

function moveOutline(mask, distance) {
  const larger = framed(mask, Math.trunc(Math.max(0, distance)) + 2);
  const inside = distances(larger), outside = distances(masked(larger, isInk => !isInk));
  distance = Math.max(distance, 1 - largest(inside));
  return mapped(larger, (isInk, i) => clip((isInk ? inside[i] : 1 - outside[i]) + distance));
}

function normaliseDigit(ink) {
  const frame = framed(ink, 2), most = largest(frame.data);
  const [left, top, right, bottom] = boxOf(masked(frame, value => value > .35 * most));
  const scale = 80 / Math.max(right - left, bottom - top);
  let fine = mapped(rescaled(frame, scale), clip);
  const darkest = largest(fine.data), strokes = masked(fine, value => value > .5 * darkest), box = boxOf(strokes);
  const side = Math.max(box[2] - box[0], box[3] - box[1]), ratio = strokeWidth(strokes) / side;
  const usual = Math.min(.2, Math.max(.09, ratio));
  if (usual !== ratio && 80 / scale >= 30) fine = moveOutline(strokes, (usual - ratio) * side / (2 * (1 - usual)));
  return placeInk(fine);
}

function placeInk(ink) {
  const most = largest(ink.data), part = cropped(ink, boxOf(masked(ink, value => value > .35 * most)));
  const side = Math.max(part.width, part.height), square = picture(side, side);
  const down = Math.floor((side - part.height) / 2), across = Math.floor((side - part.width) / 2);
  for (let y = 0; y < part.height; y++)
    square.data.set(part.data.subarray(y * part.width, (y + 1) * part.width), (y + down) * side + across);
  const small = resized(square, 20, 20).data.map(value => Math.max(0, value)), darkest = largest(small);
  let sum = 0, sumX = 0, sumY = 0;
  small.forEach((value, i) => {
    sum += value;
    sumX += value * (i % 20 + .5);
    sumY += value * (Math.floor(i / 20) + .5);
  });
  const [x, y] = [sumX, sumY].map(moment => Math.min(8, Math.max(0, Math.trunc(15 - moment / sum))));
  const pixels = new Uint8Array(784);
  small.forEach((value, i) => { pixels[(y + Math.floor(i / 20)) * 28 + x + i % 20] = toEven(255 * value / darkest); });
  return pixels;
}

// The pieces of a drawing's one digit: the largest and other large ones.
function mainPieces(mask) {
  const margin = Math.max(2, toEven(.06 * Math.min(mask.width, mask.height)));
  const isOnEdge = ({box, mask: own, area}) => {
    const wide = box[2] - box[0], outer = own.filter((isInk, i) => {
      const x = i % wide + box[0], y = Math.floor(i / wide) + box[1];
      return isInk && (x < margin || y < margin || x >= mask.width - margin || y >= mask.height - margin);
    });
    return outer.length > .6 * area;
  };
  let pieces = separate(mask, 1).sort((one, other) => other.area - one.area);
  const inside = pieces.filter(piece => !isOnEdge(piece));
  if (inside.length && inside[0].area >= .1 * pieces[0].area) pieces = inside;
  return pieces.filter(piece => piece.area >= .06 * pieces[0].area);
}

function isBlot(piece) {
  const [short, long] = [widthOf(piece), heightOf(piece)].sort((one, other) => one - other);
  return long < 2.5 * short && strokeWidth(maskOf(piece)) > .55 * short;
}
const encloses = ({box}, {box: inner}) => [0, 1].every(i => box[i] < inner[i] && inner[i + 2] < box[i + 2]);

// A drawing's pixels: as one digit.
function findSingle(drawing) {
  const factor = Math.max(1, Math.max(drawing.width, drawing.height) / 400);
  const ink = inkOf(factor === 1 ? drawing : rescaled(drawing, 1 / factor));
  if (!ink) return null;
  const pieces = mainPieces(masked(ink, value => value > .5)), strokes = pieces.reduce(union);
  const isShape = isBlot(strokes) || pieces.some(one => pieces.some(other => encloses(one, other)));
  return {pixels: normaliseDigit(cutOut(strokes, ink)), ink, isShape};
}
