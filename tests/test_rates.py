"""Rates under simple models, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.rates import static_bits, uniform_bits


def test_by_hand() -> None:
    counts = np.array([[4, 0, 0, 0], [2, 1, 1, 0]])
    assert uniform_bits(counts) == 16
    assert static_bits(counts, counts).tolist() == [0, 6]
    # Half of the pooled codes are codeword 0, a quarter codeword 1.
    pooled = np.array([[4, 2, 2, 0], [2, 1, 1, 0]])
    assert static_bits(counts, pooled).tolist() == [4, 6]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=16).filter(any))
def test_static_is_between_nothing_and_uniform(numbers: list[int]) -> None:
    counts = np.array([numbers])
    bits = float(static_bits(counts, counts)[0])
    assert 0 <= bits <= uniform_bits(counts) * (1 + 1e-12)
    entropy = -sum(n * math.log2(n / sum(numbers)) for n in numbers if n)
    assert bits == pytest.approx(entropy)
