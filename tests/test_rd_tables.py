"""The tables of a stored result."""

from typing import Any

import pytest

from vqcodec.rd.result import coding_check
from vqcodec.rd.tables import markdown, summary


@pytest.fixture
def result() -> dict[str, Any]:
    """A small result with round figures."""
    level = {"stride": 8, "groups": 2, "codebook_size": 16, "codes": 100, "dead": 4, "share": [1, 0.75]}
    bd = {"bd_rate": None, "bd_metric": None, "common": None, "published": False, "note": ""}
    return {
        "provenance": {"weights": {"name": "compact", "fingerprint": "01020304"}},
        "images": [{"name": "a.png"}, {"name": "b.png"}],
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
        "bd": [
            {
                **bd,
                "anchor": "jpeg",
                "label": "JPEG",
                "metric": "psnr-rgb",
                "bd_rate": -35.04,
                "bd_metric": 1.6,
                "common": (27.25, 34.0),
            },
            {
                **bd,
                "anchor": "jpeg",
                "label": "JPEG",
                "metric": "ssimulacra2",
                "bd_rate": -10.0,
                "common": (-3.0, 70.5),
            },
            {**bd, "anchor": "vtm", "label": "VTM", "metric": "psnr-rgb", "note": "no", "published": True},
        ],
        "usage": [{**level, "perplexity": [10.0, 12.0]}],
        "checks": {"coding": coding_check([(10_010, 80_000.0)]), "monotone": {"falls": [], "passed": True}},
        "notes": ["something was left out"],
    }


def test_markdown(result: dict[str, Any]) -> None:
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


def test_markdown_names_what_failed(result: dict[str, Any]) -> None:
    result["checks"]["monotone"] = {"falls": [(10, 20), (30, 40)], "passed": False}
    assert "at each step: **no** (not from quality 10 to 20, 30 to 40)" in markdown(result)


def test_without_anchors_there_is_no_bd_table(result: dict[str, Any]) -> None:
    result["bd"] = []
    assert "BD-rate" not in markdown(result)
    assert "BD-rate" not in summary(result)


def test_summary_is_short(result: dict[str, Any]) -> None:
    lines = summary(result).splitlines()
    assert lines[2] == "|      10 | 0.200 |        27.25 |       −3.00 |             0.51 |             0.40 |"
    assert sum("JPEG" in line for line in lines) == 1
    assert lines[-1] == "- something was left out"
    assert len(lines) == 11
