// The opacity: a stream that Python's lzma wrote, the predictors, and streams against the rules.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Container } from "../src/container.ts";
import { FormatError } from "../src/errors.ts";
import { inflateLzma2 } from "../src/lzma2.ts";
import { applyOpacity, opacities } from "../src/opacity.ts";
import { bytes, join } from "./files.ts";

const STREAM = bytes(
  "e0017f01135d00006e0a48d2d0421e2088f46db98643acc0aa23b92e82c8703976c308c33e1cb05a0b01e0f62a66a9aaec64b28b77705b5c9e35781095b243f527930c91fe663db5afa05e08bbc2d79820ac39f8f20008ebd5338c9decf8800b8ab77b4dd1d9e47216e24441fc5f8d51d87bcc3c22d1a3e7dae439c9275f9d1b8eb519297490a5d678f34c23871df147c070bae9db217930bc4810a4903109cab6fbbcc673829cd671ee3826eb007bf1ce5b70819936b3ae038f6467cc263bb7290b19bc33a3cbd3a6d5664399a6a7f6a4621ffe94dd379858ee9a41f138fdff5e1cfd365c51385054299d478da0bc00c7841cc8e694a9b76b8dbdd5092a7265b65fec51497ad06d27381fc4b276b48deb17e9eebd1f249f7d8d00",
);
const PLAIN = Uint8Array.from({ length: 24 * 16 }, (_, i) => {
  const [x, y] = [i % 24, Math.floor(i / 24)];
  return Math.floor((x * y) / 7) + ((x * x * y) % 5);
});

/** A picture of width × height with this payload of Alph. */
function picture(opacity: Uint8Array | null, width: number, height: number): Container {
  const header = {
    fingerprint: "",
    quality: 1,
    grey: false,
    width,
    height,
    lengths: [],
    chunksLength: 0,
    bytes: 0,
    fileBytes: 0,
  };
  return { header, levels: [], opacity, damage: null };
}

/** A stream of one chunk without compression. */
const stored = (...values: number[]): Uint8Array => Uint8Array.of(1, 0, values.length - 1, ...values, 0);

test("a compressed stream gives its bytes", () => {
  assert.deepEqual(inflateLzma2(STREAM, PLAIN.length), PLAIN);
  assert.deepEqual([...inflateLzma2(stored(1, 2, 3), 3)], [1, 2, 3]);
});

test("a stream ends with its last byte, and has as many as the picture", () => {
  const wrong = [
    STREAM.subarray(0, -1),
    join(STREAM, bytes("00")),
    bytes("02000000 00"),
    bytes("0300000000"),
    STREAM.subarray(3),
  ];
  for (const stream of wrong) assert.throws(() => inflateLzma2(stream, PLAIN.length), FormatError);
  for (const length of [0, PLAIN.length - 1, PLAIN.length + 1]) {
    assert.throws(() => inflateLzma2(STREAM, length), FormatError);
  }
});

test("a flipped bit gives bytes or the error of a file that is refused", () => {
  for (let bit = 0; bit < 8 * STREAM.length; bit++) {
    const damaged = STREAM.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    try {
      inflateLzma2(damaged, PLAIN.length);
    } catch (error) {
      assert.ok(error instanceof FormatError, String(error));
    }
  }
});

test("predictors are undone", () => {
  const found = [0, 1, 2, 3].map((predictor) => [
    ...(opacities(picture(join(Uint8Array.of(predictor), stored(1, 2, 250, 4)), 2, 2)) ?? []),
  ]);
  assert.deepEqual(found, [
    [1, 2, 250, 4],
    [1, 3, 250, 254],
    [1, 2, 251, 6],
    [1, 3, 251, 1],
  ]);
  assert.throws(() => opacities(picture(join(Uint8Array.of(4), stored(1)), 1, 1)), /predictor/);
  assert.throws(() => opacities(picture(new Uint8Array(), 1, 1)), /without bytes/);
  assert.equal(opacities(picture(null, 1, 1)), null);
});

test("one byte is the opacity of every pixel, and parts get theirs", () => {
  assert.deepEqual([...(opacities(picture(Uint8Array.of(7), 2, 1)) ?? [])], [7, 7]);
  const part = { x: 1, y: 1, width: 1, height: 2, rgba: new Uint8ClampedArray(8) };
  applyOpacity(part, Uint8Array.of(0, 1, 2, 3, 4, 5), 2);
  assert.deepEqual([...part.rgba], [0, 0, 0, 3, 0, 0, 0, 5]);
});
