"""A small result with all kinds of content, for the tests of tables, plots and the page."""

from vqcodec.jsonfile import JsonObject

__all__ = ["HOSTILE", "example"]

HOSTILE = "</script><img src=x onerror=alert(1)>.png"
"""The name of the second image."""


def _results(bpp: list[float], gain: float) -> JsonObject:
    count = len(bpp)
    return {
        "bpp": bpp,
        "psnr-rgb": [26 + gain + 3 * i for i in range(count)],
        "ms-ssim-rgb": [0.9 + 0.02 * i for i in range(count)],
        "ms-ssim-rgb-db": [10 + gain + 2 * i for i in range(count)],
        "ssimulacra2": [-5 + gain + 20 * i for i in range(count)],
        "encoding_time": [0.5] * count,
        "decoding_time": [0.4] * count,
    }


def example() -> JsonObject:
    """``rd.json`` of two images, with vqcodec and JPEG at three settings each and one published curve."""
    level = {"stride": 8, "groups": 2, "codebook_size": 16, "codes": 9, "dead": 4, "share": [1, 0.75]}
    usage = [{**level, "perplexity": [10.0, 12.0]}]
    return {
        "name": "vqcodec",
        "label": "vqcodec",
        "description": "rate and distortion over things, mean of 2 images",
        "settings": [{"quality": quality} for quality in (10, 50, 90)],
        "results": _results([0.2, 0.4, 0.8], 2),
        "rates": {
            "uniform_bpp": [2.8] * 3,
            "static_bpp": [0.3, 0.6, 1.1],
            "level_bpp": [[0.05] * 3, [0.14, 0.34, 0.74]],
            "uniform_level_bpp": [[0.3] * 3, [2.5] * 3],
            "static_level_bpp": [[0.1, 0.15, 0.2], [0.2, 0.45, 0.9]],
        },
        "anchors": [
            {
                "name": "jpeg",
                "label": "JPEG",
                "description": "4:2:0",
                "settings": [{"format": "JPEG", "quality": quality} for quality in (5, 20, 60)],
                "results": _results([0.25, 0.5, 1.0], 0),
            }
        ],
        "overlays": [
            {
                "name": "v",
                "label": "VTM",
                "description": "",
                "dataset": "",
                "file": "v.json",
                "results": _results([0.1, 0.3, 0.9], 4),
            }
        ],
        "bd": [
            {
                "anchor": "jpeg",
                "label": "JPEG",
                "published": False,
                "metric": "psnr-rgb",
                "bd_rate": -45.3,
                "bd_metric": 2.1,
                "common": [28.0, 32.0],
                "note": "",
            }
        ],
        "usage": usage,
        "usage_by_quality": [{"quality": quality, "levels": usage} for quality in (10, 50, 90)],
        "checks": {
            "coding": {
                "files": 6,
                "payload_bytes": 1000,
                "cross_entropy_bytes": 999.0,
                "total_relative_excess": 0.001,
                "largest_relative_excess": 0.002,
                "largest_excess_bytes": 1.0,
                "smallest_excess_bytes": 0.0,
                "limit_relative": 0.005,
                "limit_bytes": 16,
                "passed": True,
            },
            "monotone": {"falls": [], "passed": True},
        },
        "images": [{"name": name, "width": 96, "height": 64, "sha256": "ab"} for name in ("a.png", HOSTILE)],
        "skipped": [{"name": "broken.png", "reason": "not an image"}],
        "notes": ["something was left out"],
        "provenance": {
            "date": "2026-01-01",
            "command": "vqcodec rd-curve things -o report",
            "versions": {"vqcodec": "1", "torch": "2"},
            "weights": {"name": "compact", "fingerprint": "01020304", "sha256": "aa", "bytes": 100},
            "machine": {
                "system": "Linux",
                "cpu": "A",
                "cores": 2,
                "cpu_capability": "AVX2",
                "gpu": None,
                "load_average": 0.5,
            },
            "device": "cpu",
            "threads": 1,
            "jobs": 1,
            "metrics": ["psnr", "ms-ssim", "ssimulacra2"],
        },
    }
