// A decoder of raw LZMA2 streams, as the specification of the .xz format and the LZMA SDK describe them.

import { check } from "./errors.ts";

const DICTIONARY = 2 ** 20;

// Where each kind of probability begins.
const IS_MATCH = 0;
const IS_REP = 192;
const IS_REP_0 = 204;
const IS_REP_1 = 216;
const IS_REP_2 = 228;
const IS_REP_0_LONG = 240;
const SLOT = 432;
const SPECIAL = 688;
const ALIGN = 803;
const LENGTH = 819;
const REP_LENGTH = 1333; // 514 after LENGTH
const LITERAL = 1847; // 514 after REP_LENGTH

/** The `length` bytes of a stream, which must end with its end marker exactly there. */
export function inflateLzma2(stream: Uint8Array, length: number): Uint8Array {
  const decoder = new Lzma2(stream, new Uint8Array(length));
  decoder.run();
  return decoder.out;
}

class Lzma2 {
  #at = 0; // in the stream
  #end = 0; // of the chunk
  #position = 0; // in the output
  #begin = 0; // of the dictionary in the output
  #range = 0;
  #code = 0;
  #state = 0;
  #reps = [0, 0, 0, 0];
  #lc = 0;
  #lp = 0;
  #pb = 0;
  #probabilities = new Uint16Array(LITERAL);

  constructor(
    readonly stream: Uint8Array,
    readonly out: Uint8Array,
  ) {}

  run(): void {
    let needed = 3; // how much the next chunk must reset: dictionary, properties, state
    for (let control = this.#byte(); control; control = this.#byte()) {
      if (control < 0x80) {
        check(control <= 2, "an LZMA2 chunk of an unknown kind");
        if (control === 1) [this.#begin, needed] = [this.#position, Math.min(needed, 2)];
        check(needed < 3, "an LZMA2 stream without a dictionary");
        this.#copy(this.#word() + 1);
        continue;
      }
      const size = ((control & 0x1f) << 16) + this.#word() + 1;
      const packed = this.#word() + 1;
      const reset = (control >> 5) & 3;
      check(reset >= needed, "an LZMA2 chunk that depends on one before it");
      if (reset === 3) this.#begin = this.#position;
      if (reset >= 2) this.#properties(this.#byte());
      if (reset >= 1) this.#reset();
      needed = 0;
      this.#decode(size, packed);
    }
    check(this.#position === this.out.length, "an LZMA2 stream with too few bytes");
    check(this.#at === this.stream.length, "bytes after an LZMA2 stream");
  }

  #byte(): number {
    check(this.#at < this.stream.length, "an LZMA2 stream that ends too early");
    return this.stream[this.#at++];
  }

  #word(): number {
    return (this.#byte() << 8) | this.#byte();
  }

  #copy(size: number): void {
    check(size <= this.stream.length - this.#at, "an LZMA2 stream that ends too early");
    check(size <= this.out.length - this.#position, "an LZMA2 stream with too many bytes");
    this.out.set(this.stream.subarray(this.#at, this.#at + size), this.#position);
    this.#at += size;
    this.#position += size;
  }

  #properties(byte: number): void {
    check(byte < 225, "LZMA2 properties out of range");
    [this.#lc, this.#lp, this.#pb] = [byte % 9, Math.floor(byte / 9) % 5, Math.floor(byte / 45)];
    check(this.#lc + this.#lp <= 4, "LZMA2 properties out of range");
  }

  #reset(): void {
    this.#state = 0;
    this.#reps = [0, 0, 0, 0];
    this.#probabilities = new Uint16Array(LITERAL + (0x300 << (this.#lc + this.#lp))).fill(1024);
  }

  #decode(size: number, packed: number): void {
    check(packed >= 5 && packed <= this.stream.length - this.#at, "an LZMA2 stream that ends too early");
    check(size <= this.out.length - this.#position, "an LZMA2 stream with too many bytes");
    this.#end = this.#at + packed;
    check(this.#byte() === 0, "an LZMA2 chunk that begins with another byte than 0");
    [this.#range, this.#code] = [0xffffffff, ((this.#word() << 16) | this.#word()) >>> 0];
    const last = this.#position + size;
    while (this.#position < last) this.#next(last);
    check(this.#at === this.#end && this.#code === 0, "an LZMA2 chunk that does not end with its last byte");
  }

  /** One literal or one match, which must end before `last`. */
  #next(last: number): void {
    const position = this.#position - this.#begin;
    const place = position & ((1 << this.#pb) - 1);
    const reps = this.#reps;
    if (!this.#bit(IS_MATCH + this.#state * 16 + place)) {
      this.#literal(position);
      return;
    }
    let length: number;
    const late = this.#state >= 7;
    if (!this.#bit(IS_REP + this.#state)) {
      length = this.#length(LENGTH, place);
      reps.pop();
      reps.unshift(this.#distance(length));
      this.#state = late ? 10 : 7;
    } else {
      const which = this.#which(place);
      if (which < 0) length = 1;
      else {
        reps.unshift(...reps.splice(which, 1));
        length = this.#length(REP_LENGTH, place);
      }
      this.#state = which < 0 ? (late ? 11 : 9) : late ? 11 : 8;
    }
    const back = reps[0] + 1;
    check(back <= Math.min(position, DICTIONARY), "an LZMA2 match before the dictionary");
    check(this.#position + length <= last, "an LZMA2 match beyond its chunk");
    for (; length; length--, this.#position++) this.out[this.#position] = this.out[this.#position - back];
  }

  /** Which of the last distances comes again; −1 for the last one and a single byte. */
  #which(place: number): number {
    if (!this.#bit(IS_REP_0 + this.#state)) return this.#bit(IS_REP_0_LONG + this.#state * 16 + place) ? 0 : -1;
    if (!this.#bit(IS_REP_1 + this.#state)) return 1;
    return this.#bit(IS_REP_2 + this.#state) ? 3 : 2;
  }

  #literal(position: number): void {
    const before = position ? this.out[this.#position - 1] : 0;
    const context = ((position & ((1 << this.#lp) - 1)) << this.#lc) + (before >> (8 - this.#lc));
    const base = LITERAL + 0x300 * context;
    let symbol = 1;
    if (this.#state >= 7) {
      check(this.#reps[0] < position, "an LZMA2 match before the dictionary");
      let match = this.out[this.#position - this.#reps[0] - 1];
      for (let offset = 0x100; symbol < 0x100; ) {
        match <<= 1;
        const expected = match & offset;
        const bit = this.#bit(base + offset + expected + symbol);
        symbol = (symbol << 1) | bit;
        offset &= bit ? expected : ~expected;
      }
    } else while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(base + symbol);
    this.out[this.#position++] = symbol;
    this.#state = this.#state < 4 ? 0 : this.#state - (this.#state < 10 ? 3 : 6);
  }

  #length(base: number, place: number): number {
    if (!this.#bit(base)) return 2 + this.#tree(base + 2 + place * 8, 3);
    if (!this.#bit(base + 1)) return 10 + this.#tree(base + 130 + place * 8, 3);
    return 18 + this.#tree(base + 258, 8);
  }

  #distance(length: number): number {
    const slot = this.#tree(SLOT + Math.min(length - 2, 3) * 64, 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1;
    const high = (2 | (slot & 1)) * 2 ** bits;
    if (slot < 14) return high + this.#reverse(SPECIAL + high - slot, bits);
    let middle = 0;
    for (let i = 4; i < bits; i++) middle = middle * 2 + this.#plain();
    return high + middle * 16 + this.#reverse(ALIGN, 4);
  }

  /** A number of `bits` bits, the highest first. */
  #tree(base: number, bits: number): number {
    let symbol = 1;
    for (let i = 0; i < bits; i++) symbol = (symbol << 1) | this.#bit(base + symbol);
    return symbol - (1 << bits);
  }

  /** The same, the lowest first. */
  #reverse(base: number, bits: number): number {
    let [symbol, value] = [1, 0];
    for (let i = 0; i < bits; i++) {
      const bit = this.#bit(base + symbol);
      symbol = (symbol << 1) | bit;
      value |= bit << i;
    }
    return value;
  }

  #bit(index: number): number {
    const probability = this.#probabilities[index];
    const bound = (this.#range >>> 11) * probability;
    const bit = this.#code < bound ? 0 : 1;
    if (bit) {
      this.#range -= bound;
      this.#code -= bound;
      this.#probabilities[index] = probability - (probability >> 5);
    } else {
      this.#range = bound;
      this.#probabilities[index] = probability + ((2048 - probability) >> 5);
    }
    this.#normalise();
    return bit;
  }

  /** A bit that is 0 as often as 1. */
  #plain(): number {
    this.#range = Math.floor(this.#range / 2);
    const bit = this.#code >= this.#range ? 1 : 0;
    if (bit) this.#code -= this.#range;
    this.#normalise();
    return bit;
  }

  #normalise(): void {
    if (this.#range >= 2 ** 24) return;
    check(this.#at < this.#end, "an LZMA2 chunk that ends too early");
    this.#range = (this.#range << 8) >>> 0;
    this.#code = ((this.#code << 8) | this.stream[this.#at++]) >>> 0;
  }
}
