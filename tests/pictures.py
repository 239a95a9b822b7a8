"""Image files that Pillow does not write, built by hand, and functions that read image files."""

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vqcodec.errors import ImageError, LimitError
from vqcodec.files.images import read_image

Pixels = NDArray[np.uint8]
RANDOM = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
OVER_WHITE = "transparency dropped, laid over white"
REDUCED = "16 bits per sample reduced to 8"


def read(image: Image.Image | bytes, path: Path, **options: Any) -> tuple[list[Any], list[str]]:
    """``read_image`` of the file ``path``, which Pillow or ``bytes`` writes; pixels as nested lists."""
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    pixels, notes = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)
    return pixels.tolist(), notes


def refuse(path: Path, expected: str) -> None:
    with pytest.raises(LimitError if expected.startswith("too many pixels") else ImageError) as caught:
        read_image(path)
    assert re.fullmatch(f"{re.escape(str(path))}: {expected}", str(caught.value))


def chunk(tag: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 0, data: bytes = b"", trns: bytes = b"") -> bytes:
    """A PNG from its parts, in forms that Pillow does not write; without ``data``, only its header."""
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    parts += [chunk(b"tRNS", trns)] if trns else []
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(b"\0" + data)), chunk(b"IEND", b"")])
