"""The sweep: every codec at every setting over every image, each result kept as soon as it is there.

::

    images × codecs × settings ──▶ tasks ──▶ worker processes ──▶ measurements
                                     ▲                                │ one line each, at once
                                     └── not measured yet ── REPORT/parts/measurements.jsonl
                                                             REPORT/parts/<codec>/… the compressed files

A task compresses one image to a real file, reads the file back and measures the pixels that come out of it. What it
found is stored under a digest of all that it depends on, so that a run that was killed goes on where it was, and one
with more images, settings or metrics measures only those.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import features
from tqdm import tqdm

from vqcodec import __version__
from vqcodec.codec import Codec
from vqcodec.errors import ImageError, LimitError, ReportError, VqcodecError, printable
from vqcodec.exact.prior import Codes
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import Container
from vqcodec.files.images import image_files, read_image
from vqcodec.metrics import METRICS, Metric
from vqcodec.rd.anchors import ANCHORS
from vqcodec.rd.provenance import cores, package_version
from vqcodec.workers import at_work

__all__ = ["OWN", "Contents", "Image", "Measurement", "Plan", "gather", "sweep"]

OWN = "vqcodec"  # the name of our own codec among the codecs
PARTS = "parts"  # the folder in a report that holds what was measured so far


@dataclass(frozen=True)
class Image:
    """An image of the sweep, known to be readable."""

    name: str
    path: Path
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What a ``.vq`` file holds, besides the picture.

    Attributes:
        level_bytes: of each level's bitstream, coarsest first.
        cross_entropy: bits of each level under the prior's integer frequencies.
        counts: how often each codeword occurs, ``[G_l][K_l]`` a level.
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
        threads: that the process computed with, for the times.
        metrics: value of each metric by its key; None where the image is too small for it.
        encode_seconds, decode_seconds: with the model loaded, one run each.
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
class Plan:
    """What to measure, and with what.

    Attributes:
        images: at least one.
        settings: those of each codec by name, from the smallest file to the largest.
        metrics: names as in :data:`vqcodec.metrics.METRICS`.
        weights: the model's file, and ``fingerprint`` its identity.
        device: where vqcodec computes, ``"cpu"`` or ``"cuda"``.
        threads: that a worker may compute with.
    """

    images: Sequence[Image]
    settings: Mapping[str, Sequence[dict[str, Any]]]
    metrics: Sequence[str]
    weights: Path
    fingerprint: str
    device: str
    threads: int


@dataclass(frozen=True)
class _Task:
    image: Image
    codec: str
    setting: dict[str, Any]
    metrics: Sequence[str]
    file: Path
    key: str


def gather(sources: Sequence[Path], *, beside: Path) -> tuple[list[Image], list[tuple[str, str]], list[str]]:
    """The readable images among ``sources``, files or folders; name and reason of the others; warnings.

    What lies in the folder ``beside``, where a report goes, is none of the images of a folder around it.

    Raises ReportError if a source does not exist or none of its images can be read.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    inside = beside.resolve()
    for source in sources:
        if not (source.is_dir() or source.is_file()):
            what = "is no regular file" if source.exists() else "does not exist"
            raise ReportError(f"{source}: {what}, expected an image or a folder of images")
        paths = image_files(source) if source.is_dir() else [source]
        for path in paths:
            true = path.resolve()
            if true in seen or (path != source and true.is_relative_to(inside)):
                continue
            seen.add(true)
            name = printable(path.relative_to(source).as_posix() if source.is_dir() else path.name)
            if found.setdefault(name, path) != path:
                raise ReportError(f"{path}: has the name of {found[name]}; expected every image to have its own")
    if not found:
        raise ReportError(f"{sources[0]}: holds no images but those of the report in it")
    images: list[Image] = []
    skipped: list[tuple[str, str]] = []
    warnings: list[str] = []
    for name, path in found.items():
        try:
            pixels, said = read_image(path)
        except (ImageError, LimitError) as error:
            skipped.append((name, str(error).removeprefix(f"{path}: ")))
            continue
        height, width, _ = pixels.shape
        warnings += [f"{name}: {warning}" for warning in said]
        images.append(Image(name, path, width, height, hashlib.sha256(path.read_bytes()).hexdigest()))
    if not images:
        raise ReportError(f"{skipped[0][0]}: {skipped[0][1]}; there is no other image to measure")
    return images, skipped, warnings


def sweep(
    plan: Plan, folder: Path, *, jobs: int = 1, quiet: bool = False
) -> tuple[dict[tuple[str, str, int], Measurement], list[tuple[str, str]]]:
    """Measure ``plan`` and keep the parts in ``folder``.

    Returns the measurements by image name, codec name and index of the setting, and the images that a codec failed
    on, with the reason: they are left out of every codec's curve, or means would be over different images.
    """
    parts = folder / PARTS
    done = _Store(parts)
    tasks = {(image.name, codec, i): task for image, codec, i, task in _tasks(plan, parts)}
    waiting = [task for task in tasks.values() if not done.holds(task)]
    failed: dict[str, str] = {}
    bar = tqdm(
        total=len(tasks), initial=len(tasks) - len(waiting), unit="file", disable=True if quiet else None, leave=False
    )
    with bar, done:
        for task, outcome in _work(plan, waiting, jobs):
            bar.update()
            if isinstance(outcome, str):
                failed.setdefault(task.image.name, outcome)
            else:
                done.keep(task, outcome)
    measured = {place: done.get(task) for place, task in tasks.items() if task.image.name not in failed}
    for image, codec, index in list(measured):
        if math.inf in measured[image, codec, index].metrics.values():
            exact = f"{codec} reproduces it exactly, an infinite PSNR, which no mean can hold"
            failed.setdefault(image, exact)
    return {place: part for place, part in measured.items() if place[0] not in failed}, list(failed.items())


def _tasks(plan: Plan, parts: Path) -> Iterator[tuple[Image, str, int, _Task]]:
    """By image, so that a worker finds its pixels still there."""
    for image in plan.images:
        for codec, settings in plan.settings.items():
            for index, setting in enumerate(settings):
                facts = [image.sha256, codec, setting, *_identity(plan, codec)]
                key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
                suffix = ".vq" if codec == OWN else ANCHORS[codec].suffix
                yield (
                    image,
                    codec,
                    index,
                    _Task(image, codec, setting, plan.metrics, parts / codec / f"{key}{suffix}", key),
                )


def _identity(plan: Plan, codec: str) -> list[Any]:
    """Versions of what makes a codec's files and pixels, and of what measures them."""
    measuring = [__version__, package_version("pytorch-msssim"), package_version("ssimulacra2")]
    if codec == OWN:
        return [*measuring, plan.fingerprint, plan.device]
    libraries = [features.version("pil"), features.version(ANCHORS[codec].library)]
    return [*measuring, *libraries, *([cores()] if codec == "avif" else [])]


_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


class _Store:
    """Measurements in a file of JSON lines, which a kill can only cut short."""

    def __init__(self, parts: Path) -> None:
        self._path = parts / "measurements.jsonl"
        self._done: dict[str, tuple[str, Measurement]] = {}  # by key: digest of the file, and what was measured
        parts.mkdir(parents=True, exist_ok=True)
        data = self._path.read_bytes() if self._path.exists() else b""
        for line in data.splitlines():
            # One may have been cut short by a kill; whatever is not a measurement is measured again.
            with contextlib.suppress(*_MALFORMED):
                entry = json.loads(line)
                self._done[entry["key"]] = entry["digest"], _measurement(entry)
        self._torn = bool(data) and not data.endswith(b"\n")

    def __enter__(self) -> "_Store":
        self._file = open(self._path, "a", encoding="utf-8")
        if self._torn:
            self._file.write("\n")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def holds(self, task: _Task) -> bool:
        """Whether the task's file is there, whole, and every metric it asks for was measured on it."""
        digest, part = self._done.get(task.key, ("", None))
        if (
            part is None
            or not part.metrics.keys() >= set(_keys(task))
            or (part.contents is None) != (task.codec != OWN)
        ):
            return False
        return task.file.is_file() and _digest(task.file) == digest

    def keep(self, task: _Task, part: Measurement) -> None:
        _, before = self._done.get(task.key, ("", None))
        known = {} if before is None else before.metrics  # of a run that measured more
        part = replace(part, metrics=known | part.metrics)
        digest = _digest(part.file)
        entry: dict[str, Any] = {"key": task.key, "digest": digest, "image": task.image.name, "codec": task.codec}
        entry |= {"setting": task.setting} | {name: value for name, value in asdict(part).items() if name != "file"}
        entry["metrics"] = {name: "inf" if value == math.inf else value for name, value in part.metrics.items()}
        self._done[task.key] = digest, part
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def get(self, task: _Task) -> Measurement:
        """With the metrics that the task asks for, in their order."""
        _, part = self._done[task.key]
        return replace(part, file=task.file, metrics={key: part.metrics[key] for key in _keys(task)})


def _measurement(entry: dict[str, Any]) -> Measurement:
    """What a line of the store says; raises one of ``_MALFORMED`` if it is none of ours."""
    metrics = {key: None if value is None else float(value) for key, value in entry["metrics"].items()}
    numbers = [
        entry["encode_seconds"],
        entry["decode_seconds"],
        *(v for v in metrics.values() if v not in (None, math.inf)),
    ]
    if not all(math.isfinite(number) for number in numbers) or metrics.get("psnr-rgb") is None:
        raise ValueError("no measurement")
    contents = None if entry["contents"] is None else Contents(**entry["contents"])
    if contents is not None:
        for counts in contents.counts:
            np.asarray(counts, np.int64).reshape(len(counts), -1)
        if not len(contents.counts) == len(contents.level_bytes) == len(contents.cross_entropy):
            raise ValueError("no measurement")
    times = {name: float(entry[name]) for name in ("encode_seconds", "decode_seconds")}
    return Measurement(Path(), int(entry["size"]), metrics, **times, threads=int(entry["threads"]), contents=contents)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _keys(task: _Task) -> list[str]:
    return [key for metric in _chosen(task) for key in metric.keys]


def _work(plan: Plan, tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[_Task, Measurement | str]]:
    """Outcomes as they come: a measurement, or why there is none."""
    if not tasks:
        return
    prepare = functools.partial(_prepare, str(plan.weights), plan.device, plan.threads)
    with at_work(_measure, tasks, min(jobs, len(tasks)), prepare) as outcomes:
        found = dict(zip(outcomes, tasks, strict=True))
        for outcome in concurrent.futures.as_completed(outcomes):
            yield found[outcome], outcome.result()


# --- in a worker process ----------------------------------------------------------------------------------------

_model = ("", "cpu")


def _prepare(weights: str, device: str, threads: int) -> None:
    global _model
    torch.set_num_threads(threads)
    _model = (weights, device)


@functools.cache
def _codec() -> Codec:
    """The model; loaded when the first task needs it."""
    weights, device = _model
    return Codec.load(weights, device=device)


@functools.lru_cache(maxsize=1)
def _pixels(path: Path) -> NDArray[np.uint8]:
    return read_image(path)[0]


def _measure(task: _Task) -> Measurement | str:
    """Carry out one task; what a codec or an image is to blame for comes back as a reason."""
    try:
        pixels = _pixels(task.image.path)
    except (ImageError, LimitError) as error:
        return str(error).removeprefix(f"{task.image.path}: ")
    if task.codec == OWN:
        _codec()  # loaded before the clock starts
    start = time.perf_counter()
    try:
        data = _compress(task, pixels)
    except VqcodecError as error:
        return f"{task.codec} cannot code it: {error}"
    encode_seconds = time.perf_counter() - start
    task.file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(task.file, data)
    data = task.file.read_bytes()
    start = time.perf_counter()
    contents = None
    if task.codec == OWN:
        file, codes = _codec().read(data)
        seen = _codec().reconstruct(codes, file.quality, file.height, file.width, grey=file.grey)
        decode_seconds = time.perf_counter() - start
        contents = _own_contents(file, codes)
    else:
        seen = ANCHORS[task.codec].decompress(data, grey=pixels.shape[2] == 1)
        decode_seconds = time.perf_counter() - start
    values = _values(task, pixels, seen)
    return Measurement(task.file, len(data), values, encode_seconds, decode_seconds, torch.get_num_threads(), contents)


def _compress(task: _Task, pixels: NDArray[np.uint8]) -> bytes:
    if task.codec == OWN:
        return _codec().compress(pixels, task.setting["quality"])
    try:
        return ANCHORS[task.codec].compress(pixels, task.setting)
    except (OSError, ValueError, RuntimeError, SyntaxError) as error:  # what Pillow's plugins raise
        raise ImageError(" ".join(f"{error}".split()) or type(error).__name__) from None


def _own_contents(file: Container, codes: list[Codes]) -> Contents:
    codec = _codec()
    counts = [
        [np.bincount(group.ravel(), minlength=level.codebook_size).tolist() for group in grid]
        for grid, level in zip(codes, codec.model.levels, strict=True)
    ]
    return Contents([len(level) for level in file.levels], codec.cross_entropy(codes, file.quality), counts)


def _values(task: _Task, pixels: NDArray[np.uint8], seen: NDArray[np.uint8]) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for metric in _chosen(task):
        if min(pixels.shape[:2]) < metric.smallest:
            values |= dict.fromkeys(metric.keys)
        else:
            values |= metric.compute(pixels, seen)
    return values


def _chosen(task: _Task) -> list[Metric]:
    return [metric for metric in METRICS if metric.name in task.metrics]
