"""Whether a picture is one for a codec that has learned from photographs.

::

    pixels ──PNG, fastest──▶ bytes ──few against the .vq file?──▶ a warning with the figures

Few pictures compress well without loss, and those that do are drawings, screenshots and icons: what a lossy codec for
photographs saves there is little, and what it does to edges is ugly. A photograph of a silhouette can be large as a
``.vq`` file, but has noise that a PNG keeps, so the limit is lower for a PNG with many bits a pixel.
"""

import numpy as np
from numpy.typing import NDArray

from vqcodec.files.pictures import plain_image

__all__ = ["FLAT", "LEAST", "LEAST_FLAT", "png_size", "unsuited"]

FLAT = 5 / 3  # bits per pixel and channel of a PNG; docs/drawings.md has the figures behind the limits
LEAST, LEAST_FLAT = 2.7, 8.0  # times the bytes of the .vq file: what a PNG must have, and one of fewer bits
TINY = 256  # pixels, up to which the headers of both files decide


def unsuited(pixels: NDArray[np.uint8], size: int) -> str | None:
    """One line that says why ``pixels [H, W, C]`` should not be a ``.vq`` file of ``size`` bytes; None if they may."""
    height, width, _ = pixels.shape
    if height * width <= TINY:
        return None
    lossless = png_size(pixels)
    least = LEAST_FLAT if 8 * lossless < FLAT * pixels.size else LEAST
    if lossless >= least * size:
        return None
    ratio = f"{lossless / size:.1f} times the .vq file's {size:,}"
    return f"a PNG without loss takes only {lossless:,} bytes, {ratio}: vqcodec is for photographs, not for drawings"


def png_size(pixels: NDArray[np.uint8]) -> int:
    """Bytes of a PNG of ``pixels [H, W, 3]`` or ``[H, W, 1]`` at the fastest setting, without holding them."""
    counter = _Counter()
    plain_image(pixels).save(counter, "PNG", compress_level=1)  # type: ignore[arg-type]
    return counter.size


class _Counter:
    """A file that only counts what is written."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""
