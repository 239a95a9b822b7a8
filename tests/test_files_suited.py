"""Which pictures are for this codec."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vqcodec.codec import Codec
from vqcodec.files.suited import FLAT, LEAST, LEAST_FLAT, png_size, unsuited
from vqcodec.metrics import bpp


@pytest.mark.parametrize("channels", [1, 3])
def test_the_size_is_that_of_a_png(photograph: NDArray[np.uint8], channels: int) -> None:
    pixels, file = photograph[:, :, :channels], io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(file, "PNG", compress_level=1)
    assert png_size(pixels) == len(file.getvalue())


def _drawing() -> NDArray[np.uint8]:
    """Rows of grey dots on white."""
    pixels = np.full((96, 128, 3), 255, np.uint8)
    pixels[10:90:8, 6:120] = np.random.default_rng(0).integers(0, 256, (10, 114, 1))
    return pixels


def test_the_limit_is_a_share_of_the_png() -> None:
    pixels = _drawing()
    size = png_size(pixels)
    assert unsuited(pixels, int(size / LEAST_FLAT)) is None
    found = unsuited(pixels, int(size / LEAST_FLAT) + 1)
    assert found is not None
    assert f"only {size:,} bytes, 8.0 times the .vq file's {int(size / LEAST_FLAT) + 1:,}: " in found
    assert "\n" not in found


def test_the_limit_is_lower_for_a_picture_with_noise(photograph: NDArray[np.uint8]) -> None:
    height, width, _ = photograph.shape
    size = png_size(photograph)
    assert bpp(size, width, height) >= 3 * FLAT
    assert unsuited(photograph, int(size / LEAST)) is None
    assert unsuited(photograph, int(size / LEAST) + 1) is not None


def test_a_tiny_picture_is_not_judged() -> None:
    assert unsuited(np.zeros((16, 16, 3), np.uint8), 10**6) is None
    assert unsuited(np.zeros((16, 17, 3), np.uint8), 10**6) is not None


def test_the_limits_are_those_of_each_channel(photograph: NDArray[np.uint8]) -> None:
    grey = photograph[:, :, 1:2] // 2
    height, width, _ = grey.shape
    size = png_size(grey)
    assert FLAT < bpp(size, width, height) < 3 * FLAT
    assert unsuited(grey, int(size / LEAST)) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [20, 95])
def test_a_photograph_is_suited(codec: Codec, photograph: NDArray[np.uint8], quality: int, channels: int) -> None:
    photograph = photograph[:, :, :channels]
    assert unsuited(photograph, len(codec.compress(photograph, quality, effort=0))) is None


def test_a_drawing_is_not(codec: Codec) -> None:
    pixels = _drawing()
    assert unsuited(pixels, len(codec.compress(pixels, 75, effort=0))) is not None
