// The exact half: integer products and the range decoder (docs/format.md, "Entropy coding").
//
// Activations are 16-bit integers, as they are within ±1023, and so are weights: the bound of the document keeps them
// below 2^24 / 1023. Sums are 32-bit integers. A map's parts lie one after the other in memory:
//
//   weights i16 [outputs / 8][inputs / 2][8][2] · rounding i32 [outputs] · scale f32 [outputs]
//
// Each group of 8 outputs takes two inputs at a time, which is what i32x4.dot_i16x8_s multiplies.

const A = 1023; // the largest activation

/** out i32 [m][outputs] = a linear map of x i16 [m][inputs]; inputs are even, outputs a multiple of 8. */
export function linear(x: usize, map: usize, out: usize, m: i32, inputs: i32, outputs: i32): void {
  const rounding = map + ((inputs * outputs) << 1);
  const scale = rounding + (outputs << 2);
  for (let n = 0; n < outputs; n += 8) {
    const weights = map + ((n * inputs) << 1);
    let i = 0;
    for (; i + 4 <= m; i += 4) {
      four(x + ((i * inputs) << 1), weights, rounding + (n << 2), scale + (n << 2), out + ((i * outputs + n) << 2), inputs, outputs);
    }
    for (; i < m; i++) {
      one(x + ((i * inputs) << 1), weights, rounding + (n << 2), scale + (n << 2), out + ((i * outputs + n) << 2), inputs);
    }
  }
}

/** ⌊(sum + b + 2^(s−1)) / 2^s⌋: every number is below 2^24 and so exact in binary32, and so is its half, quarter … */
// @ts-ignore: decorator
@inline
function shifted(sum: v128, rounding: usize, scale: usize): v128 {
  const total = f32x4.convert_i32x4_s(i32x4.add(sum, v128.load(rounding)));
  return i32x4.trunc_sat_f32x4_s(f32x4.floor(f32x4.mul(total, v128.load(scale))));
}

/** Eight outputs of one position. */
function one(x: usize, weights: usize, rounding: usize, scale: usize, out: usize, inputs: i32): void {
  let a = i32x4.splat(0);
  let b = a;
  for (let end = x + (inputs << 1); x < end; x += 4, weights += 32) {
    const pair = v128.load32_splat(x);
    a = i32x4.add(a, i32x4.dot_i16x8_s(pair, v128.load(weights)));
    b = i32x4.add(b, i32x4.dot_i16x8_s(pair, v128.load(weights, 16)));
  }
  v128.store(out, shifted(a, rounding, scale));
  v128.store(out + 16, shifted(b, rounding + 16, scale + 16));
}

/** Eight outputs of four positions, which share the loads of weights. */
function four(x: usize, weights: usize, rounding: usize, scale: usize, out: usize, inputs: i32, outputs: i32): void {
  const row = inputs << 1;
  let a0 = i32x4.splat(0);
  let a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  for (let end = x + row; x < end; x += 4, weights += 32) {
    const wa = v128.load(weights), wb = v128.load(weights, 16);
    let pair = v128.load32_splat(x);
    a0 = i32x4.add(a0, i32x4.dot_i16x8_s(pair, wa));
    b0 = i32x4.add(b0, i32x4.dot_i16x8_s(pair, wb));
    pair = v128.load32_splat(x + row);
    a1 = i32x4.add(a1, i32x4.dot_i16x8_s(pair, wa));
    b1 = i32x4.add(b1, i32x4.dot_i16x8_s(pair, wb));
    pair = v128.load32_splat(x + 2 * row);
    a2 = i32x4.add(a2, i32x4.dot_i16x8_s(pair, wa));
    b2 = i32x4.add(b2, i32x4.dot_i16x8_s(pair, wb));
    pair = v128.load32_splat(x + 3 * row);
    a3 = i32x4.add(a3, i32x4.dot_i16x8_s(pair, wa));
    b3 = i32x4.add(b3, i32x4.dot_i16x8_s(pair, wb));
  }
  const next = outputs << 2;
  v128.store(out, shifted(a0, rounding, scale));
  v128.store(out + next, shifted(a1, rounding, scale));
  v128.store(out + 2 * next, shifted(a2, rounding, scale));
  v128.store(out + 3 * next, shifted(a3, rounding, scale));
  out += 16, rounding += 16, scale += 16;
  v128.store(out, shifted(b0, rounding, scale));
  v128.store(out + next, shifted(b1, rounding, scale));
  v128.store(out + 2 * next, shifted(b2, rounding, scale));
  v128.store(out + 3 * next, shifted(b3, rounding, scale));
}

/**
 * x i16 [m][taps][C]: what each of m positions sees of an i16 grid. The first position is at `grid`, each next one
 * `step` bytes further; `offsets` has the bytes from a position to each of its taps.
 */
export function gather(x: usize, grid: usize, step: i32, m: i32, offsets: usize, taps: i32, C: i32): void {
  for (let i = 0; i < m; i++, grid += step) {
    for (let t = 0; t < taps; t++, x += C << 1) memory.copy(x, grid + load<i32>(offsets + (t << 2)), C << 1);
  }
}

// @ts-ignore: decorator
@inline
function clamp(x: v128, low: i32): v128 {
  return i32x4.max_s(i32x4.min_s(x, i32x4.splat(A)), i32x4.splat(low));
}

// @ts-ignore: decorator
@inline
function store16(to: usize, x: v128): void {
  v128.store64_lane(to, i16x8.narrow_i32x4_s(x, x), 0);
}

/** to i16 [C] = clamp(a + b, low, A) at m positions; a i32 is dense, b i32 and `to` have steps in bytes. */
export function addWide(a: usize, b: usize, stepB: i32, to: usize, step: i32, m: i32, C: i32, low: i32): void {
  for (let i = 0; i < m; i++, b += stepB, to += step) {
    for (let k = 0; k < C; k += 4, a += 16) {
      store16(to + (k << 1), clamp(i32x4.add(v128.load(a), v128.load(b + (k << 2))), low));
    }
  }
}

/** The same with b i16, which lies with the steps of `to`. */
export function addNarrow(a: usize, b: usize, to: usize, step: i32, m: i32, C: i32, low: i32): void {
  for (let i = 0; i < m; i++, b += step, to += step) {
    for (let k = 0; k < C; k += 4, a += 16) {
      const sum = i32x4.add(v128.load(a), v128.load16x4_s(b + (k << 1)));
      store16(to + (k << 1), clamp(sum, low));
    }
  }
}

/** c i32 [C] at m positions, one `step` apart = spread i32 of one position [.., C], dense, + quality i16 [C]. */
export function addRow(a: usize, stepA: i32, row: usize, to: usize, stepTo: i32, m: i32, C: i32): void {
  for (let i = 0; i < m; i++, a += stepA, to += stepTo) {
    for (let k = 0; k < C; k += 4) {
      const sum = i32x4.add(v128.load(a + (k << 2)), v128.load16x4_s(row + (k << 1)));
      v128.store(to + (k << 2), sum);
    }
  }
}

/**
 * Adds entries of a table i16 [groups][K][C], clamped to ±A, at m positions: codes i16 [m] lie `stepCodes` bytes apart.
 * With `wide` the sum is added to `to` i32 [C], else it is stored in `to` i16 [C].
 */
export function embed(table: usize, codes: usize, stepCodes: i32, groups: i32, K: i32, to: usize, step: i32, m: i32, C: i32, wide: bool): void {
  for (let i = 0; i < m; i++, codes += stepCodes, to += step) {
    for (let k = 0; k < C; k += 4) {
      let sum = i32x4.splat(0);
      for (let g = 0; g < groups; g++) {
        const entry = (g * K + load<i16>(codes + (g << 1))) * C + k;
        sum = i32x4.add(sum, v128.load16x4_s(table + (entry << 1)));
      }
      sum = clamp(sum, -A);
      if (wide) v128.store(to + (k << 2), i32x4.add(sum, v128.load(to + (k << 2))));
      else store16(to + (k << 1), sum);
    }
  }
}

// ---- the range decoder, one bitstream at a time ----

let range: u64 = 0;
let offset: u64 = 0;
let at: usize = 0;
let end: usize = 0;

function word(): u64 {
  let value: u64 = 0;
  for (let i = 0; i < 4; i++, at++) value = (value << 8) | <u64>(at < end ? load<u8>(at) : 0);
  return value;
}

/** Begins a bitstream of `length` bytes. */
export function start(bitstream: usize, length: i32): void {
  at = bitstream;
  end = bitstream + length;
  range = u64.MAX_VALUE;
  offset = word() << 32;
  offset |= word();
}

/** Whether the bitstream has nothing left. */
export function finished(): bool {
  return at >= end && offset < (<u64>1 << 33) - 1;
}

/** The first code is at L_0 = 0, the next at L_1 …: L_k of the sums of frequencies before k. */
// @ts-ignore: decorator
@inline
function begin(sums: usize, scale: f64, k: i32): u32 {
  return <u32>(scale * load<f64>(sums + (k << 3))) + k;
}

/**
 * Decodes codes i16 [m][count] by logits i32 [m][count][K], whose positions are some bytes apart; false if the bitstream
 * is malformed. `table` has F, u32; `sums` has room for f64 [K + 1].
 */
export function decode(
  logits: usize, stepLogits: i32, table: usize, sums: usize, codes: usize, step: i32, m: i32, count: i32, K: i32,
): bool {
  store<f64>(sums, 0);
  for (let i = 0; i < m; i++, codes += step, logits += stepLogits) {
    for (let g = 0; g < count; g++) {
      const k = next(logits + ((g * K) << 2), table, sums, K);
      if (k < 0) return false;
      store<i16>(codes + (g << 1), <i16>k);
    }
  }
  return true;
}

function next(logits: usize, table: usize, sums: usize, K: i32): i32 {
  let most = load<i32>(logits);
  for (let k = 1; k < K; k++) most = max(most, load<i32>(logits + (k << 2)));
  let sum: f64 = 0;
  for (let k = 0; k < K; k++) {
    sum += <f64>load<u32>(table + (min(<u32>(most - load<i32>(logits + (k << 2))), 1409) << 2));
    store<f64>(sums + ((k + 1) << 3), sum);
  }
  const scale = <f64>((1 << 24) - K) / sum;
  const unit = range >> 24;
  const point = offset / unit;
  if (point >= <u64>1 << 24) return -1;
  let low = 0, high = K; // L_low ≤ point < L_high
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (<u64>begin(sums, scale, middle) <= point) low = middle;
    else high = middle;
  }
  const first = <u64>begin(sums, scale, low);
  const last = high === K ? <u64>1 << 24 : <u64>begin(sums, scale, high);
  offset -= unit * first;
  range = unit * (last - first);
  if (range < <u64>1 << 32) {
    range <<= 32;
    offset = (offset << 32) | word();
  }
  return low;
}
