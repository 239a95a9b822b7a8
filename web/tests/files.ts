// What tests share: files of the repository, and .vq files made to measure.

import { readFileSync } from "node:fs";
import { inflateSync } from "node:zlib";
import { crc32 } from "../src/container.ts";
import type { Part } from "../src/painting.ts";

const ROOT = new URL("../../../", import.meta.url); // from build/tests

export function read(path: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(new URL(path, ROOT)));
}

export function text(path: string): string {
  return new TextDecoder().decode(read(path));
}

/** Bytes of hexadecimal digits, between which there may be spaces. */
export function bytes(digits: string): Uint8Array {
  return Uint8Array.from(digits.match(/[0-9a-f]{2}/g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** `data` and its CRC-32. */
export function sealed(data: Uint8Array): Uint8Array {
  return join(data, new Uint8Array(Uint32Array.of(crc32(data)).buffer));
}

/** A file without chunks, of `header` and `levels`. */
export function file(header: Uint8Array, [first, ...others]: Uint8Array[]): Uint8Array {
  return join(...[join(header, first), ...others].map(sealed));
}

/** The hexadecimal blocks of docs/format.md, without the notes to the right of the bars. */
export function blocks(): Uint8Array[] {
  const found = text("docs/format.md").split("```hex\n").slice(1);
  return found.map((block) => bytes(block.split("```")[0].replace(/\|.*/g, "")));
}

/** Width, height and pixels [height][width][3] of a PNG of 8 bits, in grey or RGB and not interlaced. */
export function readPng(path: string): { width: number; height: number; pixels: Uint8Array } {
  const data = read(path);
  const view = new DataView(data.buffer);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const channels = data[25] === 2 ? 3 : 1;
  const parts: Uint8Array[] = [];
  for (let at = 8; at < data.length; at += 12 + view.getUint32(at)) {
    if (String.fromCharCode(...data.subarray(at + 4, at + 8)) === "IDAT") {
      parts.push(data.subarray(at + 8, at + 8 + view.getUint32(at)));
    }
  }
  const lines = inflateSync(Buffer.concat(parts));
  const row = width * channels;
  const plain = new Uint8Array(height * row);
  for (let y = 0; y < height; y++) {
    for (let i = 0; i < row; i++) {
      const at = y * row + i;
      const a = i < channels ? 0 : plain[at - channels];
      const b = y ? plain[at - row] : 0;
      const c = i < channels || !y ? 0 : plain[at - row - channels];
      const nearest = [a, b, c].sort((p, q) => Math.abs(a + b - c - p) - Math.abs(a + b - c - q))[0];
      plain[at] = lines[y * (row + 1) + 1 + i] + [0, a, b, (a + b) >> 1, nearest][lines[y * (row + 1)]];
    }
  }
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = plain[channels === 3 ? i : Math.floor(i / 3)];
  return { width, height, pixels };
}

/** The pixels [height][width][3] of a picture in parts, which must cover it. */
export function paste(parts: Iterable<Part>, { width, height }: { width: number; height: number }): Uint8Array {
  const pixels = new Uint8Array(width * height * 3);
  let covered = 0;
  for (const part of parts) {
    covered += part.width * part.height;
    for (let i = 0; i < part.width * part.height; i++) {
      const at = (part.y + Math.floor(i / part.width)) * width + part.x + (i % part.width);
      pixels.set(part.rgba.subarray(4 * i, 4 * i + 3), 3 * at);
    }
  }
  if (covered !== width * height) throw new Error(`parts cover ${covered} of ${width * height} pixels`);
  return pixels;
}

/** The largest difference of two pictures, in grey levels. */
export function worst(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

/** Numbers 0 … below − 1 that look random (Park and Miller's generator). */
export function random(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed * 48271) % 0x7fffffff;
    return seed % below;
  };
}
