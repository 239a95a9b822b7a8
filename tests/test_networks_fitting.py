"""Residuals, and codebooks fitted to them."""

import pytest
import torch
from torch import Tensor

from tests.networks_support import (
    TINY,
    TWINS,
    images,
    lambdas,
    levels,
    tiny_configs,
    trained,
)
from vqcodec.config import ModelConfig
from vqcodec.networks import choices
from vqcodec.networks.fitting import deal_channels, fit_level, residuals
from vqcodec.networks.levels import Level
from vqcodec.networks.vqvae import VQVAE


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise form without its noise."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))


@tiny_configs
def test_residuals_are_those_of_the_noise_form(
    config: ModelConfig, still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(r_hat: Tensor, scale: Tensor) -> Tensor:
        seen.append((r_hat, scale.clamp_min(1 / 3).pow(-2)))
        return r_hat.new_ones(len(r_hat))

    monkeypatch.setattr(choices, "gaussian_bits", spy)
    model(x, lmbda, hard=False)
    expected = list(seen)
    assert len(expected) == len(levels(model))
    torch.testing.assert_close(residuals(model, x, lmbda)[: len(expected)], expected)


def test_residuals_below_quantized_levels_are_those_of_the_codes() -> None:
    model, x, lmbda = trained(TWINS), images(), lambdas(TWINS, 20, 90)
    seen: list[tuple[Tensor, Tensor]] = []
    for level in levels(model):
        level.quantizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    model(x, lmbda, hard=True)
    for quantized in range(4):
        pairs = residuals(model, x, lmbda, quantized=quantized)
        torch.testing.assert_close(pairs[: quantized + 1], seen[: quantized + 1])
        assert quantized >= 2 or not torch.allclose(pairs[-1][0], seen[-1][0], atol=0.1)


def test_sigma_is_at_least_a_third_of_a_step() -> None:
    model, x = trained(TINY), images()
    with torch.no_grad():
        for level in levels(model):
            level.predict.bias.fill_(-8)
    peaks = [precision.max().item() for _, precision in residuals(model, x, lambdas(TINY, 1, 2))]
    assert peaks == pytest.approx([9, 9])


def test_fitting_a_level_renumbers_its_channels_and_fits_its_codebooks() -> None:
    model, x, lmbda = trained(TINY), images(8, 32, 32), lambdas(TINY, *range(10, 90, 10))
    before, (r, precision) = model(x, lmbda, hard=False), residuals(model, x, lmbda)[0]
    fit_level(model, 0, x, lmbda)
    r_dealt, precision_dealt = residuals(model, x, lmbda)[0]
    entropy = (1 + 12 / precision).log2().mean((0, 2, 3)).tolist()
    ranked = sorted(range(len(entropy)), key=lambda channel: -entropy[channel])
    order = deal_channels(torch.tensor(ranked), TINY.levels[0].groups)
    torch.testing.assert_close(r_dealt, r[:, order], atol=1e-4, rtol=0)
    torch.testing.assert_close(precision_dealt, precision[:, order], atol=0, rtol=1e-4)
    assert not torch.allclose(r_dealt, r, atol=0.1)
    # Without the noise, the function is the same as before.
    torch.testing.assert_close(model(x, lmbda, hard=False).bits[0].sum(), before.bits[0].sum(), atol=0, rtol=0.05)
    quantizer = levels(model)[0].quantizer
    twin = VQVAE(TINY).levels[0]
    assert isinstance(twin, Level)
    twin.quantizer.fit(r_dealt, precision_dealt, seed=0)
    torch.testing.assert_close(quantizer.codebook, twin.quantizer.codebook, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [
        ([9, 8, 7, 6, 5, 4], 3, [9, 4, 8, 5, 7, 6]),
        ([9, 8, 7, 6, 5, 4], 2, [9, 6, 5, 8, 7, 4]),
        ([9, 8, 7], 1, [9, 8, 7]),
        ([9, 8, 7], 3, [9, 8, 7]),
    ],
)
def test_channels_are_dealt_there_and_back(channels: list[int], groups: int, expected: list[int]) -> None:
    assert deal_channels(torch.tensor(channels), groups).tolist() == expected
