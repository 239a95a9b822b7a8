"""Tiles: they cover everything once, and their halos hold all that they may."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.geometry import BATCH, BATCH_PIXELS, batch_size, tiles


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    largest=st.integers(1, 12),
    halo=st.integers(0, 5),
    multiple=st.sampled_from([1, 2, 16]),
    stride=st.sampled_from([1, 2]),
)
def test_tiles(height: int, width: int, largest: int, halo: int, multiple: int, stride: int) -> None:
    height, width, largest, halo = (n * multiple for n in (height, width, largest, halo))
    stride = min(stride, multiple)
    picture = np.arange(height * width).reshape(height, width)[::stride, ::stride]
    rebuilt = np.full(picture.shape, -1)
    for tile in tiles(height, width, largest=largest, halo=halo, multiple=multiple):
        for span, length in ((tile.rows, height), (tile.columns, width)):
            assert 0 < span.stop - span.start <= largest
            assert span.first == max(0, span.start - halo)
            assert span.last == min(length, span.stop + halo)
            assert all(edge % multiple == 0 for edge in (span.start, span.stop, span.first, span.last))
        computed = picture[tile.rows.computed(stride), tile.columns.computed(stride)]
        kept = rebuilt[tile.rows.kept(stride), tile.columns.kept(stride)]
        assert (kept == -1).all()
        kept[:] = computed[tile.rows.inside(stride), tile.columns.inside(stride)]
    np.testing.assert_array_equal(rebuilt, picture)


@pytest.mark.parametrize(("length", "parts"), [(1024, [1024]), (1040, [528, 512]), (3000, [1008, 1008, 984])])
def test_tiles_are_of_about_equal_size(length: int, parts: list[int]) -> None:
    cut = tiles(16, length // 8 * 8, largest=1024, halo=128, multiple=8)
    assert [tile.columns.stop - tile.columns.start for tile in cut] == pytest.approx(parts, abs=16)


@given(height=st.integers(1, 65535), width=st.integers(1, 65535))
def test_batches(height: int, width: int) -> None:
    count = batch_size(height, width)
    assert 1 <= count <= BATCH
    assert count == 1 or count * height * width <= BATCH_PIXELS
    assert count == BATCH or (count + 1) * height * width > BATCH_PIXELS
