r"""The order in which positions are coded, so that many of them can be coded at once.

::

    x →   0 1 2 3 4 5       a position's step is x + 2y: all four neighbours that a causal 3×3 mask
    y = 0 0 1 2 3 4 5       sees, up-left, up, up-right and left, have smaller ones, and positions
        1 2 3 4 5 6 7       of one step do not see each other
        2 4 5 6 7 8 9

Causal 3×3 masks let position (x, y) depend only on positions with a smaller x + 2y, so all positions of one step can
be computed together: W + 2(H−1) steps instead of W·H.

Legend: B grids of one size, each with G groups of codes at H × W positions; N = H·W. A *row* is a place in the coding
order.
"""

import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["CodeArray", "Codes", "Wavefront", "chunks", "merge"]

CodeArray = NDArray[np.integer[Any]]
"""Codes in any type of integer."""

Codes = NDArray[np.int16]
"""Codes, each below 4096."""

_Number = TypeVar("_Number", bound=np.generic)


class Wavefront:
    """The coding order of a grid's positions, and the rows of their neighbours in that order.

    Several grids of one size share each step: it has the rows of the first grid, then those of the second, and so on.

    Args:
        height, width: H and W of each grid.
        count: B, the number of grids.

    Attributes:
        height, width, count: the same.
        spans: ``(first, last + 1)`` rows of each sequential step; there are W + 2(H−1) of them.
        raster: ``[B·N]``, the raster index of each row; those of the first grid are below N, those of the second
            below 2N, and so on.
        rank: ``[B·N]``, the row of each raster index.
        neighbours: ``[B·N, 5]``, the rows of the positions up-left, up, up-right and left, and of the position itself;
            B·N stands for a position outside the grid.
    """

    def __init__(self, height: int, width: int, count: int = 1) -> None:
        self.height, self.width, self.count = height, width, count
        y, x = np.divmod(np.arange(height * width), width)
        step = x + 2 * y
        order = np.lexsort((y, step))
        rank = np.full((height + 1, width + 2), height * width)
        rank[1 + y[order], 1 + x[order]] = np.arange(height * width)
        y, x = y[order], x[order]
        taps = [(y, x), (y, x + 1), (y, x + 2), (y + 1, x), (y + 1, x + 1)]
        self.raster = order
        self.rank = rank[1:, 1:-1].flatten()
        self.neighbours = np.stack([rank[tap] for tap in taps], 1)
        ends = np.cumsum(np.bincount(step, minlength=width + 2 * (height - 1))).tolist()
        # A grid one column wide has no position at the odd indices.
        self.spans = [(a, b) for a, b in itertools.pairwise([0, *ends]) if a < b]
        if count > 1:
            self._repeat(count)

    def _repeat(self, count: int) -> None:
        """Turn the order of one grid into that of ``count`` grids."""
        positions = len(self.rank)
        starts, sizes = (np.array(numbers) for numbers in zip(*((a, b - a) for a, b in self.spans), strict=True))
        before, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
        # Row r of one grid's order becomes row rows[i, r] for grid i; the last entry stands for positions outside.
        rows = np.full((count, positions + 1), count * positions)
        rows[:, :-1] = count * before + np.arange(count)[:, None] * size + np.arange(positions) - before
        self.rank = rows[:, self.rank].flatten()
        neighbours = rows[:, self.neighbours].reshape(-1, 5)
        self.raster = np.empty_like(self.rank)
        self.raster[self.rank] = np.arange(count * positions)
        self.neighbours = np.empty_like(neighbours)
        self.neighbours[rows[:, :-1].flatten()] = neighbours
        self.spans = [(count * a, count * b) for a, b in self.spans]

    def to_rows(self, grids: CodeArray) -> Codes:
        """``[B, G, H, W] -> [B·N, G]``: the codes of each row."""
        return grids.astype(np.int16, copy=False).swapaxes(0, 1).reshape(grids.shape[1], -1).T[self.raster]

    def to_grids(self, rows: NDArray[_Number]) -> NDArray[_Number]:
        """``[B·N, G] -> [B, G, H, W]``: the inverse of :meth:`to_rows`, for numbers of any type."""
        grids = np.empty_like(rows)
        grids[self.raster] = rows
        return grids.reshape(self.count, self.height, self.width, -1).transpose(0, 3, 1, 2)


def chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """``(first, last + 1)`` of each run when ``count`` items are cut into runs of ``size``; the last may be shorter."""
    for first in range(0, count, size):
        yield first, min(count, first + size)


def merge(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Join neighbouring steps into spans of at most ``size`` rows; a larger step stays a span of its own."""
    merged = [spans[0]]
    for first, last in spans[1:]:
        if last - merged[-1][0] <= size:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
