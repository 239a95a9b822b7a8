"""Where the pixels of a picture lie: orientation, padding, grids, tiles and batches. No torch.

::

    pixels ──turn to landscape, pad──▶ laid out: sides are multiples of the coarsest stride ──▶ tiles
    pixels ◀──crop, turn back───────── laid out                                             ◀── tiles

    ┌──────────┬──────────┐        ┌╌╌╌╌╌╌╌╌╌╌╌╌╌┐  computed: the tile and ``halo`` pixels around it,
    │          │          │        ╎ ┌─────────┐ ╎  where the picture has them
    │   tile   │   tile   │        ╎ │  kept   │ ╎
    ├──────────┼──────────┤        ╎ └─────────┘ ╎
    │          │          │        └╌╌╌╌╌╌╌╌╌╌╌╌╌┘
    └──────────┴──────────┘

Tiles bound the memory of the networks. A network of convolutions has a finite receptive field: if the halo covers it,
a tile's inside is what the whole picture would have given, and there is no seam.

Legend: H and W height and width of the picture in pixels, C channels; H' and W' the same as laid out; H_l and W_l
height and width of level l's grid.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Geometry", "Span", "Tile", "batch_size", "crop", "pad_to_multiple", "tiles"]

BATCH = 16  # pictures
BATCH_PIXELS = 2**22  # of all pictures in a batch


@dataclass(frozen=True)
class Geometry:
    """How a picture is laid out on the grids of a model.

    An upright picture is transposed: a landscape grid takes the fewest wavefront steps.

    Attributes:
        height, width: of the picture in pixels, at least 1.
        strides: pixels per grid position of each level, coarsest first; each divides the one before.
    """

    height: int
    width: int
    strides: tuple[int, ...]

    @property
    def upright(self) -> bool:
        """Whether the picture is transposed."""
        return self.height > self.width

    @property
    def padded(self) -> tuple[int, int]:
        """(H', W'), multiples of the coarsest stride, H' ≤ W'."""
        short, long = (_round_up(side, self.strides[0]) for side in sorted((self.height, self.width)))
        return short, long

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(H_l, W_l) of each level."""
        rows, columns = self.padded
        return [(rows // stride, columns // stride) for stride in self.strides]

    def lay_out(self, pixels: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
        """``[H, W, C]`` to ``[H', W', C]``."""
        return pad_to_multiple(pixels.transpose(1, 0, 2) if self.upright else pixels, self.strides[0])

    def restore(self, pixels: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
        """``[H', W', C]`` to ``[H, W, C]``: the inverse of :meth:`lay_out`, as a view."""
        return crop(pixels.transpose(1, 0, 2) if self.upright else pixels, self.height, self.width)

    def tiles(self, side: int, halo: int) -> Iterator["Tile"]:
        """Tiles of ``[H', W']`` with sides of at most ``side`` pixels and halos of ``halo`` positions of level 0."""
        stride = self.strides[0]
        largest = max(side // stride, 1) * stride
        return tiles(*self.padded, largest=largest, halo=halo * stride, multiple=stride)


@dataclass(frozen=True)
class Span:
    """Part of one axis, in pixels: ``first..last`` is computed, and ``start..stop`` of it is kept."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def extent(self) -> int:
        """Pixels that are computed."""
        return self.last - self.first

    def computed(self, stride: int = 1) -> slice:
        """The computed part of a grid with ``stride`` pixels per position."""
        return slice(self.first // stride, self.last // stride)

    def kept(self, stride: int = 1) -> slice:
        """The kept part of the whole grid."""
        return slice(self.start // stride, self.stop // stride)

    def inside(self, stride: int = 1) -> slice:
        """The kept part of the computed part."""
        return slice((self.start - self.first) // stride, (self.stop - self.first) // stride)


@dataclass(frozen=True)
class Tile:
    """A rectangle of the picture: its rows and columns."""

    rows: Span
    columns: Span


def tiles(height: int, width: int, *, largest: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Tiles of about equal size that cover ``height × width`` pixels.

    No side is longer than ``largest``. If all four numbers are multiples of ``multiple``, so are all edges.
    """
    for rows, columns in itertools.product(
        _spans(height, largest, halo, multiple), _spans(width, largest, halo, multiple)
    ):
        yield Tile(rows, columns)


def batch_size(height: int, width: int) -> int:
    """How many pictures of this size to decode together: a larger batch would gain little time for its memory."""
    return max(1, min(BATCH, BATCH_PIXELS // (height * width)))


def pad_to_multiple(pixels: "NDArray[np.uint8]", multiple: int) -> "NDArray[np.uint8]":
    """``[H, W, C]`` grown at the bottom and right to multiples of ``multiple``, by repeating the last row and column.

    Raises ValueError if ``multiple`` is below 1 or there is no pixel to repeat.
    """
    import numpy as np

    if multiple < 1:
        raise ValueError(f"multiple is {multiple}, expected at least 1")
    height, width, _ = pixels.shape
    if not height or not width:
        raise ValueError(f"no pixel to repeat in {width}x{height}")
    return np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def crop(pixels: "NDArray[np.uint8]", height: int, width: int) -> "NDArray[np.uint8]":
    """The top left ``[height, width, C]`` of ``[H, W, C]``, as a view.

    Raises ValueError unless 1 ≤ height ≤ H and 1 ≤ width ≤ W.
    """
    if not (1 <= height <= pixels.shape[0] and 1 <= width <= pixels.shape[1]):
        raise ValueError(f"cannot crop {pixels.shape[1]}x{pixels.shape[0]} pixels to {width}x{height}")
    return pixels[:height, :width]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _spans(length: int, largest: int, halo: int, multiple: int) -> list[Span]:
    count = -(-length // largest)
    step = -(-length // count // multiple) * multiple
    edges = [*range(0, length, step), length]
    return [Span(a, b, max(0, a - halo), min(length, b + halo)) for a, b in itertools.pairwise(edges)]
