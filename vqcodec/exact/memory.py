r"""The memory plan of a level's run: what is computed together, which rows are kept, and buffers that steps share.

::

    coding order   … │ span i−3 │ span i−2 │ span i−1 │ span i │ …        a neighbour is at most three steps back,
                          ▼          ▼          ▼         ▼               so a ring of four spans holds all that
    ring           │  slot 1  │  slot 2  │  slot 3  │  slot 0  │ zeros │   a step reads

A large picture thus needs little more memory than its codes and its context. The row of zeros stands for all positions
outside the grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.exact.arithmetic import FREQUENCIES
from vqcodec.exact.wavefront import Wavefront

__all__ = ["Frequencies", "FrequencyBuffer", "Ring", "Step", "plan"]

Frequencies = NDArray[np.float64]
"""Integers: frequencies ``[n, G/S, K]`` of the codes of a stage at n rows."""

SLOTS = 4  # spans that a ring keeps


@dataclass(frozen=True)
class Step:
    """Rows that are computed together: those of one wavefront step, or of several.

    Attributes:
        rows: of the coding order.
        count: number of rows.
        padded: number of rows that products are computed with; those beyond ``count`` are zero.
        slot: where a ring keeps these rows.
        before: ``[4·padded]``, where it keeps the four earlier neighbours of each row.
        around: ``[5·padded]``, where it keeps these and the row itself.
    """

    rows: slice
    count: int
    padded: int
    slot: slice
    before: Tensor
    around: Tensor


@dataclass(frozen=True)
class Ring:
    """The shape of a ring, and the steps that use it.

    Attributes:
        longest: the most rows that a step has.
        steps: in coding order.
    """

    longest: int
    steps: list[Step]

    def buffer(self, like: Tensor) -> Tensor:
        """Zeros ``[4·longest + 1, C]`` of the type and device of ``like [·, C]``."""
        return like.new_zeros(SLOTS * self.longest + 1, like.shape[1])


def plan(
    wavefront: Wavefront, spans: list[tuple[int, int]], padded_rows: Callable[[int], int], device: torch.device
) -> Ring:
    """The ring and the steps for ``spans``, the ``(first, last + 1)`` rows of each step.

    ``padded_rows`` maps a number of rows to the number with which products of these rows are computed.
    """
    firsts = np.array([first for first, _ in spans])
    sizes = np.array([last - first for first, last in spans])
    padded = np.array([padded_rows(size) for size in sizes.tolist()])
    longest = int(sizes.max())
    outside = SLOTS * longest
    starts = np.arange(len(spans)) % SLOTS * longest
    places = np.append(np.arange(sizes.sum()) + np.repeat(starts - firsts, sizes), outside).astype(np.int32)
    filled = np.full((padded.sum(), 5), outside, dtype=np.int32)
    filled[np.arange(sizes.sum()) + np.repeat(np.cumsum(padded) - padded - firsts, sizes)] = places[
        wavefront.neighbours
    ]
    near = torch.from_numpy(filled).to(device)
    before = torch.split(near[:, :4].flatten(), (4 * padded).tolist())
    around = torch.split(near.flatten(), (5 * padded).tolist())
    steps = [
        Step(slice(first, last), last - first, full, slice(start, start + last - first), earlier, all_five)
        for (first, last), full, start, earlier, all_five in zip(
            spans, padded.tolist(), starts.tolist(), before, around, strict=True
        )
    ]
    return Ring(longest, steps)


@dataclass(frozen=True)
class _Views:
    """A stage's buffers, cut to a number of rows."""

    index: Tensor  # [rows · G/S · K], int32
    frequencies: Tensor  # the same, float64
    host: Tensor | None  # a copy of ``frequencies`` where numpy cannot read them
    array: Frequencies  # what numpy reads, as [rows, G/S, K]


class FrequencyBuffer:
    """Turns logits into frequencies, in memory that all steps share: the system would have to clear fresh memory.

    Args:
        stages, groups, codebook_size: S, G/S and K.
        rows: the most that a step has.
        device: of the logits.
    """

    def __init__(self, stages: int, groups: int, codebook_size: int, rows: int, device: torch.device) -> None:
        self._shape = groups, codebook_size
        size = rows * groups * codebook_size
        self._table = torch.tensor(FREQUENCIES, dtype=torch.float64, device=device)
        self._index = torch.empty(size, dtype=torch.int32, device=device)
        self._stages = [torch.empty(size, dtype=torch.float64, device=device) for _ in range(stages)]
        self._views: dict[tuple[int, int], _Views] = {}

    def fill(self, stage: int, logits: Tensor) -> Frequencies:
        """Frequencies ``[n, G/S, K]`` of logits ``[n, G/S·K]``, which are in 64ths of a bit and are overwritten.

        A frequency is 2^(22 − gap), where the gap is that to the largest logit of the group. The array is overwritten
        by the next call for this stage.
        """
        views = self._of(stage, logits.shape[0])
        logits = logits.view(-1, self._shape[1])
        gap = torch.sub(logits.amax(1, keepdim=True), logits, out=logits).clamp_(max=len(FREQUENCIES) - 1)
        views.index.copy_(gap.view(-1))
        torch.index_select(self._table, 0, views.index, out=views.frequencies)
        if views.host is not None:
            views.host.copy_(views.frequencies)
        return views.array

    def _of(self, stage: int, rows: int) -> _Views:
        if (stage, rows) not in self._views:
            size = rows * math.prod(self._shape)
            frequencies = self._stages[stage][:size]
            host = None if frequencies.device.type == "cpu" else torch.empty(size, dtype=frequencies.dtype)
            array = (frequencies if host is None else host).numpy().reshape(rows, *self._shape)
            self._views[stage, rows] = _Views(self._index[:size], frequencies, host, array)
        return self._views[stage, rows]
