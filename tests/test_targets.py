"""Sizes and distortions that are asked for: met closely, on the allowed side, with few encodings."""

import math
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from vqcodec import metrics
from vqcodec.codec import Codec
from vqcodec.errors import TargetError
from vqcodec.files.container import parse
from vqcodec.targets import CHOICES, PROBES, REFINEMENTS, Target, compress_to

Pixels = NDArray[np.uint8]


@pytest.mark.parametrize("kind", ["size", "bpp"])
@pytest.mark.parametrize("bpp", [0.5, 0.8])
def test_sizes_are_met_from_below(codec: Codec, photograph: Pixels, kind: str, bpp: float) -> None:
    pixels = photograph.shape[0] * photograph.shape[1]
    target = Target(kind, bpp if kind == "bpp" else bpp * pixels / 8)
    found = compress_to(codec, photograph, target, effort=1)
    assert 0.96 * bpp <= 8 * len(found.data) / pixels <= bpp
    assert found.encodings[0] <= PROBES
    assert found.encodings[1] <= CHOICES + REFINEMENTS


@pytest.mark.parametrize("decibels", [29.0, 32.5])
def test_psnrs_are_met_from_above(codec: Codec, photograph: Pixels, decibels: float) -> None:
    found = compress_to(codec, photograph, Target("psnr", decibels), effort=1)
    assert 0 <= metrics.psnr(photograph, codec.decompress(found.data)) - decibels <= 0.11
    assert found.value == metrics.psnr(photograph, codec.decompress(found.data))


def test_ssimulacra2_is_met_from_above(codec: Codec, photograph: Pixels) -> None:
    pytest.importorskip("ssimulacra2")
    found = compress_to(codec, photograph, Target("ssimulacra2", 50), effort=1)
    assert 0 <= metrics.ssimulacra2(photograph, codec.decompress(found.data)) - 50 <= 3


def test_effort_0_chooses_the_quality(codec: Codec, photograph: Pixels) -> None:
    sizes = {quality: len(codec.compress(photograph, quality, effort=0)) for quality in (60, 61)}
    found = compress_to(codec, photograph, Target("size", sizes[61] - 1), effort=0)
    assert found.data == codec.compress(photograph, 60, effort=0)
    assert (found.value, found.note) == (sizes[60], None)
    assert found.encodings[1] == 0
    found = compress_to(codec, photograph, Target("size", sizes[61]), effort=0)
    assert parse(found.data).quality == 61


def test_few_encodings_enclose_a_target_at_effort_0(codec: Codec, photograph: Pixels) -> None:
    found = compress_to(codec, photograph, Target("psnr", 31.0), effort=0)
    assert found.encodings[0] <= PROBES
    lower = codec.compress(photograph, parse(found.data).quality - 1, effort=0)
    decibels = [metrics.psnr(photograph, codec.decompress(data)) for data in (lower, found.data)]
    assert decibels[0] < 31.0 <= decibels[1]


@pytest.mark.parametrize("effort", [0, 1])
def test_an_exact_picture_has_a_psnr(
    codec: Codec, photograph: Pixels, effort: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "psnr", lambda x, x_hat: math.inf)
    found = compress_to(codec, photograph[:32, :48], Target("psnr", 40), effort=effort)
    assert parse(found.data).quality == 1


def test_targets_beyond_all_qualities(codec: Codec, photograph: Pixels) -> None:
    pixels = photograph[:32, :48]
    largest = compress_to(codec, pixels, Target("size", 10**6), effort=1)
    assert parse(largest.data).quality == 100
    assert largest.value == len(largest.data)
    assert largest.note == f"quality 100 takes {len(largest.data):,} bytes, fewer than the 1,000,000 bytes allowed"
    smallest = compress_to(codec, pixels, Target("psnr", 5), effort=1)
    assert parse(smallest.data).quality == 1
    least = len(codec.compress(pixels, 1, effort=0))
    with pytest.raises(TargetError, match=rf"^10 bytes are too few: quality 1 takes {least} bytes$"):
        compress_to(codec, pixels, Target("size", 10), effort=0)
    with pytest.raises(TargetError, match=r"^10 bytes are too few: quality 1 takes ") as error:
        compress_to(codec, pixels, Target("size", 10), effort=1)
    assert int(str(error.value).split()[-2]) <= least
    with pytest.raises(TargetError, match=r"^0.001 bits per pixel are too few: quality 1 takes "):
        compress_to(codec, pixels, Target("bpp", 0.001), effort=0)
    with pytest.raises(TargetError, match=re.escape("a psnr of 70 is out of reach: quality 100 has ")):
        compress_to(codec, pixels, Target("psnr", 70), effort=0)


@pytest.mark.parametrize("value", [70, 1e300])
def test_the_message_says_what_is_reached(tiny_codec: Codec, photograph: Pixels, value: float) -> None:
    pixels = photograph[:32, :48]
    psnr = metrics.psnr(pixels, tiny_codec.decompress(tiny_codec.compress(pixels, 100, effort=0)))
    with pytest.raises(TargetError, match=f"quality 100 has {psnr:.2f} dB$"):
        compress_to(tiny_codec, pixels, Target("psnr", value), effort=0)


def test_a_picture_too_small_for_ssimulacra2(tiny_codec: Codec, photograph: Pixels) -> None:
    with pytest.raises(TargetError, match=r"^7×40 pixels are too few for SSIMULACRA2: the least side is 8$"):
        compress_to(tiny_codec, photograph[:40, :7], Target("ssimulacra2", 50), effort=0)


def test_the_limit_of_pixels_is_that_of_decoding_too(
    tiny_codec: Codec, photograph: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []
    decompress = tiny_codec.decompress

    def watched(data: bytes, *, max_pixels: int | None = None) -> Pixels:
        limits.append(max_pixels)
        return decompress(data, max_pixels=max_pixels)

    monkeypatch.setattr(tiny_codec, "decompress", watched)
    compress_to(tiny_codec, photograph[:32, :48, 0], Target("psnr", 5), effort=0, max_pixels=2_000)
    assert set(limits) == {2_000}


@pytest.mark.parametrize(
    ("kind", "value"), [("bytes", 1), ("size", 0), ("psnr", -1), ("psnr", math.nan), ("size", math.inf)]
)
def test_targets_that_make_no_sense(kind: str, value: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        Target(kind, value)


def test_a_size_counts_opacity_and_metadata(tiny_codec: Codec, photograph: Pixels) -> None:
    pixels, chunks = photograph[:64, :96], ((b"exif", bytes(700)),)
    sizes = [len(tiny_codec.compress(pixels, quality, effort=0)) for quality in (1, 100)]
    limit = 700 + (sizes[0] + sizes[1]) // 2
    found = compress_to(tiny_codec, pixels, Target("size", limit), effort=0, chunks=chunks)
    assert parse(found.data).chunks == chunks
    assert len(found.data) <= limit
    with pytest.raises(TargetError, match="are too few"):
        compress_to(tiny_codec, pixels, Target("size", 700), effort=0, chunks=chunks)
