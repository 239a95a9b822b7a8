r"""A window's codes, relaxed: each slot has weights over its candidates in place of one code.

::

    weights [A, M] ──┬─ Σ weight · codeword ──▶ z        at the slots; all other codes are constants
                     ├─ Σ weight · vector ────▶ embedded, inner
                     └────────────────────────▶ Σ weight · (−ln p)

Legend: N positions, G groups, D channels a group, K codewords, C channels of the prior, A slots of a level, in the
order of its stages, M candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.networks.pixelcnn import LevelPrior
from vqcodec.networks.quantize import VectorQuantizer
from vqcodec.search.candidates import Slots, embed
from vqcodec.search.nats import CHUNK, Weighted, weighted_nats
from vqcodec.search.objective import Leaves

__all__ = ["RelaxedLevel"]


@dataclass(frozen=True)
class _Stage:
    """A stage's slots ``own`` among those of the level, and what its head needs: None if it has no slots."""

    own: slice
    bags: Tensor
    weighted: Weighted | None


class RelaxedLevel:
    """One level of a window.

    Args:
        level, quantizer: of the level.
        codes: the present ones, ``[N, G]``.
        slots: of every stage.

    Attributes:
        position, group: of all slots, ``[A]``.
        candidates: their codes, ``[A, M]``.
        vectors: the codewords, ``[A, M, D]``.
        theta: −energy at the present codes, ``[A, M]``, in nats.
    """

    def __init__(self, level: LevelPrior, quantizer: VectorQuantizer, codes: Tensor, slots: Sequence[Slots]) -> None:
        self._level, self._present = level, codes
        self.position, self.group, self.candidates, self.theta = (
            torch.cat([getattr(stage, name) for stage in slots]) for name in ("position", "group", "codes", "theta")
        )
        self.vectors = quantizer.codebook[self.group[:, None], self.candidates]
        self._order = self.position.argsort(stable=True)
        self._rows = self.group[:, None] * quantizer.codebook_size + self.candidates  # of the tables
        self._fixed = torch.ones(codes.shape, device=codes.device).index_put(
            (self.position, self.group), torch.zeros(len(self.position), device=codes.device)
        )
        ends = [0]
        for stage in slots:
            ends.append(ends[-1] + len(stage.position))
        self._bags = self._bags_of(self.position[self._order])
        self._stages = [
            _Stage(
                slice(ends[i], ends[i + 1]),
                self._bags_of(stage.position),
                self._weighted(i, stage) if len(stage.position) else None,
            )
            for i, stage in enumerate(slots)
        ]
        base = embed(codes, level, quantizer)
        self._z = base.z.view(*codes.shape, -1)
        first = F.one_hot(torch.zeros(len(self.position), dtype=torch.int64, device=codes.device), self.theta.shape[1])
        self._embedded, self._inner = base.embedded, base.inner
        without = self.leaves(-first.float())  # the slots' own share is taken out
        self._embedded, self._inner = without.embedded, without.inner

    def leaves(self, weights: Tensor) -> Leaves:
        """What the level's codes stand for, with ``weights [A, M]``."""
        vectors = (weights[:, :, None] * self.vectors).sum(1)
        z = self._z.index_put((self.position, self.group), vectors).flatten(1)
        embedded = self._embedded + self._sum(self._level.embed.table, self._order, self._bags, weights)
        inner = [
            base + self._sum(self._level.inner.table, stage.own, stage.bags, weights)
            for base, stage in zip(self._inner, self._stages, strict=False)
        ]
        return Leaves(z, embedded, inner)

    def nats(self, weights: Tensor, stage: int, features: Tensor) -> Tensor:
        """Σ −ln p of the groups that have slots in the stage, a scalar; the others' is nearly constant."""
        own, weighted = self._stages[stage].own, self._stages[stage].weighted
        if weighted is None:
            return features.new_zeros(())
        return weighted_nats(features, weights[own].flatten(), weighted)

    def codes(self, theta: Tensor) -> Tensor:
        """Codes ``[N, G]`` with the candidate of the largest ``theta [A, M]`` in each slot."""
        best = self.candidates.gather(1, theta.argmax(1, keepdim=True))[:, 0]
        return self._present.index_put((self.position, self.group), best)

    def _bags_of(self, position: Tensor) -> Tensor:
        """The first candidate of each of the N positions, of slots that ascend by ``position [A]``."""
        positions = torch.arange(len(self._present), device=position.device)
        return torch.searchsorted(position, positions) * self.candidates.shape[1]

    def _sum(self, table: Tensor, slots: Tensor | slice, bags: Tensor, weights: Tensor) -> Tensor:
        """``[N, C]``: the weighted rows of ``table [G, K, C]`` of some slots."""
        rows, shares = self._rows[slots].flatten(), weights[slots].flatten()
        return F.embedding_bag(rows, table.flatten(0, 1), bags, per_sample_weights=shares, mode="sum")

    def _weighted(self, stage: int, slots: Slots) -> Weighted:
        weight, bias = self._level.head(stage)
        size = self._level.codebook_size
        groups = torch.bincount(slots.group).nonzero()[:, 0]
        group = torch.searchsorted(groups, slots.group)
        first = self._level.groups_of[stage].start
        columns = ((groups - first)[:, None] * size + torch.arange(size, device=groups.device)).flatten()
        entries = (slots.position[:, None] * len(groups) + group[:, None]) * size + slots.codes
        firsts = torch.arange(0, len(self._present) + CHUNK, CHUNK, device=groups.device)
        return Weighted(
            weight=weight[columns].T.contiguous(),
            bias=bias[columns],
            codes=self._present[:, groups],
            fixed=self._fixed[:, groups],
            entries=entries.flatten(),
            cuts=(torch.searchsorted(slots.position, firsts) * slots.codes.shape[1]).tolist(),
        )
