// Weights against the rules of docs/format.md are refused.

import assert from "node:assert/strict";
import { test } from "node:test";
import kernels from "../build/kernels.wasm";
import { Decoder } from "../src/decoder.ts";
import { FormatError } from "../src/errors.ts";
import { lambdaOf, Weights } from "../src/weights.ts";
import { read } from "./files.ts";

const DATA = read("weights/compact.decoder.safetensors");
const LENGTH = new DataView(DATA.buffer).getUint32(0, true);
const HEADER = new TextDecoder().decode(DATA.subarray(8, 8 + LENGTH));
const module = new WebAssembly.Module(kernels);

/** The weights with another header. */
function headed(header: string): Uint8Array {
  const text = new TextEncoder().encode(header);
  const data = new Uint8Array(8 + text.length + DATA.length - 8 - LENGTH);
  new DataView(data.buffer).setUint32(0, text.length, true);
  data.set(text, 8);
  data.set(DATA.subarray(8 + LENGTH), 8 + text.length);
  return data;
}

/** The weights with other first bytes of the tensor `name`. */
function tampered(name: string, bytes: number[]): Uint8Array {
  const data = DATA.slice();
  data.set(bytes, 8 + LENGTH + JSON.parse(HEADER)[name].data_offsets[0]);
  return data;
}

const replaced = (from: string | RegExp, to: string): Uint8Array => {
  const header = HEADER.replace(from, to);
  assert.notEqual(header, HEADER);
  return headed(header);
};

const wrong: [string, Uint8Array, RegExp][] = [
  ["no bytes", new Uint8Array(), /0 bytes/],
  ["a header beyond the end", DATA.subarray(0, 1000), /longer than the file/],
  ["a header that is no JSON", headed("{"), /not JSON/],
  ["another format", replaced("vqcodec-decoder-1", "vqcodec-decoder-2"), /format/],
  ["a missing tensor", replaced('"prior.1.spread.bias"', '"prior.1.spread.bios"'), /no prior.1.spread.bias/],
  ["another shape", replaced(/"shape":\[100,(\d+)\]/, '"shape":[$1,100]'), /quality has the shape/],
  ["another type", replaced('"dtype":"I8"', '"dtype":"F8"'), /expected integers/],
  [
    "a tensor beyond the end",
    replaced(/("vqvae.start":.*?"data_offsets":\[)\d+,\d+/, "$199999744,100000000"),
    /lie within/,
  ],
  ["a level of another stride", replaced(/(\\"stride\\": )\d+/, "$120"), /stride/],
  ["many channels", replaced(/(\\"channels\\": )\d+/, "$164000000"), /channels is 64000000/],
  ["an entry beyond ±1023", tampered("prior.0.embed", [0, 4]), /beyond ±1023/],
  ["a shift of 0", tampered("prior.0.first.shift", [0]), /shift is not within/],
  ["a shift of 33", tampered("prior.0.first.shift", [33]), /shift is not within/],
  ["a large bias", tampered("prior.0.first.bias", [0, 0, 0, 1]), /sums of 2\^24/],
  ["a bias of 64 bits", tampered("prior.0.first.bias", [0, 0, 0, 0, 0, 0, 0, 64]), /sums of 2\^24/],
  ["a number that is not finite", tampered("vqvae.start", [0, 0x7c]), /not finite/],
];
for (const [name, data, message] of wrong) {
  test(`${name} is refused`, () => {
    assert.throws(
      () => new Decoder(module, data, ""),
      (error: unknown) => error instanceof FormatError && message.test(error.message),
    );
  });
}

test("λ rises with quality from lambda_min to lambda_max", () => {
  const { model } = new Weights(DATA);
  const lambdas = Array.from({ length: 100 }, (_, i) => lambdaOf(model, i + 1));
  assert.ok(
    Math.abs(lambdas[0] / model.lambda_min - 1) < 1e-12 && Math.abs(lambdas[99] / model.lambda_max - 1) < 1e-12,
  );
  assert.ok(lambdas.every((lambda, i) => i === 0 || lambda > lambdas[i - 1]));
});
