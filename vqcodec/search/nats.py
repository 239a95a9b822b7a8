r"""−ln p of codes under one stage's head, without the logits of all positions in memory.

::

    features [N, C] ──· W [C, G·K] + b──▶ log_softmax ──▶ −ln p of the present codes      512 positions at a time
        ▲                                     │
        └── · Wᵀ ◀────── p − weight ──────────┘

A value's gradient is known as soon as its probabilities are: both are computed in one pass, and the logits stay in the
processor's cache.

Legend: N positions, C channels, G groups of the stage, K codewords, n slots of a group, A of all groups, M candidates a
slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqcodec.exact.wavefront import chunks

__all__ = ["GroupHead", "candidate_nats", "present_nats"]

CHUNK = 512  # positions


@dataclass(frozen=True)
class GroupHead:
    """The slots of one group, and what makes their logits.

    Attributes:
        weight, bias: of the head, ``[C, K]`` and ``[K]``.
        position: of each slot, ``[n]``.
        codes: its candidates, ``[n, M]``.
        own: where the slots lie among those of all groups.
    """

    weight: Tensor
    bias: Tensor
    position: Tensor
    codes: Tensor
    own: slice


def present_nats(features: Tensor, codes: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """−ln p of the ``codes [N, G]`` of a stage, and how likely other codes are.

    Args:
        features: ``[N, C]``.
        codes: ``[N, G]``.
        weight, bias: of the head, ``[C, G·K]`` and ``[G·K]``.

    Returns:
        The sum over groups, ``[N]``, with a gradient to ``features``; and the margin of the most likely other code,
        ln p − ln p of the present one, ``[N, G]``.
    """
    nats, margin = _PresentNats.apply(features, codes, weight, bias)  # type: ignore[no-untyped-call]
    return nats, margin


def candidate_nats(features: Tensor, weights: Tensor, groups: Sequence[GroupHead]) -> Tensor:
    """Σ weight · (−ln p) over the candidates of all slots of a stage, a scalar.

    It has gradients to ``features [N, C]``, and to ``weights [A, M]``.
    """
    nats: Tensor = _CandidateNats.apply(features, weights, groups)  # type: ignore[no-untyped-call]
    return nats


class _PresentNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, codes: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        to_features, nats = torch.empty_like(features), features.new_empty(len(features))
        margin = features.new_empty(codes.shape)
        for first, last in chunks(len(features), CHUNK):
            logits = torch.addmm(bias, features[first:last], weight)
            table = logits.view(last - first, codes.shape[1], -1).log_softmax(2)
            own = codes[first:last, :, None]
            present = table.gather(2, own)
            nats[first:last] = -present.sum((1, 2))
            margin[first:last] = table.scatter_(2, own, -torch.inf).amax(2) - present[:, :, 0]
            probabilities = table.exp_().scatter_(2, own, present.exp_() - 1)  # d nats / d logits
            torch.mm(probabilities.flatten(1), weight.T, out=to_features[first:last])
        ctx.save_for_backward(to_features)
        ctx.mark_non_differentiable(margin)
        return nats, margin

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (to_features,) = ctx.saved_tensors
        return gradients[0][:, None] * to_features, None, None, None


class _CandidateNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor, groups: Sequence[GroupHead]) -> Tensor:
        to_features, to_weights = torch.zeros_like(features), torch.zeros_like(weights)
        for group in groups:
            rows, shares = features[group.position], weights[group.own]
            table = torch.addmm(group.bias, rows, group.weight).log_softmax(1)
            torch.neg(table.gather(1, group.codes), out=to_weights[group.own])
            probabilities = table.exp_().mul_(shares.sum(1, keepdim=True))
            probabilities.scatter_add_(1, group.codes, -shares)  # d nats / d logits
            to_features.index_add_(0, group.position, probabilities @ group.weight.T)
        ctx.save_for_backward(to_features, to_weights)
        return (weights * to_weights).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        to_features, to_weights = ctx.saved_tensors
        return gradients[0] * to_features, gradients[0] * to_weights, None
