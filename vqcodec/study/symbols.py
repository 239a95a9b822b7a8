"""What does a symbol mean? Where a code occurs, and what the decoder makes of it alone.

::

    a group's most used codes ─┬─ where they occur ──▶ patches of the pictures, and their mean
                               └─ alone on an empty grid ──VQVAE.decode──▶ a patch

A patch is three positions a side: the code's own square and what surrounds it. Pictures are shown as they lie on the
grids, so upright ones are turned.

Legend: G groups, K codewords; s pixels between two positions of the level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.geometry import Geometry
from vqcodec.study.measure import Coded, neutral
from vqcodec.study.paint import Floats, Pixels, amplified, codeword_colours, fitted, rgb, sheet, visible_gain

__all__ = ["SYMBOLS", "alone", "occurrences", "symbol_sheet"]

SYMBOLS = 6  # codes shown of each group
EXAMPLES = 4  # patches shown of each code
MEAN_OF = 400  # patches that a mean is over, at most
SIDE = 48  # pixels of a patch on the sheet
EMPTY = 5  # positions a side of the coarsest grid, in the middle of which a code stands alone


@dataclass(frozen=True)
class _Row:
    """A code of a group: ``patch`` by the decoder and ``mean`` of occurrences, both signed; ``examples`` as found."""

    code: int
    share: float
    patch: Floats
    mean: Floats
    examples: Sequence[Pixels]


def alone(codec: Codec, level: int, group: int, codes: Sequence[int], quality: int) -> Floats:
    """What each of ``codes`` adds to an otherwise empty picture, ``[n, 3s, 3s, 3]`` in grey levels of either sign.

    All other codes are those nearest to zero. The code stands in the middle of the grid.
    """
    model, device = codec.model, codec.device
    coarsest = model.levels[0].stride
    grids: list[torch.Tensor] = []
    for one, empty in zip(model.levels, neutral(codec.vqvae), strict=True):
        side = EMPTY * coarsest // one.stride
        grid = torch.from_numpy(empty)[None, :, None, None].repeat(len(codes) + 1, 1, side, side)
        grids.append(grid)
    middle = grids[level].shape[2] // 2
    grids[level][1:, group, middle, middle] = torch.tensor(list(codes))
    lmbda = torch.full((len(codes) + 1,), model.lmbda(quality), device=device)
    batch = codec.vqvae.decode([grid.to(device) for grid in grids], lmbda).double().cpu().permute(0, 2, 3, 1)
    stride = model.levels[level].stride
    inside = slice((middle - 1) * stride, (middle + 2) * stride)
    added: Floats = (255 * (batch[1:] - batch[:1]))[:, inside, inside].numpy()
    return added


def occurrences(
    pictures: Sequence[Coded], strides: tuple[int, ...], level: int, group: int, code: int, count: int
) -> list[Pixels]:
    """At most ``count`` patches ``[3s, 3s, 3]`` where ``code`` occurs, drawn at random, always the same ones."""
    places = [
        (number, y, x)
        for number, one in enumerate(pictures)
        for y, x in np.argwhere(one.codes[level][group] == code).tolist()
    ]
    chosen = [places[i] for i in np.random.default_rng(code).permutation(len(places))[:count]]
    laid_out = {number: _laid_out(pictures[number], strides) for number in {place[0] for place in chosen}}
    return [_patch(laid_out[number], strides[level], y, x) for number, y, x in chosen]


def symbol_sheet(
    codec: Codec, pictures: Sequence[Coded], level: int, group: int, counts: NDArray[np.int64], quality: int
) -> tuple[Pixels, float]:
    """The most used codes of a group, a row each, and how many times as strong as it is what a code does is drawn.

    Columns: the code's colour and share, what the decoder makes of it alone, how its occurrences differ from the
    patches of the whole group in the mean, and some of them. ``counts [K]`` says how often each codeword occurs.
    """
    strides, codebook = codec.model.strides, codec.vqvae.quantizers()[level].codebook[group]
    colours = codeword_colours(codebook.detach().double().cpu().numpy())
    most = [int(code) for code in np.argsort(-counts, kind="stable")[:SYMBOLS] if counts[code] > 0]
    found = {code: occurrences(pictures, strides, level, group, code, MEAN_OF) for code in most}
    means = {code: np.mean(np.stack(patches), 0, dtype=float) for code, patches in found.items()}
    weights = np.array([counts[code] for code in most], float)
    overall = np.tensordot(weights / weights.sum(), np.stack([means[code] for code in most]), 1)
    patches = alone(codec, level, group, most, quality)
    rows = [
        _Row(code, counts[code] / counts.sum(), patch, means[code] - overall, found[code][:EXAMPLES])
        for code, patch in zip(most, patches, strict=True)
    ]
    gain = visible_gain(np.stack([row.patch for row in rows]))
    mean_gain = visible_gain(np.stack([row.mean for row in rows]))
    blank = np.full((3 * strides[level], 3 * strides[level], 3), 255, np.uint8)
    tiles: list[Pixels] = []
    names: list[str] = []
    for row in rows:
        colour = np.broadcast_to(colours[row.code], blank.shape)
        shown = [colour, amplified(row.patch, gain), amplified(row.mean, mean_gain), *row.examples]
        shown += [blank] * (3 + EXAMPLES - len(shown))
        tiles += [fitted(tile, SIDE) for tile in shown]
        names += [
            f"code {row.code}",
            "alone",
            "mean",
            f"{counts[row.code]:,} times ({100 * row.share:.1f} %)",
            "",
            "",
            "",
        ]
    return sheet(tiles, names, columns=3 + EXAMPLES), gain


def _laid_out(picture: Coded, strides: tuple[int, ...]) -> Pixels:
    height, width, _ = picture.pixels.shape
    return rgb(Geometry(height, width, strides).lay_out(picture.pixels))


def _patch(laid_out: Pixels, stride: int, y: int, x: int) -> Pixels:
    # Positions at the border have no surroundings: the last pixels are repeated.
    rows = np.clip(np.arange((y - 1) * stride, (y + 2) * stride), 0, laid_out.shape[0] - 1)
    columns = np.clip(np.arange((x - 1) * stride, (x + 2) * stride), 0, laid_out.shape[1] - 1)
    return laid_out[rows[:, None], columns[None]]
