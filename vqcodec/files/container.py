"""The ``.vq`` container, format version 1: the bytes around the bitstreams. ``docs/format.md`` is normative.

::

    Container ──pack──▶ header · level 0 · CRC │ level 1 · CRC │ … │ chunk · CRC │ … ──parse──▶ Container
                        │                                                               with what is intact,
                        ├──parse_header──▶ Header, not verified                         and what is damaged
                        └ states every length that follows, so the exact size of the file

A CRC-32 covers all bytes since the one before it. Header and level 0 share one: neither is of use without the other.
A container has exactly one form: ``pack(parse(data)) == data`` for all bytes that ``parse`` accepts whole.
This module does not interpret the bitstreams; it guarantees only that they are the bytes that were written.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vqcodec.config import QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import FormatError, LimitError

__all__ = [
    "ALPHA_TAG",
    "CRITICAL_TAGS",
    "FINGERPRINT_BYTES",
    "MAGIC",
    "MAX_CHUNKS",
    "MAX_CHUNK_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_LEVELS",
    "MAX_LEVEL_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "PIXELS_A_BYTE",
    "SMALL_PIXELS",
    "VERSION",
    "BytesLike",
    "Chunks",
    "Container",
    "Header",
    "pack",
    "parse",
    "parse_chunks",
    "parse_header",
]

MAGIC = b"\x8fVQ\n"  # 8f opens no UTF-8 text and is no cp1252 letter; \n does not survive a change of line ends
VERSION = 1
FINGERPRINT_BYTES = 4
ALPHA_TAG = b"Alph"  # opacity: without it, the picture is wrong
CRITICAL_TAGS = {ALPHA_TAG}  # those of this version; vqcodec.files.extras reads them
MAX_LEVELS = 15
MAX_HEADER_BYTES = 101  # the fixed fields and 18 numbers of at most 5 bytes
MAX_SIDE = 65_535  # pixels
MAX_PIXELS = 2**27  # parse refuses larger pictures by default; the format itself has no such limit
SMALL_PIXELS = 2**22  # by default, parse also refuses a picture that is larger than this and
PIXELS_A_BYTE = 2**16  # has more than this many pixels for each byte of its levels (a plain surface has up to 24,000)
MAX_LEVEL_BYTES = 2**28
MAX_CHUNKS = 64
MAX_CHUNK_BYTES = 2**24  # of payload

BytesLike = bytes | bytearray | memoryview
"""A file in memory."""

Chunks = Sequence[tuple[bytes, bytes]]
"""Tags and payloads."""

_LEVELS, _GREY, _CHUNKS, _RESERVED = 0x0F, 0x10, 0x20, 0xC0  # the fields of the layout byte
_TAG_BYTES = 4
_CRC_BYTES = 4
_VARINT_MAX = 2**32 - 1


@dataclass(frozen=True)
class Container:
    """The contents of a ``.vq`` file.

    A container may hold anything; ``pack`` and ``parse`` check the limits. The last three fields describe damage that
    ``parse`` was asked to accept, and are left alone by everyone who makes a container in order to pack it.
    """

    width: int  # of the picture in pixels, 1..MAX_SIDE
    height: int
    grey: bool  # the picture has one channel, not three
    quality: int  # QUALITY_MIN..QUALITY_MAX, an input of the decoder
    fingerprint: bytes  # FINGERPRINT_BYTES that name the weights
    levels: tuple[bytes, ...] = field(repr=False)  # one bitstream a level, coarsest first; 1..MAX_LEVELS
    chunks: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)  # (tag, payload), in file order
    missing: int = 0  # levels that the header states after those in ``levels``, but that are damaged or absent
    damage: str | None = None  # one line about the first damage, None if the file is intact
    chunks_lost: bool = False  # the header states chunks, which are left out because of the damage

    @property
    def level_count(self) -> int:
        """Levels that the file was written with."""
        return len(self.levels) + self.missing


@dataclass(frozen=True)
class Header:
    """The statements of a file before its levels, which only the CRC-32 after level 0 covers.

    Attributes:
        width, height, grey, quality, fingerprint: as in :class:`Container`.
        lengths: bytes of each level's bitstream, coarsest first, without its CRC-32.
        chunks_length: bytes of all chunks together.
        size: bytes of the whole file.
    """

    width: int
    height: int
    grey: bool
    quality: int
    fingerprint: bytes
    lengths: tuple[int, ...]
    chunks_length: int
    size: int


def pack(container: Container) -> bytes:
    """The file that holds ``container``, byte for byte determined by it.

    Raises ValueError for a field that is out of range, a chunk that no reader would accept, or a damaged container.
    """
    c = container
    lengths = [len(level) for level in c.levels]
    problem = next(_header_problems(c.width, c.height, c.quality, lengths), None)
    if problem is None and (c.damage is not None or c.missing):
        problem = f"the container is damaged: {c.damage}"
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
    first, *others = c.levels
    return b"".join([*map(_sealed, [header + first, *others]), chunks])


def parse(data: BytesLike, *, intact: int | None = None, max_pixels: int | None = None) -> Container:
    """The contents of the file ``data``, each byte of which is accounted for and checked.

    By default the whole file must be intact. With ``intact``, at least 1, damage is accepted if that many levels
    before it are intact: the container then holds all levels before the damage, which do not depend on the rest, and
    no chunks. Unknown ancillary chunks are kept, unknown critical ones count as damage.

    Nothing is sliced or allocated because a file states a length: each length is first compared with the bytes that
    are there.

    Raises TypeError if ``data`` is not bytes-like, FormatError, with one line that says what was found and what was
    expected, and LimitError for more than ``max_pixels`` pixels; by default, for more than MAX_PIXELS, and for more
    than SMALL_PIXELS if the intact levels have less than one byte for every PIXELS_A_BYTE pixels.
    """
    cursor = _Cursor(data)
    header = _read_header(cursor)
    levels = [cursor.take(header.lengths[0], "level 0")]
    cursor.check_crc("header or level 0")
    damage = _size_problem(len(cursor.data), header.size)
    chunks: list[tuple[bytes, bytes]] = []
    try:
        for number, length in enumerate(header.lengths[1:], 1):
            level = cursor.take(length, f"level {number}")
            cursor.check_crc(f"level {number}")
            levels.append(level)
        if damage is None:
            chunks = _read_chunks(cursor)
    except FormatError as error:
        damage = damage or str(error)
    _check_pixels(header, sum(map(len, levels)), max_pixels)
    if damage is not None and (intact is None or len(levels) < intact):
        raise FormatError(damage)
    return Container(
        header.width,
        header.height,
        header.grey,
        header.quality,
        header.fingerprint,
        tuple(levels),
        () if damage else tuple(chunks),
        missing=len(header.lengths) - len(levels),
        damage=damage,
        chunks_lost=damage is not None and header.chunks_length > 0,
    )


def parse_header(start: BytesLike) -> Header:
    """The header of the file that begins with ``start``; MAX_HEADER_BYTES are enough.

    Damage that states nothing out of range is not noticed: only ``parse``, which reads level 0 too, verifies a header.

    Raises FormatError if the header is cut off or states something out of range.
    """
    return _read_header(_Cursor(start))


def parse_chunks(end: BytesLike) -> Chunks:
    """The chunks that ``end`` consists of, the last ``Header.chunks_length`` bytes of a file.

    Raises FormatError if one is damaged or unknown and critical.
    """
    return _read_chunks(_Cursor(end))


def _read_header(cursor: "_Cursor") -> Header:
    _check_magic(cursor.data)
    cursor.take(len(MAGIC), "the magic number")
    version = cursor.varint("the format version")
    if version > VERSION:
        raise FormatError(f"made by a newer vqcodec: format version {version}, this one reads {VERSION}")
    if version < VERSION:
        raise FormatError(f"format version {version}, which was never in use; this one reads {VERSION}")
    fingerprint = cursor.take(FINGERPRINT_BYTES, "the fingerprint")
    quality, layout = cursor.take(2, "the quality and layout")
    width, height = cursor.varint("the width"), cursor.varint("the height")
    lengths = [cursor.varint(f"the length of level {number}") for number in range(layout & _LEVELS)]
    chunks_length = cursor.varint("the length of the chunks") if layout & _CHUNKS else 0

    if layout & _RESERVED:
        raise FormatError(f"reserved bits are set: layout byte is {layout:#04x}, bits {_RESERVED:#04x} must be zero")
    if layout & _CHUNKS and not chunks_length:
        raise FormatError("chunks of 0 bytes in all: a file without chunks must not announce any")
    for problem in _header_problems(width, height, quality, lengths):
        raise FormatError(problem)
    size = cursor.at + sum(length + _CRC_BYTES for length in lengths) + chunks_length
    return Header(width, height, bool(layout & _GREY), quality, fingerprint, tuple(lengths), chunks_length, size)


def _size_problem(found: int, stated: int) -> str | None:
    if found == stated:
        return None
    return f"{'truncated' if found < stated else 'too long'}: the file has {found} bytes, its header says {stated}"


def _check_pixels(header: Header, level_bytes: int, max_pixels: int | None) -> None:
    """Raise LimitError for a picture with too many pixels. Only bytes of intact levels are evidence of a large one."""
    limit, where = MAX_PIXELS if max_pixels is None else max_pixels, ""
    trusted = max(SMALL_PIXELS, PIXELS_A_BYTE * level_bytes)
    if max_pixels is None and trusted < limit:
        limit, where = trusted, f" for {level_bytes} bytes of levels"
    if header.width * header.height > limit:
        found = f"{header.width}x{header.height} is {header.width * header.height}"
        raise LimitError(f"too many pixels: {found}, the limit{where} is {limit}")


def _read_chunks(cursor: "_Cursor") -> list[tuple[bytes, bytes]]:
    """The chunks, which fill the rest of the file."""
    chunks: list[tuple[bytes, bytes]] = []
    while cursor.left:
        if len(chunks) == MAX_CHUNKS:
            raise FormatError(f"too many chunks: {cursor.left} bytes follow the last of {MAX_CHUNKS} allowed")
        chunks.append(_read_chunk(cursor, len(chunks)))
    return chunks


def _as_bytes(data: BytesLike) -> bytes:
    try:
        return data if isinstance(data, bytes) else bytes(memoryview(data))
    except TypeError:
        found = type(data).__name__
        raise TypeError(f"expected the bytes of a .vq file, a bytes-like object, found {found}") from None


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
    if tag[:1].isupper() and tag not in CRITICAL_TAGS:
        return f"chunk {number} is a critical chunk that this vqcodec does not know: '{tag.decode()}'"
    return None


def _read_chunk(cursor: "_Cursor", number: int) -> tuple[bytes, bytes]:
    name = f"chunk {number}"
    tag = cursor.take(_TAG_BYTES, f"the tag of {name}")
    length = cursor.varint(f"the length of {name}")
    if problem := _length_problem(name, length, MAX_CHUNK_BYTES):
        raise FormatError(problem)
    payload = cursor.take(length, f"the payload of {name}")
    cursor.check_crc(name)
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


class _Cursor:
    """A position in ``data`` that never passes its end. In error messages, ``what`` names the field being read."""

    def __init__(self, data: BytesLike) -> None:
        self.data = _as_bytes(data)
        self.at = 0
        self._checked = 0  # the end of the last CRC-32

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

    def check_crc(self, name: str) -> None:
        """Read a CRC-32 and compare it with that of the bytes since the one before it."""
        actual = zlib.crc32(memoryview(self.data)[self._checked : self.at])
        stored = int.from_bytes(self.take(_CRC_BYTES, f"the CRC-32 of {name}"), "little")
        if actual != stored:
            raise FormatError(f"{name} damaged: its CRC-32 is {actual:08x}, the file says {stored:08x}")
        self._checked = self.at
