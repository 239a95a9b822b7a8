"""The quantiser against a second one, written out position by position in double precision."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.networks.head import LN2, RateHead
from vqcodec.networks.quantize import DISTORTION_WEIGHT, Quantized, VectorQuantizer

G, K, D = 3, 7, 2
SHAPE = (2, G * D, 3, 4)
WITH_VARIANCE = pytest.mark.parametrize("variance", [False, True], ids=["static", "variance"])
TAILS = pytest.mark.parametrize("tails", ["gaussian", "laplacian"])
LEARN = pytest.mark.parametrize("learn", ["ema", "gradient"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def quantizer(**options: Any) -> VectorQuantizer:
    """Frozen, with a head that prefers some codes to others."""
    made = VectorQuantizer(G, K, D, **options).eval()
    torch.nn.init.normal_(made.bias, std=2)
    return made


def residuals(variance: bool) -> tuple[Tensor, Tensor | None]:
    r = torch.randn(SHAPE).requires_grad_()
    return r, torch.rand(SHAPE).add(0.2).requires_grad_() if variance else None


@dataclass
class Naive:
    codes: NDArray[np.int64]  # [B, G, H, W]
    z_q: NDArray[np.float64]  # [B, G·D, H, W]
    bits: NDArray[np.float64]  # [B, G, H, W]
    distances: NDArray[np.float64]  # [B, G, H, W], squared
    p: NDArray[np.float64]  # [B, G, H, W, K]


def naive(q: VectorQuantizer, r: Tensor, inverse_variance: Tensor | None = None) -> Naive:
    codebook, bias = q.codebook.detach().double().numpy(), q.bias.detach().double().numpy()
    x = r.detach().double().numpy()
    precision = np.zeros_like(x) if inverse_variance is None else inverse_variance.detach().double().numpy()
    grid = (len(x), q.groups, *x.shape[2:])

    def nats(u: float) -> float:
        return u * u / 2 if q.head.tails == "gaussian" else math.sqrt(2) * abs(u)

    out = Naive(
        np.zeros(grid, np.int64), np.zeros_like(x), np.zeros(grid), np.zeros(grid), np.zeros((*grid, q.codebook_size))
    )
    for b, g, i, j in np.ndindex(*grid):
        channels = slice(g * q.dim, (g + 1) * q.dim)
        scales = [math.inf if p == 0 else 1 / math.sqrt(p) for p in precision[b, channels, i, j]]
        weights = [
            math.exp(bias[g, k] - sum(nats(e / sigma) for e, sigma in zip(codebook[g, k], scales, strict=True)))
            for k in range(q.codebook_size)
        ]
        p = np.array(weights) / sum(weights)
        distances = np.array([sum((x[b, channels, i, j] - e) ** 2) for e in codebook[g]])
        costs = DISTORTION_WEIGHT * distances - np.log2(p) if q.rate_aware else distances
        code = int(np.argmin(costs))
        out.codes[b, g, i, j], out.bits[b, g, i, j], out.distances[b, g, i, j] = (
            code,
            -np.log2(p[code]),
            distances[code],
        )
        out.z_q[b, channels, i, j], out.p[b, g, i, j] = codebook[g, code], p
    return out


def test_the_distortion_weight_is_the_slope_of_uniform_quantisation() -> None:
    def distortion(bits: float) -> float:  # Δ = 2^−bits
        return 4**-bits / 12

    assert pytest.approx(-2e-6 / (distortion(1e-6) - distortion(-1e-6))) == DISTORTION_WEIGHT


@WITH_VARIANCE
@TAILS
@pytest.mark.parametrize("rate_aware", [False, True], ids=["nearest", "rate-aware"])
def test_codes_and_bits_are_the_naive_ones(rate_aware: bool, variance: bool, tails: str) -> None:
    q = quantizer(rate_aware=rate_aware, head=RateHead(tails))
    r, inverse_variance = residuals(variance)
    expected, out = naive(q, r, inverse_variance), q(r, inverse_variance)
    assert out.codes.dtype == torch.int64
    np.testing.assert_array_equal(out.codes, expected.codes)
    np.testing.assert_array_equal(q.encode(r, inverse_variance), expected.codes)
    np.testing.assert_array_equal(q.decode(out.codes).detach(), expected.z_q.astype(np.float32))
    np.testing.assert_allclose(out.z_q.detach(), expected.z_q, atol=1e-6)
    np.testing.assert_allclose(out.bits.detach(), expected.bits.sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(out.commitment_loss.detach(), expected.distances.mean() / D, rtol=1e-5)


def test_the_rate_matters_to_the_choice() -> None:
    r, inverse_variance = residuals(True)
    aware, nearest = quantizer(rate_aware=True), quantizer(rate_aware=False)
    nearest.load_state_dict(aware.state_dict())
    both = [naive(q, r, inverse_variance) for q in (aware, nearest)]
    assert both[0].bits.sum() < both[1].bits.sum()
    assert both[0].distances.sum() > both[1].distances.sum()


def test_a_larger_distortion_weight_buys_a_smaller_error_with_bits() -> None:
    r, inverse_variance = residuals(True)
    state = quantizer().state_dict()
    results: list[tuple[float, float]] = []
    for weight in (0.1, 1.0, 10.0):
        q = quantizer(distortion_weight=weight)
        q.load_state_dict(state)
        out = q(r, inverse_variance)
        results.append((out.bits.sum().item(), -(out.z_q - r).square().sum().item()))
    assert results == sorted(results)
    assert len(set(results)) == 3
    assert sorted(error for _, error in results) == [error for _, error in results]


def test_one_group_is_the_textbook_quantiser() -> None:
    q = VectorQuantizer(1, 16, 5, rate_aware=False).eval()
    r = torch.randn(2, 5, 4, 3)
    nearest = torch.cdist(r.movedim(1, -1).reshape(-1, 5), q.codebook[0]).argmin(1)
    assert q.encode(r).flatten().tolist() == nearest.tolist()
    assert q(r).bits.tolist() == pytest.approx([12 * 4] * 2)  # log2 16 bits each, before the head has learnt


def test_codewords_are_their_own_codes() -> None:
    codes = torch.randint(K, (2, G, 5, 6))
    nearest = quantizer(rate_aware=False)
    assert torch.equal(nearest.encode(nearest.decode(codes)), codes)


def test_a_large_grid_is_chosen_for_in_parts() -> None:
    q = VectorQuantizer(1, 4096, 1, rate_aware=False).eval()  # 256 positions at a time
    q.codebook.copy_(torch.randperm(4096)[None, :, None] / 16)  # sums of these are exact
    r = torch.randint(-100, 4300, (2, 1, 50, 90)) / 16
    errors = (q.decode(q.encode(r)) - r).abs()
    assert torch.equal(errors, (r - r.clamp(0, 4095 / 16)).abs())


def test_autocast_does_not_blur_the_choice() -> None:
    q, r, precision = VectorQuantizer(4, 128, 2).eval(), torch.randn(1, 8, 16, 16), torch.rand(1, 8, 16, 16) + 0.2
    with torch.autocast("cpu", torch.bfloat16):
        blurred: Quantized = q(r, precision)
        assert torch.equal(q.encode(r, precision), blurred.codes)
    sharp = q(r, precision)
    assert torch.equal(sharp.codes, blurred.codes)
    torch.testing.assert_close(blurred.bits, sharp.bits)


@LEARN
def test_gradients_pass_straight_through(learn: str) -> None:
    q, (r, _), weight = quantizer(learn=learn), residuals(False), torch.randn(SHAPE)
    (q(r).z_q * weight).sum().backward()
    torch.testing.assert_close(r.grad, weight, rtol=0, atol=0)
    assert q.codebook.grad is None


@LEARN
def test_gradients_of_the_bits(learn: str) -> None:
    q, (r, precision) = quantizer(learn=learn), residuals(True)
    q(r, precision).bits.sum().backward()
    expected, squares = naive(q, r, precision), q.codebook.detach().double().numpy() ** 2
    assert r.grad is not None
    assert precision is not None
    assert precision.grad is not None
    # The slope of the cost is taken at the residual, not at its codeword.
    np.testing.assert_allclose(r.grad, (precision * r).detach().numpy() / LN2, atol=1e-5)
    mean_squares = np.einsum("bgijk,gkd->bgdij", expected.p, squares).reshape(SHAPE)
    np.testing.assert_allclose(precision.grad, (expected.z_q**2 - mean_squares) / 2 / LN2, atol=1e-5)
    assert q.codebook.grad is None  # the rate does not move codewords from their centroids


def test_gradients_of_the_bits_with_long_tails() -> None:
    q, (r, precision) = quantizer(head=RateHead("laplacian")), residuals(True)
    q(r, precision).bits.sum().backward()
    assert r.grad is not None
    assert precision is not None
    assert precision.grad is not None
    np.testing.assert_allclose(r.grad, ((2 * precision).sqrt() * r.sign()).detach().numpy() / LN2, atol=1e-5)
    expected, distances = naive(q, r, precision), q.codebook.detach().abs().double().numpy()
    mean = np.einsum("bgijk,gkd->bgdij", expected.p, distances).reshape(SHAPE)
    slope = 0.5 * (2 / precision.detach().numpy()) ** 0.5
    np.testing.assert_allclose(precision.grad, slope * (np.abs(expected.z_q) - mean) / LN2, atol=1e-4)


@LEARN
def test_commitment_pulls_residuals_and_codebook_loss_pulls_codewords(learn: str) -> None:
    q, (r, precision) = quantizer(learn=learn), residuals(True)
    out = q(r, precision)
    pull = 2 * (r.detach() - out.z_q.detach()) / r.numel()
    out.commitment_loss.backward()
    torch.testing.assert_close(r.grad, pull)
    assert q.codebook.grad is None
    if learn == "ema":
        assert out.codebook_loss.item() == 0
        assert not out.codebook_loss.requires_grad
        return
    r.grad = None
    out.codebook_loss.backward()
    torch.testing.assert_close(out.codebook_loss, out.commitment_loss)
    expected = torch.zeros(G, K, D)
    for b, g, i, j in np.ndindex(*out.codes.shape):
        expected[g, out.codes[b, g, i, j]] -= pull[b, g * D : (g + 1) * D, i, j]
    torch.testing.assert_close(q.codebook.grad, expected)
    assert r.grad is None
