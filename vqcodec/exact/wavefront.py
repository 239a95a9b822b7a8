r"""The order in which positions are coded, so that many of them can be coded at once.

::

    x →   0 1 2 3 4 5       a position's step is x + 2y: all four neighbours that a causal 3×3 mask
    y = 0 0 1 2 3 4 5       sees, up-left, up, up-right and left, have smaller ones, and positions
        1 2 3 4 5 6 7       of one step do not see each other
        2 4 5 6 7 8 9

Causal 3×3 masks let position (x, y) depend only on positions with a smaller x + 2y, so all positions of one
index can be computed together: W + 2(H−1) steps instead of W·H.
"""

import itertools
from collections.abc import Iterator

import numpy as np

__all__ = ["Wavefront", "chunks", "merge"]


class Wavefront:
    """The order in which a grid's positions are coded, and where their neighbours are in that order.

    Several grids of one size go together: a step has the rows of the first grid, then those of the second, and so on.

    Args:
        height, width: H and W of each grid.
        count: B, how many there are.

    Attributes:
        spans: ``(first, last + 1)`` rows of each sequential step; there are W + 2(H−1) of them.
        raster: ``[B·N]`` raster index of each row, B·N = B·H·W, in the first grid and then the next ones.
        rank: ``[B·N]`` row of each raster index.
        neighbours: ``[B·N, 5]`` rows of the positions up-left, up, up-right, left and the position itself; B·N
            stands for a position outside the grid.
    """

    def __init__(self, height: int, width: int, count: int = 1) -> None:
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
        """Make of the order of one grid that of ``count``."""
        positions = len(self.rank)
        starts, sizes = (np.array(numbers) for numbers in zip(*((a, b - a) for a, b in self.spans), strict=True))
        before, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
        # Row r of one grid's order becomes row rows[i, r] for grid i; a last entry stands for what is outside.
        rows = np.full((count, positions + 1), count * positions)
        rows[:, :-1] = count * before + np.arange(count)[:, None] * size + np.arange(positions) - before
        self.rank = rows[:, self.rank].flatten()
        neighbours = rows[:, self.neighbours].reshape(-1, 5)
        self.raster = np.empty_like(self.rank)
        self.raster[self.rank] = np.arange(count * positions)
        self.neighbours = np.empty_like(neighbours)
        self.neighbours[rows[:, :-1].flatten()] = neighbours
        self.spans = [(count * a, count * b) for a, b in self.spans]


def chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """``(first, last + 1)`` of runs of ``size`` among ``count``, the last one shorter."""
    for first in range(0, count, size):
        yield first, min(count, first + size)


def merge(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Join neighbouring steps into spans of at most ``size`` rows, or of one step."""
    merged = [spans[0]]
    for first, last in spans[1:]:
        if last - merged[-1][0] <= size:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
