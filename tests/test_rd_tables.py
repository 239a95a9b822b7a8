"""The tables of a stored result."""

from dataclasses import replace

import pytest

from tests.rd_example import example
from vqcodec.rd.analysis import coding_check
from vqcodec.rd.result import Comparison, MonotoneCheck, Result
from vqcodec.rd.tables import headline, markdown, summary


@pytest.fixture
def result() -> Result:
    """A small result with round figures."""
    level = {"stride": 8, "groups": 2, "codebook_size": 16, "codes": 100, "dead": 4, "share": [1, 0.75]}
    figures = {
        "images": [{"name": name, "width": 96, "height": 64, "sha256": "ab"} for name in ("a.png", "b.png")],
        "settings": [{"quality": 10}, {"quality": 90}],
        "results": {
            "bpp": [0.2, 0.8],
            "psnr-rgb": [27.254, 34.0],
            "ssimulacra2": [-3.0, 70.5],
            "encoding_time": [0.51, 0.6],
            "decoding_time": [0.4, 0.45],
        },
        "rates": {
            "uniform_bpp": [2.84375, 2.84375],
            "static_bpp": [0.3, 1.0],
            "level_bpp": [[0.05, 0.1], [0.148, 0.696]],
        },
        "usage": [{**level, "perplexity": [10.0, 12.0]}],
        "notes": ["something was left out"],
    }
    result = Result.from_json(example() | figures)
    comparisons = [
        Comparison("jpeg", "JPEG", False, "psnr-rgb", -35.04, 1.6, (27.25, 34.0), ""),
        Comparison("jpeg", "JPEG", False, "ssimulacra2", -10.0, None, (-3.0, 70.5), ""),
        Comparison("vtm", "VTM", True, "psnr-rgb", None, None, None, "no"),
    ]
    checks = replace(result.checks, coding=coding_check([(10_010, 80_000.0)]))
    return replace(result, bd=comparisons, checks=checks)


def test_markdown(result: Result) -> None:
    lines = markdown(result).splitlines()
    assert lines[0].startswith("2 images, mean of each; weights compact 01020304.")
    assert lines[1:] == [
        "",
        "| quality |   bpp | PSNR-RGB, dB | SSIMULACRA2 | uniform | static | level 0 | level 1 | framing |",
        "| ------: | ----: | -----------: | ----------: | ------: | -----: | ------: | ------: | ------: |",
        "|      10 | 0.200 |        27.25 |       −3.00 |    2.84 |  0.300 |  25.0 % |  74.0 % |   1.0 % |",
        "|      90 | 0.800 |        34.00 |       70.50 |    2.84 |  1.000 |  12.5 % |  87.0 % |   0.5 % |",
        "",
        "|         against | BD-rate, PSNR-RGB | BD-rate, SSIMULACRA2 |  BD-PSNR |     common PSNR |",
        "| --------------: | ----------------: | -------------------: | -------: | --------------: |",
        "|            JPEG |           −35.0 % |              −10.0 % | +1.60 dB | 27.2 to 34.0 dB |",
        "| VTM (published) |                 – |                    – |        – |              no |",
        "",
        "| level | stride | codebooks | codewords in use |       perplexity |",
        "| ----: | -----: | --------: | ---------------: | ---------------: |",
        "|     0 |      8 |    2 × 16 |           87.5 % | 11.0 (10.0–12.0) |",
        "",
        "- Payload beyond cross-entropy: +0.10 % over 1 files, at most +0.10 % and 10.0 bytes in one; "
        "each within 0.5 % + 16 bytes: yes",
        "- On the mean, more quality gives more bits and more PSNR at each step: yes",
        "- something was left out",
    ]


def test_markdown_names_what_failed(result: Result) -> None:
    checks = replace(result.checks, monotone=MonotoneCheck([(10, 20), (30, 40)], passed=False))
    failed = markdown(replace(result, checks=checks))
    assert "at each step: **no** (not from quality 10 to 20, 30 to 40)" in failed


def test_without_anchors_there_is_no_bd_table(result: Result) -> None:
    result = replace(result, bd=[])
    assert "BD-rate" not in markdown(result)
    assert "BD-rate" not in summary(result)


def test_summary_is_short(result: Result) -> None:
    lines = summary(result).splitlines()
    assert lines[2] == "|      10 | 0.200 |        27.25 |       −3.00 |             0.51 |             0.40 |"
    assert sum("JPEG" in line for line in lines) == 1
    assert lines[-1] == "- something was left out"
    assert len(lines) == 11


def test_headline(result: Result) -> None:
    assert headline(result, ["jpeg", "webp"]) == (
        "At equal PSNR-RGB, vqcodec needs 35 % fewer bits than JPEG; at equal SSIMULACRA2, 10 % fewer "
        "(BD-rates of the means over 2 images)."
    )
    more = [
        Comparison("webp", "WebP", False, "psnr-rgb", -0.2, None, None, ""),
        Comparison("avif", "AVIF", False, "psnr-rgb", 4.6, None, None, ""),
        Comparison("avif", "AVIF", False, "ssimulacra2", 34.0, None, None, ""),
    ]
    result = replace(result, bd=[*result.bd, *more])
    assert headline(result, ["webp", "jpeg", "avif"]) == (
        "At equal PSNR-RGB, vqcodec needs 0 % fewer bits than WebP, 35 % fewer than JPEG and 5 % more than AVIF; "
        "at equal SSIMULACRA2, 10 % fewer bits than JPEG and 34 % more than AVIF "
        "(BD-rates of the means over 2 images)."
    )
    with pytest.raises(ValueError, match="no BD-rate against any of vtm"):
        headline(result, ["vtm"])  # published, and without a figure


def test_each_level_three_ways(result: Result) -> None:
    rates = replace(
        result.rates, uniform_level_bpp=[[0.34375] * 2, [2.5] * 2], static_level_bpp=[[0.1, 0.2], [0.2, 0.8]]
    )
    found = [line.split("|")[1:-1] for line in markdown(replace(result, rates=rates)).splitlines()]
    heads = [f"level {level} {kind}" for level in (0, 1) for kind in ("uniform", "static", "real")]
    place = next(i for i, cells in enumerate(found) if [cell.strip() for cell in cells] == ["quality", *heads])
    assert " ".join(cell.strip() for cell in found[place + 2]) == "10 0.3438 0.1000 0.0500 2.5000 0.2000 0.1480"
    assert " ".join(cell.strip() for cell in found[place + 3]) == "90 0.3438 0.2000 0.1000 2.5000 0.8000 0.6960"
    assert "level 0 static" not in markdown(result)
