"""From one picture to another, step by step: between residuals, and between codes.

::

    t = 0 ───────────────────────────────────────────────────────────▶ t = 1
    pixels      (1−t)·a + t·b                                     a cross-fade, for comparison
    z_e         (1−t)·r_a + t·r_b ──▶ decoder                     no quantiser
    z_q         (1−t)·r_a + t·r_b ──▶ codes ──▶ decoder           what a file can hold
    codes       the codes of b at a share t of the places, those of a elsewhere

r is the residual z_e of each level in quantiser steps, as the picture's own walk gives it: without any quantiser in the
row z_e, with the coarser levels quantised in the row z_q. Codes are symbols without an order: nothing lies between two
of them, so they can only be exchanged.

Legend: B = 1, G groups and D channels a group of a level, h × w its positions; H and W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.exact import entropy
from vqcodec.exact.wavefront import Codes
from vqcodec.geometry import Geometry
from vqcodec.networks.choices import Decode, Encode, Given, Record
from vqcodec.networks.levels import Choose, Inputs, Latent
from vqcodec.networks.vqvae import VQVAE
from vqcodec.pixels import to_image
from vqcodec.study.paint import Pixels, rgb, sheet, to_bytes

__all__ = ["LARGEST", "End", "common_middle", "mixed", "strip"]

LARGEST = 384  # pixels a side that a strip shows


@dataclass(frozen=True)
class End:
    """One picture as the VQ-VAE sees it.

    Attributes:
        pixels: ``[H, W, 3]``.
        continuous: z_e of each level, ``[1, G·D, h, w]``, where the coarser levels are not quantised either.
        residuals: z_e of each level where the coarser ones are, as for a file: it makes up for their error too.
        codes: grids ``[1, G, h, w]`` of ``residuals``.
    """

    pixels: Pixels
    continuous: Sequence[Tensor]
    residuals: Sequence[Tensor]
    codes: Sequence[Tensor]

    @classmethod
    @torch.inference_mode()
    def of(cls, codec: Codec, pixels: Pixels, quality: int) -> "End":
        """The residuals and codes of ``pixels [H, W, 3]``, which is not cut into tiles."""
        codec.load_encoder()
        height, width, _ = pixels.shape
        geometry = Geometry(height, width, codec.model.strides)
        x = to_image(geometry.lay_out(pixels), codec.device)
        encode = Encode()
        walks = Record(lambda latent: latent.residual()), Record(encode)
        for record in walks:
            codec.vqvae.reconstruct(x, _lmbda(codec, quality), record)
        continuous, residuals = ([r for r, _ in record.residuals] for record in walks)
        return cls(pixels, continuous, residuals, encode.codes)


def common_middle(a: Pixels, b: Pixels) -> tuple[Pixels, Pixels]:
    """The middles of two pictures ``[H, W, C]``, in one size of at most LARGEST pixels a side, ``[H', W', 3]``."""
    sides = [min(LARGEST, *pair) for pair in zip(a.shape[:2], b.shape[:2], strict=True)]
    middles: list[Pixels] = []
    for picture in (a, b):
        top, left = ((whole - side) // 2 for whole, side in zip(picture.shape[:2], sides, strict=True))
        middles.append(np.ascontiguousarray(rgb(picture)[top : top + sides[0], left : left + sides[1]]))
    return middles[0], middles[1]


def mixed(a: Sequence[Tensor], b: Sequence[Tensor], share: float, seed: int = 0) -> list[Tensor]:
    """The codes of ``b`` at a ``share`` of the places, 0..1, and those of ``a`` elsewhere.

    A place is a position of the coarsest level and what finer levels have in its square. Places are drawn at random;
    those of a smaller share are among those of a larger one.
    """
    height, width = a[0].shape[2:]
    order = np.random.default_rng(seed).permutation(height * width).reshape(height, width)
    taken = torch.from_numpy(order < round(share * height * width))
    found: list[Tensor] = []
    for one, other in zip(a, b, strict=True):
        factor = one.shape[2] // height
        mask = taken.repeat_interleave(factor, 0).repeat_interleave(factor, 1).to(one.device)
        found.append(torch.where(mask, other, one))
    return found


@torch.inference_mode()
def strip(codec: Codec, a: Pixels, b: Pixels, quality: int, steps: int) -> Pixels:
    """A picture of ``steps`` ≥ 2 columns from ``a`` to ``b``, both ``[H, W, 3]``, in the four rows of this module.

    Rows of codes state their rate under the prior, in bits a pixel.
    """
    first, second = (End.of(codec, pixels, quality) for pixels in (a, b))
    height, width, _ = a.shape
    view = _View(codec, quality, Geometry(height, width, codec.model.strides))
    shares = [i / (steps - 1) for i in range(steps)]
    tiles: list[Pixels] = []
    names: list[str] = []
    for name, draw in (("pixels", view.pixels), ("z_e", view.z_e), ("z_q", view.z_q), ("codes", view.codes)):
        for t in shares:
            picture, rate = draw(first, second, t)
            tiles.append(picture)
            names.append(f"{name}, t = {t:.2f}" + ("" if rate is None else f", {rate:.3f} bpp"))
    return sheet(tiles, names, columns=steps)


_Tile = tuple[Pixels, float | None]


@dataclass(frozen=True)
class _View:
    """Draws the tiles of a strip: the picture at ``t``, and its rate in bits a pixel if it has codes."""

    codec: Codec
    quality: int
    geometry: Geometry

    def pixels(self, a: End, b: End, t: float) -> _Tile:
        return to_bytes((1 - t) * a.pixels.astype(float) + t * b.pixels), None

    def z_e(self, a: End, b: End, t: float) -> _Tile:
        return self._walk(Given(_between(a.continuous, b.continuous, t)), a), None

    def z_q(self, a: End, b: End, t: float) -> _Tile:
        residuals, encode = iter(_between(a.residuals, b.residuals, t)), Encode()

        def choose(latent: Latent) -> Tensor:
            r = next(residuals)  # in place of the encoder's
            return encode(replace(latent, residual=lambda: r))

        picture = self._walk(choose, a)
        return picture, self._rate(encode.codes)

    def codes(self, a: End, b: End, t: float) -> _Tile:
        codes = mixed(a.codes, b.codes, t)
        return self._walk(Decode(codes), a), self._rate(codes)

    def _walk(self, choose: Choose, like: End) -> Pixels:
        """The picture that the decoder makes with r_hat by ``choose``, cropped and turned as the original."""
        vqvae: VQVAE = self.codec.vqvae
        lmbda = _lmbda(self.codec, self.quality)
        inputs = Inputs(lmbda, vqvae.embedding(lmbda))
        x_hat = vqvae.walk(vqvae.steps, inputs, choose, *like.codes[0].shape[2:]).x_hat
        assert x_hat is not None
        laid_out = x_hat[0].clamp(0, 1).mul(255).permute(1, 2, 0).double().cpu().numpy()
        return np.ascontiguousarray(self.geometry.restore(to_bytes(laid_out)))

    def _rate(self, codes: Sequence[Tensor]) -> float:
        grids: list[Codes] = [grid[0].cpu().numpy().astype(np.int16) for grid in codes]
        levels = entropy.encode(self.codec.prior, grids, self.quality, measure=True)
        return sum(level.cross_entropy for level in levels) / (self.geometry.height * self.geometry.width)


def _between(a: Sequence[Tensor], b: Sequence[Tensor], t: float) -> list[Tensor]:
    return [torch.lerp(one, other, t) for one, other in zip(a, b, strict=True)]


def _lmbda(codec: Codec, quality: int) -> Tensor:
    return torch.tensor([codec.model.lmbda(quality)], device=codec.device)
