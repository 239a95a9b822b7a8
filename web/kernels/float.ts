// The float half: matrix products, 3 × 3 convolutions by Winograd's method, and what lies between them.
//
// Features are f32 [rows][columns][C] with C a multiple of 8; surplus channels are zero. Rows are some of the picture's.

/** c [m][n] (+)= a [m][k] · b, for b packed as [n / 8][k][8]; it is added to c with `accumulate`. */
export function multiply(a: usize, b: usize, c: usize, m: i32, k: i32, n: i32, accumulate: bool): void {
  for (let j = 0; j < n; j += 8, b += k << 5) {
    let i = 0;
    for (; i + 4 <= m; i += 4) four(a + ((i * k) << 2), b, c + ((i * n + j) << 2), k, n, accumulate);
    for (; i < m; i++) one(a + ((i * k) << 2), b, c + ((i * n + j) << 2), k, accumulate);
  }
}

// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, c: v128): v128 {
  return f32x4.add(f32x4.mul(a, b), c);
}

function one(a: usize, b: usize, c: usize, k: i32, accumulate: bool): void {
  let x = accumulate ? v128.load(c) : f32x4.splat(0);
  let y = accumulate ? v128.load(c, 16) : f32x4.splat(0);
  for (let end = a + (k << 2); a < end; a += 4, b += 32) {
    const value = v128.load32_splat(a);
    x = madd(value, v128.load(b), x);
    y = madd(value, v128.load(b, 16), y);
  }
  v128.store(c, x);
  v128.store(c, y, 16);
}

function four(a: usize, b: usize, c: usize, k: i32, n: i32, accumulate: bool): void {
  const row = k << 2;
  const next = n << 2;
  let x0 = f32x4.splat(0);
  let x1 = x0, x2 = x0, x3 = x0, y0 = x0, y1 = x0, y2 = x0, y3 = x0;
  if (accumulate) {
    x0 = v128.load(c), y0 = v128.load(c, 16);
    x1 = v128.load(c + next), y1 = v128.load(c + next, 16);
    x2 = v128.load(c + 2 * next), y2 = v128.load(c + 2 * next, 16);
    x3 = v128.load(c + 3 * next), y3 = v128.load(c + 3 * next, 16);
  }
  for (let end = a + row; a < end; a += 4, b += 32) {
    const p = v128.load(b), q = v128.load(b, 16);
    let value = v128.load32_splat(a);
    x0 = madd(value, p, x0);
    y0 = madd(value, q, y0);
    value = v128.load32_splat(a + row);
    x1 = madd(value, p, x1);
    y1 = madd(value, q, y1);
    value = v128.load32_splat(a + 2 * row);
    x2 = madd(value, p, x2);
    y2 = madd(value, q, y2);
    value = v128.load32_splat(a + 3 * row);
    x3 = madd(value, p, x3);
    y3 = madd(value, q, y3);
  }
  v128.store(c, x0), v128.store(c, y0, 16);
  v128.store(c + next, x1), v128.store(c + next, y1, 16);
  v128.store(c + 2 * next, x2), v128.store(c + 2 * next, y2, 16);
  v128.store(c + 3 * next, x3), v128.store(c + 3 * next, y3, 16);
}

/** x [m][C] += row [C] at m positions. */
export function addBias(x: usize, row: usize, m: i32, C: i32): void {
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < C << 2; k += 16, x += 16) v128.store(x, f32x4.add(v128.load(x), v128.load(row + k)));
  }
}

/** to [m][C] = silu(x [m][C]) · scale [C], where silu(x) = x / (1 + e^−x). */
export function silu(x: usize, to: usize, scale: usize, m: i32, C: i32): void {
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < C << 2; k += 16, x += 16, to += 16) {
      const value = v128.load(x);
      const ratio = f32x4.div(value, f32x4.add(f32x4.splat(1), exp(f32x4.neg(value))));
      v128.store(to, f32x4.mul(ratio, v128.load(scale + k)));
    }
  }
}

/** e^x within 2 units in the last place, for |x| cut at 87: 2^n · e^r with n whole and |r| ≤ ½ ln 2 (as in Cephes). */
// @ts-ignore: decorator
@inline
function exp(x: v128): v128 {
  x = f32x4.min(f32x4.max(x, f32x4.splat(-87)), f32x4.splat(87));
  const n = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.44269504)));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375))), f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(0.5));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return f32x4.mul(p, power);
}

/** to [rows·f][columns·f][c] += blocks x [rows][columns] of [f][f][c], which are `n` numbers apart. */
export function shuffle(x: usize, to: usize, rows: i32, columns: i32, f: i32, c: i32, n: i32): void {
  const run = (f * c) << 2;
  for (let y = 0; y < rows; y++) {
    for (let i = 0; i < columns; i++, x += n << 2) {
      for (let j = 0; j < f; j++) {
        const from = x + j * run;
        const target = to + ((y * f + j) * columns + i) * run;
        for (let k = 0; k < run; k += 4) store<f32>(target + k, load<f32>(target + k) + load<f32>(from + k));
      }
    }
  }
}

// ---- Winograd's convolution F(4 × 4, 3 × 3) (Lavin and Gray 2016): 36 products for 16 outputs, not 144 ----

const pointers = memory.data(36 * 4, 16);
const work = memory.data(36 * 16, 16);

/**
 * u [36][N / 8][C][8] of kernels w f32 [outputs][inputs][3][3]; `order` i32 [N] has the output of each column of u, or
 * −1 for a column of zeros.
 */
export function transformKernels(w: usize, order: usize, u: usize, inputs: i32, C: i32, N: i32): void {
  const part = (C * N) << 2;
  for (let n = 0; n < N; n++) {
    const output = load<i32>(order + (n << 2));
    if (output < 0) continue;
    for (let c = 0; c < inputs; c++) {
      const kernel = w + ((output * inputs + c) * 36);
      const to = u + ((((n >> 3) * C + c) * 8 + (n & 7)) << 2);
      for (let i = 0; i < 3; i++) { // G · w, column by column
        spread(load<f32>(kernel + 4 * i), load<f32>(kernel + 4 * i + 12), load<f32>(kernel + 4 * i + 24), work + 4 * i, 12);
      }
      for (let i = 0; i < 6; i++) { // (G · w) · Gᵀ, row by row
        const row = work + 12 * i;
        spread(load<f32>(row), load<f32>(row + 4), load<f32>(row + 8), to + 6 * i * part, part);
      }
    }
  }
}

/** The six numbers G · (a, b, c)ᵀ, `step` bytes apart. */
// @ts-ignore: decorator
@inline
function spread(a: f32, b: f32, c: f32, to: usize, step: i32): void {
  store<f32>(to, a / 4);
  store<f32>(to + step, -(a + b + c) / 6);
  store<f32>(to + 2 * step, -(a - b + c) / 6);
  store<f32>(to + 3 * step, (a + 2 * b + 4 * c) / 24);
  store<f32>(to + 4 * step, (a - 2 * b + 4 * c) / 24);
  store<f32>(to + 5 * step, c);
}

/** Bᵀ · (six vectors `step` bytes apart at `from`), stored `stepTo` bytes apart. */
// @ts-ignore: decorator
@inline
function inward(a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, to: usize, step: i32): void {
  const two = f32x4.splat(2), four = f32x4.splat(4);
  const dMinusFourB = f32x4.sub(d, f32x4.mul(four, b));
  const eMinusFourC = f32x4.sub(e, f32x4.mul(four, c));
  const twoDMinusB = f32x4.mul(two, f32x4.sub(d, b));
  const eMinusC = f32x4.sub(e, c);
  v128.store(to, f32x4.add(f32x4.sub(f32x4.mul(four, f32x4.sub(a, c)), c), e));
  v128.store(to + step, f32x4.add(eMinusFourC, dMinusFourB));
  v128.store(to + 2 * step, f32x4.sub(eMinusFourC, dMinusFourB));
  v128.store(to + 3 * step, f32x4.add(eMinusC, twoDMinusB));
  v128.store(to + 4 * step, f32x4.sub(eMinusC, twoDMinusB));
  v128.store(to + 5 * step, f32x4.add(f32x4.sub(f32x4.mul(four, f32x4.sub(b, d)), d), f));
}

/**
 * v [36][count][C]: the transformed tiles first … first + count − 1 of the feature x, whose rows are top … bottom − 1.
 * Tiles have 4 × 4 outputs; the first row of tiles begins at row `from`. Outside the feature everything is zero.
 */
export function transformInputs(
  x: usize, top: i32, bottom: i32, columns: i32, C: i32, from: i32, first: i32, count: i32, zeros: usize, v: usize,
): void {
  const across = (columns + 3) >> 2;
  const part = (count * C) << 2;
  for (let t = 0; t < count; t++, v += C << 2) {
    const y = from + 4 * ((first + t) / across) - 1;
    const left = 4 * ((first + t) % across) - 1;
    for (let i = 0; i < 36; i++) {
      const row = y + i / 6, column = left + i % 6;
      const inside = row >= top && row < bottom && column >= 0 && column < columns;
      store<usize>(pointers + (i << 2), inside ? x + ((((row - top) * columns + column) * C) << 2) : zeros);
    }
    for (let k = 0; k < C << 2; k += 16) {
      for (let i = 0; i < 6; i++) {
        const p = pointers + (i << 2);
        inward(
          v128.load(load<usize>(p) + k), v128.load(load<usize>(p + 24) + k), v128.load(load<usize>(p + 48) + k),
          v128.load(load<usize>(p + 72) + k), v128.load(load<usize>(p + 96) + k), v128.load(load<usize>(p + 120) + k),
          work + (i << 4), 96,
        );
      }
      for (let i = 0; i < 6; i++) {
        const p = work + 96 * i;
        inward(
          v128.load(p), v128.load(p, 16), v128.load(p, 32), v128.load(p, 48), v128.load(p, 64), v128.load(p, 80),
          v + 6 * i * part + k, part,
        );
      }
    }
  }
}

/** Aᵀ · (six vectors), stored `step` bytes apart. */
// @ts-ignore: decorator
@inline
function outward(a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, to: usize, step: i32): void {
  const sumBC = f32x4.add(b, c), sumDE = f32x4.add(d, e);
  const lessBC = f32x4.sub(b, c), lessDE = f32x4.sub(d, e);
  v128.store(to, f32x4.add(f32x4.add(a, sumBC), sumDE));
  v128.store(to + step, f32x4.add(lessBC, f32x4.mul(f32x4.splat(2), lessDE)));
  v128.store(to + 2 * step, f32x4.add(sumBC, f32x4.mul(f32x4.splat(4), sumDE)));
  v128.store(to + 3 * step, f32x4.add(f32x4.add(lessBC, f32x4.mul(f32x4.splat(8), lessDE)), f));
}

/**
 * Adds the outputs of the tiles p [36][count][N] to y, whose rows are from … to − 1. Rows and columns of a tile beyond
 * the feature are left out.
 */
export function transformOutputs(
  p: usize, y: usize, from: i32, to: i32, columns: i32, N: i32, first: i32, count: i32,
): void {
  const across = (columns + 3) >> 2;
  const part = (count * N) << 2;
  for (let t = 0; t < count; t++, p += N << 2) {
    const row = 4 * ((first + t) / across);
    const column = 4 * ((first + t) % across);
    const high = min(4, to - from - row), wide = min(4, columns - column);
    for (let k = 0; k < N << 2; k += 16) {
      for (let i = 0; i < 6; i++) {
        const q = p + i * part + k;
        outward(
          v128.load(q), v128.load(q + 6 * part), v128.load(q + 12 * part), v128.load(q + 18 * part),
          v128.load(q + 24 * part), v128.load(q + 30 * part), work + (i << 4), 96,
        );
      }
      for (let i = 0; i < high; i++) {
        const q = work + 96 * i;
        outward(
          v128.load(q), v128.load(q, 16), v128.load(q, 32), v128.load(q, 48), v128.load(q, 64), v128.load(q, 80),
          q, 16,
        );
        const target = y + ((((row + i) * columns + column) * N) << 2) + k;
        for (let j = 0; j < wide; j++) {
          const pixel = target + ((j * N) << 2);
          v128.store(pixel, f32x4.add(v128.load(pixel), v128.load(q + (j << 4))));
        }
      }
    }
  }
}

/** to f32 [count] = x f16 [count]. */
export function widen(x: usize, to: usize, count: i32): void {
  for (let i = 0; i < count; i++) {
    const half = <u32>load<u16>(x + (i << 1));
    const sign = (half & 0x8000) << 16;
    const rest = half & 0x7fff;
    let value = reinterpret<f32>(rest << 13) * reinterpret<f32>(<u32>(254 - 15) << 23); // subnormal numbers as well
    if (rest >= 0x7c00) value = reinterpret<f32>(0x7f800000 | (rest << 13));
    store<u32>(to + (i << 2), reinterpret<u32>(value) | sign);
  }
}
