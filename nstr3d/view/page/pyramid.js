// Decodes a compressed shape, integer by integer as nstr3d.kernels.pyramid and nstr3d.kernels.rangecoder do.

const LEVELS = 14, DECISIONS = 3, HALF = 1 << 15, UNIT = 64, COARSEST = 256, CLASSES = 9, DEPTHS = 3, KINDS = 4;
const NEAR_ZERO = 1, FAR_OFF = 2, REACH = 32;

// Yes-or-no decisions out of the bytes of a code; a decision's probability is the mean of two adaptive estimates.
class RangeDecoder {
  constructor(data) {
    const count = (DEPTHS + 1) * KINDS * CLASSES * CLASSES * DECISIONS * 2;
    Object.assign(this, { data, range: 0xffffffff, code: 0, at: 0, first: new Int32Array(count).fill(HALF), second: new Int32Array(count).fill(HALF) });
    for (let i = 0; i < 4; i++) this.code = this.code * 256 + this.byte();
  }

  byte() {
    return this.at < this.data.length ? this.data[this.at++] : (this.at++, 0);
  }

  get(probability) {
    const bound = (this.range >>> 16) * probability, yes = this.code < bound;
    if (yes) this.range = bound;
    else this.code -= bound, this.range -= bound;
    while (this.range < 1 << 24) {
      this.range *= 256;
      this.code = (this.code * 256 + this.byte()) % 4294967296;
    }
    return yes;
  }

  // The level coded with the contexts x and y.
  level(x, y) {
    const { first, second } = this;
    let magnitude = 0;
    for (let step = 0; step < LEVELS; step++) {
      const kind = Math.min(step, DECISIONS - 1), u = 2 * (x * DECISIONS + kind), v = 2 * (y * DECISIONS + kind);
      const estimate = (first[u] + first[u + 1] + second[v] + second[v + 1]) >> 2;
      const more = this.get(Math.min(Math.max(estimate, 32), 65504)), target = more ? 65535 : 0;
      first[u] += (target - first[u]) >> 4, first[u + 1] += (target - first[u + 1]) >> 7;
      second[v] += (target - second[v]) >> 4, second[v + 1] += (target - second[v + 1]) >> 7;
      if (!more) break;
      magnitude++;
    }
    if (magnitude === LEVELS) {
      let width = 0, excess = 1;
      while (width < 31 && this.get(HALF)) width++;
      for (let i = 0; i < width; i++) excess = 2 * excess + (this.get(HALF) ? 1 : 0);
      magnitude += excess - 1;
    }
    return magnitude && this.get(HALF) ? -magnitude : magnitude;
  }
}

// A grid of n nodes per axis, the last the fastest: integers, the magnitudes of their corrections, and which are corrected.
class Grid {
  constructor(n) {
    const size = n ** 3;
    Object.assign(this, { n, strides: [n * n, n, 1], values: new Int32Array(size), marks: new Uint8Array(size), chosen: null, spread: 0 });
  }

  // The value that known nodes predict for one with odd indices; `spread` is how far their predictions are apart.
  predict(i, j, k) {
    const { n, values, strides } = this, at = (i * n + j) * n + k, index = [i, j, k];
    let total = 0, count = 0, spread = 0, lowest = Infinity, highest = -Infinity;
    for (let axis = 0; axis < 3; axis++) {
      if (!(index[axis] & 1)) continue;
      const s = strides[axis], b = values[at - s], c = values[at + s];
      let value;
      if (index[axis] >= 3 && index[axis] <= n - 4) {
        const a = values[at - 3 * s], d = values[at + 3 * s];
        value = (9 * (b + c) - (a + d) + 8) >> 4;
        spread = Math.abs(b + c - a - d) >> 4;
      } else {
        value = (b + c + 1) >> 1;
        spread = Math.abs(b - c) >> 4;
      }
      total += value, count++;
      lowest = Math.min(lowest, value), highest = Math.max(highest, value);
    }
    this.spread = count === 1 ? spread : highest - lowest;
    return count === 1 ? total : count === 2 ? (total + 1) >> 1 : Math.floor((2 * total + 3) / 6);
  }

  // The value of a node of the coarsest grid that makes it trilinear with the nodes before it.
  extrapolate(i, j, k) {
    const { n, values, strides } = this, at = (i * n + j) * n + k;
    let total = 0;
    for (let x = 0; x <= (i ? 1 : 0); x++) for (let y = 0; y <= (j ? 1 : 0); y++) for (let z = 0; z <= (k ? 1 : 0); z++) {
      if (x + y + z) total += ((x + y + z) & 1 ? 1 : -1) * values[at - x * strides[0] - y * strides[1] - z];
    }
    return total;
  }

  // Calls `each` for the nodes with `odd` odd indices, in the order of the code.
  visit(odd, each) {
    const { n } = this;
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
      const rest = odd - (i & 1) - (j & 1);
      if (rest === 0 || rest === 1) for (let k = rest, at = (i * n + j) * n + rest; k < n; k += 2, at += 2) each(i, j, k, at);
    }
  }

  refined() {
    const fine = new Grid(2 * this.n - 1);
    let from = 0;
    fine.visit(0, (i, j, k, at) => {
      fine.values[at] = this.values[from];
      fine.marks[at] = this.marks[from++];
    });
    for (let odd = 1; odd < 4; odd++) fine.visit(odd, (i, j, k, at) => (fine.values[at] = fine.predict(i, j, k)));
    return fine;
  }

  // Chooses the nodes of cells with values near zero, and all others too if `whole`.
  choose(reach, whole) {
    const { n, values } = this, chosen = (this.chosen = new Uint8Array(n ** 3).fill(whole ? FAR_OFF : 0));
    const corners = [0, 1, n, n + 1, n * n, n * n + 1, n * n + n, n * n + n + 1];
    for (let i = 0; i < n - 1; i++) for (let j = 0; j < n - 1; j++) for (let k = 0, at = (i * n + j) * n; k < n - 1; k++, at++) {
      let low = Infinity, high = -Infinity;
      for (const corner of corners) {
        const value = values[at + corner];
        if (value < low) low = value;
        if (value > high) high = value;
      }
      if (low < reach && high > -reach) for (const corner of corners) chosen[at + corner] = NEAR_ZERO;
    }
  }

  correct(decoder, i, j, k, at, depth) {
    const { n, marks, strides } = this, coarsest = depth < 0, apart = coarsest ? 1 : 2, far = this.chosen?.[at] === FAR_OFF;
    const predicted = coarsest ? this.extrapolate(i, j, k) : this.predict(i, j, k);
    const step = coarsest || far ? COARSEST : UNIT >> depth, index = [i, j, k];
    let near = 0, before = 0, odd = 0;
    for (let axis = 0; axis < 3; axis++) {
      if (!coarsest && index[axis] & 1) odd++, (near += marks[at - strides[axis]] + marks[at + strides[axis]]);
      if (index[axis] >= apart) before += marks[at - apart * strides[axis]];
    }
    const slot = coarsest ? 0 : (far ? DEPTHS : depth) * KINDS + odd, spread = coarsest ? 0 : this.spread;
    const first = (slot * CLASSES + classOf(2 * before)) * CLASSES + classOf(Math.floor((2 * spread) / step));
    const level = decoder.level(first, (slot * CLASSES + classOf(2 * before + near)) * CLASSES + classOf(near));
    marks[at] = Math.min(Math.abs(level), 255);
    this.values[at] = predicted + level * step;
  }
}

// 0, 1, 2, 3, and then a class for each doubling.
function classOf(number) {
  let grade = 0, limit = 1;
  while (number >= limit && grade < CLASSES - 1) grade++, (limit = grade < 4 ? limit + 1 : 2 * limit);
  return grade;
}

// The distances at the nodes of the finest grid, the last axis the fastest. The page stays alive meanwhile.
async function decodePyramid({ root, depth, whole, reach, finest, step }, data, told = () => {}) {
  const decoder = new RangeDecoder(data), unit = step / UNIT;
  let grid = new Grid(root + 1);
  for (let i = 0, at = 0; i <= root; i++) for (let j = 0; j <= root; j++) for (let k = 0; k <= root; k++) grid.correct(decoder, i, j, k, at++, -1);
  grid.marks.fill(0);
  for (let number = 0; number < depth; number++) {
    await new Promise((resolve) => setTimeout(resolve));
    told(number / depth);
    grid = grid.refined();
    const last = depth - 1 - number;
    grid.choose(Math.trunc((((last ? reach : finest) / REACH) * 2) / (grid.n - 1) / unit), number < whole);
    for (let odd = 1; odd < 4; odd++) {
      grid.visit(odd, (i, j, k, at) => {
        if (grid.chosen[at]) grid.correct(decoder, i, j, k, at, Math.min(last, 2));
      });
    }
  }
  if (decoder.at !== data.length) throw new Error("This page is damaged: its shape cannot be decoded.");
  return Float32Array.from(grid.values, (value) => value * Math.fround(unit));
}
