// The memory that the kernels of kernels/ work in.

import { FormatError } from "./errors.ts";

type Kernel = (...numbers: number[]) => number;
type Names =
  | "linear"
  | "gather"
  | "addWide"
  | "addNarrow"
  | "addRow"
  | "embed"
  | "start"
  | "finished"
  | "decode" // exact.ts
  | "multiply"
  | "addBias"
  | "silu"
  | "shuffle"
  | "transformKernels"
  | "transformInputs"
  | "transformOutputs"
  | "widen";

const PAGE = 2 ** 16;
const MOST = 2 ** 31 - PAGE; // bytes

/** The kernels and their memory, which is given out like a stack. */
export class Memory {
  readonly run: Record<Names, Kernel>;
  readonly #memory: WebAssembly.Memory;
  /** What lies from here on is free. */
  top: number;

  constructor(module: WebAssembly.Module) {
    const { memory, base, ...kernels } = new WebAssembly.Instance(module, {}).exports;
    this.#memory = memory as WebAssembly.Memory;
    this.top = (base as WebAssembly.Global).value;
    this.run = kernels as Record<Names, Kernel>;
  }

  /** The address of `bytes` zeros, a multiple of 16. */
  take(bytes: number): number {
    const start = Math.ceil(this.top / 16) * 16;
    const missing = start + bytes - this.#memory.buffer.byteLength;
    if (missing > 0) {
      if (start + bytes > MOST) throw new FormatError(`the picture needs more memory than the limit of ${MOST} bytes`);
      try {
        this.#memory.grow(Math.ceil(missing / PAGE));
      } catch {
        throw new FormatError("the browser has no memory left for the picture");
      }
    }
    this.top = start + bytes;
    this.u8(start, bytes).fill(0);
    return start;
  }

  /** The result of `work`, after which everything that it took is free again. */
  scratch<T>(work: () => T): T {
    const top = this.top;
    try {
      return work();
    } finally {
      this.top = top;
    }
  }

  /** The address of a copy of `values`. */
  put(values: Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | Float32Array): number {
    const at = this.take(values.byteLength);
    this.u8(at, values.byteLength).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return at;
  }

  // Views are valid until memory is next taken.

  u8(at: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, at, length);
  }

  i32(at: number, length: number): Int32Array {
    return new Int32Array(this.#memory.buffer, at, length);
  }

  i16(at: number, length: number): Int16Array {
    return new Int16Array(this.#memory.buffer, at, length);
  }

  f32(at: number, length: number): Float32Array {
    return new Float32Array(this.#memory.buffer, at, length);
  }
}

/** `n` rounded up to a multiple of 8, as the kernels need it. */
export function pad8(n: number): number {
  return Math.ceil(n / 8) * 8;
}
