"""Levels of the trunk and of pixels."""

import math

import pytest
import torch

from tests.networks_support import (
    PIXELS,
    TINY,
    TWINS,
    fitted,
    images,
    lambdas,
    levels,
    pixel_levels,
    trained,
)
from vqcodec.config import ModelConfig
from vqcodec.networks.choices import HardCodes
from vqcodec.networks.vqvae import VQVAE


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise form without its noise."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))


@pytest.mark.parametrize("config", [TINY, TWINS], ids=["tiny", "twins"])
def test_renumbered_channels_compute_the_same(config: ModelConfig, still: None) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    before = model(x, lmbda, hard=False)
    for level in levels(model):
        level.permute(torch.randperm(level.project.shape[1]))
    after = model(x, lmbda, hard=False)
    torch.testing.assert_close(after.x_hat, before.x_hat, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.bits, before.bits, atol=0.01, rtol=1e-5)


def test_a_level_of_pixels_reaches_what_the_trunk_does_not() -> None:
    model, x, _ = fitted()
    (level,) = pixel_levels(model)
    identity = level.components @ level.components.T
    torch.testing.assert_close(identity, torch.eye(len(identity)), atol=1e-5, rtol=0)
    errors = []
    for quality in (1, 60, 100):
        lmbda = lambdas(PIXELS, quality).expand(len(x))
        codes = model.encode(x, lmbda)
        whole, preview = model.decode(codes, lmbda), model.decode(codes[:-1], lmbda)
        errors.append([float((x_hat - x).square().mean()) for x_hat in (whole, preview)])
    assert errors[2][0] < errors[2][1] / 3  # at the best quality
    assert errors[2][0] < errors[1][0] < errors[0][0]
    # With enough codewords, the MSE would be 3 / (2 ln 2 · λ · 255²); sixteen for three channels are few.
    assert 1 / 3 < errors[2][0] * (2 * math.log(2) * PIXELS.lambda_max * 255**2) / 3 < 3


def test_a_silent_level_of_pixels_changes_nothing() -> None:
    model, x, _ = fitted()
    (level,) = pixel_levels(model)
    assert not level.quantizer.codebook[:, 0].any()
    lmbda = lambdas(PIXELS, 50).expand(len(x))
    codes = model.encode(x, lmbda)
    codes[-1] = torch.zeros_like(codes[-1])
    assert torch.equal(model.decode(codes, lmbda), model.decode(codes[:-1], lmbda))


def test_where_a_level_of_pixels_is_silent_the_trunk_answers_for_the_whole_error() -> None:
    model, x, _ = fitted()
    model.train().requires_grad_(True)
    lmbda = lambdas(PIXELS, 1).expand(len(x))
    (level,) = pixel_levels(model)
    with torch.no_grad():
        level.quantizer.bias[:, 1:] = -1e4  # too expensive to be used
    gradients = []
    for pixels in (True, False):
        model.zero_grad()
        error = model.reconstruct(x, lmbda, HardCodes(), pixels=pixels) - x
        error.square().mean().backward()  # type: ignore[no-untyped-call]
        gradients.append(model.last.conv.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0] is not None
    assert gradients[0].any()


def test_the_gain_starts_in_proportion_to_the_root_of_lambda() -> None:
    model = VQVAE(TINY)
    centre = math.sqrt(TINY.lambda_min * TINY.lambda_max)
    lmbda = torch.tensor([centre / 4, centre, centre * 9])
    for level in levels(model):
        gain = level.gain(lmbda, model.embedding(lmbda)).squeeze((2, 3))
        expected = math.e * torch.tensor([0.5, 1.0, 3.0])[:, None].expand_as(gain)
        torch.testing.assert_close(gain, expected)
