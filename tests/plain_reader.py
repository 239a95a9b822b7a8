"""A second reader of ``.vq`` files, written from docs/format.md alone: plain, slow, and only numpy.

It shares no code with vqcodec, so if both read the same, the document is complete. Names are those of the document. Of
a model's two files it reads only the decoder side.

    decoder side ──Weights──▶ tables, linear maps ──Level──▶ frequencies ──quantise──▶ L ─┐
    .vq file ──parse──▶ Container ──bitstreams────────────────────────▶ RangeDecoder ◀────┘──▶ codes, coarsest first
"""

import hashlib
import json
import lzma
import math
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
A = 1023  # the largest activation
DTYPES = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
# The positions that a linear map sees, as (x, y) relative to the current position, in the order of its inputs.
FIRST = [(-1, -1), (0, -1), (1, -1), (-1, 0)]
LAYERS = [*FIRST, (0, 0)]
CONTEXT = [*LAYERS, (1, 0), (-1, 1), (0, 1), (1, 1)]


class FormatError(ValueError):
    """Data that a reader must refuse."""


def check(condition: object, message: str) -> None:
    """Refuse the data with ``message`` unless ``condition`` holds."""
    if not condition:
        raise FormatError(message)


@dataclass(frozen=True)
class Container:
    """The fields of a file, without those that follow from others."""

    fingerprint: bytes
    quality: int
    grey: bool
    width: int
    height: int
    levels: list[bytes]
    chunks: list[tuple[bytes, bytes]]


class Fields:
    """Reads one field after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.checked = data, 0, 0  # checked: the end of the last CRC-32

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        check(length <= len(self.data) - self.at, "the file ends too early")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, low: int, high: int, name: str) -> int:
        """The next varint, which must lie in low..high."""
        value = shift = 0
        # A varint has at most five bytes. If the fifth has its top bit set, the value is too large.
        while (byte := self.take(1)[0]) > 127 and shift < 28:
            value, shift = value | (byte & 127) << shift, shift + 7
        check(byte or not shift, f"{name}: a number in more bytes than it needs")
        value |= byte << shift
        check(low <= value <= high, f"{name} is not within {low}..{high}")
        return value

    def crc(self, name: str) -> None:
        """The next four bytes, which must be the CRC-32 of everything since the CRC-32 before."""
        expected = zlib.crc32(self.data[self.checked : self.at])
        check(int.from_bytes(self.take(4), "little") == expected, f"{name} is damaged")
        self.checked = self.at


def parse(data: bytes) -> Container:
    """The content of a file, or FormatError."""
    fields = Fields(data)
    check(fields.take(4) == bytes.fromhex("8f56510a"), "not a .vq file")
    # Another version may differ in everything after the version byte.
    check((version := fields.take(1)[0]) == 1, f"version {version} is unknown: a newer program may have made the file")
    fingerprint = fields.take(4)
    quality, layout = fields.take(2)
    check(1 <= quality <= 100, f"quality is {quality}, not 1..100")
    check(layout & 15, "no levels")
    check(not layout & 0b1100_0000, "reserved bits are set")
    width, height = fields.number(1, 65535, "width"), fields.number(1, 65535, "height")
    lengths = [fields.number(0, 2**28, "a level length") for _ in range(layout & 15)]
    chunk_length = fields.number(1, 2**32 - 1, "the length of chunks") if layout & 32 else 0
    rest = sum(lengths) + 4 * len(lengths) + chunk_length
    check(len(data) - fields.at == rest, f"{len(data) - fields.at} bytes after the header, not {rest}")
    levels, chunks = [], list[tuple[bytes, bytes]]()
    for i, length in enumerate(lengths):
        levels.append(fields.take(length))
        fields.crc(f"level {i}" if i else "the header or level 0")
    while fields.at < len(data):
        check(len(chunks) < 64, "more than 64 chunks")
        chunks.append(read_chunk(fields))
    return Container(fingerprint, quality, bool(layout & 16), width, height, levels, chunks)


def read_chunk(fields: Fields) -> tuple[bytes, bytes]:
    """The tag and the payload of the next chunk."""
    tag = fields.take(4)
    check(tag.isalpha(), f"the chunk tag {tag!r} has more than ASCII letters")
    payload = fields.take(fields.number(0, 2**24, "the length of a chunk"))
    fields.crc(f"the chunk {tag!r}")
    check(tag[:1].islower() or tag == b"Alph", f"the critical chunk {tag!r} is unknown")
    return tag, payload


def read_alpha(payload: bytes, height: int, width: int) -> Ints:
    """The opacities [height, width] of a chunk ``Alph``."""
    if len(payload) == 1:
        return np.full((height, width), payload[0], np.int64)
    check(payload[:1] in (b"\0", b"\1", b"\2", b"\3"), "an unknown predictor of opacities")
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}])
    try:
        r = decoder.decompress(payload[1:], height * width + 1)
    except lzma.LZMAError:
        raise FormatError("opacities that are no LZMA2") from None
    check(decoder.eof and not decoder.unused_data and len(r) == height * width, "opacities of another length")
    alpha = np.zeros((height + 1, width + 1), np.int64)  # with a row and a column of zeros before it
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            left, up, corner = alpha[y, x - 1], alpha[y - 1, x], alpha[y - 1, x - 1]
            prediction = [0, left, up, left + up - corner][payload[0]]
            alpha[y, x] = (r[(y - 1) * width + x - 1] + prediction) % 256
    return alpha[1:, 1:]


def picture_alpha(file: Container) -> Ints | None:
    """The opacities of a file, or None for an opaque picture."""
    payloads = [payload for tag, payload in file.chunks if tag == b"Alph"]
    check(len(payloads) < 2, "two chunks Alph")
    return read_alpha(payloads[0], file.height, file.width) if payloads else None


@dataclass(frozen=True)
class Linear:
    """A linear map; ``shift`` is s."""

    weight: Ints
    bias: Ints
    shift: Ints

    def __call__(self, x: Ints) -> Ints:
        """⌊(Σ_i x_i·W_ij + b_j) / 2^shift_j + ½⌋ of each row of ``x``."""
        return (x @ self.weight + self.bias + (np.int64(1) << (self.shift - 1))) >> self.shift


class Weights:
    """The configuration and the integer tensors of a decoder side, checked at access."""

    def __init__(self, data: bytes) -> None:
        start = 8 + int.from_bytes(data[:8], "little")
        self.header: dict[str, Any] = json.loads(data[8:start])
        self.body, metadata = data[start:], self.header["__metadata__"]
        check(metadata["format"] == "vqcodec-decoder-1", "weights of a format that docs/format.md does not describe")
        config = json.loads(metadata["config"])
        self.levels: list[dict[str, int]] = config["model"]["levels"]
        self.prior: dict[str, int] = config["prior"]
        self.C = self.prior["channels"]

    def tensor(self, name: str, shape: list[int]) -> Ints:
        """The tensor ``name``, which must have ``shape``."""
        check(name in self.header, f"the weights have no {name}")
        entry = self.header[name]
        check(entry["dtype"] in DTYPES and entry["shape"] == shape, f"{name} is not integers {shape}")
        data = self.body[slice(*entry["data_offsets"])]
        return np.frombuffer(data, DTYPES[entry["dtype"]]).reshape(entry["shape"]).astype(np.int64)

    def table(self, name: str, shape: list[int]) -> Ints:
        """A table, whose entries must be within ±A."""
        table = self.tensor(name, shape)
        check(((table >= -A) & (table <= A)).all(), f"{name} has entries beyond ±{A}")
        return table

    def linear(self, name: str, inputs: int, outputs: int) -> Linear:
        """A linear map whose sums must stay below 2^24."""
        weight = self.tensor(f"{name}.weight", [inputs, outputs])
        bias, s = (self.tensor(f"{name}.{part}", [outputs]) for part in ("bias", "shift"))
        check(((s >= 1) & (s <= 32)).all(), f"{name}.shift is not within 1..32")
        # A single entry above this breaks the bound; without such an entry, the 64-bit sums below are exact.
        most = 2**24 // A
        check(((weight >= -most) & (weight <= most)).all(), f"{name} has sums of 2^24 or more")
        # Python's integers: A times a column's sum, or the modulus of a bias, need not fit 64 bits.
        columns = zip(np.abs(weight).sum(axis=0).tolist(), bias.tolist(), s.tolist(), strict=True)
        sums = [A * column + abs(b) + 2 ** (shift - 1) for column, b, shift in columns]
        check(max(sums) < 2**24, f"{name} has sums of 2^24 or more")
        return Linear(weight, bias, s)


def root64(n: int) -> int:
    """The largest integer whose 64th power is at most ``n``; roots rounded down may be nested."""
    for _ in range(6):
        n = math.isqrt(n)
    return n


F = np.array([root64(2 ** (1408 - i)) for i in range(1409)] + [0], np.int64)


def quantise(frequencies: Ints) -> Ints:
    """The L_0 … L_K of frequencies along the last axis."""
    K = frequencies.shape[-1]
    sums = frequencies.cumsum(axis=-1)
    L = np.zeros((*frequencies.shape[:-1], K + 1), np.int64)
    scale = np.float64(2**24 - K) / sums[..., -1:].astype(np.float64)
    # Two operations of numpy are each rounded, never fused; astype truncates.
    L[..., 1:] = (scale * sums.astype(np.float64)).astype(np.int64) + np.arange(1, K + 1)
    L[..., K] = 2**24
    return L


class RangeDecoder:
    """Takes codes out of a bitstream."""

    def __init__(self, bitstream: bytes) -> None:
        check(not bitstream.endswith(b"\0"), "a bitstream that ends with a zero byte")
        self.bitstream, self.at = bitstream, 0
        self.range, self.offset = 2**64 - 1, self.word(8)

    def word(self, length: int) -> int:
        """The next ``length`` bytes of the fraction, which ends with zeros for ever."""
        self.at += length
        return int.from_bytes(self.bitstream[self.at - length : self.at].ljust(length, b"\0"), "big")

    def code(self, L: list[int]) -> int:
        """The next code."""
        unit = self.range >> 24
        point = self.offset // unit
        check(point < 2**24, "a bitstream that no writer makes: beyond the last code")
        k = bisect_right(L, point) - 1
        self.offset -= unit * L[k]
        self.range = unit * (L[k + 1] - L[k])
        if self.range < 2**32:
            self.range, self.offset = self.range << 32, self.offset << 32 | self.word(4)
        return k

    def end(self) -> None:
        """Refuse a bitstream with bytes left."""
        check(self.at >= len(self.bitstream) and self.offset < 2**33 - 1, "a bitstream goes on after the last code")


def around(grid: Ints, x: Ints, y: Ints, cells: list[tuple[int, int]]) -> Ints:
    """The values of a grid with a border of one zero at ``cells``, shifted by each (x, y), side by side."""
    return np.concatenate([grid[y + 1 + dy, x + 1 + dx] for dx, dy in cells], axis=1)


def clamp(x: Ints, low: int = 0) -> Ints:
    """``x`` within low..A."""
    return x.clip(low, A)


class Level:
    """The prior of one level."""

    def __init__(self, weights: Weights, number: int) -> None:
        prior, config, C = weights.prior, weights.levels[number], weights.C
        self.G, K, self.S = config["groups"], config["codebook_size"], config["stages"]
        check(self.G % self.S == 0, f"level {number}: stages do not divide groups")
        self.f, rest = divmod(weights.levels[max(number - 1, 0)]["stride"], config["stride"])
        check(rest == 0, f"level {number}: its stride does not divide the one before")
        name, per_stage = f"prior.{number}.", self.G // self.S
        self.embed = weights.table(name + "embed", [self.G, K, C])
        self.inner = weights.table(name + "inner", [self.G - per_stage, K, C])
        self.quality = weights.table(name + "quality", [100, C])
        contexts = range(prior["context_layers"] if number else 0)
        self.context = [weights.linear(f"{name}context.{i}", 9 * C, C) for i in contexts]
        self.spread = weights.linear(name + "spread", C, self.f**2 * C) if number else None
        self.first = weights.linear(name + "first", 4 * C, C)
        self.layers = [weights.linear(f"{name}layers.{i}", 5 * C, C) for i in range(prior["layers"])]
        self.hidden = weights.linear(name + "hidden", C, self.S * C)
        self.heads = [weights.linear(f"{name}heads.{t}", C, per_stage * K) for t in range(self.S)]

    def context_of(self, u: Ints, q: int) -> Ints:
        """c [rows, columns, C] at quality ``q``, from the state u of the level before; zeros for level 0."""
        quality: Ints = self.quality[q - 1]
        if self.spread is None:
            return u + quality
        y, x = np.indices(u.shape[:2]).reshape(2, -1)
        for m in self.context:
            u = clamp(m(around(np.pad(u, [(1, 1), (1, 1), (0, 0)]), x, y, CONTEXT))).reshape(u.shape)
        rows, columns, C = u.shape
        # [row, column, k, i, j] to [row, i, column, j, k]
        spread = self.spread(u).reshape(rows, columns, C, self.f, self.f).transpose(0, 3, 1, 4, 2)
        return spread.reshape(rows * self.f, columns * self.f, C) + quality

    def read(self, bitstream: bytes, c: Ints) -> tuple[Ints, Ints]:
        """The codes [G, rows, columns] of a bitstream and the state [rows, columns, C]."""
        rows, columns, C = c.shape
        decoder, groups = RangeDecoder(bitstream), np.arange(self.G)
        codes = np.zeros((self.G, rows, columns), np.int64)
        e, *h = np.zeros((2 + len(self.layers), rows + 2, columns + 2, C), np.int64)  # with a border of zeros
        for step in range(columns + 2 * (rows - 1)):
            y = np.arange(max(0, (step - columns) // 2 + 1), min(rows, step // 2 + 1))
            x = step - 2 * y
            h[0][y + 1, x + 1] = clamp(self.first(around(e, x, y, FIRST)) + c[y, x])
            for m, before, after in zip(self.layers, h, h[1:], strict=False):
                after[y + 1, x + 1] = clamp(m(around(before, x, y, LAYERS)) + before[y + 1, x + 1])
            r = self.hidden(h[-1][y + 1, x + 1]).reshape(-1, self.S, C)
            new = self.read_step(decoder, r)
            codes[:, y, x] = new.T
            e[y + 1, x + 1] = clamp(self.embed[groups, new].sum(axis=1), -A)
        decoder.end()
        return codes, clamp(e[1:-1, 1:-1] + c, -A)

    def read_step(self, decoder: RangeDecoder, r: Ints) -> Ints:
        """The codes [positions, G] of one x + 2y: stage by stage, then by y, then by group."""
        positions, per_stage = len(r), self.G // self.S
        new, n = np.zeros((positions, self.G), np.int64), np.zeros_like(r[:, 0])
        for t, head in enumerate(self.heads):
            groups = np.arange(t * per_stage, (t + 1) * per_stage)
            a = head(clamp(r[:, t] + n)).reshape(positions, per_stage, -1)
            L = quantise(F[np.minimum(a.max(axis=2, keepdims=True) - a, 1409)])
            new[:, groups] = [[decoder.code(part) for part in position] for position in L.tolist()]
            if t < self.S - 1:
                n += clamp(self.inner[groups, new[:, groups]].sum(axis=1), -A)
        return new


def read_codes(data: bytes, weights: bytes) -> list[Ints]:
    """The codes of a file, [G, H_l, W_l] each, coarsest first, in the orientation in which they were coded."""
    file, model = parse(data), Weights(weights)
    fingerprint = hashlib.sha256(weights).digest()[:4]
    check(file.fingerprint == fingerprint, f"the file needs weights {file.fingerprint.hex()}, not {fingerprint.hex()}")
    check(len(file.levels) == len(model.levels), f"{len(file.levels)} levels, the weights have {len(model.levels)}")
    P = model.levels[0]["stride"]
    h, w = (-(-side // P) for side in sorted([file.width, file.height]))  # of the padded picture, in strides
    codes, state = [], np.zeros((h, w, model.C), np.int64)
    for number, bitstream in enumerate(file.levels):
        level = Level(model, number)
        grid, state = level.read(bitstream, level.context_of(state, file.quality))
        codes.append(grid)
    return codes
