"""The rate head, and bits of residuals with noise."""

import math
from statistics import NormalDist

import pytest
import torch

from vqcodec.networks.head import RateHead, gaussian_bits

SCALES = [0.06, 0.3, 1.0, 2.5]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("offset", [0.0, 0.25, -0.5])
def test_the_probabilities_of_all_bins_add_up_to_one(scale: float, offset: float) -> None:
    r = (torch.arange(-5000.0, 5001, dtype=torch.float64) + offset).view(-1, 1, 1, 1)
    p = (-gaussian_bits(r, torch.full_like(r, scale))).exp2()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("r", [0.0, 0.4, -0.7, 2.0, -6.0, 1e4])
def test_bits_of_the_noise_form(scale: float, r: float) -> None:
    normal = NormalDist(0, scale)
    gaussian = normal.cdf(-abs(r) + 0.5) - normal.cdf(-abs(r) - 0.5)
    p = 0.999 * gaussian + 0.001 * 4 / (math.pi * (16 + r * r))
    x = torch.full((2, 3, 1, 1), r, requires_grad=True)
    bits = gaussian_bits(x, torch.full_like(x, scale))
    assert bits.tolist() == pytest.approx([-3 * math.log2(p)] * 2, rel=1e-3, abs=1e-4)
    bits.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad * r >= 0).all()
    assert r == 0 or abs(r) < 0.5 or x.grad.all()  # the gradient always pulls an outlying residual back


def test_bits_are_those_of_the_best_gaussian_when_the_scale_is_right() -> None:
    torch.manual_seed(0)
    r = 3 * torch.randn(1, 1, 200, 200)
    bits = [gaussian_bits(r, torch.full_like(r, scale)).item() / r.numel() for scale in (2.5, 3.0, 3.5)]
    assert bits[1] == min(bits)
    assert bits[1] == pytest.approx(math.log2(3 * math.sqrt(2 * math.pi * math.e)), abs=0.02)


def test_other_tails_are_refused() -> None:
    with pytest.raises(ValueError, match="tails is 'fat', expected 'gaussian' or 'laplacian'"):
        RateHead("fat")


@pytest.mark.parametrize("sigma_min", [1 / 3, 0.2])
def test_sigma_has_a_lower_limit(sigma_min: float) -> None:
    precision = RateHead(sigma_min=sigma_min).precision(torch.tensor([0.0, 1e-30, 0.1, 0.5, 4.0]))
    assert precision.tolist() == pytest.approx([sigma_min**-2] * 3 + [4, 1 / 16])
