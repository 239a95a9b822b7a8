"""A report's figures as frozen dataclasses, and the JSON and CSV that they are stored as.

::

    analysis ──▶ Result ──to_json──▶ rd.json, index.html        Row ──csv_text──▶ per_image.csv
                   │  ▲                                          └──to_json────▶ index.html
    tables, plot ◀─┘  └──from_json── rd.json

``rd.json`` has CompressAI's shape (name, description, results) for vqcodec's own curve and for each anchor.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vqcodec.jsonfile import JsonObject
from vqcodec.machine import Machine
from vqcodec.rd.anchors import Setting
from vqcodec.rd.provenance import ImageFacts, Provenance, WeightsFacts
from vqcodec.rd.sources import Skipped

__all__ = [
    "Checks",
    "CodingCheck",
    "Columns",
    "Comparison",
    "Curve",
    "LevelUsage",
    "MeasuredCurve",
    "MonotoneCheck",
    "PublishedCurve",
    "QualityUsage",
    "Rates",
    "Result",
    "Row",
    "RunProvenance",
    "csv_text",
    "read_result",
]

Columns = Mapping[str, Sequence[float]]
"""A curve's points by quantity: lists of one length under ``"bpp"`` and the keys of metrics."""


@dataclass(frozen=True)
class Curve:
    """A rate–distortion curve, points at rising rate.

    Attributes:
        name: as in JSON and on the command line.
        label: as in tables and plots.
        description: what was measured, in a few words.
        results: bpp and metrics; of a measured curve also ``encoding_time`` and ``decoding_time``, medians in seconds.
    """

    name: str
    label: str
    description: str
    results: Columns


@dataclass(frozen=True)
class MeasuredCurve(Curve):
    """A codec's curve, measured here; ``settings`` has one entry for each point."""

    settings: Sequence[Setting]

    def to_json(self) -> JsonObject:
        """As ``rd.json`` holds it."""
        return {
            "name": self.name,
            "label": self.label,
            "description": self.description,
            "settings": [dict(setting.options) for setting in self.settings],
            "results": dict(self.results),
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> "MeasuredCurve":
        """The inverse of :meth:`to_json`."""
        settings = [Setting(options) for options in data["settings"]]
        return cls(data["name"], data["label"], data["description"], data["results"], settings)


@dataclass(frozen=True)
class PublishedCurve(Curve):
    """A curve that others published.

    Attributes:
        dataset: the images that it was measured on; empty where the file does not say.
        file: the name of the file that it was read from.
    """

    dataset: str
    file: str

    def to_json(self) -> JsonObject:
        """As ``rd.json`` holds it."""
        fields = {name: value for name, value in vars(self).items() if name != "results"}
        return fields | {"results": dict(self.results)}


@dataclass(frozen=True)
class Rates:
    """Mean bpp of the codes under three models of them, one value for each quality.

    Attributes:
        uniform_bpp: at log2 K bits for each code, which is what a fixed-length code takes.
        static_bpp: at the entropy of how often each codeword occurs over all images at this quality; this is what an
            ideal coder takes that knows these frequencies and nothing else. Its table is not counted.
        level_bpp: bytes of each level's bitstream, which the PixelCNN prior makes; ``[level][quality]``.
        uniform_level_bpp, static_level_bpp: the same of each level alone; empty in a result from before they were kept.
    """

    uniform_bpp: Sequence[float]
    static_bpp: Sequence[float]
    level_bpp: Sequence[Sequence[float]]
    uniform_level_bpp: Sequence[Sequence[float]] = ()
    static_level_bpp: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Comparison:
    """vqcodec against another curve in one metric; see :class:`vqcodec.rd.curves.BDResult`.

    Attributes:
        anchor: the other curve's name.
        label: the other curve's label.
        published: whether the other curve was published and not measured here.
        metric: the key of the metric.
        bd_rate: in %, negative where vqcodec needs fewer bits; None where there is no figure.
        bd_metric: in the metric's unit, positive where vqcodec is better; None where there is no figure.
        common: lowest and highest value of the metric that both curves reach; None where they do not meet.
        note: why there is no ``bd_rate``; empty if there is one.
    """

    anchor: str
    label: str
    published: bool
    metric: str
    bd_rate: float | None
    bd_metric: float | None
    common: tuple[float, float] | None
    note: str


@dataclass(frozen=True)
class LevelUsage:
    """How a level's codebooks are used.

    Attributes:
        stride: pixels between two codes.
        groups: G, each with a codebook of its own.
        codebook_size: K.
        codes: how many were counted.
        dead: codewords of all groups that never occur.
        share: of the codewords that occur, 0..1, for each group.
        perplexity: 2 to the entropy of their frequencies, 1..K, for each group.
    """

    stride: int
    groups: int
    codebook_size: int
    codes: int
    dead: int
    share: Sequence[float]
    perplexity: Sequence[float]


@dataclass(frozen=True)
class QualityUsage:
    """How the codebooks of each level are used at one quality."""

    quality: int
    levels: Sequence[LevelUsage]


@dataclass(frozen=True)
class CodingCheck:
    """What payloads cost beyond the cross-entropy of their codes, and whether each is within both limits together."""

    files: int
    payload_bytes: int
    cross_entropy_bytes: float
    total_relative_excess: float
    largest_relative_excess: float
    largest_excess_bytes: float
    smallest_excess_bytes: float
    limit_relative: float
    limit_bytes: int
    passed: bool


@dataclass(frozen=True)
class MonotoneCheck:
    """Pairs of successive qualities without both more bits and more PSNR at the higher one, and whether none exist."""

    falls: Sequence[Sequence[int]]
    passed: bool


@dataclass(frozen=True)
class Checks:
    """The checks that a report makes on its own figures."""

    coding: CodingCheck
    monotone: MonotoneCheck


@dataclass(frozen=True)
class RunProvenance(Provenance):
    """Facts about a run of ``rd-curve``: also its worker processes and the names of its metrics."""

    jobs: int
    metrics: Sequence[str]

    @classmethod
    def from_json(cls, data: JsonObject) -> "RunProvenance":
        """What ``rd.json`` holds under ``provenance``."""
        machine, weights = Machine(**data["machine"]), WeightsFacts(**data["weights"])
        return cls(**data | {"machine": machine, "weights": weights})

    def to_json(self) -> JsonObject:
        """The inverse of :meth:`from_json`: a model of one file has no encoder side to state."""
        data = asdict(self)
        if not self.weights.encoder:
            del data["weights"]["encoder"]
        return data


@dataclass(frozen=True)
class Result:
    """Everything that ``rd.json`` holds.

    Attributes:
        own: vqcodec's curve.
        rates: of its codes.
        anchors: curves of other codecs, measured on the same images.
        overlays: published curves.
        bd: vqcodec against each anchor and overlay in each metric.
        usage: of each level's codebooks over all images and qualities.
        usage_by_quality: the same at each quality.
        checks: of the figures.
        images: what the means are over.
        notes: sentences for the reader.
        skipped: images that are left out.
        provenance: of the run.
    """

    own: MeasuredCurve
    rates: Rates
    anchors: Sequence[MeasuredCurve]
    overlays: Sequence[PublishedCurve]
    bd: Sequence[Comparison]
    usage: Sequence[LevelUsage]
    usage_by_quality: Sequence[QualityUsage]
    checks: Checks
    images: Sequence[ImageFacts]
    notes: Sequence[str]
    skipped: Sequence[Skipped]
    provenance: RunProvenance

    def to_json(self) -> JsonObject:
        """As ``rd.json`` holds it."""
        return self.own.to_json() | {
            "rates": {name: values for name, values in asdict(self.rates).items() if values},
            "anchors": [curve.to_json() for curve in self.anchors],
            "overlays": [curve.to_json() for curve in self.overlays],
            "bd": list(map(asdict, self.bd)),
            "usage": list(map(asdict, self.usage)),
            "usage_by_quality": list(map(asdict, self.usage_by_quality)),
            "checks": asdict(self.checks),
            "images": list(map(asdict, self.images)),
            "notes": list(self.notes),
            "skipped": list(map(asdict, self.skipped)),
            "provenance": self.provenance.to_json(),
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> "Result":
        """The inverse of :meth:`to_json`. Raises KeyError or TypeError for anything that is not ``rd.json``."""
        checks = data["checks"]
        return cls(
            own=MeasuredCurve.from_json(data),
            rates=Rates(**data["rates"]),
            anchors=[MeasuredCurve.from_json(one) for one in data["anchors"]],
            overlays=[PublishedCurve(**one) for one in data["overlays"]],
            bd=[Comparison(**one) for one in data["bd"]],
            usage=[LevelUsage(**one) for one in data["usage"]],
            usage_by_quality=[
                QualityUsage(one["quality"], [LevelUsage(**level) for level in one["levels"]])
                for one in data["usage_by_quality"]
            ],
            checks=Checks(CodingCheck(**checks["coding"]), MonotoneCheck(**checks["monotone"])),
            images=[ImageFacts(**one) for one in data["images"]],
            notes=data["notes"],
            skipped=[Skipped(**one) for one in data["skipped"]],
            provenance=RunProvenance.from_json(data["provenance"]),
        )


@dataclass(frozen=True)
class Row:
    """One image by one codec at one setting, as ``per_image.csv`` has it.

    Attributes:
        image: name of the image.
        codec: name of the codec.
        setting: index of the setting.
        setting_label: the setting in a few words.
        bytes: of the whole file.
        bpp: 8 × bytes / pixels.
        metrics: value of each metric by its key; None where the image is too small for the metric.
        encode_seconds: of one run.
        decode_seconds: of one run.
    """

    image: str
    codec: str
    setting: int
    setting_label: str
    bytes: int
    bpp: float
    metrics: Mapping[str, float | None]
    encode_seconds: float
    decode_seconds: float

    def to_json(self) -> JsonObject:
        """All fields side by side, those of the metrics among them."""
        before = {name: getattr(self, name) for name in ("image", "codec", "setting", "setting_label", "bytes", "bpp")}
        after = {name: getattr(self, name) for name in ("encode_seconds", "decode_seconds")}
        return before | dict(self.metrics) | after


def csv_text(rows: Sequence[Row]) -> str:
    """``rows`` as comma-separated values with a header line; settings by their labels, None as an empty field.

    There must be at least one row, and all must have the same metrics.
    """
    buffer = io.StringIO()
    columns = [key for key in rows[0].to_json() if key != "setting_label"]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(row.to_json() | {"setting": row.setting_label} for row in rows)
    return buffer.getvalue()


def read_result(path: Path) -> Result:
    """The result in the file ``path``, an ``rd.json``."""
    return Result.from_json(json.loads(path.read_text(encoding="utf-8")))
