// What tests share: files of the repository, and .vq files made to measure.

import { readFileSync } from "node:fs";
import { crc32 } from "../src/container.ts";

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
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** `data` and its CRC-32. */
export function sealed(data: Uint8Array): Uint8Array {
  return join(data, new Uint8Array(Uint32Array.of(crc32(data)).buffer));
}

/** The hexadecimal blocks of docs/format.md, without the notes to the right of the bars. */
export function blocks(): Uint8Array[] {
  const found = text("docs/format.md").split("```hex\n").slice(1);
  return found.map((block) => bytes(block.split("```")[0].replace(/\|.*/g, "")));
}
