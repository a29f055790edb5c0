// ── the networks: 784 pixels, 0–255 → ten probabilities ──
// A map has a height, a width and channels; its values lie in one array, channels last.

const ACTIVATIONS = {
  relu: x => Math.max(0, x),
  leaky_relu: (x, slope = .2) => x < 0 ? slope * x : x,
  elu: x => x < 0 ? Math.expm1(x) : x,
  silu: x => x / (1 + Math.exp(-x)),
  sigmoid: x => 1 / (1 + Math.exp(-x)),
  softplus: x => Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x))),
  tanh: Math.tanh,
};

const newMap = (height, width, channels) => ({height, width, channels, values: new Float32Array(height * width * channels)});

// Where a window of a size begins, and how many windows fit: for "same", as TensorFlow places them.
function windows(length, size, stride, padding) {
  if (padding === "valid") return [0, Math.floor((length - size) / stride) + 1];
  const count = Math.ceil(length / stride);
  return [-Math.floor(Math.max(0, (count - 1) * stride + size - length) / 2), count];
}

// The weights of four filters side by side, then those of the next four: so they are read in the order of use.
function byFour(kernel, count, to) {
  const rows = new Float64Array(Math.ceil(to / 4) * 4 * count);
  kernel.forEach((weight, at) => {
    const k = at % to, i = (at - k) / to;
    rows[(k - k % 4) * count + 4 * i + k % 4] = weight;
  });
  return rows;
}

// Put what a filter sees at a place into every second number from the k-th on.
function gather(patches, k, {height, width, channels, values}, {size: [tall, wide], strides}, place, [top, left, across]) {
  const x = place % across, y = (place - x) / across;
  for (let j = 0; j < tall; j++) for (let i = 0; i < wide; i++) {
    const row = y * strides[0] + top + j, column = x * strides[1] + left + i;
    const isInside = row >= 0 && row < height && column >= 0 && column < width;
    for (let c = 0, at = (row * width + column) * channels; c < channels; c++, k += 2)
      patches[k] = isInside ? values[at + c] : 0;
  }
}

const LAYERS = {
  conv(input, layer) { // two places and four filters at a time, because reading numbers takes longer than multiplying them
    const {size: [tall, wide], strides, padding, kernel} = layer;
    const [top, height] = windows(input.height, tall, strides[0], padding);
    const [left, width] = windows(input.width, wide, strides[1], padding);
    const from = input.channels, count = tall * wide * from, to = kernel.length / count, last = height * width - 1;
    const output = newMap(height, width, to), patches = new Float64Array(2 * count);
    const weights = layer.weights ??= byFour(kernel, count, to);
    for (let place = 0; place <= last; place += 2) {
      const other = Math.min(place + 1, last);
      for (const k of [0, 1]) gather(patches, k, input, layer, k ? other : place, [top, left, width]);
      for (let k = 0, at = 0; k < to; k += 4) {
        let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
        for (let i = 0; i < 2 * count; i += 2, at += 4) {
          const one = patches[i], two = patches[i + 1];
          const first = weights[at], second = weights[at + 1], third = weights[at + 2], fourth = weights[at + 3];
          a += one * first; b += one * second; c += one * third; d += one * fourth;
          e += two * first; f += two * second; g += two * third; h += two * fourth;
        }
        const sums = [a, b, c, d], others = [e, f, g, h];
        for (let i = 0; i < 4 && k + i < to; i++) {
          output.values[place * to + k + i] = sums[i];
          output.values[other * to + k + i] = others[i];
        }
      }
    }
    return output;
  },
  pool(input, {size: [tall, wide], strides, padding, mean}) {
    const [top, height] = windows(input.height, tall, strides[0], padding);
    const [left, width] = windows(input.width, wide, strides[1], padding);
    const {channels} = input, output = newMap(height, width, channels);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let c = 0; c < channels; c++) {
      let most = -Infinity, sum = 0, count = 0;
      for (let j = 0; j < tall; j++) for (let i = 0; i < wide; i++) {
        const row = y * strides[0] + top + j, column = x * strides[1] + left + i;
        if (row < 0 || row >= input.height || column < 0 || column >= input.width) continue;
        const value = input.values[(row * input.width + column) * channels + c];
        most = Math.max(most, value);
        sum += value;
        count++;
      }
      output.values[(y * width + x) * channels + c] = mean ? sum / count : most;
    }
    return output;
  },
  dense(input, {kernel}) {
    const units = kernel.length / input.values.length, output = newMap(1, 1, units);
    input.values.forEach((value, i) => {
      if (value) for (let k = 0, weight = i * units; k < units; k++, weight++) output.values[k] += value * kernel[weight];
    });
    return output;
  },
  affine({channels, values, ...size}, {scale, shift}) {
    return {...size, channels, values: values.map((value, i) => value * scale[i % channels] + shift[i % channels])};
  },
  flatten: ({values}) => ({height: 1, width: 1, channels: values.length, values}),
  activation({values, ...size}, {name, slope}) {
    const apply = ACTIVATIONS[name];
    return {...size, values: apply ? values.map(value => apply(value, slope)) : Float32Array.from(softmax(values))};
  },
  residual(input, {first, second, side}) {
    const beside = forward(side, input).values, {values, ...size} = forward(second, forward(first, input));
    return {...size, values: values.map((value, i) => Math.max(0, value + beside[i]))};
  },
};

const forward = (layers, input) => layers.reduce((map, layer) => LAYERS[layer.kind](map, layer), input);

function softmax(values) {
  const most = Math.max(...values), raised = Array.from(values, value => Math.exp(value - most));
  const sum = raised.reduce((one, other) => one + other, 0);
  return raised.map(value => value / sum);
}

function shares(values) { // of a network that was trained on squared errors
  const least = Math.min(...values), shifted = Array.from(values, value => value - least);
  const sum = shifted.reduce((one, other) => one + other, 0);
  return shifted.map(value => sum > 0 ? value / sum : .1);
}

const meanOf = readings => readings[0].map((_, digit) =>
  readings.reduce((sum, reading) => sum + reading[digit], 0) / readings.length);

// Read each row at its own columns, bilinearly. What lies outside is paper.
function readColumns(pixels, firstOf, step = 1) {
  const read = new Float32Array(784);
  for (let y = 0; y < 28; y++) for (let x = 0; x < 28; x++) {
    const at = firstOf(y) + step * x, whole = Math.floor(at), part = at - whole;
    const left = whole < 0 || whole > 27 ? 0 : pixels[28 * y + whole];
    const right = whole < -1 || whole > 26 ? 0 : pixels[28 * y + whole + 1];
    read[28 * y + x] = left * (1 - part) + right * part;
  }
  return read;
}

// Set a digit upright and stretch it, by the moments of its ink.
function setUpright(pixels, {deslant, spread, steepest, narrowest, widest}) {
  let ink = 0;
  const sums = [0, 0, 0, 0, 0];
  pixels.forEach((value, i) => {
    const x = i % 28 - 13.5, y = Math.floor(i / 28) - 13.5;
    ink += value;
    [x, y, x * x, x * y, y * y].forEach((moment, k) => { sums[k] += value * moment; });
  });
  const [meanX, meanY, xx, xy, yy] = sums.map(sum => sum / Math.max(1, ink));
  const varX = xx - meanX * meanX, both = xy - meanX * meanY, varY = yy - meanY * meanY;
  const within = (value, least, most) => Math.min(most, Math.max(least, value));
  const slant = deslant && varY > .1 ? within(both / varY, -steepest, steepest) : 0;
  const variance = Math.max(0, varX - 2 * slant * both + slant * slant * varY);
  const step = spread && ink > 0 ? within(Math.sqrt(variance) / spread, narrowest, widest) : 1;
  return readColumns(pixels, y => (1 - step) * (meanX + 13.5) + slant * (y - 13.5 - meanY), step).map(toEven);
}

function probabilitiesOf(network, pixels) {
  if (network.upright) pixels = setUpright(pixels, network.upright);
  const read = version => {
    const scaled = Float32Array.from(version, value => (value - network.offset) / network.scale);
    const {values} = forward(network.layers, {height: 28, width: 28, channels: 1, values: scaled});
    return network.squared ? shares(values) : softmax(values);
  };
  const most = network.slants;
  const averaged = version => meanOf([version, ...(most ? [-most, -most / 2, most / 2, most] : []).map(slant =>
    readColumns(version, y => slant * (y - 13.5)))].map(read));
  let found = averaged(pixels);
  if (network.shifts && Math.max(...found) < network.sure) {
    const ways = [[1, 0], [-1, 0], [0, 1], [0, -1]];
    const moved = ([down, right]) => Float32Array.from({length: 784}, (_, i) => {
      const y = Math.floor(i / 28) + down * -network.shifts, x = i % 28 + right * -network.shifts;
      return y < 0 || y > 27 || x < 0 || x > 27 ? 0 : pixels[28 * y + x];
    });
    found = meanOf([found, ...ways.map(way => averaged(moved(way)))]);
  }
  return found;
}

function classify(model, pixels) {
  const mean = meanOf(model.runs.map(run => meanOf(run.map(network => probabilitiesOf(network, pixels)))));
  return softmax(mean.map(value => Math.log(Math.max(value, 1e-12)) / model.temperature));
}

// The same networks, but each reads an image only once.
const withoutAverages = model =>
  ({...model, runs: model.runs.map(run => run.map(network => ({...network, slants: 0, shifts: 0})))});

// ── the weights: base64 of integers of two bytes, one kernel after another; each kernel has a scale ──
function unpack(model, base64) {
  const bytes = atob(base64);
  const given = part => {
    if (part === null || typeof part !== "object") return part;
    if (Array.isArray(part)) return part.map(given);
    if (!("from" in part)) return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, given(value)]));
    const weights = new Float32Array(part.count);
    for (let i = 0, at = 2 * part.from; i < part.count; i++, at += 2) // the shifts give the upper byte its sign
      weights[i] = part.scale * (bytes.charCodeAt(at) | bytes.charCodeAt(at + 1) << 24 >> 16);
    return weights;
  };
  return given(model);
}
