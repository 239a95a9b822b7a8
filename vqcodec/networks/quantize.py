r"""The vector quantiser of a VQ-VAE (van den Oord et al. 2017), with a codebook for each group of channels.

::

    z_e [B, G·D, H, W] ──┬─ distance to every codeword ─┐
                         │                              ├─ argmin a·distance + bits ─▶ codes [B, G, H, W]
    1/σ² (optional) ─────┴─ bits of every codeword ─────┘                               │
                                                                                        ▼
    z_q [B, G·D, H, W] ◀── straight-through: z_e + sg(e − z_e) ◀──────────── codebook e [G, K, D]

Legend: B batch, G groups, D channels a group, K codewords, H and W grid height and width, N = B·H·W; sg is
stop-gradient, ``detach()``.

With ``rate_aware=False`` the choice is the nearest codeword (eq. 1 and 2 there). The rate-aware choice adds the
bits that the code will cost: entropy-constrained VQ (Chou, Lookabaugh and Gray 1989). :mod:`vqcodec.networks.head` has
the bits, :mod:`vqcodec.networks.codebooks` how codewords learn.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.networks.codebooks import Codebooks
from vqcodec.networks.head import LN2, RateHead, full_precision

__all__ = ["DISTORTION_WEIGHT", "Quantized", "VectorQuantizer"]

# Slope of the rate–distortion curve of a unit-step uniform quantiser: distortion Δ²/12 falls by a factor of four
# for each bit, so d(bits)/d(distortion) = 6 / (ln 2 · Δ²) at Δ = 1. Residuals are scaled so that Δ = 1 at every λ.
DISTORTION_WEIGHT = 6 / LN2

CHUNK = 2**20  # entries of [G, rows, K] that stay in the cache
SENT = 0.5  # the least norm, in steps, of a codeword that straight-through gradients pass if zero is a code


@dataclass(frozen=True)
class Quantized:
    """What one call of :class:`VectorQuantizer` returns.

    Attributes:
        codes: ``[B, G, H, W]`` int64 in 0..K−1.
        z_q: ``[B, G·D, H, W]`` codewords, with straight-through gradients to the input.
        bits: ``[B]`` bits of all codes of an image under the context-free head.
        commitment_loss: mean of ``(z_e − sg(e))²`` over positions and channels.
        codebook_loss: mean of ``(sg(z_e) − e)²``; zero when codebooks learn by EMA.
    """

    codes: Tensor
    z_q: Tensor
    bits: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor


class VectorQuantizer(Codebooks):
    """Quantise groups of channels to the codewords of their codebooks.

    Args:
        groups, codebook_size, dim: G, K and D; G = 1 is the textbook quantiser.
        rate_aware: choose ``argmin a·‖z_e − e‖² + bits``; otherwise the nearest codeword.
        head: the bits of codes.
        distortion_weight: factor of a. Above 1 where the codes will cost fewer bits than the head says, since the
            head knows no neighbours.
        learn, decay, zero_code: see :class:`Codebooks`. With ``zero_code`` gradients pass straight through only
            where another codeword was chosen.
    """

    def __init__(
        self,
        groups: int,
        codebook_size: int,
        dim: int,
        *,
        rate_aware: bool = True,
        head: RateHead | None = None,
        distortion_weight: float = 1.0,
        learn: str = "ema",
        decay: float = 0.995,
        zero_code: bool = False,
    ) -> None:
        super().__init__(groups, codebook_size, dim, learn=learn, decay=decay, zero_code=zero_code)
        self.rate_aware, self.distortion_weight = rate_aware, distortion_weight
        self.head = RateHead() if head is None else head

    def forward(self, r: Tensor, inverse_variance: Tensor | None = None) -> Quantized:
        """Quantise z_e = ``r [B, G·D, H, W]``; ``inverse_variance`` is 1/σ² in the same shape, None a static head."""
        batch, _, height, width = r.shape
        z_e = self.rows(r)
        precision = None if inverse_variance is None else self.rows(inverse_variance)
        codes = self.assign(z_e, precision)  # argmin_k a·‖z_e − e_k‖² + bits of k
        e = self.gather(codes)
        if self.zero_code:  # where nothing is sent, nothing was corrected, and z_e earns no gradient
            z_e = torch.where(e.detach().square().sum(2, keepdim=True) > SENT**2, z_e, z_e.detach())
        z_q = z_e + (e - z_e).detach()  # straight-through: ∂z_q/∂z_e = 1
        commitment_loss = F.mse_loss(z_e, e.detach())  # ‖z_e − sg(e)‖², which β multiplies
        codebook_loss = F.mse_loss(e, z_e.detach()) if self.learn == "gradient" else r.new_zeros(())  # ‖sg(z_e) − e‖²
        logits = self.head.logits(self.codebook, self.bias, precision)
        total = logits.logsumexp(2)
        bits = (total - self._logit(codes, e, z_e, precision)) / LN2  # −log2 p(code | σ)
        if self.training:
            self.update(z_e.detach(), codes, (logits - total[:, :, None]).detach().exp())
        return Quantized(
            codes=codes.view(self.groups, batch, height, width).transpose(0, 1),
            z_q=self._grid(z_q, batch, height, width),
            bits=bits.view(self.groups, batch, -1).sum((0, 2)),
            commitment_loss=commitment_loss,
            codebook_loss=codebook_loss,
        )

    def encode(self, r: Tensor, inverse_variance: Tensor | None = None) -> Tensor:
        """The codes alone, ``[B, G, H, W]`` int64, of arguments as in :meth:`forward`."""
        batch, _, height, width = r.shape
        codes = self.assign(self.rows(r), None if inverse_variance is None else self.rows(inverse_variance))
        return codes.view(self.groups, batch, height, width).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """z_q, the codewords ``[B, G·D, H, W]`` of ``codes [B, G, H, W]``."""
        batch, _, height, width = codes.shape
        return self._grid(self.gather(codes.transpose(0, 1).flatten(1)), batch, height, width)

    @torch.no_grad()
    def assign(self, vectors: Tensor, precision: Tensor | None) -> Tensor:
        # argmin_k a·‖r − e_k‖² + bits_k as one product: a·‖e_k‖² − 2a·r·e_k + bits_k, since ‖r‖² is the same for every
        # codeword. Without rate_aware, a = 1 and there are no bits: the nearest codeword.
        weight = self.distortion_weight * DISTORTION_WEIGHT if self.rate_aware else 1.0
        constant = weight * self.codebook.square().sum(2)[:, None, :]
        # Constants go in as another feature, of ones: broadcasting them would cost as much as the product.
        features, table = [torch.ones_like(vectors[:, :, :1]), -2 * weight * vectors], [self.codebook]
        if self.rate_aware:
            constant = constant - self.bias[:, None, :] / LN2
            if precision is not None:
                features.append(self.head.weight(precision) / LN2)
                table.append(self.head.energy(self.codebook))
        matrix = torch.cat([constant.mT, *table], 2).mT
        with full_precision(vectors):
            parts = torch.split(torch.cat(features, 2), self._chunk, 1)
            return torch.cat([torch.bmm(part, matrix).argmin(2) for part in parts], 1)

    def expected_counts(self, precision: Tensor | None, count: int) -> Tensor:
        if precision is None:
            return self.bias.softmax(1) * count
        parts = torch.split(precision, self._chunk, 1)
        logits = (self.head.logits(self.codebook, self.bias, part) for part in parts)
        return torch.stack([part.softmax(2).sum(1) for part in logits]).sum(0)

    def _logit(self, codes: Tensor, e: Tensor, z_e: Tensor, precision: Tensor | None) -> Tensor:
        """Unnormalised log-probability ``[G, N]`` of the codes that were chosen."""
        chosen = self.bias.gather(1, codes)
        if precision is None:
            return chosen
        # The value at the codeword, the slope at z_e: nearly all codes are zero, where a slope at the
        # codeword would let residuals grow without a cost.
        energy = self.head.energy(z_e)
        energy = energy + (self.head.energy(e) - energy).detach()
        return chosen - (self.head.weight(precision) * energy).sum(2)

    def _grid(self, rows: Tensor, batch: int, height: int, width: int) -> Tensor:
        """``[G, B·H·W, D] -> [B, G·D, H, W]``, channels last."""
        return rows.transpose(0, 1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    @property
    def _chunk(self) -> int:
        """Rows that :meth:`assign` compares with all codewords at a time."""
        return max(1, CHUNK // (self.groups * self.codebook_size))
