"""Anchors: the codecs of every Pillow, at settings that people use, to compare vqcodec with.

::

    pixels ──Pillow, a setting──▶ bytes of a whole file ──Pillow──▶ pixels
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ANCHORS", "Anchor"]


@dataclass(frozen=True)
class Anchor:
    """A codec of Pillow and the sweep that makes its curve.

    Attributes:
        name: as in JSON and on the command line.
        label: as in tables and plots.
        library: the library behind it, by Pillow's name for it.
        suffix: of its files.
        mime: the type of its files.
        about: what the settings stand for, in a few words.
        settings: all that is given to ``Image.save`` besides the file, from the smallest file to the largest.
    """

    name: str
    label: str
    library: str
    suffix: str
    mime: str
    about: str
    settings: tuple[dict[str, Any], ...]

    def compress(self, pixels: NDArray[np.uint8], setting: Mapping[str, Any]) -> bytes:
        """The bytes of a file of ``pixels`` ``[H, W, 3]`` or ``[H, W, 1]``."""
        buffer = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, **setting)
        return buffer.getvalue()

    def decompress(self, data: bytes, *, grey: bool = False) -> NDArray[np.uint8]:
        """Pixels ``[H, W, 3]``, or ``[H, W, 1]`` if ``grey``, since not every format remembers that."""
        with Image.open(io.BytesIO(data)) as image:
            pixels: NDArray[np.uint8] = np.array(image.convert("L" if grey else "RGB"))
        return pixels.reshape(*pixels.shape[:2], -1)


def _sweep(common: dict[str, Any], key: str, values: list[Any]) -> tuple[dict[str, Any], ...]:
    return tuple({**common, key: value} for value in values)


# Settings are what people get: libavif, too, is left to share its work out over the processors, by which its files
# differ by about one per cent from machine to machine.
# 4:2:0 is the JPEG and the WebP that people use (WebP has no other); AVIF at 4:4:4 is what does best in PSNR-RGB.
# JPEG 2000 takes a compression ratio: 24 bits over the bpp aimed at.
ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor(
            name="jpeg",
            label="JPEG",
            library="libjpeg_turbo",
            suffix=".jpg",
            mime="image/jpeg",
            about="4:2:0, optimised, progressive",
            settings=_sweep(
                {"format": "JPEG", "optimize": True, "progressive": True, "subsampling": 2},
                "quality",
                [5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90],
            ),
        ),
        Anchor(
            name="webp",
            label="WebP",
            library="webp",
            suffix=".webp",
            mime="image/webp",
            about="4:2:0, method 6",
            settings=_sweep({"format": "WEBP", "method": 6}, "quality", [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
        ),
        Anchor(
            name="avif",
            label="AVIF",
            library="avif",
            suffix=".avif",
            mime="image/avif",
            about="4:4:4, speed 4",
            settings=_sweep(
                {"format": "AVIF", "speed": 4, "subsampling": "4:4:4"},
                "quality",
                [10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80],
            ),
        ),
        Anchor(
            name="jpeg2000",
            label="JPEG 2000",
            library="jpg_2000",
            suffix=".jp2",
            mime="image/jp2",
            about="9/7 wavelet, colour transform",
            settings=_sweep(
                {"format": "JPEG2000", "quality_mode": "rates", "irreversible": True, "mct": 1},
                "quality_layers",
                [[240], [160], [120], [80], [60], [48], [32], [24], [16], [12]],
            ),
        ),
    )
}
