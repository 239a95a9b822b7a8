"""What a symbol means: its occurrences, and what the decoder makes of it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.study.measure import Coded, figures, neutral
from vqcodec.study.symbols import EXAMPLES, alone, occurrences, symbol_sheet


@pytest.fixture(scope="module")
def coded(tiny_codec: Codec, photograph: NDArray[np.uint8]) -> Coded:
    return Coded.of(tiny_codec, "a.png", photograph, 60)


def test_the_neutral_code_adds_nothing_and_others_do(tiny_codec: Codec) -> None:
    for level, empty in enumerate(neutral(tiny_codec.vqvae)):
        codes = [int(empty[0]), int(empty[0] + 1) % 16]
        added = alone(tiny_codec, level, 0, codes, 60)
        side = 3 * tiny_codec.model.levels[level].stride
        assert added.shape == (2, side, side, 3)
        assert np.abs(added[0]).max() < 1e-3
        assert np.abs(added[1]).max() > 1e-3


def test_occurrences_have_the_code_in_their_middle(tiny_codec: Codec, coded: Coded) -> None:
    strides, grid = tiny_codec.model.strides, coded.codes[1][0]
    code = int(np.bincount(grid.ravel()).argmax())
    patches = occurrences([coded], strides, 1, 0, code, 10_000)
    assert len(patches) == (grid == code).sum()
    middles = sorted(patch[8:16, 8:16].tobytes() for patch in patches)
    places = np.argwhere(grid == code)
    assert middles == sorted(coded.pixels[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].tobytes() for y, x in places)
    assert len(occurrences([coded], strides, 1, 0, code, 3)) == 3


def test_a_sheet_has_a_row_a_code(tiny_codec: Codec, coded: Coded) -> None:
    counts = figures(tiny_codec, [coded])[1].counts[0]
    picture, gain = symbol_sheet(tiny_codec, [coded], 1, 0, counts, 60)
    assert picture.shape[1] == (3 + EXAMPLES) * (48 + 6) - 6
    assert 0.5 <= gain <= 64
    again, _ = symbol_sheet(tiny_codec, [coded], 1, 0, counts, 60)
    np.testing.assert_array_equal(picture, again)
