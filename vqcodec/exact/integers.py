r"""The prior's integers: read from tensors, checked, and proved to stay exact.

::

    tensors of the weights ──▶ shape, type, range ──▶ Σ|w|·A + |b| + ½ < 2^24 ──▶ Level: tables and layers in float32
                                     │                        │
                                     └──────── WeightsError ◀─┘

Legend: C channels, G groups, K codewords, S stages, f the ratio of the coarser level's stride to this level's. The
network is that of :mod:`vqcodec.networks.pixelcnn`; ``docs/format.md`` lists the tensors.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.config import QUALITY_MAX, QUALITY_MIN, LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import WeightsError
from vqcodec.exact.arithmetic import ACTIVATION_MAX, EXACT, SUM_BITS, bound
from vqcodec.exact.kernels import Kernel, Linear
from vqcodec.exact.wavefront import CodeArray

__all__ = ["Embedding", "Level", "load_levels"]

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
MAX_SHIFT = 32


class Embedding:
    """Sums, over groups, of the vectors that codes have in a table, clamped to ±ACTIVATION_MAX.

    Args:
        table: ``[G, K, C]``.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table.flatten(0, 1)
        self._first = np.arange(len(table), dtype=np.int32) * table.shape[1]  # each group's first row
        self._starts = self._starts_of(1024)

    def __call__(self, codes: CodeArray) -> Tensor:
        """``codes [n, G] -> [n, C]``."""
        count, starts = codes.shape[0], self._starts
        if count > starts.numel():
            starts = self._starts = self._starts_of(count)
        index = torch.from_numpy((codes + self._first).reshape(-1)).to(self._table.device)
        sums = F.embedding_bag(index, self._table, starts[:count], mode="sum")
        return sums.clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)

    def _starts_of(self, count: int) -> Tensor:
        # To make them at each call would take torch as long as the sums.
        return torch.arange(count, dtype=torch.int32, device=self._table.device) * len(self._first)


@dataclass(frozen=True)
class Level:
    """The tables and layers of one level.

    Attributes:
        groups, stages, codebook_size: G, S and K.
        factor: f; 1 for level 0.
        embed: of all groups, for the positions that follow and for the state.
        inner: of the groups of each stage but the last, for the stages that follow.
        quality: ``[100, C]``.
        context: 9C → C, the 3×3 layers on the coarser level's state.
        spread: C → f²C; None for level 0.
        first: 4C → C.
        layers: 5C → C each.
        hidden: C → SC.
        heads: C → (G/S)·K each.
    """

    groups: int
    stages: int
    codebook_size: int
    factor: int
    embed: Embedding
    inner: list[Embedding]
    quality: Tensor
    context: list[Linear]
    spread: Linear | None
    first: Linear
    layers: list[Linear]
    hidden: Linear
    heads: list[Linear]

    @property
    def groups_per_stage(self) -> int:
        """G/S."""
        return self.groups // self.stages

    @functools.cached_property
    def groups_of(self) -> list[slice]:
        """The groups of each stage."""
        size = self.groups_per_stage
        return [slice(first, first + size) for first in range(0, self.groups, size)]


def load_levels(
    tensors: Mapping[str, Tensor],
    model: ModelConfig,
    config: PriorConfig,
    device: torch.device,
    kernels: Sequence[Kernel],
) -> list[Level]:
    """The levels of a prior from its integers by name, coarsest first.

    Raises WeightsError if a tensor is missing, unexpected, misshapen or out of range, or if a layer's sums could leave
    the integers that float32 holds exactly.
    """
    loader = _Loader(tensors, config, device, kernels)
    strides = [model.levels[0].stride, *(level.stride for level in model.levels)]  # of the coarser level
    levels = [
        loader.level(index, level, coarser // level.stride)
        for index, (level, coarser) in enumerate(zip(model.levels, strides, strict=False))
    ]
    loader.finish()
    return levels


class _Loader:
    """Takes tensors by name and checks each of them."""

    def __init__(
        self, tensors: Mapping[str, Tensor], config: PriorConfig, device: torch.device, kernels: Sequence[Kernel]
    ) -> None:
        self.config, self.device, self.kernels = config, device, kernels
        self.remaining = dict(tensors)

    def level(self, index: int, level: LevelConfig, factor: int) -> Level:
        channels, prefix = self.config.channels, f"{index}."
        per_stage = level.groups // level.stages
        informing = per_stage * (level.stages - 1)  # groups whose codes inform a later stage
        inner = self._table(prefix + "inner", informing, level.codebook_size, channels)
        context = range(self.config.context_layers if index > 0 else 0)
        outputs = per_stage * level.codebook_size
        return Level(
            groups=level.groups,
            stages=level.stages,
            codebook_size=level.codebook_size,
            factor=factor,
            embed=Embedding(self._table(prefix + "embed", level.groups, level.codebook_size, channels)),
            inner=[Embedding(inner[i : i + per_stage]) for i in range(0, informing, per_stage)],
            quality=self._table(prefix + "quality", QUALITY_MAX - QUALITY_MIN + 1, channels),
            context=[self._linear(f"{prefix}context.{i}", 9 * channels, channels) for i in context],
            spread=self._linear(prefix + "spread", channels, channels * factor**2) if index > 0 else None,
            first=self._linear(prefix + "first", 4 * channels, channels),
            layers=[self._linear(f"{prefix}layers.{i}", 5 * channels, channels) for i in range(self.config.layers)],
            hidden=self._linear(prefix + "hidden", channels, channels * level.stages),
            heads=[self._linear(f"{prefix}heads.{i}", channels, outputs) for i in range(level.stages)],
        )

    def finish(self) -> None:
        if self.remaining:
            raise WeightsError(f"prior has unexpected tensors: {', '.join(sorted(self.remaining))}")

    def _take(self, name: str, *shape: int) -> Tensor:
        tensor = self.remaining.pop(name, None)
        if tensor is None:
            raise WeightsError(f"prior has no tensor {name}")
        if tuple(tensor.shape) != shape or tensor.dtype not in INTEGERS:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise WeightsError(f"prior tensor {name} is {found}, expected integers {list(shape)}")
        return tensor.to(self.device, torch.float64)

    def _table(self, name: str, rows: int, *shape: int) -> Tensor:
        """A table ``[rows, *shape]``; one entry of each row may be summed, which is exact too."""
        table = self._take(name, rows, *shape)
        if bool((table.abs() > ACTIVATION_MAX).any()):
            raise WeightsError(f"prior tensor {name} has values beyond ±{ACTIVATION_MAX}")
        if not rows * ACTIVATION_MAX < EXACT:
            raise WeightsError(f"prior tensor {name} sums {rows} groups, beyond the exact integers")
        return table.float()

    def _linear(self, name: str, inputs: int, outputs: int) -> Linear:
        weight = self._take(f"{name}.weight", inputs, outputs)
        bias = self._take(f"{name}.bias", outputs)
        shift = self._take(f"{name}.shift", outputs)
        if bool(((shift < 1) | (shift > MAX_SHIFT)).any()):
            raise WeightsError(f"prior tensor {name}.shift is {_range(shift)}, expected 1..{MAX_SHIFT}")
        # Every input of every layer has been clamped to ±ACTIVATION_MAX.
        largest = float(bound(weight, bias, shift).max())
        if not largest < EXACT:
            raise WeightsError(
                f"prior layer {name} can reach {largest:.3g}, beyond the exact integers below 2^{SUM_BITS}"
            )
        scale = 2.0**-shift
        return Linear((weight * scale).float(), (bias * scale + 0.5).float(), self.kernels)


def _range(values: Tensor) -> str:
    low, high = (int(v) for v in values.aminmax())
    return str(low) if low == high else f"{low}..{high}"
