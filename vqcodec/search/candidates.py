r"""Which codes are worth a thought: the slots of a window whose code could be another, and their candidates.

::

    J at the present codes ──backward──▶ ∂J/∂z, ∂J/∂embedded, ∂J/∂inner, features
                                                        │
    energy of code k of a slot, in bits:                ▼
        ∂J/∂z · e_k + a·‖e_k − e‖² − log2 p(k) + ∂J/∂embedded · E_k + ∂J/∂inner · I_k
                                                        │
                                                        ▼
    slots: where another code comes within THRESHOLD of the present one, with the CANDIDATES best

a is the curvature that a quantiser of step one has at the best rate (DISTORTION_WEIGHT). For nearly all positions and
groups the present code, mostly zero, is beyond doubt. They are left alone, which saves most of the time.

A coarse level is one that a finer level of the trunk follows. The finer level codes what the coarse one leaves over, so
with a change of a coarse code and the finer codes as they are, the slope says nothing: the energy leaves out the
gradients there.

Legend: N positions, G groups, D channels a group, K codewords, C channels of the prior, A slots, M candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.exact.wavefront import chunks
from vqcodec.networks.levels import Level
from vqcodec.networks.pixelcnn import LevelPrior
from vqcodec.networks.quantize import DISTORTION_WEIGHT, VectorQuantizer
from vqcodec.networks.vqvae import VQVAE
from vqcodec.search.nats import CHUNK, Weighted, weighted_nats
from vqcodec.search.objective import LN2, Leaves, Objective

__all__ = ["CANDIDATES", "Slots", "coarse_levels", "embed", "find_slots"]

CANDIDATES = 4  # M
THRESHOLD = 6.0  # nats


@dataclass(frozen=True)
class Slots:
    """The slots of one stage, ascending by position.

    Attributes:
        position, group: of each slot, ``[A]``; groups are those of the level.
        codes: the candidates ``[A, M]``, the present code first.
        theta: −energy in nats ``[A, M]``, up to a constant a slot.
    """

    position: Tensor
    group: Tensor
    codes: Tensor
    theta: Tensor


def coarse_levels(vqvae: VQVAE) -> int:
    """How many levels a finer level of the trunk follows."""
    return sum(isinstance(level, Level) for level in vqvae.levels) - 1


def embed(codes: Tensor, level: LevelPrior, quantizer: VectorQuantizer) -> Leaves:
    """What ``codes [N, G]`` stand for."""
    grid = codes.T[None, :, :, None]
    inner = [rows[0, :, :, 0].T for rows in level.embed_stages(grid)]
    z = quantizer.gather(codes.T).transpose(0, 1).flatten(1)
    return Leaves(z, level.embed(grid)[0, :, :, 0].T, inner)


def find_slots(
    objective: Objective, codes: Sequence[Tensor], movable: Sequence[Tensor], *, coarse: bool
) -> list[list[Slots]]:
    """The slots of every stage of every level of a window.

    Args:
        objective: of the window.
        codes: the present ones, ``[N, G]`` a level, coarsest first.
        movable: which positions may have slots, bool ``[N]`` a level.
        coarse: whether coarse levels have slots.
    """
    levels, quantizers = list(objective.prior.each_level()), objective.vqvae.quantizers()
    leaves = [embed(*parts) for parts in zip(codes, levels, quantizers, strict=True)]
    for level_leaves in leaves:
        for leaf in (level_leaves.z, level_leaves.embedded, *level_leaves.inner):
            leaf.requires_grad_()
    nats = [_PresentNats(level, grid) for level, grid in zip(levels, codes, strict=True)]
    torch.autograd.backward(objective(leaves, nats))
    first = coarse_levels(objective.vqvae)
    slots: list[list[Slots]] = []
    for index, level in enumerate(levels):
        stages: list[Slots] = []
        allowed = movable[index] if coarse or index >= first else torch.zeros_like(movable[index])
        for stage in range(level.stages):
            energy = _Energy(level, stage, quantizers[index], codes[index], leaves[index], sloped=index >= first)
            stages.append(energy.slots(nats[index].features[stage], allowed))
        slots.append(stages)
    return slots


class _PresentNats:
    """−ln p of the present codes of a level; ``features`` keeps the features of each stage."""

    def __init__(self, level: LevelPrior, codes: Tensor) -> None:
        self._level, self._codes = level, codes
        self.features: list[Tensor] = []

    def __call__(self, stage: int, features: Tensor) -> Tensor:
        self.features.append(features.detach())
        weight, bias = self._level.head(stage)
        codes = self._codes[:, self._level.groups_of[stage]]
        fixed = torch.ones(codes.shape, device=codes.device)
        no_cuts = [0] * (len(codes) // CHUNK + 2)
        nothing = features.new_zeros(0)
        return weighted_nats(features, nothing, Weighted(weight.T, bias, codes, fixed, nothing.long(), no_cuts))


class _Energy:
    """−energy, in nats, of all codes of one stage."""

    def __init__(
        self, level: LevelPrior, stage: int, quantizer: VectorQuantizer, codes: Tensor, leaves: Leaves, *, sloped: bool
    ) -> None:
        groups = level.groups_of[stage]
        self.first_group, self.groups = groups.start, groups.stop - groups.start
        self.codes = codes[:, groups]
        weight, self.bias = level.head(stage)
        tables: list[Tensor] = [weight.T]
        self.gradients: list[Tensor] = []
        book = quantizer.codebook[groups]  # [G, K, D]
        shape = (len(codes), quantizer.groups, -1)
        slope = -2 * DISTORTION_WEIGHT * leaves.z.detach().view(shape)[:, groups]
        if sloped:
            sums = [(leaves.embedded, level.embed.table)]
            sums += [(rows, level.inner.table) for rows in leaves.inner[stage : stage + 1]]  # the last stage has none
            for rows, table in sums:
                assert rows.grad is not None
                self.gradients.append(-LN2 * rows.grad)
                tables.append(table[groups].flatten(0, 1).T)
            assert leaves.z.grad is not None
            slope = slope + leaves.z.grad.view(shape)[:, groups]
        self.table = torch.cat(tables)
        self.slope, self.book = slope.transpose(0, 1), (-LN2 * book).mT
        self.square = LN2 * DISTORTION_WEIGHT * book.square().sum(2)

    def slots(self, features: Tensor, allowed: Tensor) -> Slots:
        parts = [self._chunk(features, *span, allowed[slice(*span)]) for span in chunks(len(features), CHUNK)]
        position, group, codes, theta = (torch.cat(column) for column in zip(*parts, strict=True))
        return Slots(position, group, codes, theta)

    def _chunk(self, features: Tensor, first: int, last: int, allowed: Tensor) -> tuple[Tensor, ...]:
        rows = torch.cat([features[first:last], *(g[first:last] for g in self.gradients)], 1)
        score = torch.addmm(self.bias, rows, self.table).view(last - first, self.groups, -1)
        score -= self.square
        score += torch.bmm(self.slope[:, first:last], self.book).transpose(0, 1)
        codes = self.codes[first:last, :, None]
        present = score.gather(2, codes)
        score.scatter_(2, codes, -torch.inf)
        close = (score.amax(2) > present[:, :, 0] - THRESHOLD) & allowed[:, None]
        position, group = close.nonzero(as_tuple=True)
        best, others = score[position, group].topk(min(CANDIDATES, score.shape[2]) - 1, 1)
        candidates = torch.cat([codes[position, group], others], 1)
        theta = torch.cat([present[position, group], best], 1)
        return position + first, group + self.first_group, candidates, theta
