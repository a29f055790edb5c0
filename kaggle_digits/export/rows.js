// ── several digits in a row: pieces are merged and cut, and the likeliest sequence of digits wins ──
// These are the steps of handwriting/strokes.py, lattice.py and page.py.

const LOW = .4; // a piece lower than this share of the usual height is no digit, unless it is a closed loop
const middleOf = ({box}) => [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
const gapOf = (one, other) => [0, 1].map(i =>
  Math.max(one.box[i], other.box[i]) - Math.min(one.box[i + 2], other.box[i + 2]));

function usualSize(sizes) {
  const sorted = [...sizes].sort((one, other) => one - other), half = total(sorted) / 2;
  let sum = 0;
  return sorted.find(size => (sum += size) >= half);
}

function isLoop(piece) {
  const wide = widthOf(piece), high = heightOf(piece);
  if (wide < .33 * high || wide > 2.2 * high) return false;
  const open = framed(maskOf(piece), 4);
  const closed = [true, true, false, false].reduce(spreadMask, open);
  for (const mask of [open, closed]) {
    const outside = new Uint8Array(mask.data.length), waiting = [0];
    outside[0] = 1;
    while (waiting.length) {
      const at = waiting.pop(), x = at % mask.width;
      for (const [next, fits] of [[at - 1, x > 0], [at + 1, x < mask.width - 1], [at - mask.width, true], [at + mask.width, true]])
        if (fits && next >= 0 && next < outside.length && !outside[next] && !mask.data[next]) {
          outside[next] = 1;
          waiting.push(next);
        }
    }
    const inside = mask.data.length - total(outside);
    if (inside > total(mask.data)) return inside >= .5 * wide * high && inside - piece.area >= .03 * inside;
  }
  return false;
}

function rowsOf(pieces, usual) {
  const most = .5 * usual, middles = pieces.map(middleOf);
  const levelsAt = slope => middles.map(([x, y]) => y - slope * x);
  const spread = slope => {
    const sorted = levelsAt(slope).sort((one, other) => one - other);
    return toEven(total(sorted.slice(1).map((level, i) => Math.min(level - sorted[i], most))));
  };
  let best = null;
  for (let i = 0; i < 97; i++) {
    const slope = Math.tan((-12 + i / 4) * Math.PI / 180), key = [spread(slope), Math.abs(slope), slope];
    if (!best || key[0] < best[0] || (key[0] === best[0] && key[1] < best[1])) best = key;
  }
  const levels = levelsAt(best[2]), order = levels.map((_, i) => i).sort((one, other) => levels[one] - levels[other]);
  const rows = [];
  order.forEach((i, k) => { rows[i] = k ? rows[order[k - 1]] + (levels[i] - levels[order[k - 1]] > most) : 0; });
  return rows;
}

// The ways in which a piece may be cut from top to bottom: for each, the first column right of the cut in every row.
function cutsOf(piece, ink) {
  const width = widthOf(piece), height = heightOf(piece), around = Math.max(2, toEven(.22 * height));
  const step = Math.max(2, .07 * height), span = 2 * around + 1, cuts = [];
  const cost = (x, y) => x <= 0 || x >= width - 1 ? Infinity
    : Math.fround((piece.mask[y * width + x] ? Math.fround(.2) + clip(ink.data[y * width + x]) : 0) + Math.fround(.01));
  for (let k = 0; .12 * height + k * step < width - .12 * height; k++) {
    const left = toEven(.12 * height + k * step) - around, sums = new Float32Array(height * span), steps = new Int8Array(height * span);
    for (let y = 0; y < height; y++) for (let i = 0; i < span; i++) {
      sums[y * span + i] = cost(left + i, y);
      if (!y) continue;
      let least = sums[(y - 1) * span + i];
      for (const move of [-1, 1]) {
        const way = i + move < 0 || i + move >= span ? Infinity : sums[(y - 1) * span + i + move] + .005;
        if (way < least) [least, steps[y * span + i]] = [way, move];
      }
      sums[y * span + i] += least;
    }
    let at = 0;
    const last = sums.subarray((height - 1) * span);
    last.forEach((sum, i) => { if (sum < last[at]) at = i; });
    const crossed = last[at], seam = new Array(height);
    for (let y = height - 1; y >= 0; y--) { seam[y] = left + at; at += steps[y * span + at]; }
    cuts.push({crossed, seam});
  }
  cuts.sort((one, other) => one.crossed - other.crossed);
  const kept = [];
  for (const {crossed, seam} of cuts) {
    if (!(crossed <= 1.5 * height)) break;
    if (kept.every(other => total(seam.map((x, y) => Math.abs(x - other[y]))) > .07 * height * height)) kept.push(seam);
  }
  return kept.slice(0, 2 + Math.floor(4 * width / height)).sort((one, other) => total(one) - total(other));
}

// The part of a piece between two cuts; null stands for its own side, and for a part with too little in it.
function between(piece, start, end) {
  const width = widthOf(piece), mask = picture(width, heightOf(piece), piece.mask.map((isInk, i) => {
    const x = i % width, y = Math.floor(i / width);
    return isInk && x >= (start ? start[y] : 0) && x < (end ? end[y] : width) ? 1 : 0;
  }));
  const parts = separate(mask, 1);
  if (!parts.length) return null;
  const most = Math.max(...parts.map(part => part.area));
  const {box, mask: own, area} = parts.filter(part => part.area >= .12 * most).reduce(union);
  const part = {box: box.map((side, i) => side + piece.box[i % 2]), mask: own, area};
  return sizeOf(part) >= 6 ? part : null;
}

function joined(atoms) {
  let found = null;
  for (let first = 0, end; first < atoms.length; first = end) {
    end = first + 1;
    while (end < atoms.length && atoms[end].piece === atoms[first].piece) end++;
    const {start, piece} = atoms[first], last = atoms[end - 1].end;
    const part = start || last ? between(piece.strokes, start, last) : piece.strokes;
    if (part) found = found ? union(found, part) : part;
  }
  return found;
}

function costOfMerging(strokes, before, atom, usual) {
  if (!strokes || !atom.strokes) return 0;
  const [across, down] = gapOf(strokes, atom.strokes);
  const isSmall = Math.min(heightOf(strokes), heightOf(atom.strokes)) < .55 * usual;
  const areSure = Math.min(before.piece.certainty, atom.piece.certainty) >= .97;
  if (across > .3 * usual || down > .35 * usual || (areSure && !isSmall)) return Infinity;
  const isStacked = across < -.4 * Math.min(widthOf(strokes), widthOf(atom.strokes));
  const distance = Math.hypot(Math.max(0, across), Math.max(0, down));
  return (isSmall && isStacked ? -.3 : isSmall || isStacked ? .2 : .7) + 4 * distance / usual;
}

function interpolated(x, xs, ys) {
  const i = x <= xs[0] ? 0 : x >= xs.at(-1) ? xs.length - 2 : xs.findIndex(each => each > x) - 1;
  return ys[i] + (ys[i + 1] - ys[i]) * clip((x - xs[i]) / (xs[i + 1] - xs[i]));
}

function atomsOf(parts, ink, usual) {
  const atoms = [];
  for (const piece of [...parts].sort((one, other) => middleOf(one.strokes)[0] - middleOf(other.strokes)[0])) {
    const {strokes, certainty} = piece, wide = widthOf(strokes), high = heightOf(strokes);
    const isOne = certainty >= .85 && wide < 1.1 * high, mayBeCut = !isOne && wide >= .5 * usual && high >= LOW * usual;
    const seams = [null, ...mayBeCut ? cutsOf(strokes, cropped(ink, strokes.box)) : [], null];
    const cost = interpolated(wide / high, [.75, 1.1, 1.5], [2.5, .6, .1]);
    for (let i = 0; i + 1 < seams.length; i++) {
      const [start, end] = [seams[i], seams[i + 1]];
      atoms.push({piece, start, end, cost: start ? cost : 0, strokes: seams.length === 2 ? strokes : between(strokes, start, end)});
    }
  }
  return atoms;
}

function groupsOf(atoms, usual, read) {
  const mayBeDigit = strokes => heightOf(strokes) >= LOW * usual || isLoop(strokes), groups = [];
  atoms.forEach((start, first) => {
    const whole = start.piece.strokes;
    let cost = 0;
    for (let end = first + 1; end <= Math.min(atoms.length, first + 7); end++) {
      const group = atoms.slice(first, end), atom = group.at(-1);
      const merging = group.length > 1 && !atom.start
        ? costOfMerging(joined(group.slice(0, -1)), group.at(-2), atom, usual) : 0;
      const strokes = joined(group);
      if (!strokes) continue;
      const tallest = Math.max(...group.map(each => heightOf(each.piece.strokes)));
      const isWide = widthOf(strokes) > 1.5 * Math.max(usual, heightOf(strokes));
      const isHigh = heightOf(strokes) > Math.max(1.45 * usual, 1.15 * tallest);
      if (!isFinite(merging) || (group.length > 1 && (isWide || isHigh))) break;
      cost += merging;
      if (strokes !== whole && mayBeDigit(strokes)) groups.push({first, end, cost, part: read(strokes)});
    }
    if (!start.start && mayBeDigit(whole)) {
      const count = atoms.filter(each => each.piece === start.piece).length;
      groups.push({first, end: first + count, cost: 0, part: start.piece});
    }
  });
  return groups;
}

function bestSequence(atoms, groups, usual) {
  const best = [{score: 0, parts: [], leftOut: []}];
  atoms.forEach((atom, first) => {
    const {parts, leftOut} = best[first], score = best[first].score - atom.cost;
    const size = atom.strokes ? sizeOf(atom.strokes) / usual : 0;
    const offer = (end, way) => { if (!best[end] || way.score > best[end].score) best[end] = way; };
    offer(first + 1, {score: score - .3 - 4 * size, parts, leftOut: atom.strokes ? [...leftOut, atom.strokes] : leftOut});
    for (const group of groups.filter(group => group.first === first)) {
      const {strokes, certainty} = group.part;
      const weight = Math.max(1, widthOf(strokes) / (.7 * Math.max(usual, heightOf(strokes))));
      const gain = weight * Math.log(Math.max(certainty, 1e-4)) - group.cost;
      offer(group.end, {score: score + gain, parts: [...parts, group.part], leftOut});
    }
  });
  return best.at(-1);
}

// Pieces by rows; small ones belong to the nearest tall one.
function sortIntoRows(pieces, usual) {
  const reaches = piece => heightOf(piece) >= LOW * usual || (heightOf(piece) >= .13 * usual && isLoop(piece));
  const tall = pieces.filter(reaches), rows = [];
  if (!tall.length) return [];
  const numbers = rowsOf(tall, usual);
  tall.forEach((piece, i) => (rows[numbers[i]] ??= []).push(piece));
  for (const piece of pieces.filter(piece => !tall.includes(piece))) {
    const far = tall.map(other => Math.hypot(...gapOf(piece, other).map(gap => Math.max(gap, 0))));
    const nearest = far.indexOf(Math.min(...far));
    if (far[nearest] <= .35 * usual) rows[numbers[nearest]].push(piece);
  }
  return rows;
}

// All digits of a drawing, in reading order.
function readRows(ink, classify, threshold) {
  const meanInk = ({box, mask}) => {
    const inside = cropped(ink, box).data.filter((_, i) => mask[i]);
    return total(inside) / inside.length;
  };
  const read = strokes => {
    const pixels = normaliseDigit(cutOut(strokes, ink)), probabilities = classify(pixels);
    return {strokes, pixels, probabilities, certainty: Math.max(...probabilities)};
  };
  let pieces = separate(masked(ink, value => value > .5));
  if (!pieces.length) return [];
  const usual = usualSize(pieces.map(heightOf));
  pieces = pieces.filter(piece => meanInk(piece) >= .7 && heightOf(piece) <= 3 * usual && widthOf(piece) <= 8 * usual &&
    !(sizeOf(piece) > .3 * usual && isBlot(piece)) && sizeOf(piece) > .12 * usual);
  const rows = sortIntoRows(pieces, usual);
  const wholes = rows.map(row => row.map(strokes => Object.assign(read(strokes), {isWhole: true})));
  const isLikely = part => part.certainty >= .6, share = (parts, otherwise) =>
    parts.length ? parts.filter(isLikely).length / parts.length : otherwise;
  const large = wholes.map(row => row.filter(part => sizeOf(part.strokes) > .45 * usual)), onPage = share(large.flat(), 1);
  const areDigits = large.map(row => (row.length > 2 ? share(row) : onPage) >= .5);
  const found = wholes.map(row => {
    const atoms = atomsOf(row, ink, usual);
    return bestSequence(atoms, groupsOf(atoms, usual, read), usual);
  });
  const mostlyDigits = share(found.flatMap(({parts}) => parts), 0) >= .75;
  return found.flatMap(({parts, leftOut}, row) => {
    const isRow = mostlyDigits || share(parts, 0) >= .5, kept = parts.filter(part => isRow || part.certainty >= .25);
    const others = [...leftOut, ...parts.filter(part => !kept.includes(part)).map(part => part.strokes)];
    const near = others.filter(each => sizeOf(each) > .45 * usual);
    return kept.map(part => {
      const isBeside = near.some(each => Math.max(...gapOf(part.strokes, each)) < .3 * usual);
      const isOne = meanInk(part.strokes) >= .8 && (part.isWhole || areDigits[row]);
      return asDigit(part.pixels, part.probabilities, part.certainty >= threshold && isOne && !isBeside);
    });
  });
}

const asDigit = (pixels, probabilities, sure) =>
  ({digit: probabilities.indexOf(Math.max(...probabilities)), sure, probabilities, pixels});

// What the page shows of a drawing: one digit, or several in a row.
function readDrawing(drawing, classify, threshold) {
  const single = findSingle(drawing);
  if (!single) return [];
  const probabilities = classify(single.pixels), sure = Math.max(...probabilities) >= threshold && !single.isShape;
  const rows = sure ? [] : readRows(single.ink, classify, threshold);
  return rows.length > 1 ? rows : single.isShape ? [] : [asDigit(single.pixels, probabilities, sure)];
}

// By how much the probability of the digit falls if 5 × 5 pixels around each place are erased; of 2 × 2 places, one is tried.
function explain(pixels, digit, classify) {
  const whole = classify(pixels)[digit], why = new Array(784).fill(0);
  for (let y = 0; y < 28; y += 2) for (let x = 0; x < 28; x += 2) {
    const erased = pixels.slice();
    for (let j = Math.max(0, y - 2); j <= Math.min(27, y + 2); j++)
      erased.fill(0, 28 * j + Math.max(0, x - 2), 28 * j + Math.min(27, x + 2) + 1);
    if (erased.every((value, i) => value === pixels[i])) continue;
    const falls = whole - classify(erased)[digit];
    for (const at of [28 * y + x, 28 * y + x + 1, 28 * (y + 1) + x, 28 * (y + 1) + x + 1]) why[at] = falls;
  }
  return why;
}
