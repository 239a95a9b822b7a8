r"""Draw code grids from the prior, by the integers that code files.

::

    prior ──▶ frequencies ──temperature──▶ cumulative sums [K] ──▶ the code whose interval holds ⌊r·total / 2^48⌋
      ▲                                                                          │        r: 48 bits of PCG64
      └─────────────────────────── FixedPrior.decode ◀───────────────────────────┘

Decoding a file and drawing are one loop; only the source of the codes differs. Everything is an integer, and PCG64's
stream is fixed by its definition, so a seed gives the same codes on every machine.

Legend: B pictures, G groups, K codewords and S stages of a level, H_l × W_l its positions, n rows of a step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.exact.arithmetic import FREQUENCIES
from vqcodec.exact.memory import Frequencies
from vqcodec.exact.prior import FixedPrior
from vqcodec.exact.wavefront import Codes, Wavefront
from vqcodec.geometry import Geometry, batch_size
from vqcodec.study.paint import Pixels, rgb, sheet

__all__ = ["Draw", "Start", "draw_codes", "sample", "sample_sheet", "tempered"]

_HALF = 24  # bits of each half of a random number
_RISING = np.array(FREQUENCIES[::-1], np.int64)


@dataclass(frozen=True)
class Start:
    """The coarse levels of a real picture, which samples keep: its ``pixels [H, W, C]`` and how many ``levels``."""

    pixels: Pixels
    levels: int

    def codes(self, codec: Codec, quality: int) -> list[Codes]:
        """The grids to keep, ``[G, H_l, W_l]``; raises ValueError unless one level is kept and one is left."""
        levels = len(codec.model.levels)
        if not 1 <= self.levels < levels:
            raise ValueError(f"{self.levels} levels are to be kept, expected 1 to {levels - 1} of {levels}")
        return codec.encode(self.pixels, quality)[: self.levels]


class Draw:
    """A ``choose`` of :meth:`FixedPrior.decode` that draws each code with its probability.

    Args:
        seeds: of the B pictures; each has its own stream, so a picture does not depend on the others.
        temperature: T, at least 0; probabilities become p^(1/T), see :func:`tempered`.
    """

    def __init__(self, seeds: Sequence[Sequence[int]], temperature: Fraction = Fraction(1)) -> None:
        self._streams = [np.random.PCG64(list(seed)) for seed in seeds]
        self._table = None if temperature == 1 else tempered(temperature)

    def __call__(self, first: int, last: int, stage: int, frequencies: Frequencies) -> NDArray[np.int64]:
        """Codes ``[n, G/S]`` of ``frequencies [n, G/S, K]``; the rows of the first picture come first."""
        weights = frequencies.astype(np.int64)
        if self._table is not None:
            # A frequency of the table is found by its value; the last of equal ones is the likeliest logit.
            weights = self._table[np.searchsorted(_RISING, weights, side="right") - 1]
        sums = weights.cumsum(2)
        total = sums[:, :, -1]
        count = total.size // len(self._streams)
        raw = np.stack([stream.random_raw(count) for stream in self._streams])
        r = (raw >> np.uint64(64 - 2 * _HALF)).astype(np.int64).reshape(total.shape)
        # ⌊r·total / 2^48⌋ of r = high·2^24 + low, without leaving 64 bits: total is below 2^35.
        high, low = r >> _HALF, r & ((1 << _HALF) - 1)
        points = (high * total + (low * total >> _HALF)) >> _HALF
        codes: NDArray[np.int64] = (sums <= points[:, :, None]).sum(2)
        return codes


def tempered(temperature: Fraction) -> NDArray[np.int64]:
    """Frequencies at temperature T, one for each entry of FREQUENCIES in rising order.

    The entry ⌊2^(22 − i/64)⌋ becomes the entry whose index is i/T, rounded half up: a 64th of an octave is the
    resolution of the prior's logits. T = 0 keeps the likeliest codes alone. A frequency of 0 stays 0 at any T.

    Raises ValueError if T is negative.
    """
    if temperature < 0:
        raise ValueError(f"temperature is {float(temperature):g}, expected at least 0")
    last = len(FREQUENCIES) - 1  # the index of the zero
    if temperature == 0:
        table = [FREQUENCIES[0], *[0] * last]
    else:
        indices = (int(i / temperature + Fraction(1, 2)) for i in range(last))
        table = [*(FREQUENCIES[min(index, last)] for index in indices), 0]
    return np.array(table[::-1], np.int64)


def draw_codes(
    prior: FixedPrior,
    shapes: Sequence[tuple[int, int]],
    quality: int,
    draw: Draw,
    count: int,
    kept: Sequence[Codes] = (),
) -> list[NDArray[np.int16]]:
    """Code grids ``[B, G, H_l, W_l]`` of ``count`` = B pictures, coarsest level first.

    Args:
        prior: that gives the frequencies.
        shapes: ``(H_l, W_l)`` of each level.
        quality: of the pictures, 1..100.
        draw: chooses codes; it has B streams.
        kept: grids ``[G, H_l, W_l]`` of the first levels, which all pictures share; the others are drawn.
    """
    grids: list[NDArray[np.int16]] = []
    states: list[Tensor] = []
    qualities = [quality] * count
    for index, shape in enumerate(shapes):
        wavefront = Wavefront(*shape, count)
        if index < len(kept):
            known = np.repeat(kept[index][None], count, 0)
            states = prior.evaluate(index, wavefront, known, qualities, states, _ignore)
            grids.append(known)
        else:
            found, states = prior.decode(index, wavefront, qualities, states, draw)
            grids.append(found)
    return grids


def sample(
    codec: Codec,
    count: int,
    quality: int,
    height: int,
    width: int,
    *,
    seed: int,
    temperature: Fraction = Fraction(1),
    start: Start | None = None,
) -> list[Pixels]:
    """``count`` pictures ``[height, width, 3]`` drawn from the prior and decoded.

    Picture i is the same for any ``count``. With ``start``, whose picture must have this size, its coarse levels are
    kept. Raises ValueError unless it keeps at least one level and leaves one to draw.
    """
    kept = [] if start is None else start.codes(codec, quality)
    return _sample(codec, count, quality, height, width, seed, temperature, kept)


def _sample(
    codec: Codec,
    count: int,
    quality: int,
    height: int,
    width: int,
    seed: int,
    temperature: Fraction,
    kept: Sequence[Codes],
) -> list[Pixels]:
    geometry = Geometry(height, width, codec.model.strides)
    pictures: list[Pixels] = []
    together = batch_size(*geometry.padded)
    for first in range(0, count, together):
        numbers = range(first, min(count, first + together))
        draw = Draw([(seed, number) for number in numbers], temperature)
        grids = draw_codes(codec.prior, geometry.grids, quality, draw, len(numbers), kept)
        for i in range(len(numbers)):
            codes = [np.ascontiguousarray(grid[i]) for grid in grids]
            pictures.append(codec.decode(codes, quality, height, width, grey=False))
    return pictures


def sample_sheet(
    codec: Codec,
    count: int,
    quality: int,
    height: int,
    width: int,
    *,
    seed: int,
    temperature: Fraction = Fraction(1),
    start: Start | None = None,
) -> Pixels:
    """The pictures of :func:`sample` side by side; with ``start``, its picture and its coarse levels come first."""
    kept = [] if start is None else start.codes(codec, quality)
    tiles = _sample(codec, count, quality, height, width, seed, temperature, kept)
    names: list[str] = []
    if start is not None:
        coarse = codec.decode(kept, quality, height, width, grey=False)
        tiles = [rgb(start.pixels), coarse, *tiles]
        names = ["image", f"{start.levels} of {len(codec.model.levels)} levels", *(f"sample {i}" for i in range(count))]
    return sheet(tiles, names, columns=math.isqrt(len(tiles) - 1) + 1)


def _ignore(first: int, last: int, stage: int, frequencies: Frequencies) -> None:
    """The frequencies of codes that are kept are of no use."""
