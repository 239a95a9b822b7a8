"""Anchors: the codecs of every Pillow, at settings that people use, to compare vqcodec with.

::

    pixels ──Pillow, quality──▶ bytes of a whole file ──Pillow──▶ pixels
"""

import io
from dataclasses import dataclass, field
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
        qualities: Pillow's ``quality``, rising.
        options: what else is given to ``Image.save``.
    """

    name: str
    label: str
    qualities: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def settings(self, quality: int) -> dict[str, Any]:
        """All that is given to ``Image.save``, besides the file."""
        return {"format": self.name.upper(), "quality": quality, **self.options}

    def compress(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        """The bytes of a file of ``pixels`` ``[H, W, 3]`` or ``[H, W, 1]``."""
        buffer = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, **self.settings(quality))
        return buffer.getvalue()

    def decompress(self, data: bytes, *, grey: bool = False) -> NDArray[np.uint8]:
        """Pixels ``[H, W, 3]``, or ``[H, W, 1]`` if ``grey``, since not every format remembers that."""
        with Image.open(io.BytesIO(data)) as image:
            pixels: NDArray[np.uint8] = np.array(image.convert("L" if grey else "RGB"))
        return pixels.reshape(*pixels.shape[:2], -1)


# 4:2:0 is the JPEG and the WebP that people use (WebP has no other); AVIF at 4:4:4 is what does best in PSNR-RGB.
ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor(
            "jpeg",
            "JPEG",
            (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90),
            {"optimize": True, "progressive": True, "subsampling": 2},
        ),
        Anchor("webp", "WebP", (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90), {"method": 6}),
        Anchor("avif", "AVIF", (10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80), {"speed": 6, "subsampling": "4:4:4"}),
    )
}
