"""Layouts are undone exactly; tiles cover every pixel once and have complete halos, except at the image's edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vqcodec.geometry import BATCH, BATCH_PIXELS, Geometry, batch_size, crop, pad_to_multiple, tiles

Pixels = NDArray[np.uint8]
RANDOM = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@given(height=st.integers(1, 70), width=st.integers(1, 70), strides=st.sampled_from([(16, 8, 8), (8,), (1,)]))
def test_layouts(height: int, width: int, strides: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    geometry = Geometry(height, width, strides)
    laid_out = geometry.lay_out(pixels)
    rows, columns = geometry.padded
    assert laid_out.shape == (rows, columns, 3)
    assert rows <= columns
    assert rows % strides[0] == columns % strides[0] == 0
    assert geometry.grids == [(rows // stride, columns // stride) for stride in strides]
    assert np.array_equal(geometry.restore(laid_out), pixels)
    turned = Geometry(width, height, strides)
    assert (turned.padded, turned.grids) == (geometry.padded, geometry.grids)
    if height != width:
        assert np.array_equal(turned.lay_out(pixels.transpose(1, 0, 2)), laid_out)


def test_layout_by_hand() -> None:
    geometry = Geometry(33, 20, (16, 8))
    assert (geometry.upright, geometry.padded, geometry.grids) == (True, (32, 48), [(2, 3), (4, 6)])
    assert not Geometry(20, 20, (16,)).upright
    cut = list(geometry.tiles(side=40, halo=1))  # 40 is no multiple of 16, so sides are at most 32
    assert [(t.columns.first, t.columns.start, t.columns.stop, t.columns.last) for t in cut] == [
        (0, 0, 32, 48),
        (16, 32, 48, 48),
    ]
    assert len(list(geometry.tiles(side=1, halo=0))) == 6  # a side is at least one position


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


# Padding and cropping


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]), multiple=st.integers(1, 33)
)
def test_padding_repeats_the_edge_and_cropping_undoes_it(height: int, width: int, channels: int, multiple: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    padded = pad_to_multiple(pixels, multiple)
    assert padded.shape == (-(-height // multiple) * multiple, -(-width // multiple) * multiple, channels)
    rows, columns = (np.minimum(np.arange(n), last) for n, last in zip(padded.shape, (height - 1, width - 1)))  # noqa: B905
    assert np.array_equal(padded, pixels[rows][:, columns])
    assert np.array_equal(crop(padded, height, width), pixels)


def test_padding_by_hand() -> None:
    assert pad_to_multiple(np.array([[[7]]], np.uint8), 2).tolist() == [[[7], [7]], [[7], [7]]]
    assert pad_to_multiple(np.array([[[1], [2], [3]]], np.uint8), 2).tolist() == [[[1], [2], [3], [3]]] * 2
    assert crop(np.array([[[1], [2]], [[3], [4]]], np.uint8), 1, 2).tolist() == [[[1], [2]]]


@pytest.mark.parametrize("multiple", [0, -8])
def test_no_multiple(multiple: int) -> None:
    with pytest.raises(ValueError, match=rf"^multiple is {multiple}, expected at least 1$"):
        pad_to_multiple(RANDOM, multiple)


def test_nothing_to_repeat() -> None:
    with pytest.raises(ValueError, match=r"^no pixel to repeat in 7x0$"):
        pad_to_multiple(RANDOM[:0], 4)


@pytest.mark.parametrize(("height", "width"), [(0, 1), (1, 0), (-1, 3), (6, 7), (5, 8)])
def test_cropping_to_what_is_not_there(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"^cannot crop 7x5 pixels to {width}x{height}$"):
        crop(RANDOM, height, width)
