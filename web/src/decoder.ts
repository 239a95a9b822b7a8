// A decoder for the files of one model: both halves, and what joins them.

import { sha256 } from "@noble/hashes/sha2.js"; // crypto.subtle is missing on pages that are not secure
import { type Container, hex } from "./container.ts";
import { check } from "./errors.ts";
import { Memory } from "./memory.ts";
import { Network } from "./network.ts";
import { Painting } from "./painting.ts";
import { type Codes, Prior } from "./prior.ts";
import { Weights } from "./weights.ts";

/** The first 4 bytes of the SHA-256 of weights, in hexadecimal digits. */
export function fingerprintOf(weights: Uint8Array): string {
  return hex(sha256(weights).subarray(0, 4));
}

/** A decoder; each half has memory of its own. */
export class Decoder {
  readonly levelCount: number;
  readonly #prior: Prior;
  readonly #network: Network;

  constructor(
    kernels: WebAssembly.Module,
    weights: Uint8Array,
    readonly fingerprint: string,
  ) {
    const contents = new Weights(weights);
    this.levelCount = contents.model.levels.length;
    this.#prior = new Prior(new Memory(kernels), contents);
    this.#network = new Network(new Memory(kernels), contents);
  }

  /** The codes of the first `levels` intact levels of a file, coarsest first. */
  codes({ header, levels }: Container, count = Number.POSITIVE_INFINITY): Generator<Codes> {
    const { fingerprint, lengths, quality, width, height } = header;
    check(fingerprint === this.fingerprint, `made with the weights ${fingerprint}, these are ${this.fingerprint}`);
    check(lengths.length === this.levelCount, `${lengths.length} levels, the weights have ${this.levelCount}`);
    return this.#prior.decode(levels.slice(0, count), quality, width, height);
  }

  /** Paints the picture of a file. */
  painting({ header }: Container): Painting {
    return new Painting(this.#network, header);
  }
}
