"""D of the visual tune, which takes the place of the mean squared error: J = bits + λ·255²·D·pixels.

Legend: B batch, C channels, 3 or 1 for grey, H and W height and width in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.visual.ms_ssim import SMALLEST, MsSsim
from vqcodec.visual.ssimulacra2 import Ssimulacra2

__all__ = ["DEFAULT", "MS_SSIM_PER_MSE", "SSIMULACRA2_PER_MSE", "Shares", "VisualDistortion"]

MS_SSIM_PER_MSE = 46.0
SSIMULACRA2_PER_MSE = 12_500.0


@dataclass(frozen=True)
class Shares:
    """The share of D that each measure has in a typical reconstruction; a measure without a share is not computed.

    Attributes:
        mse: of the mean squared error, which holds colours and brightness where structure alone would let them drift.
        ms_ssim: of 1 − MS-SSIM.
        ssimulacra2: of the sum that SSIMULACRA2 is a function of.
    """

    mse: float = 0.25
    ms_ssim: float = 0.25
    ssimulacra2: float = 0.5


DEFAULT = Shares()


class VisualDistortion:
    """D of reconstructions of the originals ``x [B, C, H, W]`` in 0..1, in units of the mean squared error.

    D = s₁·MSE + s₂·(1 − MS-SSIM) / MS_SSIM_PER_MSE + s₃·(distance of SSIMULACRA2) / SSIMULACRA2_PER_MSE, with
    ``shares`` s that add up to 1.

    All three grow alike with the error, so constant divisors serve every λ, and λ·255²·D is as large as λ·255²·MSE: a
    quality keeps its place on the curve. On the middle 256×256 pixels of 15 photographs, coded by the model ``compact``
    at effort 0, this is what ``python -m benchmarks.visual_distortion`` measured. All but the second column are
    multiples of what the mean squared error has (geometric means); the last one is the part of D's gradient along that
    of the mean squared error, which is x_hat − x:

    ======= ======= ============== ================== ======== ============= =====================
    quality MSE     MS-SSIM, value SSIMULACRA2, value D, value D, ‖gradient‖ D, gradient along MSE
    ======= ======= ============== ================== ======== ============= =====================
    5       0.00209 0.87           1.06               1.05     1.9           1.00
    20      0.00139 0.94           1.06               1.08     2.0           1.02
    50      0.00060 1.01           1.01               1.08     2.1           1.03
    80      0.00026 1.08           0.94               1.05     2.0           0.99
    97      0.00016 1.13           0.92               1.05     2.1           0.98
    ======= ======= ============== ================== ======== ============= =====================

    From picture to picture the ratios differ by a factor of two: where errors are seen more, they count more.
    """

    def __init__(self, x: Tensor, shares: Shares = DEFAULT) -> None:
        self._x = _prepared(x)
        self._measures: list[tuple[float, Callable[[Tensor], Tensor]]] = []
        if shares.mse:
            self._measures.append((shares.mse, self._mse))
        if shares.ms_ssim:
            self._measures.append((shares.ms_ssim / MS_SSIM_PER_MSE, MsSsim(self._x).distance))
        if shares.ssimulacra2:
            self._measures.append((shares.ssimulacra2 / SSIMULACRA2_PER_MSE, Ssimulacra2(self._x).distance))

    def __call__(self, x_hat: Tensor) -> Tensor:
        """D ``[B]`` of ``x_hat [B, C, H, W]``: 0 if equal. Raises ValueError for another shape.

        Values outside 0..1 count as 0 or 1 in SSIMULACRA2, and as they are in the rest, which leads them back.
        """
        x_hat = _prepared(x_hat)
        if x_hat.shape != self._x.shape:
            raise ValueError(f"shape is {list(x_hat.shape)}, expected {list(self._x.shape)}")
        return torch.stack([weight * measure(x_hat) for weight, measure in self._measures]).sum(0)

    def _mse(self, x_hat: Tensor) -> Tensor:
        return (x_hat - self._x).square().mean((1, 2, 3))


def _prepared(picture: Tensor) -> Tensor:
    """``[B, 3, H, W]`` in floats: grey is repeated, and the last pixels are where a side is shorter than a window."""
    height, width = picture.shape[2:]
    picture = picture.expand(-1, 3, -1, -1).to(torch.promote_types(picture.dtype, torch.float32))
    if min(height, width) >= SMALLEST:
        return picture
    return F.pad(picture, (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height)), mode="replicate")
