"""Tiles with halos: what a large picture is cut into so that the memory of the float half does not grow with it.
And batches: how many small ones go together.

::

    ┌──────────┬──────────┐        ┌╌╌╌╌╌╌╌╌╌╌╌╌╌┐  computed: the tile and ``halo`` pixels around it,
    │          │          │        ╎ ┌─────────┐ ╎  where the picture has them
    │   tile   │   tile   │        ╎ │  kept   │ ╎
    ├──────────┼──────────┤        ╎ └─────────┘ ╎
    │          │          │        └╌╌╌╌╌╌╌╌╌╌╌╌╌┘
    └──────────┴──────────┘

A network of convolutions sees only so far. With a halo that wide, a tile's inside is what the whole picture would
have given, and there is no seam.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Span", "Tile", "batch_size", "tiles"]

BATCH = 16  # pictures
BATCH_PIXELS = 2**22  # of all of them


@dataclass(frozen=True)
class Span:
    """Part of one axis, in pixels: ``start..stop`` is kept of ``first..last``, which is computed."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def extent(self) -> int:
        """Pixels that are computed."""
        return self.last - self.first

    def computed(self, stride: int = 1) -> slice:
        """What is computed, of a grid of positions ``stride`` pixels apart."""
        return slice(self.first // stride, self.last // stride)

    def kept(self, stride: int = 1) -> slice:
        """What is kept, of the whole grid."""
        return slice(self.start // stride, self.stop // stride)

    def inside(self, stride: int = 1) -> slice:
        """What is kept, of the part that is computed."""
        return slice((self.start - self.first) // stride, (self.stop - self.first) // stride)


@dataclass(frozen=True)
class Tile:
    """A rectangle of the picture: its rows and columns."""

    rows: Span
    columns: Span


def tiles(height: int, width: int, *, largest: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Tiles of about equal size that cover ``height × width`` pixels, both multiples of ``multiple``.

    Sides are at most ``largest``, which with ``halo`` is a multiple too, as are all edges.
    """
    for rows, columns in itertools.product(
        _spans(height, largest, halo, multiple), _spans(width, largest, halo, multiple)
    ):
        yield Tile(rows, columns)


def batch_size(height: int, width: int) -> int:
    """How many pictures of this size are worth decoding together: more would gain little time for their memory."""
    return max(1, min(BATCH, BATCH_PIXELS // (height * width)))


def _spans(length: int, largest: int, halo: int, multiple: int) -> list[Span]:
    count = -(-length // largest)
    step = -(-length // count // multiple) * multiple
    edges = [*range(0, length, step), length]
    return [Span(a, b, max(0, a - halo), min(length, b + halo)) for a, b in itertools.pairwise(edges)]
