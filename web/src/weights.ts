// The decoder side of a model: a safetensors file with the configuration in its metadata (docs/format.md, "Weights").

import { check, FormatError } from "./errors.ts";

/** One level of codes. */
export interface LevelConfig {
  /** Pixels a side of a grid position. */
  stride: number;
  groups: number;
  /** Channels of a codeword. */
  dim: number;
  codebook_size: number;
  stages: number;
  pixels: boolean;
}

/** The VQ-VAE. */
export interface ModelConfig {
  levels: LevelConfig[];
  patch: number;
  widths: number[];
  blocks: number[];
  lambda_min: number;
  lambda_max: number;
  quality_scale: number[];
  second_kernel: number;
}

export interface PriorConfig {
  channels: number;
  layers: number;
  context_layers: number;
}

type Integers = Int8Array | Int16Array | Int32Array | BigInt64Array;
interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const INTEGERS = { I8: Int8Array, I16: Int16Array, I32: Int32Array, I64: BigInt64Array };
const MAX_BYTES = 2 ** 28;

/** A weights file whose header has been checked; each tensor is checked when it is read. */
export class Weights {
  readonly model: ModelConfig;
  readonly prior: PriorConfig;
  readonly #entries: Record<string, Entry>;
  readonly #body: Uint8Array;

  constructor(data: Uint8Array) {
    check(data.length >= 8 && data.length <= MAX_BYTES, `weights of ${data.length} bytes, expected 8..${MAX_BYTES}`);
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const length = view.getUint32(0, true);
    check(view.getUint32(4, true) === 0 && length <= data.length - 8, "weights whose header is longer than the file");
    const header = parseJson(data.subarray(8, 8 + length));
    const { __metadata__: metadata, ...entries } = header as { __metadata__?: Record<string, string> };
    check(metadata?.format === "vqcodec-decoder-1", "weights of a format that this decoder does not know");
    const config = parseJson(metadata.config ?? "") as { model?: unknown; prior?: unknown };
    this.model = checkModel(config.model);
    this.prior = checkPrior(config.prior);
    this.#entries = entries as Record<string, Entry>;
    this.#body = data.subarray(8 + length);
  }

  /** The signed integers of the tensor `name`, which must have `shape`. */
  integers(name: string, shape: number[]): Int32Array {
    const entry = this.#entry(name, shape);
    const type = INTEGERS[entry.dtype as keyof typeof INTEGERS];
    check(type, `${name} has the type ${entry.dtype}, expected integers`);
    const values: Integers = new type(this.#bytes(name, entry, type.BYTES_PER_ELEMENT));
    // All that the format allows fits 25 bits; what does not becomes a number beyond every bound.
    return Int32Array.from(values as Iterable<number | bigint>, (value) =>
      Math.max(-0x7fffffff, Math.min(0x7fffffff, Number(value))),
    );
  }

  /** The binary16 numbers of the tensor `name`, which must have `shape`. */
  halves(name: string, shape: number[]): Uint16Array {
    const entry = this.#entry(name, shape);
    check(entry.dtype === "F16", `${name} has the type ${entry.dtype}, expected F16`);
    const values = new Uint16Array(this.#bytes(name, entry, 2));
    check(
      values.every((half) => (half & 0x7c00) !== 0x7c00),
      `${name} has a number that is not finite`,
    );
    return values;
  }

  #entry(name: string, shape: number[]): Entry {
    check(Object.hasOwn(this.#entries, name), `the weights have no ${name}`);
    const entry = this.#entries[name];
    const found = Array.isArray(entry?.shape) ? entry.shape : [];
    check(found.join() === shape.join(), `${name} has the shape [${found}], expected [${shape}]`);
    return entry;
  }

  /** A copy, which is aligned. */
  #bytes(name: string, entry: Entry, size: number): ArrayBuffer {
    const [start, end] = Array.isArray(entry.data_offsets) ? entry.data_offsets : [-1, -1];
    const length = size * entry.shape.reduce((product, side) => product * side, 1);
    check(
      Number.isInteger(start) && start >= 0 && end - start === length && end <= this.#body.length,
      `${name} does not lie within the weights`,
    );
    return this.#body.slice(start, end).buffer as ArrayBuffer;
  }
}

function parseJson(bytes: Uint8Array | string): object {
  let value: unknown;
  try {
    value = JSON.parse(typeof bytes === "string" ? bytes : new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new FormatError("weights whose header is not JSON");
  }
  check(typeof value === "object" && value !== null, "weights whose header is no table");
  return value;
}

function whole(value: unknown, low: number, high: number, name: string): number {
  const fits = typeof value === "number" && Number.isInteger(value) && value >= low && value <= high;
  check(fits, `${name} is ${String(value)}, expected a whole number in ${low}..${high}`);
  return value;
}

function list(value: unknown, low: number, high: number, name: string): unknown[] {
  check(Array.isArray(value) && value.length >= low && value.length <= high, `${name} is no list of ${low}..${high}`);
  return value;
}

function checkPrior(value: unknown): PriorConfig {
  const table = (value ?? {}) as Record<string, unknown>;
  return {
    channels: whole(table.channels, 1, 4096, "prior.channels"),
    layers: whole(table.layers, 0, 64, "prior.layers"),
    context_layers: whole(table.context_layers, 0, 64, "prior.context_layers"),
  };
}

function checkLevel(value: unknown): LevelConfig {
  const table = (value ?? {}) as Record<string, unknown>;
  const level = {
    stride: whole(table.stride, 1, 1024, "a level's stride"),
    groups: whole(table.groups, 1, 4096, "a level's groups"),
    dim: whole(table.dim, 1, 4096, "a level's dim"),
    codebook_size: whole(table.codebook_size, 2, 4096, "a level's codebook_size"),
    stages: whole(table.stages, 1, 4096, "a level's stages"),
    pixels: table.pixels === true,
  };
  check(level.groups % level.stages === 0, "a level's stages do not divide its groups");
  return level;
}

function checkModel(value: unknown): ModelConfig {
  const table = (value ?? {}) as Record<string, unknown>;
  const widths = list(table.widths, 1, 8, "widths").map((width) => whole(width, 1, 4096, "a width"));
  const blocks = list(table.blocks, 1, 8, "blocks").map((count) => whole(count, 0, 64, "a number of blocks"));
  const patch = whole(table.patch, 1, 64, "patch");
  const levels = list(table.levels, 1, 15, "levels").map(checkLevel);
  const scale = list(table.quality_scale ?? [], 0, 1000, "quality_scale") as number[];
  const { lambda_min, lambda_max } = table as { lambda_min: number; lambda_max: number };
  const second_kernel = whole(table.second_kernel ?? 3, 1, 15, "second_kernel");
  check(second_kernel % 2 === 1, "second_kernel is even");
  check(widths.length === blocks.length, "widths and blocks differ in length");
  for (const [i, level] of levels.entries()) {
    const stage = Math.log2(level.stride / patch);
    check(Number.isInteger(stage) && stage >= 0 && stage < widths.length, "a level's stride is none of the trunk's");
    const before = i ? levels[i - 1] : { stride: patch << (widths.length - 1), pixels: false };
    check(i ? level.stride <= before.stride : level.stride === before.stride, "levels are not coarsest first");
    check(!before.pixels || level.pixels, "a level of pixels before one of the trunk");
  }
  check(!levels[0].pixels, "the first level is one of pixels");
  check(lambda_min > 0 && lambda_min < lambda_max && lambda_max < Infinity, "lambda_min and lambda_max are no range");
  check(
    !scale.length || (scale[0] === 0 && scale.at(-1) === 1 && scale.every((x, i) => i === 0 || x > scale[i - 1])),
    "quality_scale does not rise from 0 to 1",
  );
  return { levels, patch, widths, blocks, lambda_min, lambda_max, quality_scale: scale, second_kernel };
}

/** λ, the weight of distortion, at a quality in 1..100. */
export function lambdaOf(model: ModelConfig, quality: number): number {
  let t = (quality - 1) / 99;
  const scale = model.quality_scale;
  if (scale.length) {
    const index = Math.min(Math.floor(t * (scale.length - 1)), scale.length - 2);
    t = scale[index] + (scale[index + 1] - scale[index]) * (t * (scale.length - 1) - index);
  }
  return Math.exp((1 - t) * Math.log(model.lambda_min) + t * Math.log(model.lambda_max));
}
