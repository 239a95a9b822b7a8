// The opacity of each pixel (docs/format.md, "Opacity").

import type { Container } from "./container.ts";
import { check } from "./errors.ts";
import { inflateLzma2 } from "./lzma2.ts";
import type { Part } from "./painting.ts";

/** The opacities 0..255 of a picture, row by row; null if it is opaque. */
export function opacities({ header, opacity }: Container): Uint8Array | null {
  if (!opacity) return null;
  const { width, height } = header;
  check(opacity.length, "a chunk Alph without bytes");
  if (opacity.length === 1) return new Uint8Array(width * height).fill(opacity[0]);
  const predictor = opacity[0];
  check(predictor <= 3, `the predictor of the opacity is ${predictor}, expected 0..3`);
  const a = inflateLzma2(opacity.subarray(1), width * height);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const left = x ? a[i - 1] : 0;
      const above = y ? a[i - width] : 0;
      const corner = x && y ? a[i - width - 1] : 0;
      a[i] += [0, left, above, left + above - corner][predictor]; // modulo 256
    }
  }
  return a;
}

/** Gives the pixels of a part their opacities, of a picture `width` pixels wide. */
export function applyOpacity(part: Part, opacity: Uint8Array, width: number): void {
  for (let y = 0, i = 3; y < part.height; y++) {
    for (let x = 0; x < part.width; x++, i += 4) part.rgba[i] = opacity[(part.y + y) * width + part.x + x];
  }
}
