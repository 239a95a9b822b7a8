"""D of the visual tune: its parts, its units, gradients, grey and small pictures, and errors."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec import metrics
from vqcodec.visual.distortion import DEFAULT, MS_SSIM_PER_MSE, SSIMULACRA2_PER_MSE, Shares, VisualDistortion
from vqcodec.visual.ms_ssim import MsSsim
from vqcodec.visual.ssimulacra2 import Ssimulacra2


@pytest.fixture
def x(photograph: NDArray[np.uint8]) -> Tensor:
    """Two crops ``[2, 3, 48, 64]``."""
    return torch.tensor(np.stack([photograph[:48, :64], photograph[60:108, 90:154]])).permute(0, 3, 1, 2) / 255


def noisy(x: Tensor, size: float = 0.03) -> Tensor:
    return x + size * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def test_the_parts(x: Tensor) -> None:
    x_hat = noisy(x).clamp(0, 1)
    mse = (x - x_hat).square().mean((1, 2, 3))
    ms_ssim, ssimulacra2 = MsSsim(x).distance(x_hat), Ssimulacra2(x).distance(x_hat)
    torch.testing.assert_close(VisualDistortion(x, Shares(1, 0, 0))(x_hat), mse)
    torch.testing.assert_close(VisualDistortion(x, Shares(0, 1, 0))(x_hat), ms_ssim / MS_SSIM_PER_MSE)
    torch.testing.assert_close(VisualDistortion(x, Shares(0, 0, 1))(x_hat), ssimulacra2 / SSIMULACRA2_PER_MSE)
    mixed = 0.2 * mse + 0.3 * ms_ssim / MS_SSIM_PER_MSE + 0.5 * ssimulacra2 / SSIMULACRA2_PER_MSE
    torch.testing.assert_close(VisualDistortion(x, Shares(0.2, 0.3, 0.5))(x_hat), mixed)
    assert DEFAULT.mse + DEFAULT.ms_ssim + DEFAULT.ssimulacra2 == 1


@pytest.mark.parametrize("height", [1, 7, 8, 10, 11, 20])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_picture_has_a_distortion(x: Tensor, height: int, channels: int) -> None:
    original = x[:, :channels, :height, :40]
    x_hat = noisy(original).requires_grad_()
    distortion = VisualDistortion(original)
    (gradient,) = torch.autograd.grad(distortion(x_hat).sum(), x_hat)
    assert gradient.isfinite().all()
    assert (distortion(x_hat) > 0).all()
    assert distortion(original).tolist() == pytest.approx([0, 0], abs=1e-7)
    turned = VisualDistortion(original[:, :, :, :height].mT)(x_hat[:, :, :, :height].mT)
    assert turned.shape == (2,)


def test_grey_counts_as_rgb(x: Tensor) -> None:
    grey = x[:, 1:2]
    expected = VisualDistortion(grey.repeat(1, 3, 1, 1))(noisy(grey).repeat(1, 3, 1, 1))
    torch.testing.assert_close(VisualDistortion(grey)(noisy(grey)), expected)


def test_a_gradient_leads_values_outside_back(x: Tensor) -> None:
    x_hat = torch.full_like(x, 1.5).requires_grad_()
    (gradient,) = torch.autograd.grad(VisualDistortion(x)(x_hat).sum(), x_hat)
    assert (gradient > 0).float().mean() > 0.9


def test_adam_on_pixels_improves_the_package_s_score(x: Tensor) -> None:
    """What D falls by, is seen by the metrics that are not ours: 8-bit pixels, SSIMULACRA2 by its package, and PSNR."""

    def pixels(picture: Tensor) -> NDArray[np.uint8]:
        eight_bits: NDArray[np.uint8] = picture.detach()[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        return eight_bits

    x_hat = noisy(x, 0.1).clamp(0, 1).requires_grad_()
    before, distortion = pixels(x_hat), VisualDistortion(x)
    start = distortion(x_hat).mean().item()
    optimizer = torch.optim.Adam([x_hat], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        distortion(x_hat).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert distortion(x_hat).mean().item() < 0.7 * start
    assert metrics.ssimulacra2(pixels(x), pixels(x_hat)) > metrics.ssimulacra2(pixels(x), before) + 5
    assert metrics.psnr(pixels(x), pixels(x_hat)) > metrics.psnr(pixels(x), before) + 1


@pytest.mark.parametrize("shape", [(2, 3, 48, 63), (1, 3, 48, 64), (2, 3, 64, 48)])
@pytest.mark.parametrize("shares", [DEFAULT, Shares(1, 0, 0)])
def test_it_refuses_another_shape(x: Tensor, shape: tuple[int, ...], shares: Shares) -> None:
    with pytest.raises(ValueError, match=r"^shape is \[.*\], expected \[2, 3, 48, 64\]$"):
        VisualDistortion(x, shares)(torch.zeros(shape))
