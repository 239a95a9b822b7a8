"""SSIMULACRA2, differentiable in the reconstruction.

::

    x     ─ linear ─ XYB ─ windows ─┐                      ┌─ SSIM ───────┐
                                    ├─ each of six scales ─┼─ artifacts ──┼─ mean, 4-norm ─ weighted sum ─▶ score
    x_hat ─ linear ─ XYB ─ windows ─┘                      └─ lost detail ┘

Sneyers, SSIMULACRA 2.1 (https://github.com/cloudinary/ssimulacra2), in the form of the package ssimulacra2 0.3, which
:func:`vqcodec.metrics.ssimulacra2` measures with. Like the package, it extends a picture by zeros to the left and the
right, and by reflection above and below.

Legend: B batch, C channels of XYB that count at a scale, H and W height and width in pixels; h and w those of a scale.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.visual.windows import RADIUS, Windows, blur

__all__ = ["SMALLEST", "Ssimulacra2"]

SMALLEST = 8
"""The least side of a scale, in pixels; a smaller picture has no score."""

SCALES = 6
LEAST_WEIGHT = 0.01  # smaller ones move no score by 0.01, and without them X and B are not needed at full size
C2 = 0.0009  # there is no C1: differences in XYB look alike at every brightness

# Of SSIM, artifacts and lost detail: first of their means, then of their 4-norms.
# fmt: off
WEIGHTS = (
    (0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0),  # X, scale 0
    (0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752),
    (0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0),
    (0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0),
    (0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053),  # noqa: E501
    (0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0),
    (0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262),  # Y, scale 0
    (0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264),
    (225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985),
    (176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408),
    (0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0),  # B, scale 0
    (0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0),
    (0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0),
    (95.1080498811086, 0.9863978034400682, 0.9834382792465353, 0.0012286405048278493, 171.2667255897307, 0.9807858872435379),  # noqa: E501
    (0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537),
)
# fmt: on

BIAS = 0.0037930732552754493
MIXING = (  # of linear R, G, B to the responses of the eye's long, medium and short cones
    (0.30, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
OPPONENTS = (  # of the cube roots of the responses to X, Y and B − Y, made positive
    (7.0, -7.0, 0.0),
    (0.5, 0.5, 0.0),
    (-0.5, -0.5, 1.0),
)
OFFSETS = (0.42, 0.01 - BIAS ** (1 / 3), 0.55)

TINY = 2.0**-100  # keeps the slope of a fourth root finite; its own fourth root, 2⁻²⁵, is subtracted again
LEAST_DISTANCE = 1e-6  # below which, at 99.998, the score no longer changes: its slope is infinite at 100


class _Scale(NamedTuple):
    """What is known of the originals at one scale.

    Attributes:
        channels: C of 0..2: X, Y and B − Y.
        weights: ``[2, 3, 1, C]``, of mean and 4-norm, and of the three maps.
        windows: of the originals ``[B, C, h, w]``.
    """

    channels: list[int]
    weights: Tensor
    windows: Windows


class Ssimulacra2:
    """SSIMULACRA2 of reconstructions against the originals ``x [B, 3, H, W]``, sRGB in 0..1.

    Computes in float32, within autocast too, or in float64 if ``x`` is float64: bfloat16 is too coarse for the
    difference between a mean of squares and the square of a mean. Raises ValueError for another shape or a side below
    SMALLEST.
    """

    def __init__(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < SMALLEST:
            raise ValueError(f"shape is {list(x.shape)}, expected [B, 3, H, W] of {SMALLEST} pixels a side or more")
        self._shape, self._dtype = x.shape, torch.promote_types(x.dtype, torch.float32)
        scales = 1
        while scales < SCALES and min(x.shape[2:]) > (SMALLEST - 1) << scales:
            scales += 1
        # With fewer scales the first weights are taken, whatever they were meant for: so do the package and the paper.
        table = x.new_tensor(WEIGHTS, dtype=self._dtype).flatten()[: 18 * scales].view(3, scales, 2, 3)
        table = table.where(table >= LEAST_WEIGHT, 0)
        self._scales: list[_Scale] = []
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            linear = _linear(x.to(self._dtype))
            for scale in range(scales):
                weights = table[:, scale]
                channels = [channel for channel in range(3) if weights[channel].any()]
                if not channels:
                    break  # at the sixth scale, of which no weight is large enough
                weights = weights[channels].permute(1, 2, 0)[:, :, None]
                self._scales.append(_Scale(channels, weights, Windows(_xyb(linear, channels), _blur)))
                linear = _halve(linear)

    def __call__(self, x_hat: Tensor) -> Tensor:
        """The scores ``[B]`` of ``x_hat [B, 3, H, W]``: 100 if equal, 90 hardly visible, 30 low, below 0 very bad.

        Values outside 0..1 count as 0 or 1. Towards 100 the slope grows without bound (as distance^−0.37), and towards
        −64 it falls to 0; :meth:`distance` is the better function to minimise.
        """
        t = 0.9562382616834844 * self.distance(x_hat)
        t = 2.326765642916932 * t - 0.020884521182843837 * t.square() + 6.248496625763138e-05 * t**3
        return 100 - 10 * t.clamp_min(LEAST_DISTANCE) ** 0.6276336467831387

    def distance(self, x_hat: Tensor) -> Tensor:
        """The weighted sum ``[B]`` of all maps' means and norms, of which the score is a falling function.

        It is 0 if the two are equal, 1 at a score of 84, 6 at 50 and 21 at 0. Raises ValueError for another shape.
        """
        if x_hat.shape != self._shape:
            raise ValueError(f"shape is {list(x_hat.shape)}, expected {list(self._shape)}")
        with torch.autocast(x_hat.device.type, enabled=False):
            linear = _linear(x_hat.to(self._dtype))
            total = linear.new_zeros(len(linear))
            for scale in self._scales:
                total = total + _distance(scale, _xyb(linear, scale.channels))
                linear = _halve(linear)
            return total


def _distance(scale: _Scale, image: Tensor) -> Tensor:
    """``[B]``: what one scale adds to the sum, given the reconstructions' ``image [B, C, h, w]``."""
    windows = scale.windows
    mean, shift, structure = windows.compare(image, C2)
    ssim = (shift + structure - shift * structure).clamp_min(0)
    edges = (1 + (image - mean).abs()) / (1 + (windows.image - windows.mean).abs()) - 1
    maps = torch.stack([ssim, edges.clamp_min(0), (-edges).clamp_min(0)])
    means = maps.mean((3, 4))
    norms = (maps.square().square().mean((3, 4)) + TINY) ** 0.25 - TINY**0.25
    return (scale.weights * torch.stack([means, norms])).sum((0, 1, 3))


def _linear(srgb: Tensor) -> Tensor:
    """Linear light of sRGB values, ``[B, 3, H, W]``."""
    srgb = srgb.contiguous().clamp(0, 1)
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor, channels: list[int]) -> Tensor:
    """``[B, 3, h, w] -> [B, C, h, w]``: the chosen channels of XYB, scaled and shifted as the metric does."""
    mixing = linear.new_tensor(MIXING)[:, :, None, None]
    opponents = linear.new_tensor([OPPONENTS[channel] for channel in channels])[:, :, None, None]
    offsets = linear.new_tensor([OFFSETS[channel] for channel in channels])
    return F.conv2d(F.conv2d(linear, mixing, linear.new_tensor([BIAS] * 3)) ** (1 / 3), opponents, offsets)


def _halve(linear: Tensor) -> Tensor:
    """Means of 2×2 pixels, at odd edges of those that there are."""
    return F.avg_pool2d(linear, 2, ceil_mode=True)


def _blur(x: Tensor) -> Tensor:
    """``[B, C, h, w]`` to the same shape."""
    x = torch.cat([x[:, :, :RADIUS].flip(2), x, x[:, :, -RADIUS:].flip(2)], 2)
    return blur(F.pad(x, (RADIUS, RADIUS)))
