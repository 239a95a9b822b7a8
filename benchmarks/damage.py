"""Damaged and forged ``.vq`` files, and a check of how the codec handles them.

::

    a good file ──▶ truncations, flips, mutations, … ──examine──▶ Outcome: same, decoded, salvaged or refused
                                                          └─ anything else raises

A file damaged in transit has wrong checksums. A forger corrects them with ``reseal``.
"""

import itertools
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.errors import FormatError, LimitError, UnknownModelError
from vqcodec.files.container import MAGIC, MAX_CHUNKS, MAX_SIDE, SMALL_PIXELS, VERSION, Container, pack, parse
from vqcodec.files.extras import from_container

__all__ = ["CLASSES", "Class", "Good", "Kind", "Outcome", "examine", "forged_mutations", "renamed", "reseal"]

Kind = Literal["same", "decoded", "salvaged", "refused"]
LONGEST_LINE = 300  # characters of an error message


@dataclass(frozen=True)
class Good:
    """An undamaged file.

    Attributes:
        data: its bytes.
        previews: its pixels decoded from the first level, from the first two levels, …, from all levels.
    """

    data: bytes
    previews: list[NDArray[np.uint8]]

    @classmethod
    def of(cls, codec: Codec, data: bytes) -> "Good":
        """The file ``data``, with the pixels that ``codec`` decodes from it."""
        count = len(codec.model.levels)
        return cls(data, [codec.decompress(data, levels=levels) for levels in range(1, count + 1)])


@dataclass(frozen=True)
class Outcome:
    """How the codec handled a file.

    Attributes:
        kind: ``same``: the pixels of the undamaged file; ``decoded``: other pixels, which only a forgery with correct
            checksums may give; ``salvaged``: the pixels of the levels before the damage; ``refused``: no pixels.
        message: the codec's error of one line; empty if it reported none.
        pixels: that the codec gave; None if it refused the file.
    """

    kind: Kind
    message: str = ""
    pixels: NDArray[np.uint8] | None = None


def examine(codec: Codec, data: bytes, good: Good | None = None, *, max_pixels: int | None = None) -> Outcome:
    """Decode and salvage ``data``; compare the pixels with those of the undamaged file ``good`` if it is given.

    Raises AssertionError if the codec breaks a promise. Exceptions that the codec does not document pass through.
    """
    try:
        contents = parse(data, max_pixels=max_pixels)
        assert pack(contents) == data, "packing the parsed container gives other bytes"
        pixels = codec.decompress(data, max_pixels=max_pixels)
    except (FormatError, LimitError, UnknownModelError) as error:
        refusal = _clear(str(error))
    else:
        assert pixels.shape == (contents.height, contents.width, 1 if contents.grey else 3), "the size is wrong"
        _read_extras(contents)
        same = good is not None and np.array_equal(pixels, good.previews[-1])
        return Outcome("same" if same else "decoded", pixels=pixels)
    try:
        left = parse(data, intact=1, max_pixels=max_pixels)
        pixels, damage = codec.salvage(data, max_pixels=max_pixels)
    except (FormatError, LimitError, UnknownModelError) as error:
        return Outcome("refused", _clear(str(error)))
    assert damage == refusal, "salvage and decompress report different damage"
    assert pixels.shape == (left.height, left.width, 1 if left.grey else 3)
    if good is not None:
        preview = good.previews[len(left.levels) - 1]
        assert np.array_equal(pixels, preview), "the salvaged pixels are not those of the levels before the damage"
    return Outcome("salvaged", refusal, pixels)


def _read_extras(contents: Container) -> None:
    """Opacity and metadata are read, or a malformed opacity is refused in a clear line."""
    try:
        extras, warnings = from_container(contents)
    except FormatError as error:
        _clear(str(error))
        return
    assert extras.alpha is None or extras.alpha.shape == (contents.height, contents.width), (
        "the opacity's size is wrong"
    )
    for warning in warnings:
        _clear(warning)


def _clear(line: str) -> str:
    assert line, "the error message is empty"
    assert line.isprintable(), f"the error message is not one printable line: {line!r}"
    assert len(line) <= LONGEST_LINE, f"the error message is too long: {line!r}"
    return line


def reseal(data: bytes) -> bytes:
    """``data`` with correct CRC-32s in all places that its header implies, as far as it can be parsed."""
    sealed = bytearray(data)
    for start, end in _parts(data):
        if end + 4 <= len(sealed):
            sealed[end : end + 4] = _crc(sealed[start:end])
    return bytes(sealed)


def renamed(data: bytes, fingerprint: bytes) -> bytes:
    """``data`` as a file of the model ``fingerprint`` if header and level 0 are sound, and ``data`` itself otherwise.

    So a corpus serves every model: damage and forgeries stay what they are, and only the name of the weights changes.
    """
    start, end = next(_parts(data), (0, 0))
    if not end or data[end : end + 4] != _crc(data[start:end]):
        return data
    first = data[: len(MAGIC) + 1] + fingerprint + data[len(MAGIC) + 1 + len(fingerprint) : end]
    return first + _crc(first) + data[end + 4 :]


def _parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each part that a CRC-32 follows, the first being header and level 0, as far as stated."""
    try:
        at = len(MAGIC)
        _, at = _varint(data, at)
        layout = data[at + 5]
        at += 6
        numbers: list[int] = []
        for _ in range(2 + (layout & 15) + (layout >> 5 & 1)):
            number, at = _varint(data, at)
            numbers.append(number)
        start = 0
        for length in numbers[2 : 2 + (layout & 15)]:
            yield start, at + length
            start = at = at + length + 4
        while at < len(data):
            start = at
            length, at = _varint(data, at + 4)
            yield start, at + length
            at += length + 4
    except IndexError:
        pass


def _crc(part: bytes | bytearray) -> bytes:
    return zlib.crc32(part).to_bytes(4, "little")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and the index after it; raises IndexError if the data end within the number."""
    value = 0
    for shift in itertools.count(0, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise AssertionError


def truncations(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """The data cut off at every byte."""
    return (data[:end] for end in range(len(data)))


def bit_flips(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """The data with each single bit flipped."""
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def mutations(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """``count`` copies, each with one to eight random edits: bytes changed, inserted, removed, moved or repeated."""
    for _ in range(count):
        mutated = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            _edit(mutated, rng)
        yield bytes(mutated)


def _edit(data: bytearray, rng: random.Random) -> None:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 16))
    piece = bytes(data[at : at + length])
    match rng.randrange(5):
        case 0:
            data[at : at + length] = rng.randbytes(len(piece))
        case 1:
            data[at:at] = rng.randbytes(length)
        case 2:
            del data[at : at + length]
        case 3:
            del data[at : at + length]
            elsewhere = rng.randrange(len(data) + 1)
            data[elsewhere:elsewhere] = piece
        case _:
            data[at:at] = piece


def forged_mutations(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """The same as :func:`mutations`, with corrected checksums."""
    return map(reseal, mutations(data, count, rng))


def swapped_levels(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """Levels in all other orders, left out or repeated, with correct checksums; the old header and a new one."""
    contents = parse(data)
    for length in range(1, len(contents.levels) + 2):
        for levels in itertools.product(contents.levels, repeat=length):
            if levels != contents.levels:
                yield _file(_header(contents), levels)
                yield pack(replace(contents, levels=levels))


def repeated_chunks(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """A chunk once, twice, and up to more often than allowed; the header declares all of them, one, or none."""
    contents = parse(data)
    chunk = _sealed(b"note" + bytes([28]) + b"a chunk that no reader knows")
    for times in (1, 2, 3, MAX_CHUNKS - 1, MAX_CHUNKS, MAX_CHUNKS + 1, 100 * MAX_CHUNKS):
        for announced in {times, 1, 0}:
            yield _file(_header(contents, chunks=announced * len(chunk)), contents.levels) + times * chunk


def huge_sizes(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """Widths, heights and lengths around every power of two, up to the largest varint, with correct checksums."""
    contents = parse(data)
    lengths = [len(level) for level in contents.levels]
    powers = [1 << power for power in range(32)]
    numbers = sorted({power + extra for power in powers for extra in (-1, 0, 1)} | {(1 << 32) - 1})
    headers = [
        _header(contents, width=width, height=height)
        for width, height in itertools.product([*powers[:18], MAX_SIDE], repeat=2)
    ]
    for number in numbers:
        headers += [_header(contents, width=number), _header(contents, height=number)]
        for index in range(len(lengths)):
            headers.append(_header(contents, lengths=[*lengths[:index], number, *lengths[index + 1 :]]))
        headers += [_header(contents, lengths=[number] * len(lengths)), _header(contents, chunks=number)]
    for header in headers:
        yield _file(header, contents.levels)


def bombs(data: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """Files with empty levels and sizes up to the limits and above; a file with a small enough size decodes."""
    contents = parse(data)
    empty = (b"",) * len(contents.levels)
    sides = [1 << power for power in range(16)]
    sizes = {*zip(sides, sides, strict=True), *((side, MAX_SIDE) for side in sides), *((MAX_SIDE, s) for s in sides)}
    for width, height in sorted(sizes | {(SMALL_PIXELS // side + extra, side) for side in sides for extra in (0, 1)}):
        yield _file(_header(contents, width=width, height=height, lengths=[0] * len(empty)), empty)


def _header(
    contents: Container,
    *,
    width: int | None = None,
    height: int | None = None,
    lengths: list[int] | None = None,
    chunks: int = 0,
) -> bytes:
    """A header for ``contents`` that may declare false values, which ``pack`` would refuse."""
    layout = len(contents.levels) | 0x10 * contents.grey | 0x20 * bool(chunks)
    own = [len(level) for level in contents.levels] if lengths is None else lengths
    numbers = [contents.width if width is None else width, contents.height if height is None else height, *own]
    fields = MAGIC + bytes([VERSION]) + contents.fingerprint + bytes([contents.quality, layout])
    return fields + b"".join(_number(number) for number in [*numbers, *([chunks] if chunks else [])])


def _file(header: bytes, levels: tuple[bytes, ...]) -> bytes:
    return b"".join(map(_sealed, [header + levels[0], *levels[1:]]))


def _sealed(part: bytes) -> bytes:
    return part + _crc(part)


def _number(value: int) -> bytes:
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


Damage = Callable[[bytes, int, random.Random], Iterator[bytes]]
"""``damage(data, count, rng)``: damaged copies of ``data``; ``count`` of them if the damage is random."""


@dataclass(frozen=True)
class Class:
    """A class of damage.

    Attributes:
        name: its name in tables.
        damage: the function that damages a file.
        forged: whether files have correct checksums and other content, so that they may decode to other pixels.
        files: number of files to damage in this way; None for all.
    """

    name: str
    damage: Damage
    forged: bool = False
    files: int | None = None


CLASSES = (
    Class("truncated at every byte", truncations),
    Class("every single bit flipped", bit_flips),
    Class("random mutations", mutations),
    Class("random mutations, checksums forged", forged_mutations, forged=True),
    Class("levels swapped, left out, repeated", swapped_levels, forged=True),
    Class("chunks repeated", repeated_chunks),
    Class("huge sizes declared", huge_sizes, forged=True, files=1),
    Class("empty files that claim many pixels", bombs, forged=True, files=1),
)
