r"""Vector quantisation with a codebook for each group of channels.

::

    r [B, G·D, H, W] ──┬─ distance to every codeword ─┐
                       │                              ├─ argmin a·distance + bits ─▶ codes [B, G, H, W]
    1/σ² (optional) ───┴─ bits of every codeword ─────┘                               │
                                                                                      ▼
    z_q [B, G·D, H, W] ◀── straight-through: r + sg(codeword − r) ◀──────────── codebook [G, K, D]

Legend: B batch, G groups, D channels a group, K codewords, H and W grid height and width.

The nearest codeword is the choice of van den Oord et al. 2017, eq. 2. The rate-aware choice adds the
bits that the code will cost (entropy-constrained VQ, Chou, Lookabaugh and Gray 1989). A code's bits come
from a categorical head with a Gaussian or Laplacian shape, so that it needs no K-way output layer:

    p(k | σ) ∝ exp(b_k − ½ Σ_d (e_kd / σ_d)²)        or, with long tails, exp(b_k − √2 Σ_d |e_kd| / σ_d)

with σ predicted from what the decoder already knows, and b, a logit for each codeword, kept where the head
expects every code as often as it occurs (iterative scaling, Darroch and Ratcliff 1972). By gradient steps b
would lag: it spans more than ten nats, and most codes are too rare to be followed.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DISTORTION_WEIGHT", "Quantized", "Usage", "VectorQuantizer"]

# Slope of the rate–distortion curve of a unit-step uniform quantiser: distortion Δ²/12 falls by a factor of four
# for each bit, so d(bits)/d(distortion) = 6 / (ln 2 · Δ²) at Δ = 1. Residuals are scaled so that Δ = 1 at every λ.
DISTORTION_WEIGHT = 6 / math.log(2)

LN2 = math.log(2)

SCALING = 0.05  # share of the gap between expected and real usage that one step of training closes
RARE = 1e-7  # usage below which running averages say nothing


@dataclass(frozen=True)
class Quantized:
    """What one call of :class:`VectorQuantizer` gives.

    Attributes:
        codes: ``[B, G, H, W]`` int64 in 0..K−1.
        z_q: ``[B, G·D, H, W]`` codewords, with straight-through gradients to the input.
        bits: ``[B]`` bits of all codes of an image under the context-free head.
        commitment_loss: mean of ``‖z_e − sg(z_q)‖²`` over positions and channels.
        codebook_loss: mean of ``‖sg(z_e) − z_q‖²``; zero when codebooks learn by EMA.
    """

    codes: Tensor
    z_q: Tensor
    bits: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor


@dataclass(frozen=True)
class Usage:
    """How well codebooks are used: ``perplexity [G]`` = 2^entropy, and the ``share [G]`` of codes that occur."""

    perplexity: Tensor
    share: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> "Usage":
        """From ``counts [G, K]`` of codes."""
        p = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
        entropy = -(p * p.clamp_min(1e-300).log2()).sum(1)
        return cls(perplexity=entropy.exp2(), share=(counts > 0).double().mean(1))


class VectorQuantizer(nn.Module):
    """G codebooks of K codewords of D channels, learnt by EMA k-means or by gradient.

    Args:
        groups, codebook_size, dim: G, K and D; G = 1 is the textbook quantiser.
        rate_aware: choose ``argmin a·‖r − e‖² + bits``; otherwise the nearest codeword.
        learn: ``"ema"`` (Razavi et al. 2019, eq. 2) or ``"gradient"`` of the codebook loss; both have the
            same stationary points, the centroids of the assigned residuals.
        decay: of the EMA.
        tails: ``"gaussian"`` or ``"laplacian"``, the shape of the head. Where codewords lie far apart a Gaussian
            makes the outer ones impossible at one σ and, by the b that mends this, certain at another.
        silence: keep codeword 0 at zero, the code for nothing.
        sigma_min: the smallest σ that the head believes, in steps. A surer head would price every other code so high
            that nothing could correct a drift of a step.
        distortion_weight: factor of a. Above 1 where the codes will cost fewer bits than the head, which knows no
            neighbours, says.
    """

    codebook: Tensor
    bias: Tensor
    usage: Tensor
    expected: Tensor
    sums: Tensor

    def __init__(
        self,
        groups: int,
        codebook_size: int,
        dim: int,
        *,
        rate_aware: bool = True,
        learn: str = "ema",
        decay: float = 0.995,
        tails: str = "gaussian",
        silence: bool = False,
        sigma_min: float = 1 / 3,
        distortion_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.groups, self.codebook_size, self.dim = groups, codebook_size, dim
        self.rate_aware, self.learn, self.decay = rate_aware, learn, decay
        self.tails, self.silence, self.sigma_min = tails, silence, sigma_min
        self.distortion_weight = distortion_weight
        codebook = torch.randn(groups, codebook_size, dim)
        if silence:
            codebook[:, 0] = 0
        if learn == "gradient":
            self.codebook = nn.Parameter(codebook)
            if silence:
                free = torch.ones(codebook_size, 1).index_fill_(0, torch.tensor(0), 0)
                self.codebook.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: gradient * free.to(gradient.device)
                )
        elif learn == "ema":
            self.register_buffer("codebook", codebook)
        else:
            raise ValueError(f"learn is {learn!r}, expected 'ema' or 'gradient'")
        if tails not in ("gaussian", "laplacian"):
            raise ValueError(f"tails is {tails!r}, expected 'gaussian' or 'laplacian'")
        self.register_buffer("bias", torch.zeros(groups, codebook_size))  # b_k
        self.register_buffer("usage", torch.full((groups, codebook_size), 1 / codebook_size))
        self.register_buffer("expected", self.usage.clone())  # usage according to the head
        self.register_buffer("sums", codebook / codebook_size)

    def forward(self, r: Tensor, inverse_variance: Tensor | None = None) -> Quantized:
        """Quantise ``r [B, G·D, H, W]``; ``inverse_variance`` is 1/σ² in the same shape, None a static head."""
        batch, _, height, width = r.shape
        vectors = self._rows(r)
        precision = None if inverse_variance is None else self._rows(inverse_variance)
        codes = self._choose(vectors, precision)
        codewords = self._gather(self.codebook, codes)
        z_q = vectors + (codewords - vectors).detach()
        logits = self._logits(precision)
        chosen = self.bias.gather(1, codes)
        if precision is not None:
            # The shape's value at the codeword, its slope at r: nearly all codes are zero, where a slope at the
            # codeword would let residuals grow for nothing.
            energy = self._energy(vectors)
            energy = energy + (self._energy(codewords) - energy).detach()
            chosen = chosen - (self._weight(precision) * energy).sum(2)
        total = logits.logsumexp(2)
        bits = (total - chosen) / LN2
        if self.training:
            self._update(vectors.detach(), codes, (logits - total[:, :, None]).detach())
        return Quantized(
            codes=codes.view(self.groups, batch, height, width).transpose(0, 1),
            z_q=self._grid(z_q, batch, height, width),
            bits=bits.view(self.groups, batch, -1).sum((0, 2)),
            commitment_loss=F.mse_loss(vectors, codewords.detach()),
            codebook_loss=F.mse_loss(codewords, vectors.detach()) if self.learn == "gradient" else r.new_zeros(()),
        )

    def precision(self, scale: Tensor) -> Tensor:
        """1/σ² as the head takes it, of a predicted σ."""
        return scale.clamp_min(self.sigma_min).pow(-2)

    def encode(self, r: Tensor, inverse_variance: Tensor | None = None) -> Tensor:
        """The codes alone, ``[B, G, H, W]``."""
        batch, _, height, width = r.shape
        codes = self._choose(self._rows(r), None if inverse_variance is None else self._rows(inverse_variance))
        return codes.view(self.groups, batch, height, width).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codewords ``[B, G·D, H, W]`` of ``codes [B, G, H, W]``."""
        batch, _, height, width = codes.shape
        return self._grid(self._gather(self.codebook, codes.transpose(0, 1).flatten(1)), batch, height, width)

    @torch.no_grad()
    def fit(self, r: Tensor, inverse_variance: Tensor | None, *, iterations: int = 25, seed: int = 0) -> None:
        """Set the codebooks by entropy-constrained k-means on ``r [B, G·D, H, W]``.

        Seeds are drawn as in k-means++ (Arthur and Vassilvitskii 2007), which reaches into the tails. Each
        iteration assigns by the rate-aware choice, moves codewords to their centroids, and scales the head so
        that it expects each code as often as it occurred.
        """
        vectors = self._rows(r)
        precision = None if inverse_variance is None else self._rows(inverse_variance)
        self.codebook.copy_(self._seeds(vectors, seed))
        self.bias.zero_()
        for _ in range(iterations):
            codes = self._choose(vectors, precision)
            counts, sums = self._statistics(vectors, codes)
            centroids = sums / counts.clamp_min(1)[:, :, None]
            self.codebook.copy_(torch.where(counts[:, :, None] > 0, centroids, self.codebook))
            expected = self._expected(precision, vectors.shape[1])
            self.bias.add_(((counts + 0.1) / (expected + 0.1)).log())
            self.bias.sub_(self.bias.amax(1, keepdim=True))
        if self.silence:
            self._appoint_silence(counts)
        self.usage.copy_(counts / counts.sum(1, keepdim=True))
        self.expected.copy_(self.usage)
        self.sums.copy_(self.codebook * self.usage[:, :, None])

    @torch.no_grad()
    def revive(self, r: Tensor, *, below: float) -> int:
        """Move codewords whose usage fell under ``below`` onto residuals of ``r``; returns how many moved.

        The residuals are drawn in proportion to their squared error, where a new codeword helps most.
        """
        vectors = self._rows(r)
        error = (vectors - self._gather(self.codebook, self._choose(vectors, None))).square().sum(2)
        moved = 0
        for group in range(self.groups):
            dead = (self.usage[group] < below).nonzero().flatten()[: vectors.shape[1]]
            if self.silence:
                dead = dead[dead > 0]
            if len(dead) == 0:
                continue
            picks = torch.multinomial(error[group] + 1e-12, len(dead))
            self.codebook[group, dead] = vectors[group, picks]
            # A fresh code starts at the threshold's share: dear enough to be chosen only where it really helps.
            self.usage[group, dead] = self.expected[group, dead] = below
            self.sums[group, dead] = self.codebook[group, dead] * below
            self.bias[group, dead] = self.bias[group].max() + math.log(below)
            moved += len(dead)
        return moved

    def _rows(self, x: Tensor) -> Tensor:
        """``[B, G·D, H, W] -> [G, B·H·W, D]``, in float32."""
        return x.float().permute(0, 2, 3, 1).reshape(-1, self.groups, self.dim).transpose(0, 1)

    def _grid(self, rows: Tensor, batch: int, height: int, width: int) -> Tensor:
        """``[G, B·H·W, D] -> [B, G·D, H, W]``, channels last."""
        return rows.transpose(0, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    def _gather(self, codebook: Tensor, codes: Tensor) -> Tensor:
        """``[G, K, D]`` at ``codes [G, N]`` -> ``[G, N, D]``."""
        return codebook.gather(1, codes[:, :, None].expand(-1, -1, self.dim))

    def _logits(self, precision: Tensor | None) -> Tensor:
        """Unnormalised log-probabilities in nats, ``[G, N, K]``, or ``[G, 1, K]`` for the static head."""
        if precision is None:
            return self.bias[:, None, :]
        # The codebook is a constant here: bits would push codewords outwards, away from their centroids.
        with _full_precision(precision):
            energy = self._energy(self.codebook.detach()).mT
            return torch.baddbmm(self.bias[:, None, :], self._weight(precision), energy, alpha=-1)

    def _energy(self, vectors: Tensor) -> Tensor:
        """What :meth:`_weight` of 1/σ² multiplies to give the head's nats, but for b."""
        return 0.5 * vectors.square() if self.tails == "gaussian" else math.sqrt(2) * vectors.abs()

    def _weight(self, precision: Tensor) -> Tensor:
        return precision if self.tails == "gaussian" else precision.sqrt()

    @torch.no_grad()
    def _choose(self, vectors: Tensor, precision: Tensor | None) -> Tensor:
        """Codes ``[G, N]`` of ``vectors [G, N, D]``."""
        # ‖r − e‖² less ‖r‖², which is the same for every codeword.
        weight = self.distortion_weight * DISTORTION_WEIGHT if self.rate_aware else 1.0
        constant = weight * self.codebook.square().sum(2)[:, None, :]
        # Constants go in as another feature, of ones: broadcasting them would cost as much as the product.
        features, table = [torch.ones_like(vectors[:, :, :1]), -2 * weight * vectors], [self.codebook]
        if self.rate_aware:
            constant = constant - self.bias[:, None, :] / LN2
            if precision is not None:
                features.append(self._weight(precision) / LN2)
                table.append(self._energy(self.codebook))
        codes: list[Tensor] = []
        matrix = torch.cat([constant.mT, *table], 2).mT
        with _full_precision(vectors):
            for part in torch.split(torch.cat(features, 2), self._chunk, 1):
                codes.append(torch.bmm(part, matrix).argmin(2))
        return torch.cat(codes, 1)

    def _expected(self, precision: Tensor | None, count: int) -> Tensor:
        """How often the head expects each code among ``count`` vectors, ``[G, K]``."""
        if precision is None:
            return self.bias.softmax(1) * count
        parts = torch.split(precision, self._chunk, 1)
        return torch.stack([self._logits(part).softmax(2).sum(1) for part in parts]).sum(0)

    @property
    def _chunk(self) -> int:
        """Rows for which an entry per codeword, ``[G, rows, K]``, stays in the cache."""
        return max(1, 2**20 // (self.groups * self.codebook_size))

    def _statistics(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How often each code occurs ``[G, K]``, and the sum of its vectors ``[G, K, D]``."""
        counts = vectors.new_zeros(self.groups, self.codebook_size)
        counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=vectors.dtype))
        sums = vectors.new_zeros(self.groups, self.codebook_size, self.dim)
        sums.scatter_add_(1, codes[:, :, None].expand(-1, -1, self.dim), vectors)
        return counts, sums

    @torch.no_grad()
    def _update(self, vectors: Tensor, codes: Tensor, log_probabilities: Tensor) -> None:
        """Let codebooks, usage and bias follow one batch."""
        counts, sums = self._statistics(vectors, codes)
        expected = log_probabilities.exp().mean(1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for tensor in (counts, sums, expected):
                torch.distributed.all_reduce(tensor)
            expected /= torch.distributed.get_world_size()
        total = counts.sum(1, keepdim=True)
        self.usage.lerp_(counts / total, 1 - self.decay)
        self.expected.lerp_(expected, 1 - self.decay)
        correction = ((self.usage + RARE) / (self.expected + RARE)).log().mul_(SCALING)
        self.bias.add_(correction)
        self.expected.mul_(correction.exp_())  # what the head would have expected with this bias all along
        if self.learn == "gradient":
            return
        self.sums.lerp_(sums / total[:, :, None], 1 - self.decay)
        # A code that has hardly occurred keeps its place: the ratio of two vanishing averages is noise.
        alive = (self.usage > RARE)[:, :, None]
        if self.silence:
            alive = alive & (torch.arange(self.codebook_size, device=alive.device) > 0)[:, None]
        self.codebook.copy_(torch.where(alive, self.sums / self.usage[:, :, None].clamp_min(RARE), self.codebook))

    def _appoint_silence(self, counts: Tensor) -> None:
        """Give number 0 to the codeword nearest to zero, with its ``counts [G, K]``, and put it at zero.

        A codeword held at zero from the start would lose its residuals to a neighbour a little better placed.
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
        pool = vectors[:, torch.randperm(count, generator=generator, device=vectors.device)[: min(count, 8192)]]
        seeds = [pool.new_zeros(self.groups, 1, self.dim)]  # the zero residual is the commonest by design
        nearest = pool.square().sum(2)
        for _ in range(self.codebook_size - 1):
            pick = torch.multinomial(nearest + 1e-12, 1, generator=generator)
            seeds.append(pool.gather(1, pick[:, :, None].expand(-1, -1, self.dim)))
            nearest = torch.minimum(nearest, (pool - seeds[-1]).square().sum(2))
        return torch.cat(seeds, 1)


def _full_precision(x: Tensor) -> torch.autocast:
    """Autocast off: these are differences of large sums, and in bfloat16 one code in fifty would be another."""
    return torch.autocast(x.device.type, enabled=False)
