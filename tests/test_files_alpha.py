"""Opacity comes back exactly, in few bytes, and hostile payloads give one error and cost little."""

import lzma
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from tests.plain_reader import read_alpha
from vqcodec.errors import FormatError
from vqcodec.files.alpha import pack_alpha, unpack_alpha

DISC = (np.hypot(*(np.mgrid[:200, :300] - [[[100]], [[150]]])) < 90).astype(np.uint8) * 255
RAMP = np.broadcast_to(np.linspace(0, 255, 300).astype(np.uint8), (200, 300))


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_round_trip(alpha: NDArray[np.uint8]) -> None:
    payload = pack_alpha(alpha)
    for read in (unpack_alpha, read_alpha):
        assert np.array_equal(read(payload, *alpha.shape), alpha)


@pytest.mark.parametrize(
    ("alpha", "size"),
    [
        (np.full((999, 999), 128, np.uint8), 1),
        (DISC, 400),
        (RAMP, 150),
        (RAMP.T, 250),
        (RAMP // 2 + np.linspace(0, 100, 200).astype(np.uint8)[:, None], 200),
    ],
)
def test_plain_shapes_are_small(alpha: NDArray[np.uint8], size: int) -> None:
    payload = pack_alpha(alpha)
    assert len(payload) <= size
    assert np.array_equal(unpack_alpha(payload, *alpha.shape), alpha)


@given(st.binary(max_size=60), st.integers(0, 5))
def test_noise_gives_an_opacity_or_an_error(noise: bytes, predictor: int) -> None:
    for payload in (noise, bytes([predictor]) + noise, bytes([predictor]) + pack_alpha(DISC)[1 : len(noise) + 1]):
        try:
            assert unpack_alpha(payload, 7, 9).shape == (7, 9)
        except FormatError:
            continue


def packed(data: bytes) -> bytes:
    return b"\0" + lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\4" + packed(bytes(63))[1:],
        packed(bytes(62)),
        packed(bytes(64)),
        packed(bytes(63)) + b"x",
        packed(bytes(63))[:-1],
    ],
)
def test_refusals(payload: bytes) -> None:
    assert unpack_alpha(packed(bytes(63)), 7, 9).shape == (7, 9)
    with pytest.raises(FormatError):
        unpack_alpha(payload, 7, 9)


def test_a_few_bytes_cost_no_gigabytes() -> None:
    bomb = packed(bytes(2**28))
    assert len(bomb) < 2**16
    tracemalloc.start()
    with pytest.raises(FormatError, match="does not have exactly 7 × 9 bytes"):
        unpack_alpha(bomb, 7, 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
