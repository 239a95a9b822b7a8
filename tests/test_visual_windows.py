"""Windows: the blur against scipy's kernel by hand, and the comparison against the textbook's formula."""

import math

import pytest
import torch
from torch import Tensor

from vqcodec.visual.windows import RADIUS, WINDOW, Windows, blur


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_blur_of_a_point_is_a_gaussian() -> None:
    x = torch.zeros(1, 1, 2 * WINDOW - 1, 2 * WINDOW - 1, dtype=torch.float64)
    x[0, 0, WINDOW - 1, WINDOW - 1] = 1
    y = blur(x)[0, 0]
    assert y.shape == (WINDOW, WINDOW)
    assert y.sum().item() == pytest.approx(1)
    for dy, dx in [(0, 1), (2, 0), (3, -4), (-5, 5)]:
        ratio = y[RADIUS + dy, RADIUS + dx] / y[RADIUS, RADIUS]
        assert ratio.item() == pytest.approx(math.exp(-(dy**2 + dx**2) / 4.5))


def test_the_blur_keeps_planes_apart() -> None:
    x = pictures(3, 2, 12, 17)
    y = blur(x)
    assert y.shape == (3, 2, 2, 7)
    for i in range(3):
        for c in range(2):
            torch.testing.assert_close(blur(x[i : i + 1, c : c + 1])[0, 0], y[i, c])


@pytest.mark.parametrize("constant", [0.0009, 0.1])
def test_the_comparison_is_that_of_ssim(constant: float) -> None:
    x, y = pictures(2, 3, 13, 15), pictures(2, 3, 13, 15, seed=1)
    found = Windows(x, blur).compare(y, constant)
    mean_x, mean_y = blur(x), blur(y)
    covariance = blur(x * y) - mean_x * mean_y
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    torch.testing.assert_close(found.mean, mean_y)
    torch.testing.assert_close(found.shift, (mean_x - mean_y) ** 2)
    torch.testing.assert_close(found.structure, 1 - (2 * covariance + constant) / (variances + constant))


def test_small_differences_survive_float32() -> None:
    """The plain formula has only rounding left here: it is 1 minus a quotient of 1 − 10⁻⁸."""
    x = pictures(1, 1, 64, 64)
    y = x + 1e-4 * (pictures(1, 1, 64, 64, seed=1) - 0.5)
    exact = Windows(x, blur).compare(y, 0.0009).structure
    rounded = Windows(x.float(), blur).compare(y.float(), 0.0009).structure
    assert exact.mean().item() < 1e-7
    assert rounded.double().mean().item() == pytest.approx(exact.mean().item(), rel=0.01)
