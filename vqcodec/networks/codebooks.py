r"""Codebooks and how they learn: k-means, its moving average (EMA), and the revival of dead codes; or integers.

::

    before phase "codes"     fit:     k-means++ seeds ──▶ (assign ──▶ centroids, b) × iterations
                             or       frequent integers ──▶ (assign ──▶ b) × iterations
    at every training step   update:  codes ──▶ moving averages of usage and sums ──▶ e_k = sums_k / usage_k, b_k
    every few hundred steps  revive:  codewords without usage ──▶ residuals with a large error

Legend: G groups, K codewords, D channels a group, N vectors.

b_k is the rate head's logit of a codeword (:mod:`vqcodec.networks.head`). It is moved towards the value at which the
head expects every code as often as it occurs (iterative scaling, Darroch and Ratcliff 1972). Gradient steps would be
too slow: b spans more than ten nats, and most codes are too rare to receive many steps.

Integers do not learn (:mod:`vqcodec.networks.integers`), and their b stays small: it corrects for the residuals that no
codeword stands for, while the head is right about the others.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from vqcodec.networks.integers import frequent_integers

__all__ = ["LIVE", "Codebooks", "Usage"]

LIVE = 0.25  # steps of standard deviation of what is sent, above which a channel is live
SCALING = 0.05  # share of the gap between expected and real usage that one step of training closes
RARE = 1e-7  # usage below which running averages are noise
POOL = 8192  # vectors that the seeds of k-means are drawn from
INTEGER_ITERATIONS = 4  # that scale the head to integers, …
FEW, MOST = 10.0, 1.0  # … each by the logarithm of counts, all of them FEW larger, and by at most MOST nats


@dataclass(frozen=True)
class Usage:
    """How well codebooks are used: ``perplexity [G]`` = 2^entropy, and the ``share [G]`` of codes that occur."""

    perplexity: Tensor
    share: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> Self:
        """From ``counts [G, K]`` of codes."""
        p = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
        entropy = -(p * p.clamp_min(1e-300).log2()).sum(1)
        return cls(perplexity=entropy.exp2(), share=(counts > 0).double().mean(1))


class Codebooks(nn.Module, ABC):
    """G codebooks of K codewords of D channels, with the statistics that they learn from.

    Args:
        groups, codebook_size, dim: G, K and D.
        learn: ``"ema"`` (Razavi et al. 2019, eq. 2) or ``"gradient"`` of the codebook loss; both have the
            same stationary points, the centroids of the assigned vectors. With ``"integers"`` codewords stay where
            :meth:`fit` puts them.
        decay: of the moving averages.
        zero_code: keep codeword 0 at zero; a level that sends it everywhere changes nothing.

    Attributes:
        codebook: e_k, ``[G, K, D]``.
        bias: b_k, ``[G, K]``.
        usage: moving average of how often each code occurs, ``[G, K]``, sum 1 over K.
        expected: the same, according to the rate head.
        sums: moving average of the vectors assigned to each code, times its usage, ``[G, K, D]``.
    """

    codebook: Tensor
    bias: Tensor
    usage: Tensor
    expected: Tensor
    sums: Tensor

    def __init__(self, groups: int, codebook_size: int, dim: int, *, learn: str, decay: float, zero_code: bool) -> None:
        super().__init__()
        self.groups, self.codebook_size, self.dim = groups, codebook_size, dim
        self.learn, self.decay, self.zero_code = learn, decay, zero_code
        codebook = torch.randn(groups, codebook_size, dim)
        if zero_code:
            codebook[:, 0] = 0
        if learn == "gradient":
            self.codebook = nn.Parameter(codebook)
            if zero_code:
                free = torch.ones(codebook_size, 1).index_fill_(0, torch.tensor(0), 0)
                self.codebook.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: gradient * free.to(gradient.device)
                )
        elif learn in ("ema", "integers"):
            self.register_buffer("codebook", codebook)
        else:
            raise ValueError(f"learn is {learn!r}, expected 'ema', 'gradient' or 'integers'")
        self.register_buffer("bias", torch.zeros(groups, codebook_size))
        self.register_buffer("usage", torch.full((groups, codebook_size), 1 / codebook_size))
        self.register_buffer("expected", self.usage.clone())
        self.register_buffer("sums", codebook / codebook_size)

    @abstractmethod
    def assign(self, vectors: Tensor, precision: Tensor | None) -> Tensor:
        """Codes ``[G, N]`` int64 of ``vectors [G, N, D]``, whose 1/σ² is ``precision``, in the same shape."""

    @abstractmethod
    def expected_counts(self, precision: Tensor | None, count: int) -> Tensor:
        """How often the rate head expects each code among ``count`` vectors, ``[G, K]``."""

    def rows(self, x: Tensor) -> Tensor:
        """``[B, G·D, H, W] -> [G, B·H·W, D]``, in float32."""
        return x.float().permute(0, 2, 3, 1).reshape(-1, self.groups, self.dim).transpose(0, 1)

    def gather(self, codes: Tensor) -> Tensor:
        """Codewords ``[G, N, D]`` of ``codes [G, N]``."""
        return self.codebook.gather(1, codes[:, :, None].expand(-1, -1, self.dim))

    @torch.no_grad()
    def fit(
        self,
        r: Tensor,
        inverse_variance: Tensor | None,
        *,
        iterations: int = 25,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Set the codebooks by entropy-constrained k-means on ``r [B, G·D, H, W]``, whose 1/σ² has the same shape.

        Seeds are drawn as in k-means++ (Arthur and Vassilvitskii 2007), which reaches into the tails. Each
        iteration assigns a code to every vector, moves codewords to their centroids, and scales the head so
        that it expects each code as often as it occurred (Chou, Lookabaugh and Gray 1989). With
        ``learn="integers"`` codewords are the most frequent integers instead, and a few iterations only scale the
        head. After each one ``progress`` is called with the share that is done, 0..1.
        """
        vectors, integers = self.rows(r), self.learn == "integers"
        precision = None if inverse_variance is None else self.rows(inverse_variance)
        few, most = (FEW, MOST) if integers else (0.1, math.inf)
        iterations = min(iterations, INTEGER_ITERATIONS) if integers else iterations
        self.codebook.copy_(frequent_integers(vectors, self.codebook_size) if integers else self._seeds(vectors, seed))
        self.bias.zero_()
        for iteration in range(iterations):
            counts, sums = self.statistics(vectors, self.assign(vectors, precision))
            if not integers:
                centroids = sums / counts.clamp_min(1)[:, :, None]
                self.codebook.copy_(torch.where(counts[:, :, None] > 0, centroids, self.codebook))
            expected = self.expected_counts(precision, vectors.shape[1])
            self.bias.add_(((counts + few) / (expected + few)).log().clamp(-most, most))
            self.bias.sub_(self.bias.amax(1, keepdim=True))
            if progress is not None:
                progress((iteration + 1) / iterations)
        if self.zero_code:
            self._appoint_zero_code(counts)
        self.usage.copy_(counts / counts.sum(1, keepdim=True))
        self.expected.copy_(self.usage)
        self.sums.copy_(self.codebook * self.usage[:, :, None])

    @torch.no_grad()
    def update(self, vectors: Tensor, codes: Tensor, probabilities: Tensor) -> None:
        """Let usage, b and, with ``learn="ema"``, codewords follow one batch, over all processes together.

        ``vectors [G, N, D]`` have ``codes [G, N]``; the head gave ``probabilities [G, N, K]`` to all codes, or
        ``[G, 1, K]`` if it is static.

            usage_k ← γ·usage_k + (1−γ)·n_k/N      sums_k ← γ·sums_k + (1−γ)·Σ z_e/N      e_k = sums_k / usage_k
        """
        counts, sums = self.statistics(vectors, codes)
        expected = probabilities.mean(1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for tensor in (counts, sums, expected):
                torch.distributed.all_reduce(tensor)
            expected /= torch.distributed.get_world_size()
        total = counts.sum(1, keepdim=True)
        self.usage.lerp_(counts / total, 1 - self.decay)
        self.expected.lerp_(expected, 1 - self.decay)
        if self.learn == "integers":
            return
        correction = ((self.usage + RARE) / (self.expected + RARE)).log().mul_(SCALING)
        self.bias.add_(correction)
        self.expected.mul_(correction.exp_())  # what the head would have expected with this bias all along
        if self.learn == "gradient":
            return
        self.sums.lerp_(sums / total[:, :, None], 1 - self.decay)
        # A code that has hardly occurred keeps its place: the ratio of two vanishing averages is noise.
        alive = (self.usage > RARE)[:, :, None]
        if self.zero_code:
            alive = alive & (torch.arange(self.codebook_size, device=alive.device) > 0)[:, None]
        self.codebook.copy_(torch.where(alive, self.sums / self.usage[:, :, None].clamp_min(RARE), self.codebook))

    @torch.no_grad()
    def revive(self, r: Tensor, *, below: float) -> int:
        """Move dead codes, whose usage fell under ``below``, onto residuals of ``r [B, G·D, H, W]``.

        The residuals are drawn in proportion to their squared error, where a new codeword helps most. Returns the
        number of codewords that moved; integers stay.
        """
        if self.learn == "integers":
            return 0
        vectors = self.rows(r)
        error = (vectors - self.gather(self.assign(vectors, None))).square().sum(2)
        moved = 0
        for group in range(self.groups):
            dead = (self.usage[group] < below).nonzero().flatten()[: vectors.shape[1]]
            if self.zero_code:
                dead = dead[dead > 0]
            if len(dead) == 0:
                continue
            picks = torch.multinomial(error[group] + 1e-12, len(dead))
            self.codebook[group, dead] = vectors[group, picks]
            # A revived code gets the threshold's share, so expensive that only a much smaller error makes up for it.
            self.usage[group, dead] = self.expected[group, dead] = below
            self.sums[group, dead] = self.codebook[group, dead] * below
            self.bias[group, dead] = self.bias[group].max() + math.log(below)
            moved += len(dead)
        return moved

    def statistics(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How often each code occurs in ``codes [G, N]``, ``[G, K]``, and the sum of its vectors, ``[G, K, D]``."""
        counts = vectors.new_zeros(self.groups, self.codebook_size)
        counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=vectors.dtype))
        sums = vectors.new_zeros(self.groups, self.codebook_size, self.dim)
        sums.scatter_add_(1, codes[:, :, None].expand(-1, -1, self.dim), vectors)
        return counts, sums

    def _appoint_zero_code(self, counts: Tensor) -> None:
        """Give number 0 to the codeword nearest to zero, with its ``counts [G, K]``, and put it at zero.

        If one were held at zero from the start, a codeword beside it would take its vectors.
        """
        nearest = self.codebook.square().sum(2).argmin(1)
        for group, index in enumerate(nearest.tolist()):
            for tensor in (self.codebook, self.bias, counts):
                tensor[group, [0, index]] = tensor[group, [index, 0]]
        self.codebook[:, 0] = 0

    def _seeds(self, vectors: Tensor, seed: int) -> Tensor:
        """K codewords ``[G, K, D]`` drawn from ``vectors [G, N, D]`` as in k-means++."""
        generator = torch.Generator(device=vectors.device).manual_seed(seed)
        count = vectors.shape[1]
        pool = vectors[:, torch.randperm(count, generator=generator, device=vectors.device)[: min(count, POOL)]]
        seeds = [pool.new_zeros(self.groups, 1, self.dim)]  # zero is the most frequent residual by design
        nearest = pool.square().sum(2)
        for _ in range(self.codebook_size - 1):
            pick = torch.multinomial(nearest + 1e-12, 1, generator=generator)
            seeds.append(pool.gather(1, pick[:, :, None].expand(-1, -1, self.dim)))
            nearest = torch.minimum(nearest, (pool - seeds[-1]).square().sum(2))
        return torch.cat(seeds, 1)
