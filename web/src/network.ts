// The float half: codes to pixels, a strip of rows at a time (vqcodec/networks/vqvae.py in TypeScript).
//
//   start ─▶ Level 0 ─▶ Blocks ─▶ Upscale ─▶ Level 1 ─▶ Blocks ─▶ … ─▶ Head ─▶ PixelLevel ─▶ pixels
//
// Every step says which rows of its input some rows of its output depend on. So a strip of the picture needs a few rows
// more at each step and no others, and strips fit together without a seam.

import { type Memory, pad8 } from "./memory.ts";
import type { Codes } from "./prior.ts";
import { type LevelConfig, lambdaOf, type ModelConfig, type Weights } from "./weights.ts";

const EMBEDDING = 32; // features of λ
const DISTORTION_WEIGHT = 6 / Math.LN2;
const TILES = 128; // Winograd tiles at a time: their numbers stay in the cache

/** Rows first … last − 1. */
interface Rows {
  first: number;
  last: number;
}

/** Rows of a feature f32 [rows][columns][C] of a picture that has `height` rows of it. */
interface Feature extends Rows {
  at: number;
  columns: number;
  height: number;
  C: number;
}

/** What a step may use: the features of λ, and the codes by level; a level without codes adds what it predicts. */
interface Inputs {
  lambda: number;
  embedding: Float32Array;
  codes: Codes[];
}

interface Step {
  /** Rows of the output for each row of the input. */
  readonly scale: number;
  /** Rows of the input that `rows` of the output depend on, of a picture without end. */
  input(rows: Rows): Rows;
  /** `rows` of the output. */
  run(x: Feature, rows: Rows, inputs: Inputs): Feature;
}

function grown({ first, last }: Rows, by: number): Rows {
  return { first: first - by, last: last + by };
}

function within({ first, last }: Rows, height: number): Rows {
  return { first: Math.max(0, first), last: Math.min(height, last) };
}

/** The address of row `y`. */
function rowAt({ at, first, columns, C }: Feature, y: number): number {
  return at + (y - first) * columns * C * 4;
}

/** The tensors of a decoder side, put into memory in the kernels' layout, and what is computed with them. */
class Layers {
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
function dense(count: number): number[] {
  return Array.from({ length: pad8(count) }, (_, n) => (n < count ? n : -1));
}

/** The order of outputs c·f² + i·f + j as blocks [i][j][c], each of `width` ≥ channels numbers. */
function blockOrder(channels: number, f: number, width: number): number[] {
  const order = Array.from({ length: f * f * width }, (_, n) => {
    const c = n % width;
    return c < channels ? c * f * f + Math.floor(n / width) : -1;
  });
  while (order.length % 8) order.push(-1);
  return order;
}

/** A convolution with a zero border; `order` says which output is where. */
class Conv {
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

/** x + second(silu(first(silu(x))) · (1 + s(λ))) */
class ResidualBlock implements Step {
  readonly scale = 1;
  readonly #first: Conv;
  readonly #second: Conv;
  readonly #weight: Float32Array;
  readonly #bias: Float32Array;
  readonly #ones: number;

  constructor(
    readonly layers: Layers,
    name: string,
    readonly channels: number,
    kernel: number,
  ) {
    this.#first = new Conv(layers, `${name}.first`, channels, channels, 3, dense(channels));
    this.#second = new Conv(layers, `${name}.second`, channels, channels, kernel, dense(channels));
    this.#weight = layers.tensor(`${name}.scale.weight`, [channels, EMBEDDING]);
    this.#bias = layers.tensor(`${name}.scale.bias`, [channels]).map((value) => value + 1);
    this.#ones = layers.memory.put(new Float32Array(pad8(channels)).fill(1));
  }

  input(rows: Rows): Rows {
    return grown(rows, 1 + this.#second.reach);
  }

  run(x: Feature, rows: Rows, { embedding }: Inputs): Feature {
    const { layers } = this;
    const out = layers.copy(x, rows);
    layers.memory.scratch(() => {
      const factor = new Float32Array(pad8(this.channels));
      factor.set(affine(this.#weight, this.#bias, embedding));
      const hidden = this.#first.run(layers.silu(x, this.#ones), within(grown(rows, this.#second.reach), x.height));
      this.#second.add(layers.silu(hidden, layers.memory.put(factor)), out);
    });
    return out;
  }
}

/** A convolution, then channels to blocks of `scale` × `scale` positions of `channels` numbers each. */
class Upscale implements Step {
  readonly #conv: Conv;

  constructor(
    readonly layers: Layers,
    name: string,
    inputs: number,
    outputs: number,
    readonly scale: number,
    readonly channels: number,
    offset = 0,
  ) {
    this.#conv = new Conv(
      layers,
      name,
      inputs,
      outputs * scale * scale,
      3,
      blockOrder(outputs, scale, channels),
      offset,
    );
  }

  input({ first, last }: Rows): Rows {
    return grown({ first: Math.floor(first / this.scale), last: Math.ceil(last / this.scale) }, 1);
  }

  run(x: Feature, rows: Rows): Feature {
    const { layers, scale } = this;
    const [first, last] = [Math.floor(rows.first / scale), Math.ceil(rows.last / scale)];
    const whole = { first: first * scale, last: last * scale };
    const size = { ...x, columns: x.columns * scale, height: x.height * scale };
    const out = layers.feature(size, whole, this.channels);
    layers.memory.scratch(() => {
      const blocks = this.#conv.run(x, { first, last });
      layers.memory.run.shuffle(blocks.at, out.at, last - first, x.columns, scale, this.channels, blocks.C);
    });
    return { ...out, at: rowAt(out, rows.first), first: rows.first, last: rows.last };
  }
}

/** The codebooks of a level. */
class Codebooks {
  readonly #codebook: Float32Array;

  constructor(
    layers: Layers,
    name: string,
    readonly level: LevelConfig,
    readonly number: number,
  ) {
    const { groups, codebook_size, dim } = level;
    this.#codebook = layers.tensor(`${name}.quantizer.codebook`, [groups, codebook_size, dim]);
  }

  /** Adds r_hat / gain to z [rows][columns][C], of which the first groups · dim channels are used. */
  add(z: Float32Array, rows: Rows, C: number, gain: Float32Array, { codes: levels }: Inputs): void {
    if (this.number >= levels.length) return;
    const { groups, codebook_size, dim } = this.level;
    const { codes, columns } = levels[this.number];
    const inverse = gain.map((value) => 1 / value);
    const start = rows.first * columns * groups;
    for (let position = 0; position < (rows.last - rows.first) * columns; position++) {
      for (let g = 0, k = 0; g < groups; g++) {
        const entry = (g * codebook_size + codes[start + position * groups + g]) * dim;
        for (let d = 0; d < dim; d++, k++) z[position * C + k] += this.#codebook[entry + d] * inverse[k];
      }
    }
  }
}

/** f + project(μ + r_hat / g(λ)) */
class Level implements Step {
  readonly scale = 1;
  readonly #hidden: Conv;
  readonly #mean: Conv;
  readonly #project: Conv;
  readonly #codebooks: Codebooks;
  readonly #weight: Float32Array;
  readonly #bias: Float32Array;
  readonly #ones: number;

  constructor(
    readonly layers: Layers,
    model: ModelConfig,
    number: number,
    width: number,
  ) {
    const level = model.levels[number];
    const [name, channels] = [`levels.${number}`, level.groups * level.dim];
    this.#hidden = new Conv(layers, `${name}.predict_hidden`, width, width, 3, dense(width));
    // The other half of the outputs of `predict` is σ, which only an encoder needs.
    this.#mean = new Conv(layers, `${name}.predict`, width, 2 * channels, 3, dense(channels));
    this.#project = new Conv(layers, `${name}.project`, channels, width, 1, dense(width));
    this.#codebooks = new Codebooks(layers, name, level, number);
    const centre = (Math.log(model.lambda_min) + Math.log(model.lambda_max)) / 2;
    this.#weight = layers.tensor(`${name}.log_gain.weight`, [channels, EMBEDDING]);
    this.#bias = layers.tensor(`${name}.log_gain.bias`, [channels]).map((value) => value - centre / 2);
    this.#ones = layers.memory.put(new Float32Array(pad8(width)).fill(1));
  }

  input(rows: Rows): Rows {
    return grown(rows, 2);
  }

  run(f: Feature, rows: Rows, inputs: Inputs): Feature {
    const { layers } = this;
    const out = layers.copy(f, rows);
    layers.memory.scratch(() => {
      const hidden = this.#hidden.run(layers.silu(f, this.#ones), within(grown(rows, 1), f.height));
      const mean = this.#mean.run(layers.silu(hidden, this.#ones), rows);
      const half = Math.log(inputs.lambda) / 2;
      const gain = affine(this.#weight, this.#bias, inputs.embedding).map((value) => Math.exp(value + half));
      const z = layers.memory.f32(mean.at, (rows.last - rows.first) * mean.columns * mean.C);
      this.#codebooks.add(z, rows, mean.C, gain, inputs);
      this.#project.add(mean, out);
    });
    return out;
  }
}

/** x_hat + S(r_hat / g(λ)): blocks of pixels by a linear transform. */
class PixelLevel implements Step {
  readonly scale = 1;
  readonly #codebooks: Codebooks;
  readonly #matrix: number;
  readonly #C: number;
  readonly #N: number;

  constructor(
    readonly layers: Layers,
    readonly level: LevelConfig,
    number: number,
  ) {
    const [name, channels, block] = [`levels.${number}`, level.groups * level.dim, 3 * level.stride ** 2];
    const order = blockOrder(3, level.stride, 3);
    const components = layers.tensor(`${name}.components`, [channels, block]);
    this.#codebooks = new Codebooks(layers, name, level, number);
    [this.#C, this.#N] = [pad8(channels), order.length];
    this.#matrix = layers.matrix(this.#C, this.#N, (k, n) =>
      k < channels && order[n] >= 0 ? components[k * block + order[n]] : 0,
    );
  }

  /** Whole blocks. */
  input({ first, last }: Rows): Rows {
    const { stride } = this.level;
    return { first: Math.floor(first / stride) * stride, last: Math.ceil(last / stride) * stride };
  }

  run(x: Feature, rows: Rows, inputs: Inputs): Feature {
    const { memory } = this.layers;
    const [stride, C, N] = [this.level.stride, this.#C, this.#N];
    const blocks = { first: x.first / stride, last: x.last / stride };
    const [count, columns] = [blocks.last - blocks.first, x.columns / stride];
    memory.scratch(() => {
      const [z, y] = [memory.take(count * columns * C * 4), memory.take(count * columns * N * 4)];
      const gain = new Float32Array(C).fill(Math.sqrt((inputs.lambda * 255 ** 2) / 3 / DISTORTION_WEIGHT));
      this.#codebooks.add(memory.f32(z, count * columns * C), blocks, C, gain, inputs);
      memory.run.multiply(z, this.#matrix, y, count * columns, C, N, 0);
      memory.run.shuffle(y, x.at, count, columns, stride, 3, N);
    });
    return { ...x, at: rowAt(x, rows.first), first: rows.first, last: rows.last };
  }
}

/** weight [n][inputs] · x + bias */
function affine(weight: Float32Array, bias: Float32Array, x: Float32Array): Float32Array {
  return bias.map((value, n) => x.reduce((sum, input, i) => sum + weight[n * x.length + i] * input, value));
}

/** A part of a picture: pixels RGBA at (x, y). */
export interface Part {
  x: number;
  y: number;
  width: number;
  height: number;
  rgba: Uint8ClampedArray<ArrayBuffer>;
}

/** How a picture is decoded. */
export interface Picture {
  quality: number;
  grey: boolean;
  width: number;
  height: number;
}

/** The VQ-VAE's decoder. */
export class Network {
  readonly #layers: Layers;
  readonly #model: ModelConfig;
  readonly #steps: Step[] = [];
  readonly #start: Float32Array;
  readonly #embedding: Float32Array[];

  constructor(memory: Memory, weights: Weights) {
    const layers = new Layers(memory, weights);
    const { widths, blocks, levels, patch, second_kernel } = weights.model;
    [this.#layers, this.#model] = [layers, weights.model];
    this.#embedding = [
      layers.tensor("embedding.net.0.weight", [EMBEDDING, 1]),
      layers.tensor("embedding.net.0.bias", [EMBEDDING]),
      layers.tensor("embedding.net.2.weight", [EMBEDDING, EMBEDDING]),
      layers.tensor("embedding.net.2.bias", [EMBEDDING]),
    ];
    this.#start = layers.tensor("start", [widths[widths.length - 1]]);
    for (let stage = widths.length - 1; stage >= 0; stage--) {
      for (const [number, level] of levels.entries()) {
        if (level.pixels || level.stride !== patch << stage) continue;
        this.#steps.push(new Level(layers, weights.model, number, widths[stage]));
      }
      for (let block = 0; block < blocks[stage]; block++) {
        const name = `decoder.${stage}.blocks.${block}`;
        this.#steps.push(new ResidualBlock(layers, name, widths[stage], second_kernel));
      }
      if (!stage) continue;
      const [inputs, outputs] = [widths[stage], widths[stage - 1]];
      this.#steps.push(new Upscale(layers, `up.${stage - 1}.conv`, inputs, outputs, 2, pad8(outputs)));
    }
    this.#steps.push(new Upscale(layers, "last.conv", widths[0], 3, patch, 3, 0.5));
    for (const [number, level] of levels.entries()) {
      if (level.pixels) this.#steps.push(new PixelLevel(layers, level, number));
    }
  }

  /** Strips of rows that together are the picture, as it is laid out; each has at most about `pixels` pixels. */
  strips(picture: Picture, pixels: number): Rows[] {
    const stride = this.#model.levels[0].stride;
    const [short, long] = [picture.width, picture.height].sort((a, b) => a - b);
    const rows = Math.ceil(short / stride);
    const most = Math.max(1, Math.floor(pixels / (Math.ceil(long / stride) * stride ** 2)));
    const step = Math.ceil(rows / Math.ceil(rows / most));
    const count = Math.ceil(rows / step);
    return Array.from({ length: count }, (_, i) => ({
      first: i * step * stride,
      last: Math.min(rows, (i + 1) * step) * stride,
    }));
  }

  /** One of the `strips` of a picture, of which the first levels are known. */
  decode(codes: Codes[], picture: Picture, strip: Rows): Part {
    const lambda = lambdaOf(this.#model, picture.quality);
    const inputs = { lambda, embedding: this.#embed(lambda), codes };
    const [{ rows, columns }] = codes;
    const heights: number[] = [];
    let height = rows;
    for (const { scale } of this.#steps) {
      heights.push(height);
      height *= scale;
    }
    const plan: Rows[] = [];
    let wanted = strip;
    for (let i = this.#steps.length - 1; i >= 0; i--) {
      plan[i] = wanted;
      wanted = within(this.#steps[i].input(wanted), heights[i]);
    }
    return this.#layers.memory.scratch(() => {
      let x = this.#first(wanted, rows, columns);
      for (const [i, step] of this.#steps.entries()) x = step.run(x, plan[i], inputs);
      return part(this.#layers.memory.f32(x.at, (x.last - x.first) * x.columns * 3), x, picture);
    });
  }

  /** The first feature, which is the same at all positions. */
  #first({ first, last }: Rows, height: number, columns: number): Feature {
    const C = pad8(this.#start.length);
    const at = this.#layers.memory.take((last - first) * columns * C * 4);
    const values = this.#layers.memory.f32(at, (last - first) * columns * C);
    for (let i = 0; i < values.length; i += C) values.set(this.#start, i);
    return { at, first, last, columns, height, C };
  }

  #embed(lambda: number): Float32Array {
    const [low, high] = [Math.log(this.#model.lambda_min), Math.log(this.#model.lambda_max)];
    const t = (Math.log(lambda) - (low + high) / 2) / ((high - low) / 2);
    const silu = (x: number): number => x / (1 + Math.exp(-x));
    const [first, firstBias, second, secondBias] = this.#embedding;
    return affine(second, secondBias, affine(first, firstBias, Float32Array.of(t)).map(silu)).map(silu);
  }
}

/** The pixels of rows of x_hat [rows][columns][3], turned and cropped as the picture is. */
function part(xHat: Float32Array, { first, last, columns }: Feature, { width, height, grey }: Picture): Part {
  const upright = height > width;
  const rows = Math.min(last, upright ? width : height) - first;
  const across = Math.min(columns, upright ? height : width);
  const rgba = new Uint8ClampedArray(rows * across * 4).fill(255); // it clamps, and rounds to nearest, ties to even
  const [stepY, stepX] = upright ? [4, rows * 4] : [across * 4, 4];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < across; x++) {
      const [from, to] = [(y * columns + x) * 3, y * stepY + x * stepX];
      if (grey) {
        const sum = unit(xHat[from]) + unit(xHat[from + 1]) + unit(xHat[from + 2]);
        rgba.fill(sum * 85, to, to + 3);
      } else for (let c = 0; c < 3; c++) rgba[to + c] = xHat[from + c] * 255;
    }
  }
  return upright
    ? { x: first, y: 0, width: rows, height: across, rgba }
    : { x: 0, y: first, width: across, height: rows, rgba };
}

function unit(x: number): number {
  return Math.min(1, Math.max(0, x));
}
