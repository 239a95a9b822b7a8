// What tests compare codes by, in Node and in a browser.

import { sha256 } from "@noble/hashes/sha2.js";
import { hex } from "../src/container.ts";
import type { Codes } from "../src/prior.ts";

/** The SHA-256 of all codes as 64-bit integers [groups][rows][columns], level by level. */
export function codesDigest(levels: Codes[]): string {
  const hash = sha256.create();
  for (const { rows, columns, codes } of levels) {
    const groups = codes.length / (rows * columns);
    const grid = new BigInt64Array(codes.length);
    for (const [i, code] of codes.entries())
      grid[(i % groups) * rows * columns + Math.floor(i / groups)] = BigInt(code);
    hash.update(new Uint8Array(grid.buffer));
  }
  return hex(hash.digest());
}
