"""Pictures compared in Gaussian windows, which is what SSIM and its kin are made of.

Legend: B batch, C channels, H and W height and width in pixels; h and w those of the grid of windows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RADIUS", "WINDOW", "Comparison", "Windows", "blur"]

RADIUS = 5  # pixels
WINDOW = 2 * RADIUS + 1  # pixels a side
SIGMA = 1.5  # pixels

_GAUSSIAN = [math.exp(-((tap - RADIUS) ** 2) / (2 * SIGMA**2)) for tap in range(WINDOW)]
TAPS = [value / sum(_GAUSSIAN) for value in _GAUSSIAN]


def blur(x: Tensor) -> Tensor:
    """``[B, C, H, W] -> [B, C, H − 10, W − 10]``: weighted means in all windows that lie wholly inside."""
    batch, channels, height, width = x.shape
    planes = batch * channels
    # All planes as channels of one picture: for many pictures of one channel, torch takes twenty times as long.
    x = x.reshape(1, planes, height, width)
    taps = x.new_tensor(TAPS).expand(planes, 1, 1, -1)
    x = F.conv2d(F.conv2d(x, taps, groups=planes), taps.transpose(2, 3), groups=planes)
    return x.view(batch, channels, height - 2 * RADIUS, width - 2 * RADIUS)


class Comparison(NamedTuple):
    """How windows of two pictures x and y differ.

    Attributes:
        mean: of y, ``[B, C, h, w]``.
        shift: (mean of x − mean of y)².
        structure: 1 − (2·covariance + constant) / (variance of x + variance of y + constant), 0..2 but for rounding.
    """

    mean: Tensor
    shift: Tensor
    structure: Tensor


class Windows:
    """The windows of originals, to compare others with.

    Args:
        image: ``[B, C, H, W]``.
        blur: gives the weighted means of all windows, ``[B, C', H, W] -> [B, C', h, w]`` for any C'.
    """

    def __init__(self, image: Tensor, blur: Callable[[Tensor], Tensor]) -> None:
        self.image, self._blur = image, blur
        self.mean, square = blur(torch.cat([image, image.square()], 1)).chunk(2, 1)
        self._variance = square - self.mean.square()

    def compare(self, image: Tensor, constant: float) -> Comparison:
        """The originals as x, ``image [B, C, H, W]`` as y."""
        maps = torch.cat([image, image.square(), (self.image - image).square()], 1)
        mean, square, error = self._blur(maps).chunk(3, 1)
        shift = (self.mean - mean).square()
        # 1 − (2·covariance + …) / … of nearly equal pictures would be rounding for the most part. The numerator of the
        # difference is the variance of x − y, which needs no covariance.
        structure = (error - shift) / (self._variance + square - mean.square() + constant)
        return Comparison(mean, shift, structure)
