"""The figures of a sweep: means, rates under three models, BD-rates, use of the codebooks, checks.

::

    measurements ─┬─ each image ─────────────────────────▶ rows
                  ├─ mean, or median of times ─▶ curves ─┬─▶ BD-rate and BD-metric ─┐
                  └─ counts of codes ─▶ static entropy ──┴─▶ checks ────────────────┴─▶ Result
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec.config import LevelConfig
from vqcodec.errors import MissingPackageError
from vqcodec.metrics import METRICS, bpp
from vqcodec.networks.codebooks import Usage
from vqcodec.rates import static_bits, uniform_bits
from vqcodec.rd.anchors import ANCHORS, OWN, Setting
from vqcodec.rd.curves import BDResult, Point, bd, steps_that_fall
from vqcodec.rd.provenance import ImageFacts
from vqcodec.rd.result import (
    Checks,
    CodingCheck,
    Columns,
    Comparison,
    LevelUsage,
    MeasuredCurve,
    MonotoneCheck,
    PublishedCurve,
    QualityUsage,
    Rates,
    Result,
    Row,
    RunProvenance,
)
from vqcodec.rd.sources import Image, Skipped
from vqcodec.rd.store import Contents, Measurement
from vqcodec.rd.sweep import Parts

__all__ = ["Measured", "analyse", "coding_check", "rows_of", "usage"]

LIMIT_RELATIVE, LIMIT_BYTES = 0.005, 16  # what a payload may cost beyond its cross-entropy
TINY = 64  # pixels a side

# A BD-rate over a shorter range of the metric says more about the interpolation than about the codecs.
LEAST_COMMON = {"dB": 2.0, "": 10.0}  # by the metric's unit


@dataclass(frozen=True)
class Measured:
    """A finished sweep.

    Attributes:
        images: those that every codec has coded.
        settings: of each codec by name; vqcodec's own first.
        parts: a measurement of each image by each codec at each setting.
        levels: of the model, coarsest first.
        dataset: what the images are called together.
    """

    images: Sequence[Image]
    settings: Mapping[str, Sequence[Setting]]
    parts: Parts
    levels: Sequence[LevelConfig]
    dataset: str = ""

    def columns(self, codec: str) -> list[list[Measurement]]:
        """The measurements of ``codec``: for each setting, one of each image."""
        count = len(self.settings[codec])
        return [[self.parts[image.name, codec, index] for image in self.images] for index in range(count)]


def analyse(
    measured: Measured,
    provenance: RunProvenance,
    *,
    overlays: Sequence[PublishedCurve] = (),
    notes: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
) -> Result:
    """The figures of ``measured``.

    ``overlays`` are compared with, as anchors are, unless they say that they are of other images. ``notes`` come
    before those on the images and comparisons; ``skipped`` and ``provenance`` are taken over.
    """
    images, levels = measured.images, measured.levels
    columns = measured.columns(OWN)
    contents = [[_contents(part) for part in column] for column in columns]
    own, *anchors = (_curve(measured, codec) for codec in measured.settings)
    partial = {key for part in columns[0] for key, value in part.metrics.items() if value is None}
    comparisons, missing = _compare(own.results, [*anchors, *overlays], partial, measured.dataset)
    qualities = [setting.quality for setting in own.settings]
    return Result(
        own=own,
        rates=_rates(images, levels, contents),
        anchors=anchors,
        overlays=overlays,
        bd=comparisons,
        usage=usage(levels, [one for column in contents for one in column]),
        usage_by_quality=[
            QualityUsage(quality, usage(levels, column)) for quality, column in zip(qualities, contents, strict=True)
        ],
        checks=Checks(
            coding_check([(sum(one.level_bytes), sum(one.cross_entropy)) for column in contents for one in column]),
            _monotone_check(own.results, qualities),
        ),
        images=[ImageFacts(image.name, image.width, image.height, image.sha256) for image in images],
        notes=[*notes, *_size_notes(images, columns[0]), *missing],
        skipped=skipped,
        provenance=provenance,
    )


def rows_of(measured: Measured) -> list[Row]:
    """A row for each image, codec and setting."""
    return [
        _row(image, codec, index, setting, measured.parts[image.name, codec, index])
        for image in measured.images
        for codec, settings in measured.settings.items()
        for index, setting in enumerate(settings)
    ]


def coding_check(files: Sequence[tuple[int, float]]) -> CodingCheck:
    """The check of ``files``, for each of which bytes of payload and bits of cross-entropy are given.

    A payload can also be shorter than its cross-entropy, because zero bytes at the end of a bitstream are not stored.
    """
    excess = [(payload - bits / 8, bits / 8) for payload, bits in files]
    total = sum(theory for _, theory in excess)
    return CodingCheck(
        files=len(files),
        payload_bytes=sum(payload for payload, _ in files),
        cross_entropy_bytes=total,
        total_relative_excess=sum(extra for extra, _ in excess) / max(total, 1.0),
        largest_relative_excess=max(extra / max(theory, 1.0) for extra, theory in excess),
        largest_excess_bytes=max(extra for extra, _ in excess),
        smallest_excess_bytes=min(extra for extra, _ in excess),
        limit_relative=LIMIT_RELATIVE,
        limit_bytes=LIMIT_BYTES,
        passed=all(extra <= LIMIT_RELATIVE * theory + LIMIT_BYTES for extra, theory in excess),
    )


def usage(levels: Sequence[LevelConfig], contents: Sequence[Contents]) -> list[LevelUsage]:
    """Use of each level's codebooks over all of ``contents``."""
    found: list[LevelUsage] = []
    for index, level in enumerate(levels):
        counts = _counts(contents, index)
        used = Usage.of(torch.from_numpy(counts))
        found.append(
            LevelUsage(
                stride=level.stride,
                groups=level.groups,
                codebook_size=level.codebook_size,
                codes=int(counts.sum()),
                dead=int((counts == 0).sum()),
                share=used.share.tolist(),
                perplexity=used.perplexity.tolist(),
            )
        )
    return found


def _counts(contents: Sequence[Contents], level: int) -> NDArray[np.int64]:
    """How often each codeword of a level occurs, ``[G, K]``."""
    counts: NDArray[np.int64] = np.sum([one.counts[level] for one in contents], axis=0, dtype=np.int64)
    return counts


def _contents(part: Measurement) -> Contents:
    assert part.contents is not None
    return part.contents


def _row(image: Image, codec: str, index: int, setting: Setting, part: Measurement) -> Row:
    return Row(
        image=image.name,
        codec=codec,
        setting=index,
        setting_label=setting.label,
        bytes=part.size,
        bpp=bpp(part.size, image.width, image.height),
        metrics=part.metrics,
        encode_seconds=part.encode_seconds,
        decode_seconds=part.decode_seconds,
    )


def _curve(measured: Measured, codec: str) -> MeasuredCurve:
    results = _results(measured.images, measured.columns(codec))
    settings = measured.settings[codec]
    if codec != OWN:
        return MeasuredCurve(codec, ANCHORS[codec].label, ANCHORS[codec].about, results, settings)
    names = [image.name for image in measured.images]
    over = f"of {names[0]}" if len(names) == 1 else f"over {measured.dataset}, mean of {len(names)} images"
    return MeasuredCurve(OWN, OWN, f"rate and distortion {over}", results, settings)


def _monotone_check(results: Columns, qualities: Sequence[int]) -> MonotoneCheck:
    falls = [[qualities[i], qualities[i + 1]] for i in steps_that_fall(_points(results, "psnr-rgb"))]
    return MonotoneCheck(falls, passed=not falls)


def _results(images: Sequence[Image], columns: Sequence[Sequence[Measurement]]) -> Columns:
    """The points of a curve; ``columns`` has, for each setting, a measurement of each image."""

    def over_images(
        value: Callable[[Image, Measurement], float | None], summary: Callable[[list[float]], float]
    ) -> list[float]:
        """``summary`` at each setting; empty where no image has a value."""
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
    for one in METRICS:
        if one.scale and results.get(one.raw):
            results[one.key] = [one.scale(mean) for mean in results[one.raw]]
    results["encoding_time"] = over_images(lambda _, part: part.encode_seconds, statistics.median)
    results["decoding_time"] = over_images(lambda _, part: part.decode_seconds, statistics.median)
    return {key: values for key, values in results.items() if values}


def _rates(images: Sequence[Image], levels: Sequence[LevelConfig], contents: Sequence[Sequence[Contents]]) -> Rates:
    """The rates of the codes; ``contents`` has, for each quality, the contents of each image's file."""

    def mean(bits: Sequence[float]) -> float:
        return statistics.fmean(b / (image.width * image.height) for b, image in zip(bits, images, strict=True))

    uniform: list[list[float]] = []
    static: list[list[float]] = []
    by_level: list[list[float]] = []
    for index in range(len(levels)):
        pooled = [_counts(column, index) for column in contents]
        own = [[np.asarray(one.counts[index]) for one in column] for column in contents]
        uniform.append([mean([uniform_bits(counts) for counts in files]) for files in own])
        static.append(
            [
                mean([float(static_bits(counts, together).sum()) for counts in files])
                for files, together in zip(own, pooled, strict=True)
            ]
        )
        by_level.append([mean([8.0 * one.level_bytes[index] for one in column]) for column in contents])
    totals = [[sum(level) for level in zip(*rates, strict=True)] for rates in (uniform, static)]
    return Rates(totals[0], totals[1], by_level, uniform, static)


def _points(results: Columns, key: str) -> list[Point]:
    return list(zip(results["bpp"], results[key], strict=True))


def _compare(
    own: Columns, others: Sequence[MeasuredCurve | PublishedCurve], partial: set[str], dataset: str
) -> tuple[list[Comparison], list[str]]:
    """BD figures in every metric that both curves have, and notes.

    A metric in ``partial`` gets none: its mean leaves images out that are in the mean of bpp.
    """
    found: list[Comparison] = []
    for other in others:
        theirs = other.dataset if isinstance(other, PublishedCurve) else ""
        for metric in METRICS:
            if metric.key not in own or metric.key not in other.results or metric.key in partial:
                continue
            if theirs and theirs.lower() != dataset.lower():
                figures = BDResult(None, None, None, f"published for {theirs}, not for these images")
            else:
                least = LEAST_COMMON[metric.unit]
                try:
                    figures = bd(_points(other.results, metric.key), _points(own, metric.key), least=least)
                except MissingPackageError as error:
                    return [], [str(error)]
            found.append(
                Comparison(
                    anchor=other.name,
                    label=other.label,
                    published=isinstance(other, PublishedCurve),
                    metric=metric.key,
                    bd_rate=figures.rate,
                    bd_metric=figures.metric,
                    common=figures.common,
                    note=figures.note,
                )
            )
    return found, []


def _size_notes(images: Sequence[Image], column: Sequence[Measurement]) -> list[str]:
    """Notes on means that small images distort; ``column`` has one measurement of each image."""
    notes: list[str] = []
    if tiny := [image.name for image in images if min(image.width, image.height) < TINY]:
        notes.append(
            f"{len(tiny)} of {len(images)} images have a side below {TINY} pixels; their headers alone take many bits "
            "per pixel, and each of them weighs as much in the mean of bpp as a photograph"
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
