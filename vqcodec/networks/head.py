r"""The rate head: bits of a codeword, or of a noisy residual, given the σ that the decoder predicts.

::

    σ [B, G·D, H, W] ──▶ 1/σ² ──▶ log p(k | σ) = b_k − energy(e_k, σ) − log Σ_j exp(…) ──▶ bits of every code
                                  b [G, K] ▲               ▲ codebook [G, K, D]

Legend: B batch, G groups, D channels a group, K codewords, H and W grid height and width, N = B·H·W positions.

The probability of a code has the shape of a Gaussian or a Laplacian density, so the head needs no K-way output layer:

    p(k | σ) ∝ exp(b_k − ½ Σ_d (e_kd / σ_d)²)        or, with long tails, exp(b_k − √2 Σ_d |e_kd| / σ_d)

σ is predicted from what the decoder already has. b is a logit for each codeword; :mod:`vqcodec.networks.codebooks`
keeps it where the head expects every code as often as it occurs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LN2", "RateHead", "full_precision", "gaussian_bits"]

LN2 = math.log(2)

SMALLEST_SCALE = 0.02  # σ in steps, below which gaussian_bits does not tell one from another
OUTLIERS = 0.001  # share of the wide density in gaussian_bits …
OUTLIER_WIDTH = 4.0  # … and its half width, in steps


@dataclass(frozen=True)
class RateHead:
    """log p(k | σ) of every codeword.

    Args:
        tails: ``"gaussian"`` or ``"laplacian"``, the shape of the density. Where codewords lie far apart, a Gaussian
            makes the outer ones impossible at a small σ; the b that compensates for this makes them certain at a
            large one.
        sigma_min: the smallest σ that the head uses, in quantiser steps. The smaller it is, the fewer bits silence
            costs; but under straight-through training non-zero codes become so expensive that the encoder never
            corrects an error of one step.
    """

    tails: str = "gaussian"
    sigma_min: float = 1 / 3

    def __post_init__(self) -> None:
        if self.tails not in ("gaussian", "laplacian"):
            raise ValueError(f"tails is {self.tails!r}, expected 'gaussian' or 'laplacian'")

    def precision(self, scale: Tensor) -> Tensor:
        """1/σ², of a predicted σ of any shape, with σ at least ``sigma_min``."""
        return scale.clamp_min(self.sigma_min).pow(-2)

    def energy(self, vectors: Tensor) -> Tensor:
        """What :meth:`weight` multiplies to give −log p up to b and the normaliser: ½e² or √2·|e|, of any shape."""
        return 0.5 * vectors.square() if self.tails == "gaussian" else math.sqrt(2) * vectors.abs()

    def weight(self, precision: Tensor) -> Tensor:
        """1/σ² or 1/σ, of ``precision`` = 1/σ², in its shape."""
        return precision if self.tails == "gaussian" else precision.sqrt()

    def logits(self, codebook: Tensor, bias: Tensor, precision: Tensor | None) -> Tensor:
        """Unnormalised log p(k | σ) in nats.

        ``codebook [G, K, D]``, ``bias [G, K]`` and ``precision [G, N, D]`` give ``[G, N, K]``; without a precision
        the head is static and the result ``[G, 1, K]``.
        """
        if precision is None:
            return bias[:, None, :]
        # The codebook is a constant here: the bits would push codewords outwards, away from their centroids.
        with full_precision(precision):
            return torch.baddbmm(bias[:, None, :], self.weight(precision), self.energy(codebook.detach()).mT, alpha=-1)


def full_precision(x: Tensor) -> torch.autocast:
    """Autocast off: differences of large sums follow, and in bfloat16 one code in fifty would be another."""
    return torch.autocast(x.device.type, enabled=False)


def gaussian_bits(r_hat: Tensor, scale: Tensor) -> Tensor:
    """Bits ``[B]`` of ``r_hat [B, C, H, W]``, −log2 p(r_hat), with p the density N(0, scale²) * U(−½, ½).

    p(r_hat) = Φ((r_hat + ½)/σ) − Φ((r_hat − ½)/σ), the prior of Ballé et al. 2018, eq. 8, of a residual with uniform
    noise. One part in a thousand of it is a Cauchy density four steps wide: outliers keep a finite cost and a gradient.
    """
    magnitude = r_hat.abs()  # the density is symmetric, and the lower tail keeps its precision
    inverse = scale.clamp_min(SMALLEST_SCALE).reciprocal() * math.sqrt(0.5)
    gaussian = 0.5 * (torch.erfc((magnitude - 0.5) * inverse) - torch.erfc((magnitude + 0.5) * inverse))
    cauchy = 1 / (OUTLIER_WIDTH * math.pi * (1 + (r_hat / OUTLIER_WIDTH).square()))
    return -((1 - OUTLIERS) * gaussian + OUTLIERS * cauchy).log().sum((1, 2, 3)) / LN2
