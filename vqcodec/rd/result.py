"""What a sweep says: means, rates three ways, BD-rates, use of the codebooks, checks.

::

    measurements ─┬─ per image ───────────────▶ rows ─▶ per_image.csv
                  └─ mean, or median of times ─▶ curves ─┬─▶ BD-rate and BD-metric ─▶ rd.json
                     code counts ─▶ static entropy ──────┘

``rd.json`` has CompressAI's shape (name, description, results) for vqcodec's own curve, and the same for each anchor.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec.config import LevelConfig
from vqcodec.errors import MissingPackageError
from vqcodec.metrics import METRICS, bpp, decibels
from vqcodec.networks.codebooks import Usage
from vqcodec.rd.anchors import ANCHORS
from vqcodec.rd.curves import BDResult, Point, bd, steps_that_fall
from vqcodec.rd.sweep import OWN, Contents, Image, Measurement

__all__ = ["assemble", "coding_check", "csv_text", "label_of", "usage"]

LIMIT_RELATIVE, LIMIT_BYTES = 0.005, 16  # what a payload may cost beyond its cross-entropy
TINY = 64  # pixels a side

# A BD-rate over less of a metric than this says more about the interpolation than about the codecs.
LEAST_COMMON = {"psnr-rgb": 2.0, "ms-ssim-rgb-db": 2.0, "ssimulacra2": 10.0}

Parts = Mapping[tuple[str, str, int], Measurement]  # by image, codec and index of the setting


def assemble(
    images: Sequence[Image],
    settings: Mapping[str, Sequence[dict[str, Any]]],
    parts: Parts,
    levels: Sequence[LevelConfig],
    overlays: Sequence[dict[str, Any]] = (),
    dataset: str = "",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result of a sweep but for its description and provenance, and its rows, one for each file.

    Args:
        images: those that every codec has coded.
        settings: of each codec; vqcodec's own first.
        parts: a measurement of each image by each codec at each setting.
        levels: of the model.
        overlays: published curves, to be compared with as anchors are, if they are of the same images.
        dataset: what the images are called, to tell that.
    """
    rows = [
        _row(image, codec, index, setting, parts[image.name, codec, index])
        for image in images
        for codec, codec_settings in settings.items()
        for index, setting in enumerate(codec_settings)
    ]
    columns = {
        codec: [[parts[image.name, codec, index] for image in images] for index in range(len(codec_settings))]
        for codec, codec_settings in settings.items()
    }
    own = columns[OWN]
    contents = [[_contents(part) for part in column] for column in own]
    results = {codec: _results(images, column) for codec, column in columns.items()}
    anchors = [
        {
            "name": codec,
            "label": ANCHORS[codec].label,
            "description": ANCHORS[codec].about,
            "settings": list(settings[codec]),
            "results": results[codec],
        }
        for codec in settings
        if codec != OWN
    ]
    falls = steps_that_fall(_points(results[OWN], "psnr-rgb"))
    qualities = [setting["quality"] for setting in settings[OWN]]
    partial = {key for part in own[0] for key, value in part.metrics.items() if value is None}
    comparisons, notes = _compare(results[OWN], [*anchors, *overlays], partial, dataset)
    result = {
        "name": OWN,
        "label": OWN,
        "settings": list(settings[OWN]),
        "results": results[OWN],
        "rates": _rates(images, levels, contents),
        "anchors": anchors,
        "overlays": list(overlays),
        "bd": comparisons,
        "usage": usage(levels, [one for column in contents for one in column]),
        "usage_by_quality": [
            {"quality": quality, "levels": usage(levels, column)}
            for quality, column in zip(qualities, contents, strict=True)
        ],
        "checks": {
            "coding": coding_check(
                [(sum(one.level_bytes), sum(one.cross_entropy)) for column in contents for one in column]
            ),
            "monotone": {"falls": [[qualities[i], qualities[i + 1]] for i in falls], "passed": not falls},
        },
        "images": [
            {"name": image.name, "width": image.width, "height": image.height, "sha256": image.sha256}
            for image in images
        ],
        "notes": [*_size_notes(images, own[0]), *notes],
    }
    return result, rows


def label_of(setting: Mapping[str, Any]) -> str:
    """A setting in a few words: ``quality 20``, or ``ratio 48:1`` of JPEG 2000."""
    if "quality_layers" in setting:
        return f"ratio {setting['quality_layers'][0]:g}:1"
    return f"quality {setting['quality']}"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """``rows`` as comma-separated values with a header line, a setting by its label; what was not measured is empty."""
    buffer = io.StringIO()
    columns = [key for key in rows[0] if key != "setting_label"]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**row, "setting": row["setting_label"]} for row in rows)
    return buffer.getvalue()


def coding_check(files: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """What payloads cost beyond theory, given bytes of payload and bits of cross-entropy of each file.

    A payload can also be shorter than theory, because zero bytes at the end of a bitstream are not stored.
    """
    excess = [(payload - bits / 8, bits / 8) for payload, bits in files]
    total = sum(theory for _, theory in excess)
    return {
        "files": len(files),
        "payload_bytes": sum(payload for payload, _ in files),
        "cross_entropy_bytes": total,
        "total_relative_excess": sum(extra for extra, _ in excess) / max(total, 1.0),
        "largest_relative_excess": max(extra / max(theory, 1.0) for extra, theory in excess),
        "largest_excess_bytes": max(extra for extra, _ in excess),
        "smallest_excess_bytes": min(extra for extra, _ in excess),
        "limit_relative": LIMIT_RELATIVE,
        "limit_bytes": LIMIT_BYTES,
        "passed": all(extra <= LIMIT_RELATIVE * theory + LIMIT_BYTES for extra, theory in excess),
    }


def usage(levels: Sequence[LevelConfig], contents: Sequence[Contents]) -> list[dict[str, Any]]:
    """Use of each level's codebooks over all of ``contents``; perplexity and share are one figure a group."""
    rows: list[dict[str, Any]] = []
    for index, level in enumerate(levels):
        counts = _counts(contents, index)
        used = Usage.of(torch.from_numpy(counts))
        rows.append(
            {
                "stride": level.stride,
                "groups": level.groups,
                "codebook_size": level.codebook_size,
                "codes": int(counts.sum()),
                "dead": int((counts == 0).sum()),
                "share": used.share.tolist(),
                "perplexity": used.perplexity.tolist(),
            }
        )
    return rows


def _counts(contents: Sequence[Contents], level: int) -> NDArray[np.int64]:
    """How often each codeword of a level occurs, ``[G, K]``."""
    counts: NDArray[np.int64] = np.sum([one.counts[level] for one in contents], axis=0, dtype=np.int64)
    return counts


def _contents(part: Measurement) -> Contents:
    assert part.contents is not None
    return part.contents


def _row(image: Image, codec: str, index: int, setting: Mapping[str, Any], part: Measurement) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image": image.name,
        "codec": codec,
        "setting": index,
        "setting_label": label_of(setting),
        "bytes": part.size,
        "bpp": bpp(part.size, image.width, image.height),
    }
    return row | part.metrics | {"encode_seconds": part.encode_seconds, "decode_seconds": part.decode_seconds}


def _results(images: Sequence[Image], columns: Sequence[Sequence[Measurement]]) -> dict[str, list[float]]:
    """The curve of a codec: ``columns`` has one list of measurements a setting."""

    def over_images(
        value: Callable[[Image, Measurement], float | None], summary: Callable[[list[float]], float]
    ) -> list[float]:
        """Empty where no image has a value."""
        found = [
            [one for one in (value(image, part) for image, part in zip(images, column, strict=True)) if one is not None]
            for column in columns
        ]
        return [summary(values) for values in found] if all(found) else []

    def metric(key: str) -> Callable[[Image, Measurement], float | None]:
        return lambda _, part: part.metrics[key]

    results = {"bpp": over_images(lambda image, part: bpp(part.size, image.width, image.height), statistics.fmean)}
    for key in columns[0][0].metrics:
        results[key] = over_images(metric(key), statistics.fmean)
    if results.get("ms-ssim-rgb"):
        # The decibels of the mean, as in published curves, and not the mean of the decibels, which is 0.1 dB more.
        results["ms-ssim-rgb-db"] = [decibels(mean) for mean in results["ms-ssim-rgb"]]
    results["encoding_time"] = over_images(lambda _, part: part.encode_seconds, statistics.median)
    results["decoding_time"] = over_images(lambda _, part: part.decode_seconds, statistics.median)
    return {key: values for key, values in results.items() if values}


def _rates(
    images: Sequence[Image], levels: Sequence[LevelConfig], contents: Sequence[Sequence[Contents]]
) -> dict[str, Any]:
    """Mean bpp of the codes by three models of them; ``contents`` has one list of files a quality.

    ``uniform_bpp`` is Σ log2 K, what a fixed-length code takes. ``static_bpp`` is what an ideal coder takes that knows
    how often each codeword occurs over all the images at this quality, and nothing else; its table is not counted.
    ``level_bpp`` are the bytes that the PixelCNN prior makes of each level.
    """

    def mean(bits: Sequence[float]) -> float:
        return statistics.fmean(b / (image.width * image.height) for b, image in zip(bits, images, strict=True))

    uniform: list[float] = []
    static: list[float] = []
    for column in contents:
        pooled = [_counts(column, index) for index in range(len(levels))]
        costs = [_code_lengths(counts) for counts in pooled]
        own = [[np.asarray(counts) for counts in one.counts] for one in column]
        fixed = [
            sum(float(c.sum()) * math.log2(level.codebook_size) for c, level in zip(counts, levels, strict=True))
            for counts in own
        ]
        uniform.append(mean(fixed))
        static.append(mean([sum(float((c * k).sum()) for c, k in zip(counts, costs, strict=True)) for counts in own]))
    return {
        "uniform_bpp": uniform,
        "static_bpp": static,
        "level_bpp": [
            [mean([8.0 * one.level_bytes[index] for one in column]) for column in contents]
            for index in range(len(levels))
        ],
    }


def _code_lengths(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bits ``[G, K]`` of each codeword under its frequency; 0 for one that never occurs, which costs nothing."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    lengths: NDArray[np.float64] = np.where(counts > 0, -np.log2(np.where(counts > 0, share, 1.0)), 0.0)
    return lengths


def _points(results: Mapping[str, Sequence[float]], key: str) -> list[Point]:
    return list(zip(results["bpp"], results[key], strict=True))


def _compare(
    own: dict[str, Any], others: Sequence[dict[str, Any]], partial: set[str], dataset: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """BD figures of every metric that both curves have, and notes; none where a metric is ``partial``.

    Such a metric's mean leaves images out that are in the mean of bpp.
    """
    found: list[dict[str, Any]] = []
    for other in others:
        for metric in METRICS:
            if metric.key not in own or metric.key not in other["results"] or metric.key in partial:
                continue
            if (theirs := other.get("dataset", "")) and theirs.lower() != dataset.lower():
                figures = BDResult(None, None, None, f"published for {theirs}, not for these images")
                found.append(_comparison(other, metric.key, figures))
                continue
            try:
                figures = bd(
                    _points(other["results"], metric.key), _points(own, metric.key), least=LEAST_COMMON[metric.key]
                )
            except MissingPackageError as error:
                return [], [str(error)]
            found.append(_comparison(other, metric.key, figures))
    return found, []


def _comparison(other: dict[str, Any], key: str, figures: BDResult) -> dict[str, Any]:
    return {
        "anchor": other["name"],
        "label": other["label"],
        "published": "file" in other,
        "metric": key,
        "bd_rate": figures.rate,
        "bd_metric": figures.metric,
        "common": figures.common,
        "note": figures.note,
    }


def _size_notes(images: Sequence[Image], column: Sequence[Measurement]) -> list[str]:
    """What images of odd sizes do to the means; ``column`` has one measurement an image."""
    notes: list[str] = []
    if tiny := [image.name for image in images if min(image.width, image.height) < TINY]:
        notes.append(
            f"{len(tiny)} of {len(images)} images have a side below {TINY} pixels; headers alone are many bits a pixel "
            "there, and weigh as much in the mean of bpp as a photograph"
        )
    for metric in METRICS:
        small = [
            image.name for image, part in zip(images, column, strict=True) if part.metrics.get(metric.key, 0.0) is None
        ]
        if small:
            more = f" and {len(small) - 3} more" if len(small) > 3 else ""
            notes.append(
                f"{metric.label} leaves out images with a side below {metric.smallest} pixels, which are in the mean "
                f"of bpp, and therefore has no BD figures: {', '.join(small[:3])}{more}"
            )
    return notes
