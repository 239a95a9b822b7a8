"""What the decoder gets at each level in place of the residual, which it cannot see.

::

    Latent (r, σ, quantiser) ──┬─ Noise ────▶ r + U(−½, ½)                          training, phase "vae"
                               ├─ RoundedNoise ▶ round(r), straight through         the same, bits under noise
                               ├─ HardCodes ▶ nearest codeword, straight through    training, later phases
                               ├─ Encode ───▶ codeword, and its code is kept        encoding
                               ├─ Decode ───▶ codeword of a given code              decoding; 0 where no code is given
                               ├─ Given ────▶ given r_hat                           search, interpolation
                               └─ Round ────▶ round(r)                              measuring phase "vae"

    Split:  one choice at the coarse levels, another at the fine ones               fitting codebooks
    Record: as another choice, and r and 1/σ² of every level are kept               fitting codebooks

Each is a :data:`vqcodec.networks.levels.Choose`: one object serves one walk, which calls it once a level, coarsest
first.

Legend: B batch, G groups and D channels a group of a level, h and w its grid height and width.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from vqcodec.networks.head import gaussian_bits
from vqcodec.networks.levels import Choose, Latent
from vqcodec.networks.quantize import Quantized

__all__ = ["Decode", "Encode", "Given", "HardCodes", "Noise", "Record", "Round", "RoundedNoise", "Split"]


class Noise:
    """Uniform noise one step wide models quantisation (Ballé et al. 2017); ``bits`` has ``[B]`` of every level.

    This is the reparameterised sample of the posterior q(r_hat | x) = U(r − ½, r + ½), r_hat = r + ε with ε independent
    of the network, so that gradients reach r. q has a density of 1, log q = 0, and its KL divergence from the prior
    p(r_hat | f) is E[−log p(r_hat | f)]: the bits.
    """

    def __init__(self) -> None:
        self.bits: list[Tensor] = []

    def __call__(self, latent: Latent) -> Tensor:
        r = latent.residual()
        r_hat = r + torch.rand_like(r) - 0.5
        self.bits.append(gaussian_bits(r_hat, latent.scale()))
        return r_hat


class RoundedNoise(Noise):
    """Bits under noise as in :class:`Noise`, but the decoder gets round(r), with straight-through gradients.

    The mixed form of Minnen and Singh 2020. It is what a file will give: a channel whose residuals round to zero adds
    nothing to the image, where noise would make the encoder silence it for good.
    """

    def __call__(self, latent: Latent) -> Tensor:
        r, scale = latent.residual(), latent.scale()
        super().__call__(replace(latent, residual=lambda: r, scale=lambda: scale))
        return r + (r.round() - r).detach()


class HardCodes:
    """Codewords with straight-through gradients; ``quantized`` has the result of every level's quantiser."""

    def __init__(self) -> None:
        self.quantized: list[Quantized] = []

    def __call__(self, latent: Latent) -> Tensor:
        r = latent.residual()
        self.quantized.append(latent.quantizer(r, latent.quantizer.head.precision(latent.scale())))
        return self.quantized[-1].z_q


class Encode:
    """Codewords; ``codes`` has the grid ``[B, G, h, w]`` int64 of every level."""

    def __init__(self) -> None:
        self.codes: list[Tensor] = []

    def __call__(self, latent: Latent) -> Tensor:
        quantizer, r = latent.quantizer, latent.residual()
        self.codes.append(quantizer.encode(r, quantizer.head.precision(latent.scale())))
        return quantizer.decode(self.codes[-1])


class Decode:
    """The codewords of ``codes``, grids ``[B, G_l, h_l, w_l]``, coarsest first, and zeros once no grid is left.

    With zeros a level adds what the decoder predicts and no more: a preview.
    """

    def __init__(self, codes: Iterable[Tensor]) -> None:
        self._remaining = iter(codes)

    def __call__(self, latent: Latent) -> Tensor:
        grid = next(self._remaining, None)
        if grid is None:
            return latent.quantizer.codebook.new_zeros(latent.shape)
        return latent.quantizer.decode(grid)


class Given:
    """``r_hats``, each ``[B, G·D, h, w]`` in steps, coarsest first, whatever the residuals are."""

    def __init__(self, r_hats: Iterable[Tensor]) -> None:
        self._remaining = iter(r_hats)

    def __call__(self, latent: Latent) -> Tensor:
        return next(self._remaining)


class Round:
    """Residuals rounded to whole steps: what phase "vae" is measured by, before there are codebooks.

    ``bits`` has ``[B]`` of every level, with σ at least ``sigma_min`` steps.
    """

    def __init__(self, *, sigma_min: float = 0.0) -> None:
        self.sigma_min = sigma_min
        self.bits: list[Tensor] = []

    def __call__(self, latent: Latent) -> Tensor:
        r_hat = latent.residual().round()
        self.bits.append(gaussian_bits(r_hat, latent.scale().clamp_min(self.sigma_min)))
        return r_hat


class Split:
    """``coarse`` at the first ``count`` levels, ``fine`` at the others."""

    def __init__(self, count: int, coarse: Choose, fine: Choose) -> None:
        self.count, self.coarse, self.fine = count, coarse, fine
        self._level = 0

    def __call__(self, latent: Latent) -> Tensor:
        self._level += 1
        return self.coarse(latent) if self._level <= self.count else self.fine(latent)


class Record:
    """The same as ``choose``; ``residuals`` has (r, 1/σ²) of every level, each ``[B, G·D, h, w]``."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.residuals: list[tuple[Tensor, Tensor]] = []

    def __call__(self, latent: Latent) -> Tensor:
        r = latent.residual()
        scale = latent.scale()
        self.residuals.append((r, latent.quantizer.head.precision(scale)))
        return self.choose(replace(latent, residual=lambda: r, scale=lambda: scale))
