// The container: the bytes around the bitstreams (docs/format.md, "Header" to "Versions").

import { check, FormatError } from "./errors.ts";

const MAGIC = [0x8f, 0x56, 0x51, 0x0a];
const MAX_PIXELS = 2 ** 27;
const SMALL_PIXELS = 2 ** 22; // a larger picture needs a byte of intact levels for each PIXELS_A_BYTE pixels
const PIXELS_A_BYTE = 2 ** 16;

/** What the header says. */
export interface Header {
  /** Eight hexadecimal digits that name the weights. */
  fingerprint: string;
  /** 1..100. */
  quality: number;
  grey: boolean;
  /** In pixels. */
  width: number;
  height: number;
  /** Bytes of each level's bitstream, coarsest first. */
  lengths: number[];
  chunksLength: number;
  /** Bytes of the header itself, and of the whole file. */
  bytes: number;
  fileBytes: number;
}

/** A file: its intact levels, and the first damage, if any. */
export interface Container {
  header: Header;
  /** The bitstreams before the first damage, coarsest first; at least one. */
  levels: Uint8Array[];
  /** The payload of the chunk `Alph`, or null if the picture is opaque or the chunk is damaged. */
  opacity: Uint8Array | null;
  /** One line about the first damage, or null if the file is intact. */
  damage: string | null;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** The CRC-32 of PNG and gzip. */
export function crc32(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

/** Reads one field after the other, never beyond the end. */
class Fields {
  at = 0;
  #checked = 0; // the end of the last CRC-32

  constructor(readonly data: Uint8Array) {}

  take(length: number, name: string): Uint8Array {
    check(length <= this.data.length - this.at, `truncated: the file ends within ${name}`);
    this.at += length;
    return this.data.subarray(this.at - length, this.at);
  }

  byte(name: string): number {
    return this.take(1, name)[0];
  }

  number(low: number, high: number, name: string): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte(name);
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        check(byte || !shift, `${name} is written with more bytes than it needs`);
        break;
      }
      check(shift < 28, `${name} does not fit 32 bits`);
    }
    check(value >= low && value <= high, `${name} is ${value}, expected ${low}..${high}`);
    return value;
  }

  /** The next bytes and their CRC-32, which covers everything since the one before it. */
  sealed(length: number, name: string): Uint8Array {
    const part = this.take(length, name);
    const found = crc32(this.data.subarray(this.#checked, this.at));
    const [a, b, c, d] = this.take(4, `the CRC-32 of ${name}`);
    check(found === (a | (b << 8) | (c << 16) | (d << 24)) >>> 0, `${name} is damaged: its CRC-32 differs`);
    this.#checked = this.at;
    return part;
  }
}

/** The header, which is verified only together with level 0. */
function readHeader(fields: Fields): Header {
  check(fields.data.length, "empty file, expected a .vq file");
  const magic = fields.take(Math.min(4, fields.data.length), "the magic number");
  check(
    magic.every((byte, i) => byte === MAGIC[i]),
    "not a .vq file: it begins with other bytes",
  );
  check(magic.length === 4, "truncated: the file ends within the magic number");
  const version = fields.byte("the format version");
  check(
    version === 1,
    `the format version is ${version}, this page reads 1${version ? ": a newer program made it" : ""}`,
  );
  const fingerprint = hex(fields.take(4, "the fingerprint"));
  const quality = fields.byte("the quality");
  const layout = fields.byte("the layout");
  const width = fields.number(0, 2 ** 32 - 1, "the width");
  const height = fields.number(0, 2 ** 32 - 1, "the height");
  const lengths: number[] = [];
  for (let i = 0; i < (layout & 15); i++) lengths.push(fields.number(0, 2 ** 32 - 1, `the length of level ${i}`));
  const chunksLength = layout & 32 ? fields.number(0, 2 ** 32 - 1, "the length of the chunks") : 0;
  check(quality >= 1 && quality <= 100, `the quality is ${quality}, expected 1..100`);
  check(layout & 15, "the level count is 0, expected 1..15");
  check(!(layout & 0xc0), "reserved bits of the layout are set");
  for (const [name, side] of [
    ["width", width],
    ["height", height],
  ] as const) {
    check(side >= 1 && side <= 65535, `the ${name} is ${side} pixels, expected 1..65535`);
  }
  check(Math.max(...lengths) <= 2 ** 28, "a level has more than 2^28 bytes");
  check(!(layout & 32) || chunksLength, "the header announces chunks of no bytes");
  const fileBytes = fields.at + lengths.reduce((sum, length) => sum + length + 4, 0) + chunksLength;
  const grey = Boolean(layout & 16);
  return { fingerprint, quality, grey, width, height, lengths, chunksLength, bytes: fields.at, fileBytes };
}

/** The content of a file as far as it is intact; FormatError if not even level 0 is. */
export function parse(data: Uint8Array): Container {
  const fields = new Fields(data);
  const header = readHeader(fields);
  const levels = [fields.sealed(header.lengths[0], "the header or level 0")];
  let damage: string | null = null;
  let opacity: Uint8Array | null = null;
  if (data.length !== header.fileBytes) {
    const what = data.length < header.fileBytes ? "truncated" : "too long";
    damage = `${what}: the file has ${data.length} bytes, its header says ${header.fileBytes}`;
  }
  try {
    for (let i = 1; i < header.lengths.length; i++) levels.push(fields.sealed(header.lengths[i], `level ${i}`));
    if (!damage) opacity = readChunks(fields);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    damage ??= error.message;
  }
  checkPixels(header, levels);
  return { header, levels, opacity, damage };
}

function checkPixels({ width, height }: Header, levels: Uint8Array[]): void {
  const evidence = levels.reduce((sum, level) => sum + level.length, 0) * PIXELS_A_BYTE;
  const limit = Math.min(MAX_PIXELS, Math.max(SMALL_PIXELS, evidence));
  check(width * height <= limit, `too many pixels: ${width} × ${height}, the limit for this file is ${limit}`);
}

/** The payload of `Alph`, if there is one. */
function readChunks(fields: Fields): Uint8Array | null {
  let opacity: Uint8Array | null = null;
  for (let count = 0; fields.at < fields.data.length; count++) {
    check(count < 64, "more than 64 chunks");
    const name = `chunk ${count}`;
    const tag = String.fromCharCode(...fields.take(4, name));
    const payload = fields.sealed(fields.number(0, 2 ** 24, `the length of ${name}`), name);
    check(/^[A-Za-z]{4}$/.test(tag), `the tag of ${name} has more than ASCII letters`);
    check(/^[a-z]/.test(tag) || tag === "Alph", `the critical chunk ${tag} is unknown`);
    if (tag !== "Alph") continue;
    check(!opacity, "two chunks Alph");
    opacity = payload;
  }
  return opacity;
}

/** Hexadecimal digits of bytes. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
