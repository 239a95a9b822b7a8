"""Convert a :class:`PixelCNN` to the integers with which files are coded, and back.

::

    weights [in, out] ──· 2^shift, rounded──▶ integers of 8 bits      one shift for each output: the largest at which
    bias [out] ─────────· 2^(shift + 6) ────▶ integers                the weights fit and the sums stay below 2^24
    tables ─────────────· 2^6 ──────────────▶ integers of 16 bits

Finally, :mod:`vqcodec.exact.integers` proves that the sums stay below 2^24. It does so again when weights are loaded.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vqcodec.config import QUALITY_MAX, QUALITY_MIN, ModelConfig, PriorConfig
from vqcodec.errors import WeightsError
from vqcodec.exact.arithmetic import ACTIVATION_MAX, EXACT, FRACTION_BITS, WEIGHT_MAX, bound
from vqcodec.exact.prior import FixedPrior
from vqcodec.networks.blank import blank
from vqcodec.networks.layers import Conv
from vqcodec.networks.pixelcnn import PixelCNN

__all__ = ["fixed_point", "floating_point"]

MAX_SCALE_BITS = 24  # the largest shift, even if smaller weights would allow a larger one


@torch.no_grad()
def fixed_point(prior: PixelCNN) -> dict[str, Tensor]:
    """The integers of ``prior``, under the names that :class:`FixedPrior` expects.

    Raises WeightsError if a weight is not finite, or if no shift of at least 1 keeps a layer's sums exact.
    """
    tensors: dict[str, Tensor] = {}
    qualities = [prior.model.lmbda(q) for q in range(QUALITY_MIN, QUALITY_MAX + 1)]
    features = prior.embedding(torch.tensor(qualities, device=next(prior.parameters()).device))
    for index, level in enumerate(prior.each_level()):
        prefix = f"{index}."
        tensors[prefix + "embed"] = _table(level.embed.table)
        informing = level.groups_a_stage * (level.stages - 1)  # the last stage's codes inform no later stage
        tensors[prefix + "inner"] = _table(level.inner.table[:informing])
        tensors[prefix + "quality"] = _table(level.quality(features))
        for i, layer in enumerate(level.context):
            tensors |= _linear(f"{prefix}context.{i}", *_matrix(layer, 9))
        if index > 0:
            tensors |= _linear(f"{prefix}spread", *_matrix(level.spread, 1))
        tensors |= _linear(f"{prefix}first", *_matrix(level.first, 4))
        for i, layer in enumerate(level.layers):
            tensors |= _linear(f"{prefix}layers.{i}", *_matrix(layer, 5))
        tensors |= _linear(f"{prefix}hidden", *_matrix(level.hidden, 1))
        for i, head in enumerate(level.heads):
            matrix, bias = _matrix(head, 1)
            tensors |= _linear(f"{prefix}heads.{i}", matrix / math.log(2), bias / math.log(2))  # logits to base 2
    FixedPrior(tensors, prior.model, prior.config)  # proves the bound
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def floating_point(
    integers: Mapping[str, Tensor], model: ModelConfig, config: PriorConfig, quality: int, device: torch.device
) -> PixelCNN:
    """The float form of a prior at one ``quality``, whatever λ it is called with.

    ``integers`` are those of :func:`fixed_point`, checked by :class:`FixedPrior`. Its bits differ from those of the
    integers only by the rounding of activations.
    """
    prior = blank(lambda: PixelCNN(model, config))
    values: dict[str, Tensor] = {}
    for index, level in enumerate(prior.each_level()):
        prefix = f"levels.{index}."

        def table(name: str, index: int = index) -> Tensor:
            return integers[f"{index}.{name}"].to(device, torch.float32) / (1 << FRACTION_BITS)

        values[prefix + "embed.table"] = table("embed")
        inner = values[prefix + "inner.table"] = torch.zeros_like(table("embed"))
        inner[: level.groups_a_stage * (level.stages - 1)] = table("inner")
        values[prefix + "quality.weight"] = torch.zeros(level.quality.weight.shape, device=device)
        values[prefix + "quality.bias"] = table("quality")[quality - QUALITY_MIN]
        for name, layer in level.named_modules():
            if isinstance(layer, Conv):
                scale = math.log(2) if name.startswith("heads.") else 1.0  # the integers' logits are to base 2
                weight, bias = _kernel(integers, f"{index}.{name}", layer, device)
                values[f"{prefix}{name}.weight"], values[f"{prefix}{name}.bias"] = scale * weight, scale * bias
    for name, tensor in prior.embedding.state_dict().items():
        values[f"embedding.{name}"] = torch.zeros(tensor.shape, device=device)
    prior.load_state_dict(values, assign=True)
    return prior.requires_grad_(False)


def _kernel(integers: Mapping[str, Tensor], name: str, layer: Conv, device: torch.device) -> tuple[Tensor, Tensor]:
    """The weight ``[out, in·taps]`` and the bias ``[out]`` of a convolution: the inverse of :func:`_linear`."""
    scale = 2.0 ** -integers[f"{name}.shift"].to(device, torch.float32)
    matrix = integers[f"{name}.weight"].to(device, torch.float32) * scale
    bias = integers[f"{name}.bias"].to(device, torch.float32) * scale / (1 << FRACTION_BITS)
    outputs, inputs = layer.shape[:2]
    return matrix.view(-1, inputs, outputs).permute(2, 1, 0).reshape(outputs, -1).contiguous(), bias


def _linear(name: str, matrix: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The integers of the layer ``name`` with weights ``matrix [in, out]`` and ``bias [out]``.

    The shift of an output channel is the number of fraction bits of its weights.
    """
    if not bool(matrix.isfinite().all() and bias.isfinite().all()):
        raise WeightsError(f"prior layer {name} has weights that are not finite")
    matrix, bias = matrix.double(), bias.double()
    largest = matrix.abs().amax(0).clamp_min(1e-9)
    shift = (WEIGHT_MAX / largest).log2().floor().clamp(max=MAX_SCALE_BITS)
    while True:
        weight = (matrix * 2**shift).round()
        integers = (bias * 2 ** (shift + FRACTION_BITS)).round()
        too_large = bound(weight, integers, shift) >= EXACT
        if not bool((too_large & (shift > 1)).any()):
            break
        shift -= too_large.double()
    return {
        f"{name}.weight": weight.to(torch.int8),
        f"{name}.bias": integers.to(torch.int64),
        f"{name}.shift": shift.to(torch.int32),
    }


def _table(values: Tensor) -> Tensor:
    integers = (values.double() * (1 << FRACTION_BITS)).round()
    return integers.clamp(-ACTIVATION_MAX, ACTIVATION_MAX).to(torch.int16)


def _matrix(layer: nn.Module, taps: int) -> tuple[Tensor, Tensor]:
    """The weights ``[taps·in, out]`` and the bias ``[out]`` of a convolution."""
    assert isinstance(layer, Conv)
    weight = layer.weight.view(layer.shape[0], layer.shape[1], taps)
    return weight.permute(2, 1, 0).reshape(-1, layer.shape[0]), layer.bias
