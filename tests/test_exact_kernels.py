"""Kernels: exact products up to the bound, the probe that proves them, one thread and no side effect on others."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqcodec.errors import VqcodecError
from vqcodec.exact import kernels as kernels_module
from vqcodec.exact.arithmetic import ACTIVATION_MAX, EXACT
from vqcodec.exact.kernels import (
    ADDMM,
    FBGEMM,
    ONEDNN,
    SMALL_ROWS,
    Kernel,
    Linear,
    Probe,
    few_threads,
    has_onednn,
    one_thread,
    padded_rows,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernels", [[FBGEMM, ONEDNN], [ONEDNN], []])
@given(
    seed=st.integers(0, 2**32 - 1),
    fill=st.floats(0, 0.999),
    inputs=st.integers(1, 40),
    rows=st.sampled_from([1, 4, SMALL_ROWS + 1]),
)
def test_linear_is_exact_up_to_the_bound(kernels: list[Kernel], seed: int, fill: float, inputs: int, rows: int) -> None:
    rng, largest, exact = np.random.default_rng(seed), ACTIVATION_MAX, EXACT
    # With fill 1 and the largest inputs, the sum of Σ|w|·A, |b| and the half is just below 2^24.
    room = int(fill * (exact // 2 // inputs // largest))
    weight = rng.integers(-room, room, size=(inputs, 3), endpoint=True)
    x = rng.choice([largest, -largest, 0, 1, largest // 3], size=(rows, inputs))
    bias, shift = rng.integers(-exact // 4, exact // 4, size=3), rng.integers(1, 22, size=3)
    scale = 2.0**-shift
    layer = Linear(torch.from_numpy(weight * scale).float(), torch.from_numpy(bias * scale + 0.5).float(), kernels)
    expected = [
        [
            (sum(map(int.__mul__, row, column)) + b + (1 << s - 1)) >> s
            for column, b, s in zip(weight.T.tolist(), bias.tolist(), shift.tolist(), strict=True)
        ]
        for row in x.tolist()
    ]
    assert layer(torch.from_numpy(x).float()).tolist() == expected


def test_weights_that_float16_rounds_are_not_packed_in_it() -> None:
    fits, does_not = (torch.tensor([[w] * 16, [1.0] * 16]) for w in (2047.0, 2049.0))
    assert FBGEMM.pack(does_not) is None
    for weight in (fits, does_not):
        assert Linear(weight, torch.zeros(16), [FBGEMM])(torch.ones(1, 2)).tolist() == [weight.sum(0).tolist()]


def test_the_probe_keeps_kernels_that_are_exact_and_no_others() -> None:
    def rounded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ADDMM.product(x, weight, bias).half().float()

    def off_by_one(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ADDMM.product(x, weight, bias) + 1

    wrong = [Kernel("rounded", SMALL_ROWS, ADDMM.pack, rounded), Kernel("off by one", 4, ADDMM.pack, off_by_one)]
    probe = Probe(CPU, [*wrong, FBGEMM, ONEDNN])
    assert probe.kernels == (FBGEMM, ONEDNN)
    probe.check()


def test_the_probe_notices_a_kernel_that_becomes_inexact() -> None:
    exact = True

    def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ADDMM.product(x, weight, bias) if exact else ADDMM.product(x, weight, bias).bfloat16().float()

    probe = Probe(CPU, [Kernel("fickle", float("inf"), ADDMM.pack, product)])
    probe.check()
    exact = False
    with pytest.raises(VqcodecError, match="set_float32_matmul_precision"):
        probe.check()


@pytest.mark.skipif(not has_onednn(), reason="this torch has no oneDNN")
def test_kernels_that_torch_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ONEDNN.pack(torch.ones(2, 16)) is not None
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    monkeypatch.setattr(kernels_module, "_has_fbgemm", lambda: False)
    assert ONEDNN.pack(torch.ones(2, 16)) is FBGEMM.pack(torch.ones(2, 16)) is None


def test_padded_rows() -> None:
    assert [padded_rows(n) for n in (1, 191, 192, 193, 224, 225)] == [1, 191, 192, 224, 224, 256]


@pytest.mark.parametrize("own", [True, False])
def test_one_thread_for_the_caller_alone(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not own:  # as where torch has no OpenMP
        monkeypatch.setattr(kernels_module, "_set_own_threads", lambda: None)
    elif kernels_module._set_own_threads() is None:
        pytest.skip("this torch does not follow OpenMP's number of threads")
    before = torch.get_num_threads()
    others: list[int] = []
    try:
        torch.set_num_threads(2)
        with one_thread(), one_thread():
            assert torch.get_num_threads() == 1
            other = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyboardInterrupt), one_thread():
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
        assert others == [2] or not own
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("policy", "threads"), [("PASSIVE", 1), (" passive", 1), ("ACTIVE", 2), (None, 2)])
def test_few_threads_are_one_where_threads_sleep(
    policy: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with few_threads():
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
