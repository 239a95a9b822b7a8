"""Changes to EXIF data that leave every other byte where it is.

::

    "II*\\0" or "MM\\0*" │ offset ──▶ IFD 0: count │ tag type count value │ … │ next IFD
                                                   └ tag 34853: offset ──▶ GPS IFD: the same

A block is the TIFF structure of EXIF, without the prefix ``Exif\\0\\0`` that JPEG files put before it. Cameras store
private data with absolute offsets in it, which writing the block anew would break.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["PREFIX", "upright", "upright_xmp", "without_gps", "without_gps_xmp"]

PREFIX = b"Exif\0\0"

_ORIENTATION, _GPS = 0x0112, 0x8825  # tags
_SHORT = 3
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a value, by type
_ENTRY_BYTES = 12
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)\d+")
_XMP_GPS = re.compile(
    rb"\s*\bexif:GPS\w+\s*=\s*(\"[^\"]*\"|'[^']*')|<exif:GPS(\w+)\b[^>]*(?:/>|>.*?</exif:GPS\2\s*>)", re.S
)


@dataclass(frozen=True)
class _Entry:
    """A row of an IFD at the position ``at`` of the block; ``value`` is the four bytes as an offset."""

    at: int
    tag: int
    type: int
    count: int
    value: int


def upright(block: bytes) -> bytes:
    """``block`` with orientation 1, if it states one; pixels that were turned must not be turned again."""
    changed = bytearray(block)
    order = _order(block)
    for entry in _entries(block, _first(block)):
        if entry.tag == _ORIENTATION and entry.type == _SHORT:
            struct.pack_into(f"{order}HH", changed, entry.at + 8, 1, 0)
    return bytes(changed)


def without_gps(block: bytes) -> bytes:
    """``block`` without the pointer to the GPS data, and with zeros in their place."""
    first = _first(block)
    found = next((entry for entry in _entries(block, first) if entry.tag == _GPS), None)
    if found is None:
        return block
    changed, order = bytearray(block), _order(block)
    # The rows after the pointer and the offset of the next IFD move up; the row that becomes free is cleared.
    (count,) = struct.unpack_from(f"{order}H", block, first)
    end = min(first + 2 + count * _ENTRY_BYTES + 4, len(block))
    changed[found.at : end] = block[found.at + _ENTRY_BYTES : end] + bytes(_ENTRY_BYTES)
    struct.pack_into(f"{order}H", changed, first, count - 1)
    budget = len(block)  # so that entries which all claim the same large part take no time
    for entry in _entries(block, found.value):
        size = _SIZES.get(entry.type, 1) * entry.count
        if 4 < size <= budget:
            _clear(changed, entry.value, size)
            budget -= size
        _clear(changed, entry.at, _ENTRY_BYTES)
    _clear(changed, found.value, 2)
    return bytes(changed)


def upright_xmp(packet: bytes) -> bytes:
    """An XMP packet with orientation 1, if it states one."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def without_gps_xmp(packet: bytes) -> bytes:
    """An XMP packet without properties such as ``exif:GPSLatitude``."""
    return _XMP_GPS.sub(b"", packet)


def _order(block: bytes) -> str:
    return ">" if block.startswith(b"MM") else "<"


def _first(block: bytes) -> int:
    """The offset of IFD 0; that of the block's end if there is none."""
    if len(block) < 8 or block[:2] not in (b"II", b"MM"):
        return len(block)
    (offset,) = struct.unpack_from(f"{_order(block)}I", block, 4)
    return int(offset)


def _entries(block: bytes, offset: int) -> Iterator[_Entry]:
    """The rows of the IFD at ``offset``, as far as the block has them."""
    order = _order(block)
    if offset < 8 or offset + 2 > len(block):
        return
    (count,) = struct.unpack_from(f"{order}H", block, offset)
    for at in range(offset + 2, min(offset + 2 + count * _ENTRY_BYTES, len(block) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        yield _Entry(at, *struct.unpack_from(f"{order}HHII", block, at))


def _clear(block: bytearray, start: int, size: int) -> None:
    end = min(start + size, len(block))
    if start < end:
        block[start:end] = bytes(end - start)
