"""Whether a picture is one for a codec that has learned from photographs.

::

    pixels ──PNG, fastest──▶ bytes ──less than LEAST times the .vq file?──▶ a warning with both figures

Few pictures compress well without loss, and those that do are drawings, screenshots and icons: what a lossy codec for
photographs saves there is little, and what it does to edges is ugly.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["LEAST", "png_size", "unsuited"]

LEAST = 5.0  # times the .vq file; docs/drawings.md has the figures behind it
TINY = 256  # pixels, up to which the headers of both files decide


def unsuited(pixels: NDArray[np.uint8], size: int) -> str | None:
    """One line that says why ``pixels [H, W, C]`` are better not a ``.vq`` file of ``size`` bytes; None if they are."""
    height, width, _ = pixels.shape
    if height * width <= TINY:
        return None
    lossless = png_size(pixels)
    if lossless >= LEAST * size:
        return None
    ratio = f"{lossless / size:.1f} times the .vq file's {size:,}"
    return f"a PNG without loss takes {lossless:,} bytes, {ratio}: vqcodec is for photographs, not for such pictures"


def png_size(pixels: NDArray[np.uint8]) -> int:
    """Bytes of a PNG of ``pixels [H, W, 3]`` or ``[H, W, 1]`` at the fastest setting, without holding them."""
    counter = _Counter()
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.save(counter, "PNG", compress_level=1)  # type: ignore[arg-type]
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
