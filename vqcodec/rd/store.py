"""What was measured on each compressed file, and the file of JSON lines that keeps it.

::

    Task ──▶ compressed file ──▶ Measurement ──keep──▶ measurements.jsonl ──holds, get──▶ the next run
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vqcodec.jsonfile import JsonObject
from vqcodec.metrics import METRICS, Metric
from vqcodec.rd.anchors import OWN, Setting
from vqcodec.rd.sources import Image

__all__ = ["Contents", "Measurement", "Store", "Task"]


@dataclass(frozen=True)
class Contents:
    """The codes of a ``.vq`` file, counted.

    Attributes:
        level_bytes: bytes of each level's bitstream, coarsest first.
        cross_entropy: bits of each level under the prior's integer frequencies.
        counts: how often each codeword occurs, ``[G_l][K_l]`` for each level l.
    """

    level_bytes: list[int]
    cross_entropy: list[float]
    counts: list[list[list[int]]]


@dataclass(frozen=True)
class Measurement:
    """One image by one codec at one setting.

    Attributes:
        file: the compressed file.
        size: its bytes.
        metrics: the value of each metric by its key; None where the image is too small for the metric.
        encode_seconds: of one run, with the model loaded.
        decode_seconds: the same for decoding.
        threads: that the process computed with.
        contents: of a ``.vq`` file; None for other codecs.
    """

    file: Path
    size: int
    metrics: dict[str, float | None]
    encode_seconds: float
    decode_seconds: float
    threads: int
    contents: Contents | None = None


@dataclass(frozen=True)
class Task:
    """One image to code by one codec at one setting.

    Attributes:
        image: what to code.
        codec: :data:`vqcodec.rd.anchors.OWN` or the name of an anchor.
        setting: of the codec.
        metrics: names as in :data:`vqcodec.metrics.METRICS`.
        file: where the compressed file goes.
        key: a digest of everything that the file and its figures depend on.
    """

    image: Image
    codec: str
    setting: Setting
    metrics: Sequence[str]
    file: Path
    key: str

    @property
    def chosen(self) -> list[Metric]:
        """The metrics, in the order of tables."""
        return [metric for metric in METRICS if metric.name in self.metrics]

    @property
    def metric_keys(self) -> list[str]:
        """The keys of all values that the metrics have."""
        return [key for metric in self.chosen for key in metric.keys]


_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


class Store:
    """Measurements in a file of JSON lines: a kill can only cut the last line short, never spoil another."""

    def __init__(self, parts: Path) -> None:
        """Read ``parts/measurements.jsonl``, if it is there; lines that are no measurements are ignored."""
        self._path = parts / "measurements.jsonl"
        self._done: dict[str, tuple[str, Measurement]] = {}  # by key: digest of the file, and what was measured
        parts.mkdir(parents=True, exist_ok=True)
        data = self._path.read_bytes() if self._path.exists() else b""
        for line in data.splitlines():
            with contextlib.suppress(*_MALFORMED):
                entry = json.loads(line)
                self._done[entry["key"]] = entry["digest"], _measurement(entry)
        self._torn = bool(data) and not data.endswith(b"\n")

    def __enter__(self) -> "Store":
        self._file = open(self._path, "a", encoding="utf-8")
        if self._torn:
            self._file.write("\n")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def holds(self, task: Task) -> bool:
        """Whether the task's file is there and whole, and every metric of the task was measured on it."""
        digest, part = self._done.get(task.key, ("", None))
        if part is None or not part.metrics.keys() >= set(task.metric_keys):
            return False
        if (part.contents is None) != (task.codec != OWN):
            return False
        return task.file.is_file() and _digest(task.file) == digest

    def keep(self, task: Task, part: Measurement) -> None:
        """Store ``part`` on disk before returning; metrics that an earlier run measured stay."""
        _, before = self._done.get(task.key, ("", None))
        known = {} if before is None else before.metrics
        part = replace(part, metrics=known | part.metrics)
        digest = _digest(part.file)
        entry: JsonObject = {"key": task.key, "digest": digest, "image": task.image.name, "codec": task.codec}
        entry["setting"] = dict(task.setting.options)
        entry |= {name: value for name, value in asdict(part).items() if name != "file"}
        entry["metrics"] = {name: "inf" if value == math.inf else value for name, value in part.metrics.items()}
        self._done[task.key] = digest, part
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def get(self, task: Task) -> Measurement:
        """The measurement of ``task``, with the metrics that it asks for, in their order."""
        _, part = self._done[task.key]
        return replace(part, file=task.file, metrics={key: part.metrics[key] for key in task.metric_keys})


def _measurement(entry: JsonObject) -> Measurement:
    """The measurement that a line of the store holds; raises one of ``_MALFORMED`` for any other line."""
    metrics = {key: None if value is None else float(value) for key, value in entry["metrics"].items()}
    times = [float(entry[name]) for name in ("encode_seconds", "decode_seconds")]
    numbers = [*times, *(value for value in metrics.values() if value not in (None, math.inf))]
    if not all(math.isfinite(number) for number in numbers) or metrics.get("psnr-rgb") is None:
        raise ValueError("no measurement")
    contents = None if entry["contents"] is None else Contents(**entry["contents"])
    if contents is not None:
        for counts in contents.counts:
            np.asarray(counts, np.int64).reshape(len(counts), -1)
        if not len(contents.counts) == len(contents.level_bytes) == len(contents.cross_entropy):
            raise ValueError("no measurement")
    threads = int(entry["threads"])
    return Measurement(Path(), int(entry["size"]), metrics, times[0], times[1], threads, contents)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
