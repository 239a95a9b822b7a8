"""What the codes of pictures cost, and how codebooks are used.

::

    pixels ──Codec.codes──▶ codes ──entropy.encode(measure=True)──▶ bits of each code ──▶ Coded
    several Coded ──figures──▶ LevelFigures: uniform, static and PixelCNN rate, perplexity, live channels, dead codes

Legend: G groups, K codewords and D channels a group of a level, H_l × W_l its positions; H and W pixels of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.exact import entropy
from vqcodec.exact.wavefront import Codes
from vqcodec.files.container import Container, pack
from vqcodec.geometry import Geometry
from vqcodec.networks.codebooks import LIVE, Usage
from vqcodec.networks.vqvae import VQVAE
from vqcodec.rates import static_bits, uniform_bits
from vqcodec.study.paint import Floats, Pixels

__all__ = [
    "Coded",
    "LevelFigures",
    "bit_map",
    "code_picture",
    "codebooks",
    "figures",
    "neutral",
    "without_group",
]


@dataclass(frozen=True)
class Coded:
    """A picture and its codes.

    Attributes:
        name: of its file.
        pixels: ``[H, W, C]``.
        codes: ``[G, H_l, W_l]`` a level, coarsest first.
        bits: of each code under the prior's integers, in the same shapes.
        level_bytes: of each level's bitstream.
        size: bytes of the whole file.
    """

    name: str
    pixels: Pixels
    codes: Sequence[Codes]
    bits: Sequence[Floats]
    level_bytes: Sequence[int]
    size: int

    @classmethod
    def of(cls, codec: Codec, name: str, pixels: Pixels, quality: int) -> "Coded":
        """What ``codec`` makes of ``pixels``; the file is what :meth:`Codec.compress` returns with effort 0."""
        codes = codec.encode(pixels, quality)
        levels = entropy.encode(codec.prior, codes, quality, measure=True)
        height, width, channels = pixels.shape
        streams = tuple(level.bitstream for level in levels)
        file = pack(Container(width, height, channels == 1, quality, codec.fingerprint, streams))
        bits = [cast(Floats, level.bits) for level in levels]
        return cls(name, pixels, codes, bits, [len(stream) for stream in streams], len(file))


@dataclass(frozen=True)
class LevelFigures:
    """A level over all pictures; rates are in bits a pixel of all pictures together.

    Attributes:
        stride: pixels between two positions.
        codebook_size: K.
        uniform, static, prior: rate at log2 K bits a code, at the entropy of each codeword's frequency in these
            pictures, and under the PixelCNN.
        group_rate: of each group under the PixelCNN.
        perplexity: 2^entropy of each group's codes, 1..K.
        dead: codewords of each group that never occur.
        live: channels of each group whose codewords spread by more than LIVE.
        counts: how often each codeword occurs, ``[G, K]``.
    """

    stride: int
    codebook_size: int
    uniform: float
    static: float
    prior: float
    group_rate: Sequence[float]
    perplexity: Sequence[float]
    dead: Sequence[int]
    live: Sequence[int]
    counts: NDArray[np.int64]


def figures(codec: Codec, pictures: Sequence[Coded]) -> list[LevelFigures]:
    """The figures of each level over ``pictures``, at least one."""
    pixels = sum(one.pixels.shape[0] * one.pixels.shape[1] for one in pictures)
    found: list[LevelFigures] = []
    for index, level in enumerate(codec.model.levels):
        counts = sum(_counts(one.codes[index], level.codebook_size) for one in pictures)
        assert isinstance(counts, np.ndarray)
        usage = Usage.of(torch.from_numpy(counts))
        rates = sum(one.bits[index].sum((1, 2)) for one in pictures) / pixels
        found.append(
            LevelFigures(
                stride=level.stride,
                codebook_size=level.codebook_size,
                uniform=uniform_bits(counts) / pixels,
                static=float(static_bits(counts, counts).sum()) / pixels,
                prior=float(rates.sum()),
                group_rate=rates.tolist(),
                perplexity=usage.perplexity.tolist(),
                dead=(counts == 0).sum(1).tolist(),
                live=(_spread(counts, codebooks(codec.vqvae)[index]) > LIVE).sum(1).tolist(),
                counts=counts,
            )
        )
    return found


def codebooks(vqvae: VQVAE) -> list[Floats]:
    """The codewords ``[G, K, D]`` of each level, coarsest first."""
    return [quantizer.codebook.detach().double().cpu().numpy() for quantizer in vqvae.quantizers()]


def neutral(vqvae: VQVAE) -> list[NDArray[np.int64]]:
    """For each level, the code of each group whose codeword is nearest to zero, ``[G]``: it says the least."""
    return [np.square(codebook).sum(2).argmin(1) for codebook in codebooks(vqvae)]


def without_group(codes: Sequence[Codes], level: int, group: int, code: int) -> list[Codes]:
    """The same codes, but ``code`` everywhere in one group."""
    changed = list(codes)
    changed[level] = codes[level].copy()
    changed[level][group] = code
    return changed


def bit_map(bits: Floats, geometry: Geometry, stride: int) -> Floats:
    """Where the bits of a level go: ``[G, H_l, W_l]`` to bits a pixel, ``[H, W]``.

    A position's bits are spread evenly over its square of ``stride`` × ``stride`` pixels. Where the picture does not
    fill its last squares, these are shared by the pixels that it has, so the map sums to the level's bits.
    """
    ys, xs = (np.arange(side) // stride for side in _laid_out(geometry))  # the position of each row and column
    per_position = bits.sum(0)
    merged = np.zeros((ys[-1] + 1, xs[-1] + 1))
    all_rows, all_columns = (np.minimum(np.arange(n), m[-1]) for n, m in zip(per_position.shape, (ys, xs), strict=True))
    np.add.at(merged, (all_rows[:, None], all_columns[None]), per_position)
    area = np.bincount(ys)[:, None] * np.bincount(xs)[None]
    laid_out: Floats = (merged / area)[ys[:, None], xs[None]]
    return laid_out.T if geometry.upright else laid_out


def code_picture(grid: Codes, colours: Pixels, geometry: Geometry, stride: int) -> Pixels:
    """One group's codes ``[H_l, W_l]`` in their ``colours [K, 3]``, upright as the picture is, a pixel a position."""
    short, long = (-(-side // stride) for side in _laid_out(geometry))
    picture: Pixels = colours[grid[:short, :long]]
    return picture.swapaxes(0, 1) if geometry.upright else picture


def _laid_out(geometry: Geometry) -> tuple[int, int]:
    """Sides of the picture as it lies on the grids, without padding."""
    short, long = sorted((geometry.height, geometry.width))
    return short, long


def _counts(codes: Codes, size: int) -> NDArray[np.int64]:
    """How often each codeword occurs, ``[G, K]``."""
    return np.stack([np.bincount(grid.ravel(), minlength=size) for grid in codes])


def _spread(counts: NDArray[np.int64], codebook: Floats) -> Floats:
    """Standard deviation of the codewords that were sent, in steps, ``[G, D]``."""
    share = (counts / np.maximum(counts.sum(1, keepdims=True), 1))[:, :, None]
    mean = (share * codebook).sum(1, keepdims=True)
    spread: Floats = np.sqrt((share * np.square(codebook - mean)).sum(1))
    return spread
