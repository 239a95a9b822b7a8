// A picture that gets finer with each level: strips of rows of it, turned and cropped as the picture is.

import type { Copy, Rows } from "./layers.ts";
import type { Checkpoint, Network } from "./network.ts";
import type { Codes } from "./prior.ts";

// Pixels of a picture whose features are in memory at a time. Rows around a strip are computed again for the next one:
// with half as many pixels, 4000 × 3000 take an eighth longer, with twice as many they take twice the memory.
const STRIP = 2 ** 21;
const KEPT = 2 ** 28; // bytes of checkpoints of a picture

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

/**
 * Paints one picture, each time with more levels. What does not depend on the new levels is kept from time to time, up
 * to a limit: where the last level is one of pixels, it costs next to nothing.
 */
export class Painting {
  readonly #strips: Rows[];
  readonly #checkpoints: (Checkpoint | undefined)[];
  #kept = 0;

  constructor(
    readonly network: Network,
    readonly picture: Picture,
    pixels = STRIP,
  ) {
    this.#strips = stripsOf(picture, network.stride, pixels);
    this.#checkpoints = this.#strips.map(() => undefined);
  }

  /** The picture of its first levels, at least as many as the last time, in parts. */
  *paint(codes: Codes[]): Generator<Part> {
    for (const [i, strip] of this.#strips.entries()) {
      const [xHat, next] = this.network.decode(codes, this.picture.quality, strip, this.#checkpoints[i]);
      this.#keep(i, next);
      yield part(xHat, this.picture);
    }
  }

  #keep(strip: number, checkpoint: Checkpoint | undefined): void {
    const bytes = (kept: Checkpoint | undefined): number => kept?.values.byteLength ?? 0;
    const room = KEPT - this.#kept + bytes(this.#checkpoints[strip]);
    const next = bytes(checkpoint) <= room ? checkpoint : undefined;
    this.#kept += bytes(next) - bytes(this.#checkpoints[strip]);
    this.#checkpoints[strip] = next;
  }
}

/** Strips of rows that together are the picture, as it is laid out; each has at most about `pixels` pixels. */
export function stripsOf({ width, height }: Picture, stride: number, pixels: number): Rows[] {
  const [short, long] = [width, height].sort((a, b) => a - b);
  const rows = Math.ceil(short / stride);
  const most = Math.max(1, Math.floor(pixels / (Math.ceil(long / stride) * stride ** 2)));
  const step = Math.ceil(rows / Math.ceil(rows / most));
  const count = Math.ceil(rows / step);
  return Array.from({ length: count }, (_, i) => ({
    first: i * step * stride,
    last: Math.min(rows, (i + 1) * step) * stride,
  }));
}

/** The pixels of rows of x_hat [rows][columns][3], turned and cropped as the picture is. */
function part({ x: feature, values: xHat }: Copy, { width, height, grey }: Picture): Part {
  const { first, last, columns } = feature;
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
