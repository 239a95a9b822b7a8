r"""−ln p of weighted codes under one stage's head, without the logits of all positions in memory.

::

    features [N, C] ──· W [C, G·K] + b──▶ log_softmax ──▶ Σ weight · (−ln p)          512 positions at a time
        ▲                                     │
        └── · Wᵀ ◀── Σ weights · p − weight ──┘

The scalar is the loss, so its gradient is known as soon as a chunk's probabilities are: both are computed in one pass
over the chunk, which stays in the processor's cache.

Legend: N positions, C channels, G groups of the stage, K codewords, A slots, M candidates a slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqcodec.exact.wavefront import chunks

__all__ = ["CHUNK", "Weighted", "weighted_nats"]

CHUNK = 512  # positions


@dataclass(frozen=True)
class Weighted:
    """Which codes of a stage are weighed.

    Attributes:
        weight, bias: of the head, ``[C, G·K]`` and ``[G·K]``.
        codes: ``[N, G]``, each of which counts …
        fixed: … with this weight ``[N, G]``: 0 where a slot has candidates, else 1.
        entries: of the candidates, position·G·K + group·K + code, ``[A·M]``, ascending by position.
        cuts: the first entry of each chunk of positions, and ``A·M``.
    """

    weight: Tensor
    bias: Tensor
    codes: Tensor
    fixed: Tensor
    entries: Tensor
    cuts: Sequence[int]


def weighted_nats(features: Tensor, candidates: Tensor, stage: Weighted) -> Tensor:
    """Σ −ln p of a stage's codes, a scalar.

    It has gradients to ``features [N, C]``, and to ``candidates [A·M]``, the weights of the candidates.
    """
    nats: Tensor = _WeightedNats.apply(features, candidates, stage)  # type: ignore[no-untyped-call]
    return nats


class _WeightedNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, candidates: Tensor, stage: Weighted) -> Tensor:
        to_features, to_candidates = torch.empty_like(features), torch.empty_like(candidates)
        total = features.new_zeros(())
        groups = stage.codes.shape[1]
        for i, (first, last) in enumerate(chunks(len(features), CHUNK)):
            logits = torch.addmm(stage.bias, features[first:last], stage.weight)
            table = logits.view(last - first, groups, -1).log_softmax(2)
            codes, fixed = stage.codes[first:last, :, None], stage.fixed[first:last, :, None]
            own = slice(stage.cuts[i], stage.cuts[i + 1])
            entries, weights = stage.entries[own] - first * logits.shape[1], candidates[own]
            to_candidates[own] = -table.view(-1)[entries]
            total -= (table.gather(2, codes) * fixed).sum() - (weights * to_candidates[own]).sum()
            # All weights of a slot sum to 1, so d nats / d logits is p − weight.
            probabilities = table.exp_().scatter_add_(2, codes, -fixed)
            probabilities.view(-1).index_add_(0, entries, weights, alpha=-1)
            torch.mm(probabilities.flatten(1), stage.weight.T, out=to_features[first:last])
        ctx.save_for_backward(to_features, to_candidates)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        to_features, to_candidates = ctx.saved_tensors
        return gradients[0] * to_features, gradients[0] * to_candidates, None
