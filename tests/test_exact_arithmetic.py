"""Integers in floats: exact products up to the bound, and the frequency table."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqcodec.exact import arithmetic
from vqcodec.exact.arithmetic import ARITHMETIC, FEW, FREQUENCIES, Linear


def test_frequency_table_literally() -> None:
    assert len(FREQUENCIES) == 22 * 64 + 2
    assert FREQUENCIES[:4] == (4194304, 4149123, 4104428, 4060215)
    assert FREQUENCIES[63:66] == (2119988, 2097152, 2074561)
    assert FREQUENCIES[-3:] == (1, 1, 0)
    assert sum(FREQUENCIES) == 389370650


def test_frequency_table_is_the_floor_of_the_power() -> None:
    with localcontext(prec=60):
        for i, frequency in enumerate(FREQUENCIES[:-1]):
            assert frequency == math.floor(Decimal(2) ** (22 - Decimal(i) / 64))
            # And without any root: the largest integer whose 64th power is at most 2^(1408 − i).
            assert frequency**64 <= 2 ** (1408 - i) < (frequency + 1) ** 64


@pytest.mark.parametrize("sum_bits", ARITHMETIC)
@given(
    seed=st.integers(0, 2**32 - 1),
    fill=st.floats(0, 0.999),
    inputs=st.integers(1, 40),
    rows=st.sampled_from([1, 4, FEW + 1]),
)
def test_linear_is_exact_up_to_the_bound(sum_bits: int, seed: int, fill: float, inputs: int, rows: int) -> None:
    rng, integers = np.random.default_rng(seed), ARITHMETIC[sum_bits]
    largest, exact = integers.activation_max, int(integers.exact)
    # Σ|w|·A, |b| and the half share what lies below 2^24 or 2^53 when fill is 1 and all inputs are as large as can be.
    room = int(fill * (exact // 2 // inputs // largest))
    weight = rng.integers(-room, room, size=(inputs, 3), endpoint=True)
    x = rng.choice([largest, -largest, 0, 1, largest // 3], size=(rows, inputs))
    bias, shift = rng.integers(-exact // 4, exact // 4, size=3), rng.integers(1, min(33, sum_bits - 2), size=3)
    dtype = integers.dtype
    scale = 2.0**-shift
    layer = Linear(torch.from_numpy(weight * scale).to(dtype), torch.from_numpy(bias * scale + 0.5).to(dtype))
    expected = [
        [
            (sum(map(int.__mul__, row, column)) + b + (1 << s - 1)) >> s
            for column, b, s in zip(weight.T.tolist(), bias.tolist(), shift.tolist(), strict=True)
        ]
        for row in x.tolist()
    ]
    assert layer(torch.from_numpy(x).to(dtype)).tolist() == expected


def test_weights_that_float16_rounds_are_not_packed_in_it() -> None:
    few = torch.ones(1, 2)
    fits, does_not = (Linear(torch.tensor([[w] * 16, [1.0] * 16]), torch.zeros(16)) for w in (2047.0, 2049.0))
    assert does_not.halves is None
    assert does_not(few).tolist() == [[2050.0] * 16]
    assert fits(few).tolist() == [[2048.0] * 16]


@pytest.mark.skipif(not hasattr(torch, "fbgemm_linear_fp16_weight"), reason="this torch has no FBGEMM")
def test_fbgemm_is_left_alone_where_it_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should it ever sum in float16, as some processors can."""
    exact = torch.fbgemm_linear_fp16_weight

    def rounded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return exact(x, weight, bias).half().float()

    arithmetic._fbgemm.cache_clear()
    try:
        monkeypatch.setattr(torch, "fbgemm_linear_fp16_weight", rounded)
        assert Linear(torch.ones(2, 16), torch.zeros(16)).halves is None
        monkeypatch.delattr(torch, "fbgemm_linear_fp16_weight")
        arithmetic._fbgemm.cache_clear()
        assert Linear(torch.ones(2, 16), torch.zeros(16)).halves is None
    finally:
        arithmetic._fbgemm.cache_clear()
