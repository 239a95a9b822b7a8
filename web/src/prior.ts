// The exact half: bitstreams to codes (docs/format.md, "Entropy coding"; letters are the document's).

import { check } from "./errors.ts";
import { type Memory, pad8 } from "./memory.ts";
import type { LevelConfig, Weights } from "./weights.ts";

const A = 1023;
// The positions that a linear map sees, as [x, y] relative to the current one, in the order of its inputs.
const FIRST = [
  [-1, -1],
  [0, -1],
  [1, -1],
  [-1, 0],
];
const LAYERS = [...FIRST, [0, 0]];
const CONTEXT = [...LAYERS, [1, 0], [-1, 1], [0, 1], [1, 1]];

/** The codes of a level: [rows][columns][groups]. */
export interface Codes {
  rows: number;
  columns: number;
  codes: Int16Array;
}

/** A grid of C activations i16 with a border of one zero: where position (0, 0) is, and bytes from row to row. */
interface Grid {
  origin: number;
  row: number;
}

/** A linear map in memory; `inputs` and `outputs` are multiples of 8. */
interface Linear {
  at: number;
  inputs: number;
  outputs: number;
}

/** F, the table of frequencies. */
export function frequencies(): Uint32Array {
  return Uint32Array.from({ length: 1410 }, (_, i) => {
    if (i > 1408) return 0;
    // A float gives the guess, integers the answer: the largest number whose 64th power is at most 2^(1408 − i).
    let root = BigInt(Math.round(2 ** (22 - i / 64)));
    const most = 1n << BigInt(1408 - i);
    while (root ** 64n > most) root--;
    while ((root + 1n) ** 64n <= most) root++;
    return Number(root);
  });
}

/** The prior of all levels of a model. */
export class Prior {
  readonly #levels: Level[];
  readonly #stride: number;

  constructor(
    readonly memory: Memory,
    weights: Weights,
  ) {
    const table = memory.put(frequencies());
    this.#levels = weights.model.levels.map((_, i) => new Level(memory, weights, i, table));
    this.#stride = weights.model.levels[0].stride;
  }

  /**
   * The codes of each of `bitstreams`, coarsest first, of a picture of `width` × `height` pixels. If the picture is taller
   * than wide, they are those of the transposed picture.
   */
  *decode(bitstreams: Uint8Array[], quality: number, width: number, height: number): Generator<Codes> {
    const top = this.memory.top;
    try {
      let rows = Math.ceil(Math.min(width, height) / this.#stride);
      let columns = Math.ceil(Math.max(width, height) / this.#stride);
      let state: Grid | null = null;
      for (const [i, bitstream] of bitstreams.entries()) {
        const [codes, next]: [Codes, Grid] = this.#levels[i].decode(bitstream, quality, rows, columns, state);
        [rows, columns, state] = [codes.rows, codes.columns, next];
        yield codes;
      }
    } finally {
      this.memory.top = top;
    }
  }
}

/** The prior of one level. */
class Level {
  readonly #C: number; // channels, padded to a multiple of 8
  readonly #G: number;
  readonly #K: number;
  readonly #S: number;
  readonly #f: number;
  readonly #embed: number;
  readonly #inner: number;
  readonly #quality: number;
  readonly #context: Linear[];
  readonly #spread: Linear | null;
  readonly #first: Linear;
  readonly #layers: Linear[];
  readonly #hidden: Linear;
  readonly #heads: Linear[];

  constructor(
    readonly memory: Memory,
    weights: Weights,
    number: number,
    readonly table: number,
  ) {
    const level: LevelConfig = weights.model.levels[number];
    const { channels, layers, context_layers } = weights.prior;
    const name = `prior.${number}.`;
    this.#C = pad8(channels);
    this.#G = level.groups;
    this.#K = level.codebook_size;
    this.#S = level.stages;
    this.#f = number ? weights.model.levels[number - 1].stride / level.stride : 1;
    const [G, K, S, f, C] = [this.#G, this.#K, this.#S, this.#f, this.#C];
    const loader = new Loader(memory, weights, name, channels);
    this.#embed = loader.table("embed", [G, K]);
    this.#inner = loader.table("inner", [G - G / S, K]);
    this.#quality = loader.table("quality", [100]);
    const features = dense(channels, C);
    const several = (count: number, layer: string, taps: number): Linear[] =>
      Array.from({ length: count }, (_, i) => loader.linear(`${layer}.${i}`, taps, channels, features));
    this.#context = several(number ? context_layers : 0, "context", 9);
    // From k·f² + i·f + j to [i·f + j][k].
    const spread = Array.from({ length: f * f * C }, (_, n) =>
      n % C < channels ? (n % C) * f * f + Math.floor(n / C) : -1,
    );
    this.#spread = number ? loader.linear("spread", 1, f * f * channels, spread) : null;
    this.#first = loader.linear("first", 4, channels, features);
    this.#layers = several(layers, "layers", 5);
    const hidden = Array.from({ length: S * C }, (_, n) =>
      n % C < channels ? Math.floor(n / C) * channels + (n % C) : -1,
    );
    this.#hidden = loader.linear("hidden", 1, S * channels, hidden);
    const logits = (G / S) * K;
    this.#heads = Array.from({ length: S }, (_, t) =>
      loader.linear(`heads.${t}`, 1, logits, dense(logits, pad8(logits))),
    );
  }

  /** The codes, and the grid of the state for the next level; `rows` and `columns` are those of the level before. */
  decode(bitstream: Uint8Array, quality: number, rows: number, columns: number, before: Grid | null): [Codes, Grid] {
    check(bitstream.at(-1) !== 0, "a bitstream ends with a zero byte");
    const [memory, C, G] = [this.memory, this.#C, this.#G];
    const [height, width] = [rows * this.#f, columns * this.#f];
    const state = this.#grid(height, width);
    const codes = memory.scratch(() => {
      const c = memory.take(height * width * C * 4);
      memory.scratch(() => this.#contextOf(c, this.#quality + (quality - 1) * C * 2, rows, columns, before));
      const e = this.#grid(height, width);
      const at = memory.take(height * width * G * 2);
      if (bitstream.length) memory.scratch(() => this.#read(bitstream, c, e, at, height, width));
      else this.#embedRows(e, at, height, width); // every code is 0
      for (let y = 0; y < height; y++) {
        const row = y * state.row;
        memory.run.addNarrow(c + y * width * C * 4, e.origin + row, state.origin + row, C * 2, width, C, -A);
      }
      return memory.i16(at, height * width * G).slice();
    });
    return [{ rows: height, columns: width, codes }, state];
  }

  #grid(rows: number, columns: number): Grid {
    const row = (columns + 2) * this.#C * 2;
    return { origin: this.memory.take((rows + 2) * row) + row + this.#C * 2, row };
  }

  /** Offsets in bytes of `cells` in a grid. */
  #offsets(cells: number[][], grid: Grid): number {
    return this.memory.put(Int32Array.from(cells, ([x, y]) => y * grid.row + x * this.#C * 2));
  }

  /** c i32 [rows·f][columns·f][C] of the state before, on its grid of rows × columns; `quality` is a row of the table. */
  #contextOf(c: number, quality: number, rows: number, columns: number, before: Grid | null): void {
    const { memory } = this;
    const [C, f, { run }] = [this.#C, this.#f, memory];
    const zeros = memory.take(C * 4);
    if (!this.#spread || !before) {
      run.addRow(zeros, 0, quality, c, C * 4, rows * columns, C);
      return;
    }
    const spread = this.#spread;
    const x = memory.take(columns * 9 * C * 2);
    const sums = memory.take(columns * Math.max(C, spread.outputs) * 4);
    let u = before;
    for (const map of this.#context) {
      const next = this.#grid(rows, columns);
      const offsets = this.#offsets(CONTEXT, u);
      for (let y = 0; y < rows; y++) {
        run.gather(x, u.origin + y * u.row, C * 2, columns, offsets, 9, C);
        this.#apply(map, x, sums, columns);
        run.addWide(sums, zeros, 0, next.origin + y * next.row, C * 2, columns, C, 0);
      }
      u = next;
    }
    for (let y = 0; y < rows; y++) {
      this.#apply(spread, u.origin + y * u.row, sums, columns);
      for (let cell = 0; cell < f * f; cell++) {
        const to = c + ((f * y + Math.floor(cell / f)) * columns * f + (cell % f)) * C * 4;
        run.addRow(sums + cell * C * 4, f * f * C * 4, quality, to, f * C * 4, columns, C);
      }
    }
  }

  #apply(map: Linear, x: number, out: number, m: number): void {
    this.memory.run.linear(x, map.at, out, m, map.inputs, map.outputs);
  }

  /** e of codes that are all known. */
  #embedRows(e: Grid, codes: number, rows: number, columns: number): void {
    const [C, G, K] = [this.#C, this.#G, this.#K];
    for (let y = 0; y < rows; y++) {
      const row = codes + y * columns * G * 2;
      this.memory.run.embed(this.#embed, row, G * 2, G, K, e.origin + y * e.row, C * 2, columns, C, 0);
    }
  }

  /** Decodes a bitstream to codes i16 [rows][columns][G] and their e. All positions with the same x + 2y go at once. */
  #read(bitstream: Uint8Array, c: number, e: Grid, codes: number, rows: number, columns: number): void {
    const { memory } = this;
    const { run } = memory;
    const [C, G] = [this.#C, this.#G];
    const most = Math.min(rows, Math.ceil(columns / 2)); // positions in a step
    const grids = Array.from({ length: this.#layers.length + 1 }, () => this.#grid(rows, columns));
    const [first, layers] = [this.#offsets(FIRST, e), this.#offsets(LAYERS, e)];
    const x = memory.take(most * 5 * C * 2);
    const sums = memory.take(most * this.#hidden.outputs * 4);
    const stages = this.#stages(most);
    run.start(memory.put(bitstream), bitstream.length);
    const [step, wide] = [e.row - 4 * C, (columns - 2) * 4 * C]; // bytes from (x, y) to (x − 2, y + 1)
    for (let number = 0; number < columns + 2 * (rows - 1); number++) {
      const y = Math.max(0, Math.floor((number - columns) / 2) + 1);
      const m = Math.min(rows, Math.floor(number / 2) + 1) - y;
      if (m <= 0) continue;
      const at = (grid: Grid): number => grid.origin + y * grid.row + (number - 2 * y) * C * 2;
      const place = y * columns + number - 2 * y;
      run.gather(x, at(e), step, m, first, 4, C);
      this.#apply(this.#first, x, sums, m);
      run.addWide(sums, c + place * C * 4, wide, at(grids[0]), step, m, C, 0);
      for (const [i, map] of this.#layers.entries()) {
        run.gather(x, at(grids[i]), step, m, layers, 5, C);
        this.#apply(map, x, sums, m);
        run.addNarrow(sums, at(grids[i]), at(grids[i + 1]), step, m, C, 0);
      }
      const h = at(grids[grids.length - 1]);
      run.gather(x, h, step, m, stages.here, 1, C);
      this.#apply(this.#hidden, x, sums, m);
      const own = codes + place * G * 2;
      this.#readStep(stages, sums, own, (columns - 2) * G * 2, m);
      run.embed(this.#embed, own, (columns - 2) * G * 2, G, this.#K, at(e), step, m, C, 0);
    }
    check(run.finished(), "a bitstream goes on after the last code");
  }

  #stages(most: number): Stages {
    const { memory } = this;
    return {
      n: memory.take(most * this.#C * 4),
      x: memory.take(most * this.#C * 2),
      logits: memory.take(most * this.#heads[0].outputs * 4),
      sums: memory.take((this.#K + 1) * 8),
      here: memory.put(Int32Array.of(0)),
    };
  }

  /** The codes of m positions, whose r i32 [m][S][C] are known: stage by stage. */
  #readStep({ n, x, logits, sums }: Stages, r: number, codes: number, step: number, m: number): void {
    const [C, S, K, { run }] = [this.#C, this.#S, this.#K, this.memory];
    const count = this.#G / S;
    this.memory.u8(n, m * C * 4).fill(0);
    for (const [t, head] of this.#heads.entries()) {
      run.addWide(n, r + t * C * 4, S * C * 4, x, C * 2, m, C, 0);
      this.#apply(head, x, logits, m);
      const own = codes + t * count * 2;
      const whole = run.decode(logits, head.outputs * 4, this.table, sums, own, step, m, count, K);
      check(whole, "a bitstream that no writer makes: beyond the last code");
      const inner = this.#inner + t * count * K * C * 2;
      if (t < S - 1) run.embed(inner, own, step, count, K, n, C * 4, m, C, 1);
    }
  }
}

/** Room for the stages of a step; `here` is the offset 0. */
interface Stages {
  n: number;
  x: number;
  logits: number;
  sums: number;
  here: number;
}

/** 0 … count − 1, then −1 up to `length`. */
function dense(count: number, length: number): number[] {
  return Array.from({ length }, (_, n) => (n < count ? n : -1));
}

/** Checks the tensors of one level and puts them into memory in the kernels' layout. */
class Loader {
  constructor(
    readonly memory: Memory,
    readonly weights: Weights,
    readonly name: string,
    readonly channels: number,
  ) {}

  /** A table i16 [..][C]. */
  table(name: string, sides: number[]): number {
    const values = this.weights.integers(this.name + name, [...sides, this.channels]);
    check(
      values.every((value) => Math.abs(value) <= A),
      `${this.name}${name} has entries beyond ±${A}`,
    );
    const [C, rows] = [pad8(this.channels), values.length / this.channels];
    const table = new Int16Array(rows * C);
    for (let row = 0; row < rows; row++) {
      table.set(values.subarray(row * this.channels, (row + 1) * this.channels), row * C);
    }
    return this.memory.put(table);
  }

  /** The map from `taps` vectors to the outputs of `order`, where −1 stands for an output that is always 0. */
  linear(name: string, taps: number, outputs: number, order: number[]): Linear {
    const [C, channels, full] = [pad8(this.channels), this.channels, this.name + name];
    const weight = this.weights.integers(`${full}.weight`, [taps * channels, outputs]);
    const bias = this.weights.integers(`${full}.bias`, [outputs]);
    const shift = this.weights.integers(`${full}.shift`, [outputs]);
    checkBound(full, weight, bias, shift);
    const inputs = taps * C;
    const at = this.memory.take(2 * inputs * order.length + 8 * order.length);
    const packed = this.memory.i16(at, inputs * order.length);
    const rounding = this.memory.i32(at + 2 * packed.length, order.length);
    const scale = this.memory.f32(at + 2 * packed.length + 4 * order.length, order.length);
    for (const [n, output] of order.entries()) {
      if (output < 0) continue;
      rounding[n] = bias[output] + 2 ** (shift[output] - 1);
      scale[n] = 2 ** -shift[output];
      for (let i = 0; i < taps * channels; i++) {
        const row = Math.floor(i / channels) * C + (i % channels);
        packed[(n >> 3) * 8 * inputs + (row >> 1) * 16 + (n & 7) * 2 + (row & 1)] = weight[i * outputs + output];
      }
    }
    return { at, inputs, outputs: order.length };
  }
}

/** Refuses a map whose sums might reach 2^24. */
function checkBound(name: string, weight: Int32Array, bias: Int32Array, shift: Int32Array): void {
  const sums = new Float64Array(bias.length);
  for (let i = 0; i < weight.length; i++) sums[i % sums.length] += Math.abs(weight[i]); // below 2^28 · 2^31: exact
  for (const [j, sum] of sums.entries()) {
    check(shift[j] >= 1 && shift[j] <= 32, `${name}.shift is not within 1..32`);
    check(A * sum + Math.abs(bias[j]) + 2 ** (shift[j] - 1) < 2 ** 24, `${name} has sums of 2^24 or more`);
  }
}
