// The container: the examples of docs/format.md, and files against its rules.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Container, crc32, hex, parse } from "../src/container.ts";
import { FormatError } from "../src/errors.ts";
import { blocks, bytes, file, join, sealed } from "./files.ts";

const [COLOUR, GREY] = blocks();
const LEVELS = [bytes("00ff10"), bytes("0123456789")];
const note = (payload: string, tag = "6e6f7465"): Uint8Array => sealed(bytes(`${tag} ${payload}`));

interface Fields {
  version?: string;
  quality?: string;
  layout?: string;
  size?: string;
  lengths?: string;
  levels?: Uint8Array[];
  chunks?: Uint8Array;
}

/** The document's example with other fields, in hexadecimal, and correct CRC-32s. */
function vq(fields: Fields): Uint8Array {
  const { version = "01", quality = "4b", layout = "02", size = "ac02 c801", lengths = "03 05" } = fields;
  const header = bytes(`8f56510a ${version} 1a2bc3d4 ${quality} ${layout} ${size} ${lengths}`);
  return join(file(header, fields.levels ?? LEVELS), fields.chunks ?? new Uint8Array());
}

const chunked = (length: string, ...chunks: Uint8Array[]): Uint8Array =>
  vq({ layout: "22", lengths: `03 05 ${length}`, chunks: join(...chunks) });

/** The file, which must be intact. */
function whole(data: Uint8Array): Container {
  const file = parse(data);
  assert.equal(file.damage, null);
  return file;
}

/** What is wrong with a file: the error, or the damage beside which some levels are whole. */
function complaint(data: Uint8Array): string {
  try {
    return parse(data).damage ?? "";
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error));
    return error.message;
  }
}

test("the CRC-32 is that of the document", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

test("the examples of the document are read", () => {
  assert.deepEqual(vq({}), COLOUR);
  for (const [data, grey] of [
    [COLOUR, false],
    [GREY, true],
  ] as const) {
    const { header, levels } = whole(data);
    const { fingerprint, quality, width, height, fileBytes } = header;
    assert.deepEqual([fingerprint, quality, width, height], ["1a2bc3d4", 75, 300, 200]);
    assert.deepEqual([header.grey, fileBytes], [grey, data.length]);
    assert.deepEqual(levels.map(hex), LEVELS.map(hex));
  }
});

test("every beginning and every flipped bit is noticed", () => {
  for (let length = 0; length < GREY.length; length++) assert.ok(complaint(GREY.subarray(0, length)));
  for (let bit = 0; bit < 8 * GREY.length; bit++) {
    const damaged = GREY.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    assert.ok(complaint(damaged), `bit ${bit}`);
  }
});

test("levels before the damage are kept", () => {
  const { levels, damage } = parse(COLOUR.subarray(0, -1));
  assert.deepEqual(levels, LEVELS.slice(0, 1));
  assert.match(damage ?? "", /32 bytes, its header says 33/);
});

test("unusual files are read", () => {
  whole(vq({ size: "01 01" }));
  whole(vq({ layout: "0f", lengths: "00".repeat(15), levels: Array(15).fill(new Uint8Array()) }));
  whole(chunked("c004", ...Array(64).fill(note("00"))));
});

const wrong: [string, Uint8Array, RegExp][] = [
  ["a byte too many", join(COLOUR, bytes("00")), /too long/],
  ["other first bytes", join(bytes("89"), COLOUR.subarray(1)), /not a .vq file/],
  ["a newer version", vq({ version: "02" }), /version is 2.*newer/],
  ["version 0", vq({ version: "00" }), /version is 0/],
  ["quality 0", vq({ quality: "00" }), /quality is 0/],
  ["quality 101", vq({ quality: "65" }), /quality is 101/],
  ["no levels", vq({ layout: "00", lengths: "" }), /level count is 0/],
  ["reserved bits", vq({ layout: "42" }), /reserved/],
  ["no width", vq({ size: "00 c801" }), /width is 0/],
  ["a large height", vq({ size: "ac02 808004" }), /height is 65536/],
  ["a padded number", vq({ size: "ac8200 c801" }), /more bytes than it needs/],
  ["a long number", vq({ lengths: "83808080808001 05" }), /does not fit/],
  ["a number of 33 bits", vq({ lengths: "8380808010 05" }), /length of level 0 is 4294967299/],
  ["a long level", vq({ lengths: "8180808001 05" }), /2\^28|truncated/],
  ["chunks of no bytes", chunked("00"), /chunks of no bytes/],
  ["many pixels", vq({ size: "ffff03 ffff03" }), /too many pixels/],
  ["a critical chunk", chunked("09", note("00", "4e6f7465")), /critical chunk Note/],
  ["a tag with a digit", chunked("09", note("00", "6e6f7431")), /ASCII letters/],
  ["a chunk beyond the end", chunked("09", note("01")), /truncated/],
  ["65 chunks", chunked("c904", ...Array(65).fill(note("00"))), /more than 64/],
];
for (const [name, data, message] of wrong) test(`${name} is refused`, () => assert.match(complaint(data), message));
