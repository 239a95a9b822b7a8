// Both halves against tests/golden: codes bit for bit, pixels within one grey level.

import assert from "node:assert/strict";
import { test } from "node:test";
import kernels from "../build/kernels.wasm";
import { parse } from "../src/container.ts";
import { Decoder, fingerprintOf } from "../src/decoder.ts";
import { Memory } from "../src/memory.ts";
import { Network } from "../src/network.ts";
import { Painting } from "../src/painting.ts";
import type { Codes } from "../src/prior.ts";
import { type LevelConfig, Weights } from "../src/weights.ts";
import { codesDigest } from "./digest.ts";
import { paste, random, read, readPng, text, worst } from "./files.ts";

const FACTS: Record<string, { codes: string; picture: string }> = JSON.parse(text("tests/golden/facts.json"));
const DATA = read("weights/compact.decoder.safetensors");
const module = new WebAssembly.Module(kernels);
const decoders = [DATA, read("weights/visual.decoder.safetensors")].map(
  (data) => new Decoder(module, data, fingerprintOf(data)),
);
const [decoder] = decoders;

for (const [name, facts] of Object.entries(FACTS)) {
  test(`${name} gives its codes and its picture`, () => {
    const file = parse(read(`tests/golden/${name}`));
    assert.equal(file.damage, null);
    const own = decoders.find((each) => each.fingerprint === file.header.fingerprint);
    assert.ok(own, "no model has the fingerprint");
    const codes = [...own.codes(file)];
    assert.equal(codesDigest(codes), facts.codes);
    const picture = readPng(`tests/golden/${facts.picture}`);
    assert.deepEqual([file.header.width, file.header.height], [picture.width, picture.height]);
    assert.ok(worst(paste(own.painting(file).paint(codes), picture), picture.pixels) <= 1);
  });
}

/** The codes of a picture that has the `levels` of a model, random: they spread further than those of photographs. */
function randomCodes(
  levels: LevelConfig[],
  { width, height }: { width: number; height: number },
  seed: number,
): Codes[] {
  const pick = random(seed);
  return levels.map(({ stride, groups, codebook_size }) => {
    const [{ stride: coarsest }] = levels;
    const [rows, columns] = [height, width].map((side) => (Math.ceil(side / coarsest) * coarsest) / stride);
    const codes = Int16Array.from({ length: rows * columns * groups }, () => pick(codebook_size));
    return { rows, columns, codes };
  });
}

const weights = new Weights(DATA);
const network = new Network(new Memory(module), weights);

for (const quality of [1, 100]) {
  test(`strips of any height fit together at quality ${quality}`, () => {
    const picture = { width: 400, height: 410, grey: false, quality }; // it is larger than what a code reaches
    const codes = randomCodes(weights.model.levels, { width: 410, height: 400 }, quality); // transposed
    const whole = paste(new Painting(network, picture, 2 ** 30).paint(codes), picture);
    const parts = [...new Painting(network, picture, 20000).paint(codes)];
    assert.ok(parts.length >= 9);
    assert.ok(worst(paste(parts, picture), whole) <= 1);
  });
}

test("a picture painted level by level is the one painted at once", () => {
  const file = parse(read("tests/golden/v1-chelsea-q50.vq"));
  const codes = [...decoder.codes(file)];
  const painting = new Painting(network, file.header, 60000);
  for (let levels = 1; levels <= codes.length; levels++) {
    const once = paste(new Painting(network, file.header, 60000).paint(codes.slice(0, levels)), file.header);
    assert.deepEqual(paste(painting.paint(codes.slice(0, levels)), file.header), once);
  }
});

test("files of other weights or levels are refused", () => {
  const file = parse(read("tests/golden/v1-one-pixel-q75.vq"));
  const other = { ...file, header: { ...file.header, fingerprint: "1a2bc3d4" } };
  assert.throws(() => decoder.codes(other), /made with the weights 1a2bc3d4/);
  const fewer = { ...file, header: { ...file.header, lengths: [0] } };
  const count = weights.model.levels.length;
  assert.ok(count > 1);
  assert.throws(() => decoder.codes(fewer), new RegExp(`1 levels, the weights have ${count}`));
});
