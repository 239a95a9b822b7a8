// The exact half against tests/golden: every code, bit for bit.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import kernels from "../build/kernels.wasm";
import { hex, parse } from "../src/container.ts";
import { Memory } from "../src/memory.ts";
import { type Codes, frequencies, Prior } from "../src/prior.ts";
import { Weights } from "../src/weights.ts";
import { blocks, read, text } from "./files.ts";

const FACTS: Record<string, { codes: string }> = JSON.parse(text("tests/golden/facts.json"));
const DATA = read("weights/compact.decoder.safetensors");
const FINGERPRINT = hex(new Uint8Array(createHash("sha256").update(DATA).digest().subarray(0, 4)));
const prior = new Prior(new Memory(new WebAssembly.Module(kernels)), new Weights(DATA));

/** The SHA-256 of all codes as 64-bit integers [groups][rows][columns], level by level. */
function digest(levels: Codes[]): string {
  const hash = createHash("sha256");
  for (const { rows, columns, codes } of levels) {
    const groups = codes.length / (rows * columns);
    const grid = new BigInt64Array(codes.length);
    for (const [i, code] of codes.entries())
      grid[(i % groups) * rows * columns + Math.floor(i / groups)] = BigInt(code);
    hash.update(new Uint8Array(grid.buffer));
  }
  return hash.digest("hex");
}

for (const [name, { codes }] of Object.entries(FACTS)) {
  test(`${name} gives its codes`, () => {
    const { header, levels, damage } = parse(read(`tests/golden/${name}`));
    assert.equal(damage, null);
    assert.equal(header.fingerprint, FINGERPRINT);
    const { quality, width, height } = header;
    assert.equal(digest([...prior.decode(levels, quality, width, height)]), codes);
  });
}

test("the frequencies are those of the document", () => {
  const F = frequencies();
  assert.deepEqual([F[0], F[1], F[2], F[64], F[1408], F[1409]], [4194304, 4149123, 4104428, 2097152, 1, 0]);
  assert.equal(
    F.reduce((sum, f) => sum + f, 0),
    389370650,
  );
});

test("the example of a bitstream gives the codes of the document", () => {
  const memory = new Memory(new WebAssembly.Module(kernels));
  const stream = blocks()[2];
  memory.run.start(memory.put(stream), stream.length);
  const logits = memory.put(Int32Array.of(0, -64, -1409, -1408)); // of the frequencies 4194304, 2097152, 0 and 1
  const [table, sums, codes] = [memory.put(frequencies()), memory.take(40), memory.take(8)];
  assert.ok(memory.run.decode(logits, 0, table, sums, codes, 2, 4, 1, 4));
  assert.deepEqual([...memory.i16(codes, 4)], [0, 1, 2, 3]);
  assert.ok(memory.run.finished());
});

test("a bitstream is used up, and ends without a zero byte", () => {
  const { header, levels } = parse(read("tests/golden/v1-coffee-q95.vq"));
  const { quality, width, height } = header;
  for (const [tail, message] of [
    [[0], /zero byte/],
    [[0, 0, 0, 0, 0, 0, 0, 0, 1], /goes on/],
  ] as const) {
    for (const i of levels.keys()) {
      const longer = levels.map((level, j) => (i === j ? Uint8Array.of(...level, ...tail) : level));
      assert.throws(() => [...prior.decode(longer, quality, width, height)], message);
    }
  }
});
