"""The decoder's input at each level."""

import pytest
import torch
from torch import Tensor

from tests.networks_support import (
    PLAIN,
    TWINS,
    fitted,
    images,
    lambdas,
    tiny_configs,
    trained,
)
from vqcodec.config import ModelConfig
from vqcodec.networks import choices
from vqcodec.networks.choices import Decode, Encode, Given, Noise, Record, Round, RoundedNoise, Split
from vqcodec.networks.fitting import residuals
from vqcodec.networks.head import gaussian_bits
from vqcodec.networks.levels import Latent
from vqcodec.networks.quantize import VectorQuantizer


def test_the_noise_is_one_step_wide_and_centred(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, lmbda = trained(PLAIN), images(), lambdas(PLAIN, 20, 90)
    seen: list[Tensor] = []

    def spy(r_hat: Tensor, scale: Tensor) -> Tensor:
        seen.append(r_hat)
        return scale

    monkeypatch.setattr(choices, "gaussian_bits", spy)
    model(x, lmbda, hard=False)
    noise = seen[0] - residuals(model, x, lmbda)[0][0]
    assert noise.abs().max() <= 0.5 + 1e-5
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.1)


@torch.no_grad()
def test_the_noise_is_paid_for_by_the_level_that_it_is_added_to() -> None:
    model, x, lmbda = trained(TWINS), images(), lambdas(TWINS, 20, 90)
    noise = Noise()
    record = Record(noise)
    model.reconstruct(x, lmbda, record)
    assert [bits.shape for bits in noise.bits] == [(2,)] * 3
    assert len(record.residuals) == 3


def test_under_rounded_noise_the_decoder_gets_whole_steps_and_the_bits_stay_noisy() -> None:
    r = torch.linspace(-1.4, 1.4, 16).view(1, 4, 2, 2).requires_grad_()
    scale = torch.ones_like(r)
    choice = RoundedNoise()
    r_hat = choice(Latent(VectorQuantizer(2, 4, 2), r.shape, residual=lambda: r, scale=lambda: scale))
    assert torch.equal(r_hat, r.round())
    assert not torch.allclose(choice.bits[0], gaussian_bits(r.round(), scale))
    (gradient,) = torch.autograd.grad(r_hat.sum(), r, retain_graph=True)
    assert torch.equal(gradient, torch.ones_like(r))  # straight through
    assert float(torch.autograd.grad(choice.bits[0].sum(), r)[0].abs().sum()) > 0


@torch.no_grad()
def test_rounded_residuals_are_whole_and_cost_what_the_density_says() -> None:
    model, x, lmbda = trained(PLAIN), images(), lambdas(PLAIN, 20, 90)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    rounded = Round(sigma_min=0.5)

    def choose(latent: Latent) -> Tensor:
        r_hat = rounded(latent)
        seen.append((latent.residual(), latent.scale(), r_hat))
        return r_hat

    model.reconstruct(x, lmbda, choose)
    ((r, scale, r_hat),) = seen
    assert torch.equal(r_hat, r.round())
    torch.testing.assert_close(rounded.bits, [gaussian_bits(r.round(), scale.clamp_min(0.5))])


@tiny_configs
@torch.no_grad()
def test_encoding_and_decoding_take_the_same_walk(config: ModelConfig) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    encode = Encode()
    x_hat = model.reconstruct(x, lmbda, encode)
    assert all(torch.equal(a, b) for a, b in zip(encode.codes, model.encode(x, lmbda), strict=True))
    decoded = model.reconstruct(torch.zeros_like(x), lmbda, Decode(encode.codes))  # the image is not used
    assert torch.equal(decoded, x_hat)
    assert torch.equal(model.decode(encode.codes, lmbda), x_hat.clamp(0, 1))


@torch.no_grad()
def test_a_split_gives_codes_to_the_coarse_levels_alone() -> None:
    model, x, lmbda = trained(TWINS), images(), lambdas(TWINS, 20, 90)
    codes = model.encode(x, lmbda)
    for count in range(4):
        x_hat = model.reconstruct(x, lmbda, Split(count, Encode(), Decode([])))
        assert torch.equal(x_hat, model.reconstruct(x, lmbda, Decode(codes[:count])))


def test_decoding_computes_no_residual_and_no_scale() -> None:
    def never() -> Tensor:
        raise AssertionError("the decoder has no residuals")

    quantizer = VectorQuantizer(2, 4, 3)
    latent = Latent(quantizer, (1, 6, 2, 5), residual=never, scale=never)
    decode = Decode([torch.zeros(1, 2, 2, 5, dtype=torch.int64)])
    assert torch.equal(decode(latent)[0, :, 0, 0], quantizer.codebook[:, 0].flatten())
    assert torch.equal(decode(latent), torch.zeros(1, 6, 2, 5))


def test_given_residuals_reach_the_decoder() -> None:
    model, x, lmbda = fitted()
    encode = Encode()
    expected = model.reconstruct(x, lmbda, encode)
    r_hats = [quantizer.decode(grid) for quantizer, grid in zip(model.quantizers(), encode.codes, strict=True)]
    assert torch.equal(model.reconstruct(x, lmbda, Given(r_hats)), expected)
