"""Pictures of numbers."""

import numpy as np
import pytest

from vqcodec.study.paint import (
    amplified,
    codeword_colours,
    enlarge,
    fitted,
    heat,
    heat_top,
    principal_plane,
    ramp,
    rgb,
    sheet,
    visible_gain,
)

CODEBOOK = np.array([[0.0, 0, 0], [3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -1.9, 0], [0, 0, 0.1]])


def test_the_plane_keeps_the_longest_directions_and_zero() -> None:
    plane = principal_plane(CODEBOOK)
    np.testing.assert_allclose(plane[:5], CODEBOOK[:5, :2] * [plane[1, 0] / 3, 1], atol=1e-12)
    assert abs(plane[1, 0]) == pytest.approx(3)
    assert plane[3, 1] == pytest.approx(2)  # the longest of its axis is positive
    turned = principal_plane(CODEBOOK @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    np.testing.assert_allclose(np.abs(turned), np.abs(plane), atol=1e-12)


def test_a_codebook_of_one_channel_lies_on_the_first_axis() -> None:
    plane = principal_plane(np.array([[0.0], [1], [-2]]))
    np.testing.assert_allclose(plane, [[0, 0], [-1, 0], [2, 0]], atol=1e-12)


def test_colours_tell_directions_apart_and_zero_is_darkest() -> None:
    colours = codeword_colours(CODEBOOK).astype(int)
    assert colours.sum(1).argmin() == 0
    assert len({tuple(colour) for colour in colours[:5].tolist()}) == 5


def test_heat_rises_in_lightness_from_black() -> None:
    colours = heat(np.linspace(0, 2, 50)[None], 2.0)[0].astype(int)
    light = colours @ [299, 587, 114]
    assert colours[0].sum() <= 4
    assert (np.diff(light) > 0).all()
    assert (heat(np.array([[5.0]]), 2.0) == colours[-1]).all()
    assert (heat(np.zeros((2, 2)), 0.0) == colours[0]).all()


def test_the_scale_ends_where_few_values_are_above_it_but_for_the_border() -> None:
    values = np.ones((40, 70))
    values[32:] = 100  # one row of blocks and a part of another
    assert heat_top(values, 32) == 1
    assert heat_top(values, 8) == 100
    assert heat_top(values[32:], 32) == 100
    assert heat_top(np.zeros((3, 3)), 2) > 0


def test_squares_are_enlarged_or_averaged_to_fit() -> None:
    picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(fitted(picture, 11), enlarge(picture, 2))
    np.testing.assert_array_equal(fitted(picture, 4), picture)
    means = picture.reshape(2, 2, 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fitted(picture, 2), means, atol=0.5)
    assert fitted(picture, 3).shape == (3, 3, 3)


def test_differences_are_drawn_around_grey() -> None:
    assert amplified(np.array([[[0.0, 10, -10]]]), 4).tolist() == [[[128, 168, 88]]]
    assert visible_gain(np.full((4, 4, 3), 14.0)) == 8
    assert visible_gain(np.zeros((4, 4, 3))) == 64
    assert visible_gain(np.full((4, 4, 3), 500.0)) == 0.5


def test_sheets_place_tiles_in_rows() -> None:
    tiles = [np.full((4, 6, 3), 10 * i, np.uint8) for i in range(5)]
    plain = sheet(tiles, columns=3, gap=2)
    assert plain.shape == (2 * 6 - 2, 3 * 8 - 2, 3)
    assert (plain[6:10, 8:14] == 40).all()
    assert (plain[6:10, 16:] == 255).all()
    assert sheet(tiles, [str(i) for i in range(5)], columns=3, gap=2).shape[0] > plain.shape[0]
    assert enlarge(tiles[1], 3).shape == (12, 18, 3)
    assert rgb(tiles[1][:, :, :1]).shape == (4, 6, 3)
    assert ramp(200, 1.5, "bits").shape[1:] == (200, 3)
