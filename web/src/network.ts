// The float half: codes to pixels, a strip of rows at a time (vqcodec/networks/vqvae.py in TypeScript).
//
//   start ─▶ Level 0 ─▶ Blocks ─▶ Upscale ─▶ Level 1 ─▶ Blocks ─▶ … ─▶ Head ─▶ PixelLevel ─▶ pixels
//
// Every step says which rows of its input some rows of its output depend on. So a strip of the picture needs a few rows
// more at each step and no others, and strips fit together without a seam.

import { blockOrder, Conv, type Copy, dense, type Feature, grown, Layers, type Rows, rowAt, within } from "./layers.ts";
import { type Memory, pad8 } from "./memory.ts";
import type { Codes } from "./prior.ts";
import { type LevelConfig, lambdaOf, type ModelConfig, type Weights } from "./weights.ts";

const EMBEDDING = 32; // features of λ
const DISTORTION_WEIGHT = 6 / Math.LN2;

/** What a step may use: the features of λ, and the codes by level; a level without codes adds what it predicts. */
interface Inputs {
  lambda: number;
  embedding: Float32Array;
  codes: Codes[];
}

interface Step {
  /** The level whose codes the step uses, if it uses any. */
  readonly number?: number;
  /** Rows of the output for each row of the input. */
  readonly scale: number;
  /** Rows of the input that `rows` of the output depend on, of a picture without end. */
  input(rows: Rows): Rows;
  /** `rows` of the output. */
  run(x: Feature, rows: Rows, inputs: Inputs): Feature;
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
    readonly number: number,
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
    readonly number: number,
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

/** The input of the first step whose codes were not known: from there a strip is decoded further. */
export interface Checkpoint extends Copy {
  step: number;
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

  /** Pixels a side of a position of the coarsest grid. */
  get stride(): number {
    return this.#model.levels[0].stride;
  }

  /**
   * x_hat [rows][columns][3], not clamped, of a strip of a picture of which the first levels are known. Goes on from the
   * `checkpoint` that the same strip had with fewer levels, and gives the new one, if levels are missing.
   */
  decode(codes: Codes[], quality: number, strip: Rows, checkpoint?: Checkpoint): [Copy, Checkpoint | undefined] {
    const lambda = lambdaOf(this.#model, quality);
    const inputs = { lambda, embedding: this.#embed(lambda), codes };
    const [{ rows, columns }] = codes;
    const plan = this.#plan(strip, rows);
    return this.#layers.memory.scratch(() => {
      const start = checkpoint?.step ?? 0;
      let x = checkpoint ? this.#layers.load(checkpoint) : this.#first(plan[0], rows, columns);
      let next: Checkpoint | undefined;
      for (const [i, step] of this.#steps.entries()) {
        if (i < start) continue;
        if (step.number === codes.length) next = { step: i, ...this.#layers.save(x) };
        x = step.run(x, plan[i + 1], inputs);
      }
      return [this.#layers.save(x), next];
    });
  }

  /** The rows of each step's input that a strip depends on, then the strip; the first grid has `rows` rows. */
  #plan(strip: Rows, rows: number): Rows[] {
    const heights = [rows];
    for (const { scale } of this.#steps) heights.push(heights[heights.length - 1] * scale);
    const plan = [strip];
    for (let i = this.#steps.length - 1; i >= 0; i--) {
      plan.unshift(within(this.#steps[i].input(plan[0]), heights[i]));
    }
    return plan;
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
