"""MS-SSIM, differentiable in the reconstruction, also of pictures too small for five scales.

Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", 2003, eq. 7, in the form of
the package pytorch-msssim, which :func:`vqcodec.metrics.ms_ssim` measures with. That package refuses sides below 161
pixels whatever the number of scales, and only the benchmark needs it.

Legend: B batch, C channels, H and W height and width in pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.visual.windows import WINDOW, Windows, blur

__all__ = ["SMALLEST", "MsSsim"]

SMALLEST = WINDOW
"""The least side of a scale, in pixels; a smaller picture has no similarity."""

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = 0.01**2, 0.03**2
LEAST = 1e-4  # similarity of a scale; below it the slope of a power would be infinite


class MsSsim:
    """MS-SSIM of reconstructions against the originals ``x [B, C, H, W]`` in 0..1.

    There are as many scales, at most five, as the smaller side has room for: five from 161 pixels on. The weights of
    fewer scales are scaled up to the same sum. Computes in float32, within autocast too, or in float64 if ``x`` is
    float64. Raises ValueError for another shape or a side below SMALLEST.
    """

    def __init__(self, x: Tensor) -> None:
        if x.ndim != 4 or min(x.shape[2:]) < SMALLEST:
            raise ValueError(f"shape is {list(x.shape)}, expected [B, C, H, W] of {SMALLEST} pixels a side or more")
        self._dtype = torch.promote_types(x.dtype, torch.float32)
        self._scales: list[Windows] = []
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            image = x.to(self._dtype)
            while len(self._scales) < len(WEIGHTS) and min(image.shape[2:]) >= SMALLEST:
                self._scales.append(Windows(image, blur))
                image = _halve(image)

    def __call__(self, x_hat: Tensor) -> Tensor:
        """The similarities ``[B]`` of ``x_hat [B, C, H, W]``, 0..1, means over channels; 1 if equal."""
        return 1 - self.distance(x_hat)

    def distance(self, x_hat: Tensor) -> Tensor:
        """1 − MS-SSIM, ``[B]``; near 0, where it goes as the squared error, it is precise, too.

        Raises ValueError for another shape.
        """
        if x_hat.shape != self._scales[0].image.shape:
            raise ValueError(f"shape is {list(x_hat.shape)}, expected {list(self._scales[0].image.shape)}")
        weights = WEIGHTS[: len(self._scales)]
        with torch.autocast(x_hat.device.type, enabled=False):
            image = x_hat.to(self._dtype)
            exponent = image.new_zeros(image.shape[:2])
            for scale, (windows, weight) in enumerate(zip(self._scales, weights, strict=True), 1):
                mean, shift, loss = windows.compare(image, C2)
                if scale == len(weights):  # of the coarsest, the brightness counts as well
                    luminance = shift / (windows.mean.square() + mean.square() + C1)
                    loss = luminance + loss - luminance * loss
                loss = loss.mean((2, 3)).clamp_max(1 - LEAST)
                exponent = exponent + weight / sum(weights) * torch.log1p(-loss)
                image = _halve(image)
            return -torch.expm1(exponent).mean(1)


def _halve(image: Tensor) -> Tensor:
    """Means of 2×2 pixels; an odd side gets a row of zeros at both ends, as in the package."""
    return F.avg_pool2d(image, 2, padding=(image.shape[2] % 2, image.shape[3] % 2))
