"""The figures of a sweep, on measurements from which they can be worked out by hand."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.rd_example import example
from vqcodec.config import LevelConfig
from vqcodec.rd.analysis import Measured, analyse, coding_check, rows_of, usage
from vqcodec.rd.anchors import ANCHORS, OWN, Setting
from vqcodec.rd.result import MonotoneCheck, PublishedCurve, Result, RunProvenance
from vqcodec.rd.sources import Image
from vqcodec.rd.store import Contents, Measurement

LEVELS = (
    LevelConfig(stride=16, groups=1, codebook_size=4, stages=1),
    LevelConfig(stride=8, groups=2, codebook_size=8, stages=2),
)
IMAGES = [Image("a.png", 32, 16, "aa", Path("a.png")), Image("b.png", 16, 16, "bb", Path("b.png"))]
SETTINGS = {OWN: [Setting({"quality": q}) for q in (10, 50, 90, 100)], "jpeg": ANCHORS["jpeg"].settings[:4]}
PROVENANCE = RunProvenance.from_json(example()["provenance"])
PUBLISHED = PublishedCurve(
    "p", "P", "", {"bpp": [0.75, 1.5, 2.25, 3.0], "psnr-rgb": [26.5, 30.5, 34.5, 38.5]}, dataset="", file="p.json"
)

Parts = dict[tuple[str, str, int], Measurement]


def _measured(parts: Parts, dataset: str = "") -> Measured:
    return Measured(IMAGES, SETTINGS, parts, LEVELS, dataset)


def _analysed(parts: Parts) -> Result:
    return analyse(_measured(parts), PROVENANCE)


def _contents(image: Image, quality: int) -> Contents:
    """Level 0: codeword 0 in image a, 1 in b. Level 1: group 0 always codeword 3, group 1 as often 0 as 7."""
    coarse, fine = image.width * image.height // 256, image.width * image.height // 64
    first = [coarse, 0, 0, 0] if image.name == "a.png" else [0, coarse, 0, 0]
    second = [[0, 0, 0, fine, 0, 0, 0, 0], [fine // 2, 0, 0, 0, 0, 0, 0, fine // 2]]
    return Contents([10 + quality, 20], [8.0 * (10 + quality), 150.0], [[first], second])


@pytest.fixture
def parts() -> Parts:
    found: Parts = {}
    for i, image in enumerate(IMAGES):
        for k, setting in enumerate(SETTINGS[OWN]):
            values: dict[str, float | None] = {
                "psnr-rgb": 26.0 + 4 * k + i,
                "ms-ssim-rgb": None,
                "ms-ssim-rgb-db": None,
            }
            quality = setting.quality
            found[image.name, OWN, k] = Measurement(
                Path("x"), 64 * (k + 1), values, 0.5 + i, 0.25, 1, _contents(image, quality)
            )
            found[image.name, "jpeg", k] = Measurement(Path("y"), 128 * (k + 1), values, 0.1, 0.1, 1)
    return found


def test_means_are_of_per_image_values(parts: Parts) -> None:
    result, rows = _analysed(parts), rows_of(_measured(parts))
    # 64 bytes are 1 bpp of 32 x 16 pixels and 2 bpp of 16 x 16.
    assert result.own.results["bpp"] == [1.5, 3.0, 4.5, 6.0]
    assert result.own.results["psnr-rgb"] == [26.5, 30.5, 34.5, 38.5]
    assert result.own.results["encoding_time"] == [1.0] * 4  # the median of 0.5 and 1.5
    assert "ms-ssim-rgb-db" not in result.own.results  # no image has one
    (jpeg,) = result.anchors
    assert jpeg.results["bpp"] == [3.0, 6.0, 9.0, 12.0]
    assert jpeg.settings[0].quality == 5
    assert len(rows) == 2 * 2 * 4
    assert rows[0].to_json() == {
        "image": "a.png",
        "codec": "vqcodec",
        "setting": 0,
        "setting_label": "quality 10",
        "bytes": 64,
        "bpp": 1.0,
        "psnr-rgb": 26.0,
        "ms-ssim-rgb": None,
        "ms-ssim-rgb-db": None,
        "encode_seconds": 0.5,
        "decode_seconds": 0.25,
    }


def test_metrics_that_an_image_is_too_small_for_are_noted(parts: Parts) -> None:
    values = {"psnr-rgb": 30.0, "ms-ssim-rgb": 0.9, "ms-ssim-rgb-db": 10.0}
    for place, part in parts.items():
        if place[0] == "b.png":
            part.metrics.update(values)
    result = _analysed(parts)
    tiny, note = result.notes
    assert tiny.startswith("2 of 2 images have a side below 64 pixels")
    assert note.startswith("MS-SSIM leaves out images with a side below 161 pixels")
    assert note.endswith(": a.png")
    assert {bd.metric for bd in result.bd} == {"psnr-rgb"}
    assert result.own.results["ms-ssim-rgb-db"] == pytest.approx([10.0] * 4)  # of image b alone


def test_rates_three_ways(parts: Parts) -> None:
    result = _analysed(parts)
    rates = result.rates
    # A position of level 0 is 256 pixels at 2 bits; one of level 1 is 64 pixels at 2 groups of 3 bits.
    assert rates.uniform_bpp == pytest.approx([2 / 256 + 6 / 64] * 4)
    # Level 0 has codeword 0 for 2 of 3 positions: those of image a. Level 1 takes one bit a position.
    a, b = math.log2(3 / 2) / 256, math.log2(3) / 256
    assert rates.static_bpp == pytest.approx([(a + b) / 2 + 1 / 64] * 4)
    assert rates.level_bpp[0] == pytest.approx([(8 * n / 512 + 8 * n / 256) / 2 for n in (20, 60, 100, 110)])
    assert rates.level_bpp[1] == pytest.approx([(160 / 512 + 160 / 256) / 2] * 4)
    for found, expected in (
        (rates.uniform_level_bpp, (2 / 256, 6 / 64)),
        (rates.static_level_bpp, ((a + b) / 2, 1 / 64)),
    ):
        for level, rate in zip(found, expected, strict=True):
            assert level == pytest.approx([rate] * 4)


def test_comparisons(parts: Parts) -> None:
    result = analyse(_measured(parts), PROVENANCE, overlays=[PUBLISHED])
    against = {bd.anchor: bd for bd in result.bd}
    assert against.keys() == {"jpeg", "p"}
    assert against["jpeg"].bd_rate == pytest.approx(-50)
    assert against["jpeg"].common == (26.5, 38.5)
    assert against["p"].bd_rate == pytest.approx(100)
    assert result.overlays == [PUBLISHED]


def test_published_curves_of_other_images_are_drawn_and_not_compared(
    parts: Parts,
) -> None:
    published = replace(PUBLISHED, dataset="kodak")
    for dataset, rate, note in (("Kodak", 100, ""), ("holiday", None, "published for kodak, not for these images")):
        result = analyse(_measured(parts, dataset), PROVENANCE, overlays=[published])
        (against,) = (bd for bd in result.bd if bd.anchor == "p")
        assert against.bd_rate == (None if rate is None else pytest.approx(rate))
        assert against.note == note


def test_ms_ssim_is_the_decibels_of_the_mean(parts: Parts) -> None:
    for place, part in parts.items():
        similarity, decibels = (0.9, 10.0) if place[0] == "a.png" else (0.99, 20.0)
        part.metrics.update({"ms-ssim-rgb": similarity, "ms-ssim-rgb-db": decibels})
    result, rows = _analysed(parts), rows_of(_measured(parts))
    assert result.own.results["ms-ssim-rgb"] == pytest.approx([0.945] * 4)
    assert result.own.results["ms-ssim-rgb-db"] == pytest.approx([-10 * math.log10(0.055)] * 4)  # 12.6 and not 15
    assert rows[0].metrics["ms-ssim-rgb-db"] == 10.0


def test_distances_are_compared_by_the_decibels_of_the_mean(parts: Parts) -> None:
    """At half the bytes, vqcodec has the LPIPS of JPEG: the lower distance of the higher rate counts as better."""
    for (name, _, k), part in parts.items():
        lpips = (0.4, 0.2, 0.1, 0.05)[k] * (1 if name == "a.png" else 3)
        part.metrics.update({"lpips": lpips, "lpips-db": -10 * math.log10(lpips)})
    result = _analysed(parts)
    assert result.own.results["lpips"] == pytest.approx([0.8, 0.4, 0.2, 0.1])
    assert result.own.results["lpips-db"] == pytest.approx([0.97, 3.98, 6.99, 10], abs=0.01)
    (bd,) = (bd for bd in result.bd if bd.metric == "lpips-db")
    assert bd.bd_rate == pytest.approx(-50)
    assert bd.bd_metric is not None
    assert bd.bd_metric > 0
    assert bd.common == pytest.approx((0.97, 10), abs=0.01)


def test_without_the_package_there_is_a_note_instead(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    result = _analysed(parts)
    assert result.bd == []
    assert result.notes[-1] == 'BD-rates need the package bjontegaard: pip install ".[bench]" in a checkout'


def test_a_curve_that_falls_is_told(parts: Parts) -> None:
    for image in IMAGES:
        parts[image.name, OWN, 2].metrics["psnr-rgb"] = 20.0
    result = _analysed(parts)
    assert result.checks.monotone == MonotoneCheck([[50, 90]], passed=False)


def test_coding_check() -> None:
    # 10,000 bytes in theory may take 66 more, 100 may take 16.5 more.
    check = coding_check([(10_066, 80_000.0), (116, 800.0)])
    assert check.passed
    assert check.largest_excess_bytes == 66
    assert check.largest_relative_excess == pytest.approx(0.16)
    assert check.total_relative_excess == pytest.approx(82 / 10_100)
    assert not coding_check([(10_067, 80_000.0), (116, 800.0)]).passed
    assert not coding_check([(10_066, 80_000.0), (117, 800.0)]).passed


def test_coding_check_of_a_payload_shorter_than_theory() -> None:
    check = coding_check([(0, 800.0), (0, 0.0)])  # a stream of zero bytes is not stored at all
    assert check.passed
    assert check.smallest_excess_bytes == -100


def test_usage_is_over_all_files() -> None:
    levels = (LevelConfig(stride=16, groups=2, codebook_size=8, stages=1), LevelConfig(stride=8))
    one, two = ([np.zeros((level.groups, level.codebook_size), np.int64) for level in levels] for _ in range(2))
    one[1][:, 0], two[1][:, 5] = 7, 7
    one[0][0, :] = 1
    found = usage(levels, [Contents([], [], [counts.tolist() for counts in file]) for file in (one, two)])
    groups, size = levels[1].groups, levels[1].codebook_size
    assert found[1].perplexity == pytest.approx([2] * groups)  # two codewords, equally often
    assert found[1].share == pytest.approx([2 / size] * groups)
    assert (found[1].dead, found[1].codes) == ((size - 2) * groups, 14 * groups)
    assert found[0].perplexity[0] == pytest.approx(8)
    assert (found[0].share[0], found[0].share[1]) == (1, 0)
