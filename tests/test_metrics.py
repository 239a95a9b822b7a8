"""The metrics: values worked out by hand, symmetry, and refusals."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vqcodec import metrics
from vqcodec.metrics import bpp, psnr

SHAPE = (3, 2, 3)
pictures = arrays(np.uint8, SHAPE)


def test_public_names() -> None:
    assert metrics.__all__ == ["bpp", "psnr"]


@pytest.mark.parametrize(
    ("file_bytes", "width", "height", "expected"),
    [(1, 1, 1, 8.0), (0, 5, 7, 0.0), (98_304, 768, 512, 2.0), (100, 300, 200, 800 / 60_000)],
)
def test_bpp(file_bytes: int, width: int, height: int, expected: float) -> None:
    assert bpp(file_bytes, width, height) == expected


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (1, 0, 1), (1, 1, 0), (1, -2, -2)])
def test_bpp_refuses(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"no bpp for"):
        bpp(*arguments)


@pytest.mark.parametrize(
    ("x", "x_hat", "expected"),
    [
        (0, 255, 0.0),
        (255, 0, 0.0),  # uint8 differences must not wrap
        (100, 101, 20 * math.log10(255)),
        (7, 2, 20 * math.log10(51)),
        (9, 9, math.inf),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1, 1), SHAPE])
def test_psnr_of_flat_pictures(x: int, x_hat: int, expected: float, shape: tuple[int, ...]) -> None:
    assert psnr(np.full(shape, x, np.uint8), np.full(shape, x_hat, np.uint8)) == pytest.approx(expected, abs=1e-12)


def test_psnr_takes_the_mean_over_channels_before_the_logarithm() -> None:
    x = np.zeros((2, 2, 3), np.uint8)
    x_hat = x.copy()
    x_hat[:, :, 1] = 3  # one channel of three is wrong: mse 3, while a mean of three PSNRs would be infinite
    assert psnr(x, x_hat) == pytest.approx(10 * math.log10(255**2 / 3))


def test_psnr_is_exact_where_float32_is_not() -> None:
    x = np.zeros((2100, 2700, 3), np.uint8)
    x_hat = x.copy()
    x_hat[0, 0, 0] = 1
    assert psnr(x, x_hat) == pytest.approx(10 * math.log10(255**2 * x.size), rel=1e-15)


@given(pictures, pictures)
def test_psnr_is_a_symmetric_function_of_the_mean_square(x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> None:
    differences = [(int(a) - int(b)) ** 2 for a, b in zip(x.ravel(), x_hat.ravel(), strict=True)]
    mse = sum(differences) / len(differences)
    expected = 10 * math.log10(255**2 / mse) if mse else math.inf
    assert psnr(x, x_hat) == psnr(x_hat, x) == psnr(x[::-1], x_hat[::-1]) == pytest.approx(expected)


@pytest.mark.parametrize("other", [(3, 2, 1), (2, 3, 3), (3, 2), (1, 3, 2, 3)])  # some of which would broadcast
def test_psnr_refuses_unequal_shapes(other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shapes are \[3, 2, 3\] and \["):
        psnr(np.zeros(SHAPE, np.uint8), np.zeros(other, np.uint8))


def test_psnr_refuses_no_pixels() -> None:
    with pytest.raises(ValueError, match=r"with pixels"):
        psnr(np.zeros((0, 2, 3), np.uint8), np.zeros((0, 2, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.bool_])
def test_psnr_refuses_another_dtype(dtype: type) -> None:
    picture = np.zeros(SHAPE, np.uint8)
    other: NDArray[Any] = picture.astype(dtype)
    for pair in ((picture, other), (other, picture)):
        with pytest.raises(ValueError, match=r"expected uint8"):
            psnr(*pair)
