"""Codes drawn from the prior: exact, the same everywhere, and with the right probabilities."""

import hashlib
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.prior_support import NARROW, TINY
from tests.test_exact_prior import SHAPES, network
from vqcodec.codec import Codec
from vqcodec.exact.arithmetic import FREQUENCIES
from vqcodec.exact.kernels import ADDMM, FBGEMM, ONEDNN
from vqcodec.exact.prior import FixedPrior
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.study.sampling import Draw, Start, draw_codes, sample, sample_sheet, tempered

TOP = FREQUENCIES[0]


def test_a_seed_gives_these_codes_on_every_machine() -> None:
    frequencies = np.tile(np.array(FREQUENCIES[:256:5], float), (4, 3, 1))
    assert Draw([(7, 0)])(0, 4, 0, frequencies).tolist() == [[16, 34, 24], [4, 6, 31], [0, 27, 25], [10, 6, 5]]
    cool = Draw([(7, 0)], Fraction("0.5"))(0, 4, 0, frequencies)
    assert cool.tolist() == [
        [9, 20, 13],
        [2, 3, 18],
        [0, 15, 14],
        [5, 3, 3],
    ]


def test_codes_are_drawn_as_often_as_their_frequencies_say() -> None:
    weights = np.array([TOP, TOP // 2, TOP // 64, 0, 1], float)
    codes = Draw([(0, 0)])(0, 40_000, 0, np.tile(weights, (40_000, 1, 1)))
    share = np.bincount(codes.ravel(), minlength=5) / codes.size
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.01)
    assert share[3] == 0


@given(st.lists(st.integers(0, TOP), min_size=2, max_size=20).filter(any), st.integers(0, 2**32))
def test_the_interval_is_the_one_that_integers_of_any_size_give(weights: list[int], seed: int) -> None:
    (code,) = Draw([(seed,)])(0, 1, 0, np.array([[weights]], float))[0].tolist()
    r = int(np.random.PCG64([seed]).random_raw()) >> 16
    point = r * sum(weights) >> 48
    assert sum(weights[:code]) <= point < sum(weights[: code + 1])


def test_temperatures() -> None:
    rising = np.array(FREQUENCIES[::-1])
    np.testing.assert_array_equal(tempered(Fraction(1)), rising)
    cold, cool, hot = (tempered(Fraction(text)) for text in ("0", "0.5", "2"))
    assert cold.tolist() == [0] * (len(rising) - 1) + [TOP]
    # p^(1/T) with p = f / 2^22, as far as integers tell it.
    likely = rising > 2**15
    np.testing.assert_allclose(cool[likely] / TOP, (rising[likely] / TOP) ** 2, rtol=0.015)
    np.testing.assert_allclose(hot[likely] / TOP, (rising[likely] / TOP) ** 0.5, rtol=0.015)
    assert hot[0] == cool[0] == 0
    with pytest.raises(ValueError, match=r"^temperature is -1, expected at least 0$"):
        tempered(Fraction(-1))


def test_kernels_and_company_change_no_code() -> None:
    """Draws depend on seed and number of a picture alone: not on the kernel, nor on the pictures drawn beside it."""
    integers = fixed_point(network())
    alone = []
    for kernels in ([], [ADDMM], [FBGEMM], [ONEDNN]):
        prior = FixedPrior(integers, TINY, NARROW, kernels=kernels)
        alone.append(draw_codes(prior, SHAPES, 50, Draw([(3, 1)]), 1))
        together = draw_codes(prior, SHAPES, 50, Draw([(3, 0), (3, 1), (3, 2)]), 3)
        for one, three in zip(alone[-1], together, strict=True):
            np.testing.assert_array_equal(one[0], three[1])
            assert not np.array_equal(three[0], three[1])
    for other in alone[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(alone[0], other, strict=True))


def test_another_processor_draws_the_same_codes(tiny_codec: Codec, tiny_weights: Path) -> None:
    """As far as one machine can pretend to be another: without vector units, and with two threads."""
    code = f"""
import hashlib
from vqcodec.codec import Codec
from vqcodec.study.sampling import Draw, draw_codes
prior = Codec.load({str(tiny_weights)!r}, device="cpu").prior
grids = draw_codes(prior, [(4, 6), (8, 12), (8, 12)], 50, Draw([(9, 0), (9, 1)]), 2)
print(*(hashlib.sha256(grid.tobytes()).hexdigest() for grid in grids))
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    grids = draw_codes(tiny_codec.prior, [(4, 6), (8, 12), (8, 12)], 50, Draw([(9, 0), (9, 1)]), 2)
    assert result.stdout.split() == [hashlib.sha256(grid.tobytes()).hexdigest() for grid in grids]


def test_the_likeliest_codes_need_no_seed() -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
    first, second = (draw_codes(prior, SHAPES, 50, Draw([(seed,)], Fraction(0)), 1) for seed in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_pictures(tiny_codec: Codec, photograph: NDArray[np.uint8]) -> None:
    pictures = sample(tiny_codec, 3, 60, 40, 24, seed=5)
    assert [picture.shape for picture in pictures] == [(40, 24, 3)] * 3
    np.testing.assert_array_equal(pictures[1], sample(tiny_codec, 2, 60, 40, 24, seed=5)[1])
    assert not np.array_equal(pictures[1], sample(tiny_codec, 2, 60, 40, 24, seed=6)[1])
    height, width, _ = photograph.shape
    for levels in (1, 2):
        start = Start(photograph, levels)
        sheet = sample_sheet(tiny_codec, 2, 60, height, width, seed=5, start=start)
        np.testing.assert_array_equal(sheet[18 : 18 + height, :width], photograph)
    for levels in (0, 3):
        with pytest.raises(ValueError, match=rf"^{levels} levels are to be kept, expected 1 to 2 of 3$"):
            sample(tiny_codec, 1, 60, height, width, seed=5, start=Start(photograph, levels))


def test_kept_levels_are_kept(tiny_codec: Codec, photograph: NDArray[np.uint8]) -> None:
    kept = tiny_codec.encode(photograph, 60)
    shapes = [(grid.shape[1], grid.shape[2]) for grid in kept]
    drawn = draw_codes(tiny_codec.prior, shapes, 60, Draw([(0, 0), (0, 1)]), 2, kept[:2])
    for grid, known in zip(drawn, kept[:2], strict=False):
        np.testing.assert_array_equal(grid, np.stack([known, known]))
    assert not np.array_equal(drawn[2][0], drawn[2][1])
