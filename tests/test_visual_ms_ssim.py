"""MS-SSIM: the package's values, fewer scales, gradients, and errors."""

import pytest
import torch
from torch import Tensor

from vqcodec.visual.ms_ssim import SMALLEST, WEIGHTS, MsSsim
from vqcodec.visual.windows import blur


def pair(*shape: int, noise: float = 0.1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A smooth random picture ``[B, C, H, W]`` and one with noise, both in 0..1."""
    generator = torch.Generator().manual_seed(sum(shape))
    *planes, height, width = shape
    x = blur(torch.rand(*planes, height + 10, width + 10, generator=generator, dtype=dtype)) * 2 - 0.5
    x = x.clamp(0, 1)
    return x, (x + noise * torch.randn(x.shape, generator=generator, dtype=dtype)).clamp(0, 1)


@pytest.mark.parametrize("size", [(161, 161), (163, 180), (256, 256), (177, 322)])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_it_is_the_package_s(size: tuple[int, int], noise: float) -> None:
    import pytorch_msssim

    x, x_hat = pair(2, 3, *size, noise=noise)
    expected = pytorch_msssim.ms_ssim(x, x_hat, data_range=1.0, size_average=False)
    torch.testing.assert_close(MsSsim(x)(x_hat), expected, atol=1e-4, rtol=0)


def test_gradients_are_the_package_s() -> None:
    import pytorch_msssim

    x, x_hat = pair(1, 3, 164, 170)
    x_hat.requires_grad_()
    (expected,) = torch.autograd.grad(pytorch_msssim.ms_ssim(x, x_hat, data_range=1.0), x_hat)
    (found,) = torch.autograd.grad(MsSsim(x)(x_hat).mean(), x_hat)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_one_scale_is_plain_ssim() -> None:
    import pytorch_msssim

    x, x_hat = pair(2, 3, 20, 33)
    expected = pytorch_msssim.ssim(x, x_hat, data_range=1.0, size_average=False)
    torch.testing.assert_close(MsSsim(x)(x_hat), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (16, 1), (32, 2), (64, 3), (128, 4), (256, 5), (512, 5)])
def test_scales_by_size(side: int, scales: int) -> None:
    """Of flat pictures only the brightness differs, which counts at the coarsest scale, by its share of the weights."""
    a, b = 0.2, 0.6
    share = WEIGHTS[scales - 1] / sum(WEIGHTS[:scales])
    found = MsSsim(torch.full((1, 1, side, 512), a))(torch.full((1, 1, side, 512), b))
    expected = ((2 * a * b + 1e-4) / (a * a + b * b + 1e-4)) ** share
    assert found.item() == pytest.approx(expected, rel=1e-3)


def test_distance_is_exact_near_equality() -> None:
    x, _ = pair(2, 3, 64, 64, dtype=torch.float64)
    error = 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = MsSsim(x).distance(x + error)
    torch.testing.assert_close(MsSsim(x.float()).distance((x + error).float()).double(), exact, rtol=1e-3, atol=0)
    assert MsSsim(x.float()).distance(x.float()).tolist() == [0, 0]
    assert (MsSsim(x).distance(x + 2 * error) / exact).tolist() == pytest.approx([4, 4], rel=0.02)


def test_gradcheck() -> None:
    x, x_hat = pair(2, 2, 22, 23, dtype=torch.float64)
    assert torch.autograd.gradcheck(MsSsim(x).distance, x_hat.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("other", ["equal", "negative", "flat", "black"])
def test_gradients_are_finite(other: str) -> None:
    x, _ = pair(1, 3, 48, 48)
    x_hat = {"equal": x, "negative": 1 - x, "flat": torch.full_like(x, 0.5), "black": torch.zeros_like(x)}[other]
    x_hat = x_hat.clone().requires_grad_()
    distance = MsSsim(x).distance(x_hat).sum()
    (gradient,) = torch.autograd.grad(distance, x_hat)
    assert gradient.isfinite().all()
    assert 0 <= distance.item() <= 1
    assert gradient.any() == (other in ("flat", "black"))  # a negative is as bad as it gets at every scale


def test_autocast_changes_nothing() -> None:
    x, x_hat = pair(1, 3, 48, 48)
    expected = MsSsim(x)(x_hat)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(MsSsim(x)(x_hat), expected)
    assert MsSsim(x)(x_hat.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 3, SMALLEST - 1, 40), (1, 3, 40, SMALLEST - 1), (3, 40, 40)])
def test_it_refuses_originals(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^shape is \[.*\], expected \[B, C, H, W\] of 11 pixels a side or more$"):
        MsSsim(torch.zeros(shape))


def test_it_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"^shape is \[1, 3, 32, 31\], expected \[1, 3, 32, 32\]$"):
        MsSsim(torch.zeros(1, 3, 32, 32))(torch.zeros(1, 3, 32, 31))
