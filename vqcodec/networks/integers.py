"""Codewords that are vectors of integers: the values that a rounded residual takes most often.

Phase 0 trains with noise one step wide, or with residuals rounded to whole steps, and the rate head's Gaussian holds
for them. With codewords at integers most residuals are rounded as before, and the head stays right; a residual that has
no codeword of its own goes to a neighbour. With centroids, which lie between integers, the loss is 1 to 3 % higher.

Large residuals are rare but dear: one that is ten steps beyond the last codeword costs hundreds of bits of distortion.
Some codewords are therefore spread over twice the range of the residuals at hand, for sharper pictures than these.
"""

import torch
from torch import Tensor

__all__ = ["frequent_integers"]

FREQUENT = 0.75  # share of the codewords that are chosen by how often they occur; the others are those missed most, …
STRETCH = 2.0  # … by vectors longer by this factor


@torch.no_grad()
def frequent_integers(vectors: Tensor, size: int) -> Tensor:
    """``size`` different vectors of integers for each group, ``[G, size, D]``, of ``vectors [G, N, D]`` in steps.

    The most frequent ones come first, the nearer to zero first among equals. The rest are added one at a time: each
    is the one with the largest sum of squared distances, from STRETCH times its vectors to the nearest codeword so far.
    """
    fill = _around_zero(size, vectors.shape[2]).to(vectors)
    return torch.stack([_of_group(group, fill, size) for group in vectors])


def _of_group(vectors: Tensor, fill: Tensor, size: int) -> Tensor:
    """The codewords ``[size, D]`` of one group's ``vectors [N, D]``; what does not occur comes from ``fill``."""
    points, counts = _integers(vectors, fill)
    chosen = points[counts.argsort(descending=True, stable=True)[: round(FREQUENT * size)]]
    points, counts = _integers(STRETCH * vectors, fill)
    nearest = torch.cdist(points, chosen).amin(1).double()
    while len(chosen) < size:
        best = points[(counts * nearest.square()).argmax()]
        chosen = torch.cat([chosen, best[None]])
        nearest = torch.minimum(nearest, (points - best).norm(dim=1).double())
    return chosen


def _integers(vectors: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
    """The integers that ``vectors [N, D]`` and ``fill [F, D]`` are rounded to, by length; how often each occurs."""
    rounded = torch.cat([vectors.round() + 0.0, fill])  # no −0
    points, counts = torch.unique(rounded, dim=0, return_counts=True)
    order = points.square().sum(1).argsort(stable=True)
    return points[order], counts[order].double()


def _around_zero(size: int, dim: int) -> Tensor:
    """At least ``size`` vectors of integers ``[·, dim]``: a cube around zero."""
    half = 0
    while (2 * half + 1) ** dim < size:
        half += 1
    axis = torch.arange(-half, half + 1.0)
    cube: Tensor = torch.cartesian_prod(*[axis] * dim)
    return cube.view(-1, dim)
