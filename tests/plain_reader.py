"""A second reader of ``.vq`` files, slow and plain, written from ``docs/format.md`` and nothing else.

::

    file ──container──▶ header, bitstreams ─┐
                                            ├─ codes of level 0 ─ state ─▶ codes of level 1 ─ state ─▶ …
    weights ──safetensors──▶ integers ──────┘

It shares no line with vqcodec and needs only numpy. That it agrees on the golden files says that the document is
complete. Names are those of the document. All arithmetic is in int64, but for the quantisation of frequencies.
"""

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["File", "Malformed", "container", "read_codes"]

Ints = NDArray[np.int64]

ACTIVATIONS = {24: (1023, 6), 53: (32767, 10)}  # B: A, φ
DTYPES = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


class Malformed(ValueError):
    """What a reader MUST refuse."""


def require(condition: bool, complaint: str) -> None:
    if not condition:
        raise Malformed(complaint)


# Header, levels, chunks


@dataclass(frozen=True)
class File:
    """What a file says."""

    fingerprint: bytes
    quality: int
    grey: bool
    width: int
    height: int
    bitstreams: list[bytes]
    chunks: list[tuple[bytes, bytes]]


def container(data: bytes) -> File:
    """The parts of a file."""
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        require(count <= len(data) - at, "too short")
        at += count
        return data[at - count : at]

    def number() -> int:
        digits = [take(1)[0]]
        while digits[-1] >= 0x80 and len(digits) < 5:
            digits += take(1)
        value = sum((digit & 0x7F) << 7 * place for place, digit in enumerate(digits))
        require(digits[-1] < 0x80 and value < 2**32, "a number beyond 32 bits")
        require(len(digits) == 1 or digits[-1] > 0, "a number with more bytes than it needs")
        return value

    def crc(start: int) -> None:
        found = zlib.crc32(data[start:at])
        require(found == int.from_bytes(take(4), "little"), "a wrong CRC-32")

    require(take(4) == bytes.fromhex("8f56510a"), "no .vq file")
    require(number() == 1, "an unknown version")
    fingerprint, (quality, layout) = take(4), take(2)
    width, height = number(), number()
    lengths = [number() for _ in range(layout & 15)]
    chunk_bytes = number() if layout & 32 else 0
    crc(0)
    require(1 <= quality <= 100, "a quality out of range")
    require(not layout & 0xC0, "reserved bits")
    require(bool(lengths) and max(lengths) <= 2**28, "a level count or a length out of range")
    require(1 <= width <= 65535 and 1 <= height <= 65535, "a side out of range")
    require(bool(chunk_bytes) == bool(layout & 32), "chunks of no length")
    require(len(data) == at + sum(lengths) + 4 * len(lengths) + chunk_bytes, "another size than stated")

    bitstreams = []
    for length in lengths:
        bitstreams.append(take(length))
        crc(at - length)
    chunks: list[tuple[bytes, bytes]] = []
    while at < len(data):
        start = at
        tag, length = take(4), number()
        require(length <= 2**24 and len(chunks) < 64, "too long a chunk, or too many")
        chunks.append((tag, take(length)))
        crc(start)
        require(tag.isalpha() and tag.isascii() and tag[:1].islower(), "a chunk without name, or a critical one")
    return File(fingerprint, quality, bool(layout & 16), width, height, bitstreams, chunks)


# Weights


def safetensors(weights: bytes) -> tuple[dict[str, Any], dict[str, Ints]]:
    """The configuration, and the integers of the prior by name."""
    end = 8 + int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8:end])
    config = json.loads(header.pop("__metadata__")["config"])
    tensors = {}
    for name, entry in header.items():
        if name.startswith("prior."):
            first, last = entry["data_offsets"]
            values = np.frombuffer(weights[end + first : end + last], DTYPES[entry["dtype"]])
            tensors[name.removeprefix("prior.")] = values.reshape(entry["shape"]).astype(np.int64)
    return config, tensors


class Level:
    """The maps and tables of one level."""

    def __init__(self, tensors: dict[str, Ints], index: int, bits: int, config: dict[str, Any]) -> None:
        self.tensors, self.prefix, self.bits = tensors, f"{index}.", bits
        self.A, self.phi = ACTIVATIONS[bits]
        self.stride, self.G = config["stride"], config["groups"]
        self.K, self.S = config["codebook_size"], config["stages"]

    def table(self, name: str) -> Ints:
        entries = self.tensors[self.prefix + name]
        require(int(np.abs(entries).max(initial=0)) <= self.A, "a table with an entry beyond A")
        return entries

    def has(self, name: str) -> bool:
        return f"{self.prefix}{name}.weight" in self.tensors

    def linear(self, name: str, x: Ints) -> Ints:
        """m(x) for ``x [n, in]``."""
        W, b, s = (self.tensors[f"{self.prefix}{name}.{part}"] for part in ("weight", "bias", "shift"))
        require(bool(((s >= 1) & (s <= 32)).all()), "a shift out of range")
        s = s + (self.phi - 6 if name.startswith("heads.") else 0)
        bound = self.A * np.abs(W).sum(0) + np.abs(b) + 2 ** (s - 1)
        require(bool((bound < 2**self.bits).all()), "weights whose sums may be too large")
        rounded: Ints = (2 * (x @ W + b) + 2**s) >> (s + 1)  # ⌊y / 2^s + ½⌋
        return rounded

    def clamp(self, x: Ints, low: int = 0) -> Ints:
        return np.clip(x, low, self.A)


# Entropy coding


def power(i: int) -> int:
    """F[i]: the largest integer whose 64th power is at most 2^(1408 − i)."""
    if i > 1408:
        return 0
    value: int = 2 ** (1408 - i)
    for _ in range(6):
        value = math.isqrt(value)
    return value


F = np.array([power(i) for i in range(1410)], np.int64)


class RangeDecoder:
    """Reads one code after the other from a bitstream."""

    def __init__(self, bitstream: bytes) -> None:
        require(not bitstream.endswith(b"\0"), "a zero byte at the end")
        self.bitstream, self.read = bitstream, 8
        self.range, self.offset = 2**64 - 1, int.from_bytes(bitstream[:8].ljust(8, b"\0"), "big")

    def code(self, frequencies: Ints) -> int:
        K = len(frequencies)
        scale = float(2**24 - K) / float(frequencies.sum())
        before = np.cumsum(frequencies) - frequencies
        L = [*(int(scale * float(f)) + k for k, f in enumerate(before)), 2**24]
        unit = self.range // 2**24
        point = self.offset // unit
        require(point < 2**24, "a point beyond all codes")
        k = int(np.searchsorted(L, point, side="right")) - 1
        self.offset -= unit * L[k]
        self.range = unit * (L[k + 1] - L[k])
        if self.range < 2**32:
            word = self.bitstream[self.read : self.read + 4].ljust(4, b"\0")
            self.range, self.offset = self.range << 32, self.offset << 32 | int.from_bytes(word, "big")
            self.read += 4
        return k

    def finish(self) -> None:
        require(len(self.bitstream) <= self.read and self.offset < 2**33 - 1, "bytes are left after the last code")


# Prior


def at(grid: Ints, y: Ints, x: Ints) -> Ints:
    """Rows of ``grid [h, w, C]`` at positions, zero outside."""
    h, w, _ = grid.shape
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    return np.where(inside[:, None], grid[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)], 0)


def neighbours(grid: Ints, y: Ints, x: Ints, *, itself: bool) -> Ints:
    """[up-left | up | up-right | left], and the position itself."""
    offsets = [(-1, -1), (-1, 0), (-1, 1), (0, -1), *([(0, 0)] if itself else [])]
    return np.concatenate([at(grid, y + dy, x + dx) for dy, dx in offsets], 1)


def context(level: Level, quality: int, h: int, w: int, u: Ints | None) -> Ints:
    """c ``[h, w, C]`` from the state of the level before."""
    own = level.table("quality")[quality - 1]
    if u is None:
        return np.broadcast_to(own, (h, w, len(own)))
    rows, columns, C = u.shape
    y, x = (index.ravel() for index in np.indices((rows, columns)))
    i = 0
    while level.has(f"context.{i}"):
        nine = np.concatenate([at(u, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], 1)
        u = level.clamp(level.linear(f"context.{i}", nine)).reshape(rows, columns, C)
        i += 1
    f = h // rows
    spread = level.linear("spread", u.reshape(-1, C)).reshape(rows, columns, C, f, f)
    c: Ints = spread.transpose(0, 3, 1, 4, 2).reshape(h, w, C) + own
    return c


def decode_level(level: Level, c: Ints, decode: Callable[[Ints], int]) -> tuple[Ints, Ints]:
    """Codes ``[G, h, w]`` and state ``[h, w, C]`` of a level."""
    h, w, C = c.shape
    codes = np.zeros((level.G, h, w), np.int64)
    e = np.zeros((h, w, C), np.int64)
    layers = [f"layers.{i}" for i in range(sum(level.has(f"layers.{i}") for i in range(99)))]
    hs = [np.zeros((h, w, C), np.int64) for _ in range(len(layers) + 1)]
    groups = np.arange(level.G).reshape(level.S, -1)
    for step in range(w + 2 * (h - 1)):
        y = np.arange(h)
        y = y[(step - 2 * y >= 0) & (step - 2 * y < w)]
        x = step - 2 * y
        hs[0][y, x] = level.clamp(level.linear("first", neighbours(e, y, x, itself=False)) + c[y, x])
        for i, name in enumerate(layers):
            hs[i + 1][y, x] = level.clamp(level.linear(name, neighbours(hs[i], y, x, itself=True)) + hs[i][y, x])
        r = np.split(level.linear("hidden", hs[-1][y, x]), level.S, axis=1)
        n = np.zeros((len(y), C), np.int64)
        for t, stage in enumerate(groups):
            a = level.linear(f"heads.{t}", level.clamp(r[t] + n)).reshape(len(y), len(stage), level.K)
            frequencies = F[np.minimum(a.max(2, keepdims=True) - a, 1409)]
            for row in range(len(y)):
                for j, g in enumerate(stage):
                    codes[g, y[row], x[row]] = decode(frequencies[row, j])
            if t + 1 < level.S:
                told = sum(level.table("inner")[g, codes[g, y, x]] for g in stage)
                n = n + level.clamp(np.asarray(told), -level.A)
        e[y, x] = level.clamp(
            np.asarray(sum(level.table("embed")[g, codes[g, y, x]] for g in range(level.G))), -level.A
        )
    return codes, level.clamp(e + c, -level.A)


def read_codes(data: bytes, weights: bytes) -> list[Ints]:
    """The codes ``[G, h, w]`` of a file's levels, coarsest first, as they were coded: a tall picture transposed."""
    file = container(data)
    config, tensors = safetensors(weights)
    bits = config.get("prior", {}).get("sum_bits", 53)
    levels = [Level(tensors, index, bits, own) for index, own in enumerate(config["model"]["levels"])]
    require(len(file.bitstreams) == len(levels), "another level count than the weights'")
    P = levels[0].stride
    short, long = (-(-side // P) * P for side in sorted((file.width, file.height)))
    codes: list[Ints] = []
    state = None
    for level, bitstream in zip(levels, file.bitstreams, strict=True):
        decoder = RangeDecoder(bitstream)
        c = context(level, file.quality, short // level.stride, long // level.stride, state)
        grid, state = decode_level(level, c, decoder.code)
        decoder.finish()
        codes.append(grid)
    return codes
