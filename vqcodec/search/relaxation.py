r"""A window's codes, relaxed: each slot has weights over its candidates in place of one code.

::

    weights [A, M] ──┬─ Σ weight · codeword ──▶ z        at the slots; all other codes are constants
                     ├─ Σ weight · vector ────▶ embedded, inner
                     └────────────────────────▶ Σ weight · (−ln p)

Legend: N positions, G groups, D channels a group, K codewords, C channels of the prior, A slots of a level, group by
group, M candidates.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.networks.pixelcnn import LevelPrior
from vqcodec.networks.quantize import VectorQuantizer
from vqcodec.search.candidates import Slots, embed
from vqcodec.search.nats import GroupHead, candidate_nats, present_nats
from vqcodec.search.objective import Leaves

__all__ = ["RelaxedLevel"]


class RelaxedLevel:
    """One level of a window.

    Args:
        level, quantizer: of the level.
        codes: the present ones, ``[N, G]``.
        slots: of every group.
        whole: whether the other codes' bits count too: a move of a coarse code changes them.

    Attributes:
        position, group: of all slots, ``[A]``.
        candidates: their codes, ``[A, M]``.
        vectors: the codewords, ``[A, M, D]``.
        theta: −energy at the present codes, ``[A, M]``, in nats.
    """

    def __init__(
        self,
        level: LevelPrior,
        quantizer: VectorQuantizer,
        codes: Tensor,
        slots: Sequence[Slots],
        *,
        whole: bool,
    ) -> None:
        self._level, self._present, self._whole = level, codes, whole
        self.position, self.candidates, self.theta = (
            torch.cat([getattr(group, name) for group in slots]) for name in ("position", "codes", "theta")
        )
        ends = [0, *accumulate(len(group.position) for group in slots)]
        spans = [slice(*span) for span in pairwise(ends)]
        counts = torch.tensor([span.stop - span.start for span in spans], device=codes.device)
        self.group = torch.arange(len(slots), device=codes.device).repeat_interleave(counts)
        self.vectors = quantizer.codebook[self.group[:, None], self.candidates]
        self._rows = self.group[:, None] * quantizer.codebook_size + self.candidates  # of the tables
        self._all = _Bags(self.position, slice(0, ends[-1]), len(codes))
        self._stages = [
            _Bags(self.position, slice(ends[groups.start], ends[groups.stop]), len(codes)) for groups in level.groups_of
        ]
        self._heads = [self._heads_of(stage, spans) for stage in range(level.stages)]
        base = embed(codes, level, quantizer)
        self._z = base.z.view(*codes.shape, -1)
        self._first = torch.zeros_like(self.theta)
        self._first[:, 0] = 1
        self._embedded, self._inner = base.embedded, base.inner
        without = self.leaves(-self._first)  # the slots' own share is taken out
        self._embedded, self._inner = without.embedded, without.inner

    def leaves(self, weights: Tensor) -> Leaves:
        """What the level's codes stand for, with ``weights [A, M]``."""
        vectors = (weights[:, :, None] * self.vectors).sum(1)
        z = self._z.index_put((self.position, self.group), vectors).flatten(1)
        embedded = self._embedded + self._sum(self._level.embed.table, self._all, weights)
        inner = [
            base + self._sum(self._level.inner.table, bags, weights)
            for base, bags in zip(self._inner, self._stages, strict=False)  # the last stage has none
        ]
        return Leaves(z, embedded, inner)

    def nats(self, weights: Tensor, stage: int, features: Tensor) -> Tensor:
        """Σ −ln p of the slots' codes in the stage, a scalar, or of all codes."""
        if not self._whole:
            return candidate_nats(features, weights, self._heads[stage])
        weight, bias = self._level.head(stage)
        present, _ = present_nats(features, self._present[:, self._level.groups_of[stage]], weight.T, bias)
        return present.sum() + candidate_nats(features, weights - self._first, self._heads[stage])

    def codes(self, theta: Tensor) -> Tensor:
        """Codes ``[N, G]`` with the candidate of the largest ``theta [A, M]`` in each slot."""
        best = self.candidates.gather(1, theta.argmax(1, keepdim=True))[:, 0]
        return self._present.index_put((self.position, self.group), best)

    def _sum(self, table: Tensor, bags: "_Bags", weights: Tensor) -> Tensor:
        """``[N, C]``: the weighted rows of ``table [G, K, C]`` of some slots."""
        rows, shares = self._rows[bags.slots].flatten(), weights[bags.slots].flatten()
        starts = bags.starts * self.candidates.shape[1]
        return F.embedding_bag(rows, table.flatten(0, 1), starts, per_sample_weights=shares, mode="sum")

    def _heads_of(self, stage: int, spans: Sequence[slice]) -> list[GroupHead]:
        weight, bias = self._level.head(stage)
        size = self._level.codebook_size
        parts = zip(
            torch.split(weight, size), torch.split(bias, size), spans[self._level.groups_of[stage]], strict=True
        )
        return [GroupHead(w.T, b, self.position[own], self.candidates[own], own) for w, b, own in parts]


class _Bags:
    """The slots of some groups by position.

    Attributes:
        slots: indices among those of the level, ascending by position.
        starts: the first of each of the N positions among these.
    """

    def __init__(self, position: Tensor, span: slice, positions: int) -> None:
        own = position[span]
        self.slots = own.argsort(stable=True) + span.start
        self.starts = torch.searchsorted(position[self.slots], torch.arange(positions, device=own.device))
