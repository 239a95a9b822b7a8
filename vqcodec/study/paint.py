"""Numbers as pictures: colours of codewords, heat maps, enlarged grids, sheets of tiles.

::

    codebook [K, D] ──principal_plane──▶ [K, 2] ──codeword_colours──▶ [K, 3]     angle ▶ hue, length ▶ strength
    numbers [H, W] ──heat──▶ [H, W, 3]     black ▶ violet ▶ orange ▶ pale yellow
    tiles, names ──sheet──▶ one picture

Legend: K codewords, D channels, H and W pixels or positions. Pictures are uint8 ``[H, W, 3]``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "Floats",
    "Pixels",
    "amplified",
    "codeword_colours",
    "enlarge",
    "fitted",
    "heat",
    "heat_top",
    "principal_plane",
    "ramp",
    "rgb",
    "sheet",
    "to_bytes",
    "visible_gain",
]

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

# Lightness rises evenly, so that a heat map can be read without colours too.
_HEAT = np.array([[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]], float)
_GREY = 128
_PERCENTILE = 99.5  # of a heat map's values, at which its scale ends
STRONG = 112  # grey levels that an amplified difference may reach
_LABEL = 18  # pixels of a line of text
_TEXT = (27, 31, 36)


def principal_plane(codebook: Floats) -> Floats:
    """``[K, D] -> [K, 2]``: the two directions through zero in which the codewords are longest (uncentred PCA).

    Zero stays at zero; a codebook of one channel lies on the first axis. Signs are such that the largest codeword of
    each axis is positive, so that the picture of a codebook is always the same.
    """
    _, _, axes = np.linalg.svd(codebook, full_matrices=False)
    plane = np.zeros((len(codebook), 2))
    found = codebook @ axes[:2].T
    peaks = found[np.abs(found).argmax(0), np.arange(found.shape[1])]
    plane[:, : found.shape[1]] = found * np.where(peaks < 0, -1.0, 1.0)
    return plane


def codeword_colours(codebook: Floats) -> Pixels:
    """A colour for each of K codewords ``[K, D]``, ``[K, 3]``: the direction is the hue, the length its strength.

    Codewords near each other look alike, the one at zero is dark, and a code has the same colour in every picture.
    """
    x, y = principal_plane(codebook).T
    length = np.hypot(x, y)
    strength = np.sqrt(np.minimum(length / max(float(np.median(length)), 1e-9), 1))  # a few are very long
    angle = np.arctan2(y, x)
    # Three cosines a third of a turn apart run through all hues without the steps of HSV.
    wave = 0.5 + 0.5 * np.cos(angle[:, None] - np.array([0, 2, 4]) * np.pi / 3)
    colours = 28 + strength[:, None] * (12 + 210 * wave)
    return to_bytes(colours)


def heat(values: Floats, top: float) -> Pixels:
    """``[H, W] -> [H, W, 3]``: 0 is black, ``top`` and above pale yellow."""
    place = np.clip(values / max(top, 1e-12), 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(int), len(_HEAT) - 2)
    share = (place - low)[..., None]
    return to_bytes(_HEAT[low] * (1 - share) + _HEAT[low + 1] * share)


def heat_top(values: Floats, block: int) -> float:
    """Where the scale of a heat map ``[H, W]`` ends: few values are above it.

    The last rows and columns that fill no square of ``block`` pixels a side do not count: positions that the picture
    does not fill have few pixels for all their bits.
    """
    height, width = (side // block * block or side for side in values.shape)
    return max(float(np.percentile(values[:height, :width], _PERCENTILE)), 1e-3)


def ramp(width: int, top: float, unit: str) -> Pixels:
    """The key of a heat map: its colours from 0 to ``top``, with numbers below."""
    colours = np.tile(heat(np.linspace(0, top, width)[None], top), (12, 1, 1))
    key = Image.new("RGB", (width, 12 + _LABEL), "white")
    key.paste(Image.fromarray(colours), (0, 0))
    draw, font = ImageDraw.Draw(key), ImageFont.load_default(13)
    for share, anchor in ((0.0, "lt"), (0.5, "mt"), (1.0, "rt")):
        text = f"{share * top:.2g}" + (f" {unit}" if share == 1 else "")
        draw.text((share * (width - 1), 15), text, fill=_TEXT, font=font, anchor=anchor)
    return np.asarray(key)


def amplified(difference: Floats, gain: float) -> Pixels:
    """``[H, W, 3]`` of either sign, in grey levels: zero is mid-grey, the rest ``gain`` times as strong."""
    return to_bytes(_GREY + gain * difference)


def visible_gain(differences: Floats) -> float:
    """A power of two, at most 64, with which nearly all of ``differences`` stay within the range of a pixel."""
    largest = float(np.percentile(np.abs(differences), 99))
    return float(np.clip(2.0 ** np.floor(np.log2(max(STRONG / max(largest, 1e-9), 1e-3))), 0.5, 64))


def enlarge(picture: Pixels, factor: int) -> Pixels:
    """Each pixel as a square of ``factor`` × ``factor``."""
    return picture.repeat(factor, 0).repeat(factor, 1)


def fitted(picture: Pixels, side: int) -> Pixels:
    """A square picture enlarged as often as it fits into ``side`` pixels a side, or averaged down to ``side``."""
    if len(picture) <= side:
        return enlarge(picture, side // len(picture))
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.BOX))


def rgb(picture: Pixels) -> Pixels:
    """``[H, W, 1]`` or ``[H, W, 3]`` to ``[H, W, 3]``."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def sheet(tiles: Sequence[Pixels], names: Sequence[str] = (), *, columns: int, gap: int = 6) -> Pixels:
    """``tiles`` of one size in rows of ``columns``, each below its name, if there are names."""
    height, width, _ = tiles[0].shape
    label = _LABEL if names else 0
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (columns * (width + gap) - gap, rows * (height + label + gap) - gap)
    whole = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(12)
    for i, tile in enumerate(tiles):
        left, top = (i % columns) * (width + gap), (i // columns) * (height + label + gap)
        if names:
            draw.text((left, top + 2), names[i], fill=_TEXT, font=font)
        whole.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, top + label))
    return np.asarray(whole)


def to_bytes(values: Floats) -> Pixels:
    """Grey levels rounded to 0..255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
