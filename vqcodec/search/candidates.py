r"""Which codes are worth a thought: the slots of a window whose code could be another, and their candidates.

::

    J at the present codes ──backward──▶ ∂J/∂z, ∂J/∂embedded, ∂J/∂inner, features
                                                        │
    energy of code k of a slot, in bits:                ▼
        ∂J/∂z · e_k + a·‖e_k − e‖² − log2 p(k) + ∂J/∂embedded · E_k + ∂J/∂inner · I_k
                                                        │
                                                        ▼
    slots: where another code comes within THRESHOLD of the present one, with the CANDIDATES best

a is the channel's curvature, half of ∂²J/∂z² by the decoder's Jacobian, and at least that of a quantiser of step one at
the best rate (DISTORTION_WEIGHT). At low qualities most channels have less, but all slots move together, and would
overshoot. A few channels have four times as much, and changes there would cost far more than they save.

For nearly all positions and groups the present code, mostly zero, is beyond doubt: the prior alone puts it more than
THRESHOLD before all others. No energies are computed there, which saves most of the time. At the finest level of the
trunk this loses 0 to 6 % of the slots, and more where a level of pixels has hardly any.

A coarse level is one that a finer level of the trunk follows. The finer level codes what the coarse one leaves over, so
with a change of a coarse code and the finer codes as they are, the slope says nothing: the energy leaves out the
gradients there.

Legend: N positions, G groups, D channels a group, K codewords, C channels of the prior, n slots of a group, M
candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.networks.levels import Level
from vqcodec.networks.pixelcnn import LevelPrior
from vqcodec.networks.quantize import DISTORTION_WEIGHT, VectorQuantizer
from vqcodec.networks.vqvae import VQVAE
from vqcodec.search.nats import present_nats
from vqcodec.search.objective import LN2, Leaves, Objective

__all__ = ["CANDIDATES", "Slots", "coarse_levels", "codewords", "curvatures", "embed", "find_slots"]

CANDIDATES = 4  # M
THRESHOLD = 6.0  # nats


@dataclass(frozen=True)
class Slots:
    """The slots of one group, ascending by position.

    Attributes:
        position: of each slot, ``[n]``.
        codes: the candidates ``[n, M]``, the present code first.
        theta: −energy in nats ``[n, M]``, up to a constant a slot.
    """

    position: Tensor
    codes: Tensor
    theta: Tensor


def coarse_levels(vqvae: VQVAE) -> int:
    """How many levels a finer level of the trunk follows."""
    return sum(isinstance(level, Level) for level in vqvae.levels) - 1


def codewords(codes: Tensor, quantizer: VectorQuantizer) -> Tensor:
    """``[N, G·D]`` of ``codes [N, G]``."""
    return quantizer.gather(codes.T).transpose(0, 1).flatten(1)


def embed(codes: Tensor, level: LevelPrior, quantizer: VectorQuantizer) -> Leaves:
    """What ``codes [N, G]`` stand for."""
    grid = codes.T[None, :, :, None]
    inner = [rows[0, :, :, 0].T for rows in level.embed_stages(grid)]
    return Leaves(codewords(codes, quantizer), level.embed(grid)[0, :, :, 0].T, inner)


def curvatures(objective: Objective, codes: Sequence[Tensor]) -> list[Tensor]:
    """a of each channel, ``[G, D]`` a level, at ``codes [N, G]`` of each level."""
    quantizers, first = objective.vqvae.quantizers(), coarse_levels(objective.vqvae)
    z = [codewords(*each) for each in zip(codes, quantizers, strict=True)]
    # Most of an error of a coarse level is coded by the finer ones: its curvature is not the decoder's.
    assumed = [torch.full_like(rows[0], DISTORTION_WEIGHT) for rows in z[:first]]
    measured = [a.clamp_min(DISTORTION_WEIGHT) for a in objective.curvature(z, first)]
    return [a.view(q.groups, q.dim) for a, q in zip(assumed + measured, quantizers, strict=True)]


def find_slots(
    objective: Objective,
    codes: Sequence[Tensor],
    movable: Sequence[Tensor],
    curvature: Sequence[Tensor],
    *,
    coarse: bool,
) -> tuple[list[list[Slots]], float]:
    """The slots of every group of every level of a window, and J of its present codes, in bits.

    Args:
        objective: of the window.
        codes: the present ones, ``[N, G]`` a level, coarsest first.
        movable: which positions may have slots, bool ``[N]`` a level.
        curvature: of each channel, ``[G, D]`` a level; see :func:`curvatures`.
        coarse: whether coarse levels have slots.

    In J, only movable positions and kept pixels count, so that the J of windows can be added up.
    """
    levels, quantizers = list(objective.prior.each_level()), objective.vqvae.quantizers()
    leaves = [embed(*parts) for parts in zip(codes, levels, quantizers, strict=True)]
    first = coarse_levels(objective.vqvae)
    for level_leaves in leaves[0 if coarse else first :]:
        for leaf in (level_leaves.z, level_leaves.embedded, *level_leaves.inner):
            leaf.requires_grad_()
    present = [_Present(level, grid) for level, grid in zip(levels, codes, strict=True)]
    cost = objective(leaves, present)
    torch.autograd.backward(cost.total)
    slots: list[list[Slots]] = []
    for index, level in enumerate(levels):
        allowed = movable[index] if coarse or index >= first else torch.zeros_like(movable[index])
        groups: list[Slots] = []
        for stage in range(level.stages):
            parts = level, stage, quantizers[index], codes[index], leaves[index], curvature[index]
            energies = _Energies(*parts, sloped=index >= first)
            groups += energies.slots(present[index].features[stage], present[index].margins[stage], allowed)
        slots.append(groups)
    bits = torch.stack([level.bits[allowed].sum() for level, allowed in zip(present, movable, strict=True)])
    return slots, float(cost.kept + bits.sum())


class _Present:
    """−ln p of the present codes ``[N, G]`` of a level.

    Attributes:
        features, margins: of each stage, ``[N, C]`` and ``[N, G/S]``; see :func:`present_nats`.
        bits: of each position, ``[N]``.
    """

    def __init__(self, level: LevelPrior, codes: Tensor) -> None:
        self._level, self._codes = level, codes
        self.features: list[Tensor] = []
        self.margins: list[Tensor] = []
        self.bits = torch.zeros(len(codes), device=codes.device)

    def __call__(self, stage: int, features: Tensor) -> Tensor:
        weight, bias = self._level.head(stage)
        nats, margin = present_nats(features, self._codes[:, self._level.groups_of[stage]], weight.T, bias)
        self.features.append(features.detach())
        self.margins.append(margin)
        self.bits += nats.detach() / LN2
        return nats.sum()


class _Energies:
    """−energy, in nats, of the codes of one stage."""

    def __init__(
        self,
        level: LevelPrior,
        stage: int,
        quantizer: VectorQuantizer,
        codes: Tensor,
        leaves: Leaves,
        curvature: Tensor,
        *,
        sloped: bool,
    ) -> None:
        groups = level.groups_of[stage]
        size, self.codes = level.codebook_size, codes[:, groups]
        weight, bias = level.head(stage)
        tables: list[Tensor] = [weight.view(-1, size, weight.shape[1])]
        self.gradients: list[Tensor] = []
        self.book = quantizer.codebook[groups]  # [G, K, D]
        shape = (len(codes), quantizer.groups, -1)
        a = curvature[groups]
        slope = -2 * a * leaves.z.detach().view(shape)[:, groups]
        if sloped:
            sums = [(leaves.embedded, level.embed.table)]
            sums += [(rows, level.inner.table) for rows in leaves.inner[stage : stage + 1]]  # the last stage has none
            for rows, table in sums:
                assert rows.grad is not None
                self.gradients.append(-LN2 * rows.grad)
                tables.append(table[groups])
            assert leaves.z.grad is not None
            slope = slope + leaves.z.grad.view(shape)[:, groups]
        self.table = torch.cat([*tables, -LN2 * self.book], 2)  # [G, K, …], one row a code
        self.slope = slope
        self.bias = bias.view(-1, size) - LN2 * (a[:, None] * self.book.square()).sum(2)

    def slots(self, features: Tensor, margin: Tensor, allowed: Tensor) -> list[Slots]:
        """The slots of each group, at ``allowed`` positions, bool ``[N]``."""
        doubtful = (margin > -THRESHOLD) & allowed[:, None]
        return [self._group(group, features, doubtful[:, group].nonzero()[:, 0]) for group in range(margin.shape[1])]

    def _group(self, group: int, features: Tensor, position: Tensor) -> Slots:
        parts = (features, *self.gradients, self.slope[:, group])
        rows = torch.cat([part[position] for part in parts], 1)
        score = torch.addmm(self.bias[group], rows, self.table[group].T)
        codes = self.codes[position, group, None]
        present = score.gather(1, codes)
        best, others = score.scatter_(1, codes, -torch.inf).topk(min(CANDIDATES, score.shape[1]) - 1, 1)
        close = (best[:, 0] > present[:, 0] - THRESHOLD).nonzero()[:, 0]
        candidates, theta = torch.cat([codes, others], 1), torch.cat([present, best], 1)
        return Slots(position[close], candidates[close], theta[close])
