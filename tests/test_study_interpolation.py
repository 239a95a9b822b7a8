"""From one picture to another: ends that are the pictures' own, and what lies between."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.metrics import psnr
from vqcodec.study.interpolation import LARGEST, End, common_middle, mixed, strip

Pixels = NDArray[np.uint8]
LABEL, GAP = 18, 6


@pytest.fixture
def pair(photograph: Pixels, request: pytest.FixtureRequest) -> tuple[Pixels, Pixels]:
    """Two landscape pictures, or two upright ones."""
    a, b = photograph[:40, :60], photograph[60:100, 100:160]
    return (a.swapaxes(0, 1), b.swapaxes(0, 1)) if request.param else (a, b)


def _tiles(picture: Pixels, like: Pixels, steps: int) -> list[list[Pixels]]:
    height, width, _ = like.shape
    rows, columns = (height + LABEL + GAP, width + GAP)
    return [
        [picture[y * rows + LABEL : y * rows + LABEL + height, x * columns : x * columns + width] for x in range(steps)]
        for y in range(4)
    ]


@pytest.mark.parametrize("pair", [False, True], indirect=True, ids=["landscape", "upright"])
def test_the_ends_are_the_pictures_own(tiny_codec: Codec, pair: tuple[Pixels, Pixels]) -> None:
    a, b = pair
    pixels, z_e, z_q, codes = _tiles(strip(tiny_codec, a, b, 60, 3), a, 3)
    for tiles, picture in ((0, a), (2, b)):
        height, width, _ = picture.shape
        np.testing.assert_array_equal(pixels[tiles], picture)
        own = [grid[0].numpy().astype(np.int16) for grid in End.of(tiny_codec, picture, 60).codes]
        decoded = tiny_codec.decode(own, 60, height, width, grey=False)
        for row in (z_q, codes):
            assert np.abs(row[tiles].astype(int) - decoded).max() <= 1  # one grey level
        assert psnr(picture, np.ascontiguousarray(z_e[tiles])) > psnr(picture, decoded)
    np.testing.assert_array_equal(pixels[1], np.rint((a.astype(float) + b) / 2))
    for row in (z_e, z_q, codes):
        assert not np.array_equal(row[1], row[0])
        assert not np.array_equal(row[1], row[2])


def test_mixing_exchanges_whole_places_and_grows() -> None:
    a = [torch.zeros(1, 2, 4, 6, dtype=torch.int64), torch.zeros(1, 3, 8, 12, dtype=torch.int64)]
    b = [torch.ones_like(grid) for grid in a]
    before = mixed(a, b, 0.0)
    assert all(torch.equal(x, y) for x, y in zip(before, a, strict=True))
    for share in (0.25, 0.5, 0.75, 1.0):
        coarse, fine = mixed(a, b, share)
        assert coarse[0, 0].sum() == round(24 * share)
        assert torch.equal(fine[0, 0], coarse[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1))
        assert torch.equal(coarse[:, 0], coarse[:, 1])
        assert bool((coarse >= before[0]).all())
        before = [coarse, fine]


def test_the_common_middle() -> None:
    a = np.arange(600 * 20, dtype=np.uint32).astype(np.uint8).reshape(20, 600, 1)
    b = np.zeros((31, 500, 3), np.uint8)
    one, other = common_middle(a, b)
    assert one.shape == other.shape == (20, LARGEST, 3)
    left = (600 - LARGEST) // 2
    np.testing.assert_array_equal(one, a[:, left : left + LARGEST].repeat(3, 2))
