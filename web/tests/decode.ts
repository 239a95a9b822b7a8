// node decode.mjs WEIGHTS FILE OUT: writes the pixels of a file, RGB, and then its opacities if it has any, and prints the
// SHA-256 of its codes. It fails if the picture painted level by level, as a page does, is not the one painted at once, or
// if strips of one row of the coarsest grid do not fit together.

import { readFileSync, writeFileSync } from "node:fs";
import kernels from "../build/kernels.wasm";
import { parse } from "../src/container.ts";
import { Decoder, fingerprintOf } from "../src/decoder.ts";
import { Memory } from "../src/memory.ts";
import { Network } from "../src/network.ts";
import { opacities } from "../src/opacity.ts";
import { Painting } from "../src/painting.ts";
import type { Codes } from "../src/prior.ts";
import { Weights } from "../src/weights.ts";
import { codesDigest } from "./digest.ts";
import { join, paste, worst } from "./files.ts";

const [weights, file, out] = process.argv.slice(2);
const data = new Uint8Array(readFileSync(weights));
const module = new WebAssembly.Module(kernels);
const decoder = new Decoder(module, data, fingerprintOf(data));
const network = new Network(new Memory(module), new Weights(data));
const container = parse(new Uint8Array(readFileSync(file)));
const { header } = container;
const [painting, strips] = [decoder.painting(container), new Painting(network, header, 1)];
const codes: Codes[] = [];
let pixels: Uint8Array = new Uint8Array();
for (const level of decoder.codes(container)) {
  codes.push(level);
  pixels = paste(painting.paint(codes), header);
  const once = paste(new Painting(network, header, 1).paint(codes), header);
  if (worst(paste(strips.paint(codes), header), once) > 0) throw new Error(`levels to ${codes.length} differ`);
  if (worst(pixels, once) > 1) throw new Error(`strips of levels to ${codes.length} differ`);
}
writeFileSync(out, join(pixels, opacities(container) ?? new Uint8Array()));
console.log(codesDigest(codes));
