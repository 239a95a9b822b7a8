// Both halves against tests/golden: codes bit for bit, pixels within one grey level.

import assert from "node:assert/strict";
import { test } from "node:test";
import kernels from "../build/kernels.wasm";
import { parse } from "../src/container.ts";
import { Decoder, fingerprintOf } from "../src/decoder.ts";
import { Memory } from "../src/memory.ts";
import { Network } from "../src/network.ts";
import { Prior } from "../src/prior.ts";
import { Weights } from "../src/weights.ts";
import { codesDigest, paste, read, readPng, text, worst } from "./files.ts";

const FACTS: Record<string, { codes: string; picture: string }> = JSON.parse(text("tests/golden/facts.json"));
const DATA = read("weights/compact.decoder.safetensors");
const module = new WebAssembly.Module(kernels);
const decoder = new Decoder(module, DATA, fingerprintOf(DATA));

for (const [name, facts] of Object.entries(FACTS)) {
  test(`${name} gives its codes and its picture`, () => {
    const file = parse(read(`tests/golden/${name}`));
    assert.equal(file.damage, null);
    const codes = [...decoder.codes(file)];
    assert.equal(codesDigest(codes), facts.codes);
    const picture = readPng(`tests/golden/${facts.picture}`);
    assert.deepEqual([file.header.width, file.header.height], [picture.width, picture.height]);
    assert.ok(worst(paste(decoder.paint(codes, file), picture), picture.pixels) <= 1);
  });
}

test("strips of any height fit together", () => {
  const { header, levels } = parse(read("tests/golden/v1-chelsea-q50.vq"));
  const weights = new Weights(DATA);
  const network = new Network(new Memory(module), weights);
  const codes = [...new Prior(new Memory(module), weights).decode(levels, header.quality, header.width, header.height)];
  const whole = paste([network.decode(codes, header, { first: 0, last: 304 })], header);
  for (const pixels of [1, 30000]) {
    const strips = network.strips(header, pixels);
    assert.ok(strips.length > 3);
    const parts = strips.map((strip) => network.decode(codes, header, strip));
    assert.ok(worst(paste(parts, header), whole) <= 1);
  }
});

test("files of other weights or levels are refused", () => {
  const file = parse(read("tests/golden/v1-one-pixel-q75.vq"));
  const other = { ...file, header: { ...file.header, fingerprint: "1a2bc3d4" } };
  assert.throws(() => decoder.codes(other), /made with the weights 1a2bc3d4/);
  const fewer = { ...file, header: { ...file.header, lengths: [0] } };
  assert.throws(() => decoder.codes(fewer), /1 levels, the weights have 3/);
});
