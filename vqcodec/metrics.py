"""Rate and distortion of one image, measured on what a user gets: bytes of a file and 8-bit pixels.

::

    bytes of the whole .vq file ──bpp──▶ bits per pixel        x, x_hat ──psnr──▶ dB
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["bpp", "psnr"]


def bpp(file_bytes: int, width: int, height: int) -> float:
    """Bits per pixel: 8 × bytes of the whole file, header included, / pixels of the original.

    Raises ValueError if ``file_bytes`` is negative or a side is below 1.
    """
    if file_bytes < 0 or width < 1 or height < 1:
        raise ValueError(f"no bpp for {file_bytes} bytes and {width}x{height} pixels")
    return 8 * file_bytes / (width * height)


def psnr(x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, over all pixels and channels jointly; ``inf`` if the two are equal.

    ``x`` and ``x_hat`` are uint8 arrays of one shape, such as ``[H, W, 3]``; peak is 255.

    Raises ValueError for another dtype, unequal shapes, or no pixels.
    """
    if x.dtype != np.uint8 or x_hat.dtype != np.uint8:
        raise ValueError(f"pixels are {x.dtype} and {x_hat.dtype}, expected uint8")
    if x.shape != x_hat.shape or not x.size:
        raise ValueError(f"shapes are {list(x.shape)} and {list(x_hat.shape)}, expected two equal ones with pixels")
    error = x.astype(np.float64).ravel()
    error -= x_hat.ravel()  # in place: a picture of the largest size is 1.6 GB here
    mse = float(error @ error) / error.size
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)
