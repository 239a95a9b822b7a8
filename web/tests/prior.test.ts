// The exact half: what docs/format.md says of frequencies and bitstreams.

import assert from "node:assert/strict";
import { test } from "node:test";
import kernels from "../build/kernels.wasm";
import { parse } from "../src/container.ts";
import { Memory } from "../src/memory.ts";
import { frequencies, Prior } from "../src/prior.ts";
import { Weights } from "../src/weights.ts";
import { blocks, read } from "./files.ts";

const DATA = read("weights/compact.decoder.safetensors");
const prior = new Prior(new Memory(new WebAssembly.Module(kernels)), new Weights(DATA));

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
