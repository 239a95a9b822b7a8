r"""Mean-field annealing: from weights over candidates to one code each, while J falls.

::

    weights = softmax(θ / τ)          τ falls from 1 to 0.1
    energy = ∂J/∂weight + Σ a·(codeword − mean codeword)²         a: curvature, see candidates
    θ ← θ + η·(−ln 2·energy − θ)      at the finest level of the trunk, and at levels of pixels
    θ ← Adam(θ, ∂J/∂θ)                at coarse levels, which only small steps may move

At τ = 1 this is the fixed-point iteration of mean-field variational inference on p(codes) ∝ 2^−J; lower temperatures
turn the mean into the best codes (deterministic annealing, Rose 1998). In ten steps it gains what Gumbel noise and Adam
(Yang, Bamler and Mandt 2020) gain in about a hundred.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vqcodec.search.candidates import coarse_levels, find_slots
from vqcodec.search.objective import LN2, Objective
from vqcodec.search.relaxation import RelaxedLevel

__all__ = ["COARSE_STEPS", "anneal"]

HOT, COLD = 1.0, 0.1  # τ at the first step and at the last
RATE = 0.25  # η
COARSE_RATE = 0.3  # nats, of Adam …
BETAS = 0.9, 0.99  # … and its β₁ and β₂
COARSE_STEPS = 12  # with fewer, the finer levels could not follow, and coarse levels keep their codes


def anneal(
    objective: Objective,
    codes: Sequence[Tensor],
    movable: Sequence[Tensor],
    curvature: Sequence[Tensor],
    steps: int,
    *,
    poll: Callable[[], None],
) -> tuple[list[Tensor], float]:
    """Better codes ``[N, G]`` of each level of a window, after ``steps`` evaluations of J and its gradient.

    ``codes`` are the present ones, of which only those at ``movable`` positions, bool ``[N]``, are changed.
    ``curvature`` is that of :func:`curvatures`. ``poll`` is called before each step. Their J in bits is returned too,
    of movable positions and kept pixels.
    """
    poll()
    coarse = steps >= COARSE_STEPS
    slots, before = find_slots(objective, codes, movable, curvature, coarse=coarse)
    levels, quantizers = objective.prior.each_level(), objective.vqvae.quantizers()
    relaxed = [RelaxedLevel(*parts, whole=coarse) for parts in zip(levels, quantizers, codes, slots, strict=True)]
    theta = [level.theta for level in relaxed]
    if not any(map(len, theta)):
        return list(codes), before
    first = coarse_levels(objective.vqvae)
    adam = [_Adam(t) for t in theta[:first]]
    for step in range(1, steps):
        poll()
        temperature = HOT * (COLD / HOT) ** ((step - 1) / max(1, steps - 2))
        # A level without slots needs no gradient, nor does all that comes before the first one with slots.
        weights = [(t / temperature).softmax(1).requires_grad_(len(t) > 0) for t in theta]
        leaves = [level.leaves(w) for level, w in zip(relaxed, weights, strict=True)]
        nats = [partial(level.nats, w) for level, w in zip(relaxed, weights, strict=True)]
        torch.autograd.backward(objective(leaves, nats).total)
        with torch.no_grad():
            for index, (level, t, w) in enumerate(zip(relaxed, theta, weights, strict=True)):
                if w.grad is None:
                    continue
                if index < first:
                    adam[index].step(t, _through_softmax(w, w.grad) / temperature)
                else:
                    t += RATE * (_negative_energy(level, w, w.grad, curvature[index]) - t)
    return [level.codes(t) for level, t in zip(relaxed, theta, strict=True)], before


def _through_softmax(weights: Tensor, gradient: Tensor) -> Tensor:
    """∂J/∂x ``[A, M]`` of ``weights = softmax(x)``, given ∂J/∂weights."""
    return weights * (gradient - (weights * gradient).sum(1, keepdim=True))


def _negative_energy(level: RelaxedLevel, weights: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
    """−energy of every candidate ``[A, M]``, in nats, up to a constant a slot, given ∂J/∂weights and a ``[G, D]``."""
    mean = (weights[:, :, None] * level.vectors).sum(1, keepdim=True)
    energy = gradient + (curvature[level.group, None] * (level.vectors - mean).square()).sum(2)
    return -LN2 * (energy - energy.mean(1, keepdim=True))


class _Adam:
    """Adam (Kingma and Ba 2015) for one tensor; to import ``torch.optim`` takes as long as to import torch."""

    def __init__(self, like: Tensor) -> None:
        self._mean, self._square, self._steps = torch.zeros_like(like), torch.zeros_like(like), 0

    def step(self, values: Tensor, gradient: Tensor) -> None:
        """Change ``values`` in place."""
        self._steps += 1
        self._mean.lerp_(gradient, 1 - BETAS[0])
        self._square.lerp_(gradient.square(), 1 - BETAS[1])
        mean, square = (m / (1 - b**self._steps) for m, b in zip((self._mean, self._square), BETAS, strict=True))
        values -= COARSE_RATE * mean / (square.sqrt() + 1e-8)
