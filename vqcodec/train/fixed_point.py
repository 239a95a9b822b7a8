"""The trained prior as integers: the PixelCNN of :mod:`vqcodec.networks.pixelcnn` in the form that codes files.

::

    weights [in, out] ──· 2^shift, rounded──▶ integers of 8 bits, one shift for each output     shift: as large as
    bias [out] ────────────────────────────▶ integers                                          the bound allows
"""

import math

import torch
from torch import Tensor, nn

from vqcodec.config import QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import WeightsError
from vqcodec.exact.arithmetic import ARITHMETIC
from vqcodec.exact.prior import FixedPrior, bound
from vqcodec.networks.layers import Conv
from vqcodec.networks.pixelcnn import LevelPrior, PixelCNN

__all__ = ["fixed_point"]

MAX_SCALE_BITS = 24  # of weights so small that they would fit with more


@torch.no_grad()
def fixed_point(prior: PixelCNN) -> dict[str, Tensor]:
    """The integers that :class:`FixedPrior` computes with, named as it expects them.

    Each output channel of a layer gets the largest power-of-two scale at which its weights fit the arithmetic and
    its sums stay exact. Raises WeightsError where there is none.
    """
    tensors: dict[str, Tensor] = {}
    arithmetic = ARITHMETIC[prior.config.sum_bits]

    def linear(name: str, matrix: Tensor, bias: Tensor) -> None:
        """``matrix [in, out]``; a channel's shift is how many fraction bits its weights have."""
        if not bool(matrix.isfinite().all() and bias.isfinite().all()):
            raise WeightsError(f"prior layer {name} has weights that are not finite")
        matrix, bias = matrix.double(), bias.double()
        largest = matrix.abs().amax(0).clamp_min(1e-9)
        shift = (arithmetic.weight_max / largest).log2().floor().clamp(max=MAX_SCALE_BITS)
        while True:
            weight = (matrix * 2**shift).round()
            integers = (bias * 2 ** (shift + arithmetic.fraction_bits)).round()
            too_large = bound(arithmetic, weight, integers, shift) >= arithmetic.exact
            if not bool((too_large & (shift > 1)).any()):
                break
            shift -= too_large.double()
        tensors[f"{name}.weight"] = weight.to(arithmetic.stored)
        tensors[f"{name}.bias"] = integers.to(torch.int64)
        tensors[f"{name}.shift"] = shift.to(torch.int32)

    def table(name: str, values: Tensor) -> None:
        integers = (values.double() * 2**arithmetic.fraction_bits).round()
        tensors[name] = integers.clamp(-arithmetic.activation_max, arithmetic.activation_max).to(torch.int16)

    qualities = [prior.model.lmbda(q) for q in range(QUALITY_MIN, QUALITY_MAX + 1)]
    features = prior.embedding(torch.tensor(qualities, device=next(prior.parameters()).device))
    for index, level in enumerate(prior.levels):
        assert isinstance(level, LevelPrior)
        prefix = f"{index}."
        table(prefix + "embed", level.embed.table)
        known = level.groups_a_stage * (level.stages - 1)  # the last stage's codes inform no later stage
        table(prefix + "inner", level.inner.table[:known])
        table(prefix + "quality", level.quality(features))
        for i, layer in enumerate(level.context):
            linear(f"{prefix}context.{i}", *_matrix(layer, 9))
        if index > 0:
            linear(f"{prefix}spread", *_matrix(level.spread, 1))
        linear(f"{prefix}first", *_matrix(level.first, 4))
        for i, layer in enumerate(level.layers):
            linear(f"{prefix}layers.{i}", *_matrix(layer, 5))
        linear(f"{prefix}hidden", *_matrix(level.hidden, 1))
        for i, head in enumerate(level.heads):
            matrix, bias = _matrix(head, 1)
            linear(f"{prefix}heads.{i}", matrix / math.log(2), bias / math.log(2))  # logits to base 2
    FixedPrior(tensors, prior.model, prior.config)  # proves the bound
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _matrix(layer: nn.Module, taps: int) -> tuple[Tensor, Tensor]:
    """A convolution as ``[taps·in, out]`` and its bias."""
    assert isinstance(layer, Conv)
    weight = layer.weight.view(layer.shape[0], layer.shape[1], taps)
    return weight.permute(2, 1, 0).reshape(-1, layer.shape[0]), layer.bias
