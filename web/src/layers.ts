// Convolutions on rows of features, put together from the kernels of kernels/float.ts.

import { type Memory, pad8 } from "./memory.ts";
import type { Weights } from "./weights.ts";

const TILES = 128; // Winograd tiles at a time: their numbers stay in the cache

/** Rows first … last − 1. */
export interface Rows {
  first: number;
  last: number;
}

/** Rows of a feature f32 [rows][columns][C] of a picture that has `height` rows of it. */
export interface Feature extends Rows {
  at: number;
  columns: number;
  height: number;
  C: number;
}

/** A copy of a feature, outside the kernels' memory. */
export interface Copy {
  x: Feature;
  values: Float32Array;
}

export function grown({ first, last }: Rows, by: number): Rows {
  return { first: first - by, last: last + by };
}

export function within({ first, last }: Rows, height: number): Rows {
  return { first: Math.max(0, first), last: Math.min(height, last) };
}

/** The address of row `y`. */
export function rowAt({ at, first, columns, C }: Feature, y: number): number {
  return at + (y - first) * columns * C * 4;
}

/** The tensors of a decoder side, put into memory in the kernels' layout, and what is computed with them. */
export class Layers {
  readonly #zeros: number;

  constructor(
    readonly memory: Memory,
    readonly weights: Weights,
  ) {
    this.#zeros = memory.take(4 * 4096);
  }

  /** The numbers of a tensor. */
  tensor(name: string, shape: number[]): Float32Array {
    const halves = this.weights.halves(`vqvae.${name}`, shape);
    return this.memory.scratch(() => {
      const to = this.memory.take(4 * halves.length);
      this.memory.run.widen(this.memory.put(halves), to, halves.length);
      return this.memory.f32(to, halves.length).slice();
    });
  }

  /** The values of `order`, where −1 stands for 0, in memory. */
  pick(values: Float32Array, order: number[]): number {
    return this.memory.put(Float32Array.from(order, (n) => (n < 0 ? 0 : values[n])));
  }

  /** A new feature of zeros. */
  feature(like: Feature, { first, last }: Rows, C: number): Feature {
    const at = this.memory.take((last - first) * like.columns * C * 4);
    return { ...like, at, first, last, C };
  }

  /** A copy of `rows` of a feature. */
  copy(x: Feature, rows: Rows): Feature {
    const out = this.feature(x, rows, x.C);
    const bytes = (rows.last - rows.first) * x.columns * x.C * 4;
    this.memory.u8(out.at, bytes).set(this.memory.u8(rowAt(x, rows.first), bytes));
    return out;
  }

  /** A feature, copied out of memory. */
  save(x: Feature): Copy {
    return { x, values: this.memory.f32(x.at, (x.last - x.first) * x.columns * x.C).slice() };
  }

  /** A feature, copied back into memory. */
  load({ x, values }: Copy): Feature {
    return { ...x, at: this.memory.put(values) };
  }

  /** b packed as the kernel `multiply` reads it, of `value(row, column)`. */
  matrix(rows: number, columns: number, value: (row: number, column: number) => number): number {
    const packed = new Float32Array(rows * columns);
    for (let n = 0; n < columns; n++) {
      for (let k = 0; k < rows; k++) packed[(n >> 3) * 8 * rows + k * 8 + (n & 7)] = value(k, n);
    }
    return this.memory.put(packed);
  }

  /** silu(x) · scale, where `scale` is the address of C numbers. */
  silu(x: Feature, scale: number): Feature {
    const out = this.feature(x, x, x.C);
    this.memory.run.silu(x.at, out.at, scale, (x.last - x.first) * x.columns, x.C);
    return out;
  }

  get zeros(): number {
    return this.#zeros;
  }
}

/** 0 … count − 1, then −1 up to a multiple of 8. */
export function dense(count: number): number[] {
  return Array.from({ length: pad8(count) }, (_, n) => (n < count ? n : -1));
}

/** The order of outputs c·f² + i·f + j as blocks [i][j][c], each of `width` ≥ channels numbers. */
export function blockOrder(channels: number, f: number, width: number): number[] {
  const order = Array.from({ length: f * f * width }, (_, n) => {
    const c = n % width;
    return c < channels ? c * f * f + Math.floor(n / width) : -1;
  });
  while (order.length % 8) order.push(-1);
  return order;
}

/** A convolution with a zero border; `order` says which output is where. */
export class Conv {
  readonly #C: number;
  readonly #N: number;
  readonly #weights: number;
  readonly #bias: number;

  constructor(
    readonly layers: Layers,
    name: string,
    inputs: number,
    outputs: number,
    readonly kernel: number,
    order: number[],
    offset = 0, // added to every output
  ) {
    const { memory } = layers;
    [this.#C, this.#N] = [pad8(inputs), order.length];
    const [C, N, taps] = [this.#C, this.#N, kernel * kernel];
    const weight = layers.tensor(`${name}.weight`, [outputs, inputs * taps]);
    this.#bias = layers.pick(
      layers.tensor(`${name}.bias`, [outputs]).map((value) => value + offset),
      order,
    );
    if (kernel === 3) {
      this.#weights = memory.take(36 * C * N * 4);
      memory.scratch(() =>
        memory.run.transformKernels(
          memory.put(weight),
          memory.put(Int32Array.from(order)),
          this.#weights,
          inputs,
          C,
          N,
        ),
      );
    } else {
      const matrices = Array.from({ length: taps }, (_, tap) =>
        layers.matrix(C, N, (c, n) => (order[n] < 0 || c >= inputs ? 0 : weight[(order[n] * inputs + c) * taps + tap])),
      );
      this.#weights = matrices[0]; // the others follow
    }
  }

  get reach(): number {
    return this.kernel >> 1;
  }

  /** `rows` of the convolution of x. */
  run(x: Feature, rows: Rows): Feature {
    const y = this.layers.feature(x, rows, this.#N);
    this.add(x, y);
    return y;
  }

  /** Adds the convolution of x to y. */
  add(x: Feature, y: Feature): void {
    const { memory } = this.layers;
    memory.run.addBias(y.at, this.#bias, (y.last - y.first) * y.columns, y.C);
    memory.scratch(() => (this.kernel === 3 ? this.#winograd(x, y) : this.#direct(x, y)));
  }

  #winograd(x: Feature, y: Feature): void {
    const { memory, zeros } = this.layers;
    const { run } = memory;
    const [C, N] = [this.#C, this.#N];
    const count = Math.ceil(x.columns / 4) * Math.ceil((y.last - y.first) / 4);
    const most = Math.min(count, TILES);
    const [v, p] = [memory.take(36 * most * C * 4), memory.take(36 * most * N * 4)];
    for (let first = 0; first < count; first += TILES) {
      const m = Math.min(TILES, count - first);
      run.transformInputs(x.at, x.first, x.last, x.columns, C, y.first, first, m, zeros, v);
      for (let i = 0; i < 36; i++)
        run.multiply(v + i * m * C * 4, this.#weights + i * C * N * 4, p + i * m * N * 4, m, C, N, 0);
      run.transformOutputs(p, y.at, y.first, y.last, y.columns, N, first, m);
    }
  }

  /** Tap by tap and row by row. */
  #direct(x: Feature, y: Feature): void {
    const { run } = this.layers.memory;
    const [C, N, reach, kernel] = [this.#C, this.#N, this.kernel >> 1, this.kernel];
    for (let tap = 0; tap < kernel * kernel; tap++) {
      const [dy, dx] = [Math.floor(tap / kernel) - reach, (tap % kernel) - reach];
      const m = x.columns - Math.abs(dx);
      const { first, last } = within({ first: Math.max(y.first, x.first - dy), last: x.last - dy }, y.last);
      for (let row = first; row < last && m > 0; row++) {
        const from = rowAt(x, row + dy) + Math.max(0, dx) * C * 4;
        const to = rowAt(y, row) + Math.max(0, -dx) * N * 4;
        run.multiply(from, this.#weights + tap * C * N * 4, to, m, C, N, 1);
      }
    }
  }
}
