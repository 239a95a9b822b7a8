"""The metrics: values worked out by hand, values of the underlying packages, symmetry, and errors."""

import dataclasses
import io
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from vqcodec import metrics
from vqcodec.errors import MissingPackageError
from vqcodec.metrics import (
    LPIPS_SMALLEST,
    METRICS,
    MS_SSIM_SMALLEST,
    SSIMULACRA2_SMALLEST,
    available,
    bpp,
    decibels,
    distance_decibels,
    measure,
    ms_ssim,
    psnr,
    ssimulacra2,
)

Picture = NDArray[np.uint8]

SHAPE = (3, 2, 3)
pictures = arrays(np.uint8, SHAPE)
INSTALLED = [metric for metric in METRICS if available(metric.name)]  # the weights of LPIPS and DISTS may be missing


def test_public_names() -> None:
    assert metrics.__all__ == [
        "DISTS_SMALLEST",
        "LPIPS_SMALLEST",
        "METRICS",
        "MS_SSIM_SMALLEST",
        "SSIMULACRA2_SMALLEST",
        "Metric",
        "available",
        "bpp",
        "decibels",
        "distance_decibels",
        "dists",
        "lpips",
        "measure",
        "ms_ssim",
        "psnr",
        "ssimulacra2",
    ]


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


@pytest.fixture(scope="module")
def large(photograph: Picture) -> Picture:
    """The photograph, extended by reflection to a size that MS-SSIM accepts: ``[256, 192, 3]``."""
    return np.concatenate([photograph, photograph[::-1]])


def through_jpeg(picture: Picture, quality: int) -> Picture:
    """``picture`` after JPEG compression."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_ms_ssim_is_the_package_s(large: Picture) -> None:
    import pytorch_msssim
    import torch

    lossy = through_jpeg(large, 30)
    a, b = (torch.tensor(picture).permute(2, 0, 1)[None].float() for picture in (large, lossy))
    expected = pytorch_msssim.ms_ssim(a, b, data_range=255)
    assert ms_ssim(large, lossy) == expected.item()
    assert ms_ssim(large, lossy) == pytest.approx(ms_ssim(lossy, large), abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(100, 120), (0, 255), (7, 7)])
def test_ms_ssim_of_flat_pictures(a: int, b: int) -> None:
    # Without contrast only the coarsest luminance counts: (2ab + C1) / (a² + b² + C1) to the power of 0.1333.
    shape = (176, 176, 3)
    c1 = (0.01 * 255) ** 2
    expected = ((2 * a * b + c1) / (a * a + b * b + c1)) ** 0.1333
    assert ms_ssim(np.full(shape, a, np.uint8), np.full(shape, b, np.uint8)) == pytest.approx(expected, abs=2e-4)


def test_grey_counts_as_rgb(large: Picture) -> None:
    for function in (ms_ssim, ssimulacra2):
        a, b = large[:, :, :1], through_jpeg(large, 20)[:, :, :1]
        assert function(a, b) == function(np.repeat(a, 3, 2), np.repeat(b, 3, 2))


def test_ssimulacra2_is_the_package_s(large: Picture, tmp_path: Path) -> None:
    from ssimulacra2 import compute_ssimulacra2

    paths = [tmp_path / "original.png", tmp_path / "lossy.png"]
    lossy = through_jpeg(large, 30)
    for path, picture in zip(paths, (large, lossy), strict=True):
        Image.fromarray(picture).save(path)
    assert ssimulacra2(large, lossy) == compute_ssimulacra2(*map(str, paths))
    assert ssimulacra2(large, lossy) != ssimulacra2(lossy, large)


def test_identical_pictures(large: Picture) -> None:
    found = measure(large, large.copy(), INSTALLED)
    expected = {"psnr": math.inf, "ms-ssim": math.inf, "ssimulacra2": 100, "lpips": math.inf, "dists": math.inf}
    assert [found[metric.key] for metric in INSTALLED] == [expected[metric.name] for metric in INSTALLED]
    assert ms_ssim(large, large.copy()) == 1


def test_more_is_better(large: Picture) -> None:
    lossy = [through_jpeg(large, quality) for quality in (5, 15, 40, 90)]
    for metric in INSTALLED:
        values = [measure(large, picture, [metric])[metric.key] for picture in lossy]
        assert all(a < b for a, b in itertools.pairwise(value for value in values if value is not None)), metric.name


def test_scales_of_the_perceptual_metrics(large: Picture) -> None:
    noise = np.random.default_rng(0).integers(0, 256, large.shape, np.uint8)
    assert 0 <= ms_ssim(large, noise) < 0.2
    assert ssimulacra2(large, noise) < 0
    assert 80 < ssimulacra2(large, through_jpeg(large, 95)) < 100


@pytest.mark.parametrize(("function", "smallest"), [(ms_ssim, MS_SSIM_SMALLEST), (ssimulacra2, SSIMULACRA2_SMALLEST)])
def test_smallest_side(function: Any, smallest: int) -> None:
    accepted = np.zeros((smallest, smallest + 3, 3), np.uint8)
    assert math.isfinite(function(accepted, accepted))
    for picture in (accepted[1:], accepted.swapaxes(0, 1)[:, 1:]):
        with pytest.raises(ValueError, match=rf"pixels are too few for [-\w]+: the least side is {smallest}$"):
            function(picture, picture)


def test_smallest_sides_are_the_packages_own() -> None:
    import pytorch_msssim
    import ssimulacra2 as package
    import torch

    small = torch.zeros(1, 3, MS_SSIM_SMALLEST - 1, MS_SSIM_SMALLEST - 1)
    with pytest.raises(AssertionError):
        pytorch_msssim.ms_ssim(small, small)
    files = io.BytesIO(), io.BytesIO()
    for file, colour in zip(files, ("black", "white"), strict=True):
        Image.new("RGB", (SSIMULACRA2_SMALLEST - 1,) * 2, colour).save(file, "PNG")
    assert package.compute_ssimulacra2(*files) == 100  # which is why we refuse them


@pytest.mark.parametrize("function", [ms_ssim, ssimulacra2])
def test_perceptual_metrics_refuse(function: Any) -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^shapes are \[200, 200, 3\] and \[200, 199, 3\], expected two equal"):
        function(picture, picture[:, 1:])
    with pytest.raises(ValueError, match=r"^pixels are uint8 and float32, expected uint8$"):
        function(picture, picture.astype(np.float32))
    for shape in ((200, 200), (200, 200, 4), (1, 200, 200, 3), (200, 200, 2)):
        with pytest.raises(ValueError, match=r"^shape is \[.*\], expected \[H, W, 3\] or \[H, W, 1\]$"):
            function(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("similarity", "expected"), [(0, 0), (0.9, 10), (0.99, 20), (0.5, 10 * math.log10(2)), (1, math.inf)]
)
def test_decibels(similarity: float, expected: float) -> None:
    assert decibels(similarity) == pytest.approx(expected)
    assert math.copysign(1, decibels(similarity)) == 1


@pytest.mark.parametrize("similarity", [-0.01, 1.01, math.nan, math.inf])
def test_decibels_refuses(similarity: float) -> None:
    with pytest.raises(ValueError, match=r"expected 0\.\.1$"):
        decibels(similarity)


@pytest.mark.parametrize(("distance", "expected"), [(1, 0), (0.1, 10), (2, -10 * math.log10(2)), (0, math.inf)])
def test_decibels_of_a_distance_rise_as_it_falls(distance: float, expected: float) -> None:
    assert distance_decibels(distance) == pytest.approx(expected)
    assert expected < 0 or math.copysign(1, distance_decibels(distance)) == 1


@pytest.mark.parametrize("distance", [-1e-9, math.nan])
def test_decibels_of_a_distance_refuses(distance: float) -> None:
    with pytest.raises(ValueError, match=r"expected at least 0$"):
        distance_decibels(distance)


@pytest.mark.parametrize("function", [metrics.lpips, metrics.dists])
def test_small_pictures_have_no_distance(function: Any) -> None:
    picture = np.zeros((LPIPS_SMALLEST - 15, 40, 3), np.uint8)
    with pytest.raises(ValueError, match=r"pixels are too few for (LPIPS|DISTS): the least side is \d+$"):
        function(picture, picture)


def test_metrics_are_described(large: Picture) -> None:
    assert [(metric.name, metric.key) for metric in METRICS] == [
        ("psnr", "psnr-rgb"),
        ("ms-ssim", "ms-ssim-rgb-db"),
        ("ssimulacra2", "ssimulacra2"),
        ("lpips", "lpips-db"),
        ("dists", "dists-db"),
    ]
    for metric in METRICS:
        assert metric.keys == tuple(metric.values(0.25))
        assert {metric.key, metric.raw} == set(metric.keys)
    for metric in METRICS[:3]:
        value = metric.compute(large, through_jpeg(large, 50))
        assert type(value) is float
        assert math.isfinite(value)
        assert available(metric.name)
    assert METRICS[1].values(0.9) == {"ms-ssim-rgb": 0.9, "ms-ssim-rgb-db": decibels(0.9)}
    assert METRICS[3].values(0.1) == {"lpips": 0.1, "lpips-db": 10.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        METRICS[0].name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("ms-ssim", "pytorch_msssim", 'MS-SSIM needs the package pytorch-msssim: pip install ".[bench]" in a checkout'),
        (
            "ssimulacra2",
            "ssimulacra2",
            'SSIMULACRA2 needs the package ssimulacra2: pip install ".[bench]" in a checkout',
        ),
    ],
)
def test_a_missing_package(name: str, module: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (metric,) = (metric for metric in METRICS if metric.name == name)
    picture = np.zeros((metric.smallest, metric.smallest, 3), np.uint8)
    monkeypatch.setitem(sys.modules, module, None)
    assert not available(name)
    with pytest.raises(MissingPackageError) as caught:
        metric.compute(picture, picture)
    assert str(caught.value) == message


def test_available_refuses_an_unknown_name() -> None:
    with pytest.raises(
        ValueError, match=r"^no metric 'vmaf', expected one of psnr, ms-ssim, ssimulacra2, lpips, dists$"
    ):
        available("vmaf")


def test_the_module_is_light(root: Path) -> None:
    code = "import sys, vqcodec.metrics as m; [m.available(x.name) for x in m.METRICS]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_metric_is_left_empty_where_the_picture_is_too_small() -> None:
    x, x_hat = np.zeros((7, 9, 3), np.uint8), np.full((7, 9, 3), 255, np.uint8)
    found = measure(x, x_hat, metrics.METRICS)
    missing = ("ms-ssim-rgb", "ms-ssim-rgb-db", "ssimulacra2", "lpips", "lpips-db", "dists", "dists-db")
    assert found == {"psnr-rgb": 0.0, **dict.fromkeys(missing)}
