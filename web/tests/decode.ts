// node decode.mjs WEIGHTS FILE OUT: writes the pixels of a file, RGB, and then its opacities if it has any, and prints the
// SHA-256 of its codes.

import { readFileSync, writeFileSync } from "node:fs";
import kernels from "../build/kernels.wasm";
import { parse } from "../src/container.ts";
import { Decoder, fingerprintOf } from "../src/decoder.ts";
import { opacities } from "../src/opacity.ts";
import type { Codes } from "../src/prior.ts";
import { codesDigest, join, paste } from "./files.ts";

const [weights, file, out] = process.argv.slice(2);
const data = new Uint8Array(readFileSync(weights));
const decoder = new Decoder(new WebAssembly.Module(kernels), data, fingerprintOf(data));
const container = parse(new Uint8Array(readFileSync(file)));
const painting = decoder.painting(container);
const codes: Codes[] = [];
let pixels: Uint8Array = new Uint8Array();
for (const level of decoder.codes(container)) {
  codes.push(level);
  pixels = paste(painting.paint(codes), container.header); // level by level, as a page does
}
writeFileSync(out, join(pixels, opacities(container) ?? new Uint8Array()));
console.log(codesDigest(codes));
