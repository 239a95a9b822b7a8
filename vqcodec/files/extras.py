"""What a picture has besides its colours: opacity and metadata, and the chunks that hold them.

::

    Picture = pixels, what the codec codes
            + Extras ──to_chunks──▶ Alph, iccp, exif, xmpp ──in a container──from_chunks──▶ Extras
              └ alpha, icc, exif, xmp: None if there is none

``docs/format.md`` defines the chunks. Legend: H, W height and width of the picture in pixels, C channels, 1 or 3.
"""

import zlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqcodec.errors import FormatError, ImageError
from vqcodec.files.alpha import pack_alpha, unpack_alpha
from vqcodec.files.container import ALPHA_TAG, MAX_CHUNK_BYTES, Chunks, Container
from vqcodec.files.exif import without_gps, without_gps_xmp
from vqcodec.files.kinds import stripped

__all__ = ["METADATA_TAGS", "Extras", "Picture", "from_container", "read_metadata", "to_chunks"]

METADATA_TAGS = {"icc": b"iccp", "exif": b"exif", "xmp": b"xmpp"}
_NAMES = {"icc": "ICC profile", "exif": "EXIF metadata", "xmp": "XMP metadata"}


@dataclass(frozen=True)
class Extras:
    """Opacity and metadata of a picture.

    Attributes:
        alpha: opacity, uint8 ``[H, W]``, 255 for opaque; None for an opaque picture.
        icc: the profile that the colours had before they were converted to sRGB; None if that was sRGB.
        exif: the TIFF structure of EXIF, without the prefix ``Exif\\0\\0``, with orientation 1.
        xmp: an XMP packet, with orientation 1.
    """

    alpha: NDArray[np.uint8] | None = field(default=None, repr=False)
    icc: bytes | None = field(default=None, repr=False)
    exif: bytes | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)

    def strip(self, kinds: str | Collection[str]) -> "Extras":
        """These extras without ``kinds`` of metadata, as :func:`stripped` reads them; the opacity stays."""
        kinds = stripped(kinds)
        if "all" in kinds:
            return Extras(self.alpha)
        kept = replace(self, **{kind: None for kind in METADATA_TAGS if kind in kinds})
        if "gps" in kinds:
            exif, xmp = kept.exif and without_gps(kept.exif), kept.xmp and without_gps_xmp(kept.xmp)
            kept = replace(kept, exif=exif, xmp=xmp)
        return kept


@dataclass(frozen=True)
class Picture:
    """Colours in sRGB, uint8 ``[H, W, 3]``, or ``[H, W, 1]`` for grey, and extras."""

    pixels: NDArray[np.uint8] = field(repr=False)
    extras: Extras = Extras()


def to_chunks(extras: Extras) -> Chunks:
    """The chunks that hold ``extras``, in the order of the format; raises ImageError for one above 2^24 bytes."""
    chunks = [] if extras.alpha is None else [(ALPHA_TAG, pack_alpha(extras.alpha))]
    for kind, tag in METADATA_TAGS.items():
        if (data := getattr(extras, kind)) is not None:
            if len(data) > MAX_CHUNK_BYTES:
                raise ImageError(f"{len(data):,} bytes of {_NAMES[kind]}, expected at most {MAX_CHUNK_BYTES:,}")
            chunks.append((tag, zlib.compress(data, 9)))
    for tag, payload in chunks:
        if len(payload) > MAX_CHUNK_BYTES:
            found = f"the chunk {tag.decode()} would have {len(payload):,} bytes"
            raise ImageError(f"{found}, expected at most {MAX_CHUNK_BYTES:,} (--strip leaves it out)")
    return chunks


def from_container(container: Container) -> tuple[Extras, list[str]]:
    """The extras that ``container`` holds, and warnings about metadata that cannot be read.

    Raises FormatError for a malformed opacity, or for two of them, since the picture would be wrong.
    """
    opacities = [payload for tag, payload in container.chunks if tag == ALPHA_TAG]
    if len(opacities) > 1:
        raise FormatError("two chunks Alph, expected at most one")
    extras, warnings = read_metadata(container.chunks)
    if opacities:
        extras = replace(extras, alpha=unpack_alpha(opacities[0], container.height, container.width))
    return extras, warnings


def read_metadata(chunks: Chunks) -> tuple[Extras, list[str]]:
    """The metadata that ``chunks`` hold, without the opacity, and warnings about what cannot be read."""
    found = dict(reversed(chunks))  # the first of a tag counts
    metadata: dict[str, Any] = {}
    warnings = []
    for kind, tag in METADATA_TAGS.items():
        if tag in found:
            if (data := _inflate(found[tag])) is None:
                warnings.append(f"malformed {_NAMES[kind]} dropped")
            else:
                metadata[kind] = data
    return Extras(**metadata), warnings


def _inflate(payload: bytes) -> bytes | None:
    """What a zlib stream holds; None for more than MAX_CHUNK_BYTES, of which no more is allocated, or for no stream."""
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(payload, MAX_CHUNK_BYTES + 1)
    except zlib.error:
        return None
    return data if decoder.eof and not decoder.unused_data and len(data) <= MAX_CHUNK_BYTES else None
