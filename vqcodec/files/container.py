"""The ``.vq`` container, format version 1: the bytes around the bitstreams. ``docs/format.md`` is normative.

::

    Container ──pack──▶ header · CRC │ level 0 · CRC │ level 1 · CRC │ … │ chunk · CRC │ … ──parse──▶ Container
                        └ states every length that follows, so the exact size of the file

    damaged bytes ──salvage──▶ Container of the levels before the damage, and what is damaged

A container has exactly one form: ``pack(parse(data)) == data`` for all bytes that ``parse`` accepts.
What the bitstreams say is not known here, only that they are the bytes that were written.
"""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from vqcodec.config import QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import FormatError, LimitError

__all__ = [
    "FINGERPRINT_BYTES",
    "MAGIC",
    "MAX_CHUNKS",
    "MAX_CHUNK_BYTES",
    "MAX_LEVELS",
    "MAX_LEVEL_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "PIXELS_A_BYTE",
    "SMALL_PIXELS",
    "VERSION",
    "BytesLike",
    "Container",
    "Salvage",
    "pack",
    "parse",
    "salvage",
]

MAGIC = b"\x8fVQ\n"  # 8f opens no UTF-8 text and is no cp1252 letter; \n does not survive a change of line ends
VERSION = 1
FINGERPRINT_BYTES = 4
MAX_LEVELS = 15
MAX_SIDE = 65_535  # pixels
MAX_PIXELS = 2**27  # what parse accepts unless told otherwise; the format itself has no such limit,
SMALL_PIXELS = 2**22  # nor this one: above so many pixels,
PIXELS_A_BYTE = 2**16  # a file must have a byte for so many (a plain surface has one for up to 26,000)
MAX_LEVEL_BYTES = 2**28
MAX_CHUNKS = 64
MAX_CHUNK_BYTES = 2**24  # of payload

BytesLike = bytes | bytearray | memoryview
"""A file in memory."""

_LEVELS, _GREY, _CHUNKS, _RESERVED = 0x0F, 0x10, 0x20, 0xC0  # the fields of the layout byte
_TAG_BYTES = 4
_CRC_BYTES = 4
_VARINT_MAX = 2**32 - 1


@dataclass(frozen=True)
class Container:
    """The contents of a ``.vq`` file; it may hold anything, ``pack`` and ``parse`` check the limits."""

    width: int  # of the picture in pixels, 1..MAX_SIDE
    height: int
    grey: bool  # the picture has one channel, not three
    quality: int  # QUALITY_MIN..QUALITY_MAX, an input of the decoder
    fingerprint: bytes  # FINGERPRINT_BYTES that name the weights
    levels: tuple[bytes, ...] = field(repr=False)  # one bitstream a level, coarsest first; 1..MAX_LEVELS
    chunks: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)  # (tag, payload), in file order


def pack(container: Container) -> bytes:
    """The file that holds ``container``, byte for byte determined by it.

    Raises ValueError for a field that is out of range, or a chunk that no reader would accept.
    """
    c = container
    lengths = [len(level) for level in c.levels]
    problem = next(_header_problems(c.width, c.height, c.quality, lengths), None)
    if problem is None and len(c.fingerprint) != FINGERPRINT_BYTES:
        problem = f"the fingerprint has {len(c.fingerprint)} bytes, expected {FINGERPRINT_BYTES}"
    if problem is None and len(c.chunks) > MAX_CHUNKS:
        problem = f"{len(c.chunks)} chunks, the limit is {MAX_CHUNKS}"
    for number, (tag, payload) in enumerate(c.chunks):
        problem = problem or _length_problem(f"chunk {number}", len(payload), MAX_CHUNK_BYTES)
        problem = problem or _tag_problem(number, tag)
    if problem:
        raise ValueError(problem)

    chunks = b"".join(_sealed(tag + _varint(len(payload)) + payload) for tag, payload in c.chunks)
    layout = len(lengths) | (_GREY if c.grey else 0) | (_CHUNKS if chunks else 0)
    numbers = [c.width, c.height, *lengths, *([len(chunks)] if chunks else [])]
    header = MAGIC + _varint(VERSION) + c.fingerprint + bytes([c.quality, layout])
    header += b"".join(_varint(number) for number in numbers)
    return b"".join([_sealed(header), *(_sealed(level) for level in c.levels), chunks])


def parse(data: BytesLike, *, max_pixels: int | None = None) -> Container:
    """The contents of the whole file ``data``, every byte of it accounted for and checked.

    Nothing is sliced or allocated on the word of the file: each length is first held against the
    bytes that are there. Unknown ancillary chunks are kept, unknown critical ones refused.

    Raises FormatError, with one line that says what was found and what was expected, and LimitError for more than
    ``max_pixels`` pixels; by default, more than MAX_PIXELS, or more than a file of this size can be trusted to mean.
    """
    reader = _Reader(data)
    header = _read_header(reader, max_pixels)
    size = reader.at + sum(length + _CRC_BYTES for length in header.lengths) + header.chunks_length
    if len(reader.data) < size:
        raise FormatError(f"truncated: the file has {len(reader.data)} bytes, its header says {size}")
    if len(reader.data) > size:
        raise FormatError(f"too long: the file has {len(reader.data)} bytes, its header says {size}")
    levels = [reader.sealed(length, f"level {number}") for number, length in enumerate(header.lengths)]
    return header.container(levels, _read_chunks(reader))


@dataclass(frozen=True)
class Salvage:
    """What is left of a file: ``container`` has the levels that are whole, of ``level_count`` that there were.

    ``damage`` says what was found first, None if nothing is wrong at all. Chunks are only there in that case.
    """

    container: Container
    level_count: int
    damage: str | None


def salvage(data: BytesLike, *, max_pixels: int | None = None) -> Salvage:
    """The contents of ``data`` up to the first damage: the finer levels say nothing without the coarser ones.

    Raises FormatError where not even level 0 is left, and as :func:`parse` does for what the header says.
    """
    try:
        whole = parse(data, max_pixels=max_pixels)
        return Salvage(whole, len(whole.levels), None)
    except FormatError as error:
        damage = str(error)
    reader = _Reader(data)
    header = _read_header(reader, max_pixels)
    levels: list[bytes] = []
    with contextlib.suppress(FormatError):
        for number, length in enumerate(header.lengths):
            levels.append(reader.sealed(length, f"level {number}"))
    if not levels:
        raise FormatError(f"{damage}; not even level 0 is whole")
    return Salvage(header.container(levels, []), len(header.lengths), damage)


@dataclass(frozen=True)
class _Header:
    """What a file says before its levels."""

    width: int
    height: int
    grey: bool
    quality: int
    fingerprint: bytes
    lengths: list[int]
    chunks_length: int

    def container(self, levels: list[bytes], chunks: list[tuple[bytes, bytes]]) -> Container:
        return Container(
            self.width, self.height, self.grey, self.quality, self.fingerprint, tuple(levels), tuple(chunks)
        )


def _read_header(reader: "_Reader", max_pixels: int | None) -> _Header:
    _check_magic(reader.data)
    reader.take(len(MAGIC), "the magic number")
    version = reader.varint("the format version")
    if version > VERSION:
        raise FormatError(f"made by a newer vqcodec: format version {version}, this one reads {VERSION}")
    if version < VERSION:
        raise FormatError(f"format version {version}, which was never in use; this one reads {VERSION}")
    fingerprint = reader.take(FINGERPRINT_BYTES, "the fingerprint")
    quality, layout = reader.take(2, "the quality and layout")
    width, height = reader.varint("the width"), reader.varint("the height")
    lengths = [reader.varint(f"the length of level {number}") for number in range(layout & _LEVELS)]
    chunks_length = reader.varint("the length of the chunks") if layout & _CHUNKS else 0
    reader.check_crc(0, "header")

    if layout & _RESERVED:
        raise FormatError(f"reserved bits are set: layout byte is {layout:#04x}, bits {_RESERVED:#04x} must be zero")
    if layout & _CHUNKS and not chunks_length:
        raise FormatError("chunks of 0 bytes in all: a file without chunks must not announce any")
    for problem in _header_problems(width, height, quality, lengths):
        raise FormatError(problem)
    limit, where = MAX_PIXELS if max_pixels is None else max_pixels, ""
    trusted = max(SMALL_PIXELS, PIXELS_A_BYTE * len(reader.data))
    if max_pixels is None and trusted < limit:
        limit, where = trusted, f" in a file of {len(reader.data)} bytes"
    if width * height > limit:
        raise LimitError(f"too many pixels: {width}x{height} is {width * height}, the limit{where} is {limit}")
    return _Header(width, height, bool(layout & _GREY), quality, fingerprint, lengths, chunks_length)


def _read_chunks(reader: "_Reader") -> list[tuple[bytes, bytes]]:
    """All that is left."""
    chunks: list[tuple[bytes, bytes]] = []
    while reader.left:
        if len(chunks) == MAX_CHUNKS:
            raise FormatError(f"too many chunks: {reader.left} bytes follow the last of {MAX_CHUNKS} allowed")
        chunks.append(_read_chunk(reader, len(chunks)))
    return chunks


def _check_magic(data: bytes) -> None:
    if not data:
        raise FormatError("empty file, expected a .vq file")
    start = data[: len(MAGIC)]
    if start == MAGIC:
        return
    if MAGIC.startswith(start):
        raise FormatError(f"truncated: the file ends after {len(start)} of the {len(MAGIC)} bytes of its magic number")
    found = f"starts with {start.hex(' ')}, expected {MAGIC.hex(' ')}"
    if MAGIC[1:3] in data[:6]:  # so that up to three bytes may stand for the first, as when it is recoded to UTF-8
        raise FormatError(f"magic number damaged: {found} (was the file transferred as text?)")
    raise FormatError(f"not a .vq file: {found}")


def _header_problems(width: int, height: int, quality: int, lengths: list[int]) -> Iterator[str]:
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= MAX_SIDE:
            yield f"the {name} is {side} pixels, expected 1..{MAX_SIDE}"
    if not QUALITY_MIN <= quality <= QUALITY_MAX:
        yield f"the quality is {quality}, expected {QUALITY_MIN}..{QUALITY_MAX}"
    if not 1 <= len(lengths) <= MAX_LEVELS:
        yield f"the level count is {len(lengths)}, expected 1..{MAX_LEVELS}"
    for number, length in enumerate(lengths):
        if problem := _length_problem(f"level {number}", length, MAX_LEVEL_BYTES):
            yield problem


def _length_problem(name: str, length: int, limit: int) -> str | None:
    return f"{name} has a length of {length} bytes, the limit is {limit}" if length > limit else None


def _tag_problem(number: int, tag: bytes) -> str | None:
    if len(tag) != _TAG_BYTES or not tag.isalpha():  # bytes.isalpha knows only the ASCII letters
        return f"chunk {number} has the tag {tag.hex(' ')}, expected {_TAG_BYTES} ASCII letters"
    if tag[:1].isupper():  # version 1 defines no chunk, so none that a reader would have to understand
        return f"chunk {number} is a critical chunk that this vqcodec does not know: '{tag.decode()}'"
    return None


def _read_chunk(reader: "_Reader", number: int) -> tuple[bytes, bytes]:
    start, name = reader.at, f"chunk {number}"
    tag = reader.take(_TAG_BYTES, f"the tag of {name}")
    length = reader.varint(f"the length of {name}")
    if problem := _length_problem(name, length, MAX_CHUNK_BYTES):
        raise FormatError(problem)
    payload = reader.take(length, f"the payload of {name}")
    reader.check_crc(start, name)
    if problem := _tag_problem(number, tag):
        raise FormatError(problem)
    return tag, payload


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, least significant first, the top bit set on all bytes but the last."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _sealed(part: bytes) -> bytes:
    return part + zlib.crc32(part).to_bytes(_CRC_BYTES, "little")


class _Reader:
    """A cursor over ``data`` that never passes its end; ``what`` names the field in error messages."""

    def __init__(self, data: BytesLike) -> None:
        self.data = data if isinstance(data, bytes) else bytes(memoryview(data))
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise FormatError(f"truncated: {what} ends at byte {self.at + count}, the file at byte {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, what: str) -> int:
        value = 0
        for shift in range(0, 32, 7):
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _VARINT_MAX:
                    break
                if shift and not byte:
                    raise FormatError(f"{what} is padded: {value} is written with more bytes than it needs")
                return value
        raise FormatError(f"{what} does not fit 32 bits")

    def check_crc(self, start: int, name: str) -> None:
        """Read a CRC-32 and hold it against the bytes from ``start`` to it."""
        actual = zlib.crc32(memoryview(self.data)[start : self.at])
        stored = int.from_bytes(self.take(_CRC_BYTES, f"the CRC-32 of {name}"), "little")
        if actual != stored:
            raise FormatError(f"{name} damaged: its CRC-32 is {actual:08x}, the file says {stored:08x}")

    def sealed(self, length: int, name: str) -> bytes:
        start = self.at
        part = self.take(length, name)
        self.check_crc(start, name)
        return part
