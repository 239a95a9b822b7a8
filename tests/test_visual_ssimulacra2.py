"""SSIMULACRA2: the package's scores to 0.1, gradients, and errors."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vqcodec import metrics
from vqcodec.visual import ssimulacra2
from vqcodec.visual.ssimulacra2 import LEAST_WEIGHT, SMALLEST, WEIGHTS, Ssimulacra2

Picture = NDArray[np.uint8]


def lossy(picture: Picture, kind: str, quality: int) -> Picture:
    """``picture`` after compression by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def tensor(picture: Picture, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(picture).permute(2, 0, 1)[None].to(dtype) / 255


def random(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_weights_and_constants_are_the_package_s() -> None:
    from ssimulacra2 import ssimulacra2 as package

    assert np.array_equal(np.array(WEIGHTS).ravel(), package.weights)
    assert np.allclose(np.array(ssimulacra2.MIXING).ravel(), package.kOpsinAbsorbanceMatrix, rtol=0, atol=1e-15)
    assert package.kOpsinAbsorbanceBias.tolist() == [ssimulacra2.BIAS] * 3
    assert (package.kC2, package.kNumScales) == (ssimulacra2.C2, ssimulacra2.SCALES)


SIZES = [(8, 8), (8, 40), (15, 9), (16, 16), (37, 21), (63, 65), (97, 70), (128, 192), (128, 113)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("kind", "quality"), [("JPEG", 5), ("WEBP", 30), ("AVIF", 80)])
def test_scores_are_the_package_s(photograph: Picture, height: int, width: int, kind: str, quality: int) -> None:
    picture = photograph[:height, 20 : 20 + width] if width < 172 else photograph
    other = lossy(picture, kind, quality)
    found = Ssimulacra2(tensor(picture))(tensor(other)).item()
    assert found == pytest.approx(metrics.ssimulacra2(picture, other), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(256, 256), (299, 257)])
def test_scores_of_all_six_scales(photograph: Picture, size: tuple[int, int]) -> None:
    wide = np.concatenate([photograph, photograph[::-1], photograph], 0)
    picture = np.concatenate([wide, wide[:, ::-1]], 1)[: size[0], : size[1]]
    others = [lossy(picture, kind, quality) for kind in ("JPEG", "WEBP", "AVIF") for quality in (2, 40, 95)]
    grey = picture[:, :, 1:2].repeat(3, 2)
    pairs = [(picture, other) for other in [*others, grey, 255 - picture]] + [(grey, lossy(grey, "JPEG", 20))]
    for original, other in pairs:
        found = Ssimulacra2(tensor(original))(tensor(other)).item()
        assert found == pytest.approx(metrics.ssimulacra2(original, other), abs=0.02, rel=1e-4)


def test_a_batch_is_scored_picture_by_picture(photograph: Picture) -> None:
    x = torch.cat([tensor(photograph[:64, :64]), tensor(photograph[64:, 64:128])])
    x_hat = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    scores = Ssimulacra2(x)(x_hat)
    assert scores.shape == (2,)
    each = [Ssimulacra2(x[i : i + 1])(x_hat[i : i + 1]).item() for i in range(2)]
    assert scores.tolist() == pytest.approx(each, abs=1e-3)
    memory = Ssimulacra2(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(memory(x_hat.contiguous(memory_format=torch.channels_last)), scores)


def test_equal_pictures(photograph: Picture) -> None:
    x = tensor(photograph[:40, :40])
    x_hat = x.clone().requires_grad_()
    for function, expected in ((Ssimulacra2(x), 100), (Ssimulacra2(x).distance, 0)):
        value = function(x_hat)
        assert value.item() == pytest.approx(expected, abs=0.005)
        (gradient,) = torch.autograd.grad(value.sum(), x_hat)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.03, 1.0])
def test_gradients_lead_to_a_better_score(photograph: Picture, noise: float) -> None:
    """From a score of nearly 100 to one below 0, at small steps against the gradient of the distance."""
    x = tensor(photograph[:64, :64])
    x_hat = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    compared = Ssimulacra2(x)
    for function, sign in ((compared.__call__, 1), (compared.distance, -1)):
        start = x_hat.clone().requires_grad_()
        value = function(start).sum()
        (gradient,) = torch.autograd.grad(value, start)
        assert gradient.isfinite().all()
        moved = function(start.detach() + sign * 0.03 * noise * gradient / gradient.square().mean().sqrt())
        assert sign * (moved.item() - value.item()) > 0


@pytest.mark.parametrize("least", [LEAST_WEIGHT, 1e-9])
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    monkeypatch.setattr(ssimulacra2, "LEAST_WEIGHT", least)
    compared = Ssimulacra2(random(2, 3, 16, 15))
    x_hat = random(2, 3, 16, 15).flip(0).requires_grad_()
    for function in (compared.__call__, compared.distance):
        assert torch.autograd.gradcheck(function, x_hat, fast_mode=True)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_of_black_and_white_are_finite(value: float) -> None:
    x = torch.full((1, 3, 24, 24), value)
    x_hat = torch.full_like(x, 1 - value).requires_grad_()
    score = Ssimulacra2(x)(x_hat).sum()
    (gradient,) = torch.autograd.grad(score, x_hat)
    assert gradient.isfinite().all()
    outside = torch.full_like(x, 3 * value - 1)  # −1 or 2: counts as 0 or 1
    assert Ssimulacra2(x)(outside).item() == pytest.approx(100, abs=0.005)


def test_autocast_changes_nothing(photograph: Picture) -> None:
    x, x_hat = tensor(photograph[:32, :32]), tensor(lossy(photograph[:32, :32], "JPEG", 30))
    expected = Ssimulacra2(x)(x_hat)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Ssimulacra2(x)(x_hat), expected)
    assert Ssimulacra2(x)(x_hat.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 3, SMALLEST - 1, 40), (1, 3, 40, SMALLEST - 1), (1, 1, 40, 40), (3, 40, 40)])
def test_it_refuses_originals(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^shape is \[.*\], expected \[B, 3, H, W\] of 8 pixels a side or more$"):
        Ssimulacra2(torch.zeros(shape))


@pytest.mark.parametrize("method", [Ssimulacra2.__call__, Ssimulacra2.distance])
def test_it_refuses_another_shape(method: Callable[[Ssimulacra2, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^shape is \[2, 3, 32, 32\], expected \[1, 3, 32, 32\]$"):
        method(Ssimulacra2(torch.zeros(1, 3, 32, 32)), torch.zeros(2, 3, 32, 32))
