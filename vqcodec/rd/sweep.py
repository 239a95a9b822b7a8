"""The sweep: every codec at every setting over every image, each result kept as soon as it is there.

::

    images × codecs × settings ──▶ tasks ──▶ worker processes ──▶ measurements
                                     ▲                                │ one line each, at once
                                     └── not measured yet ── REPORT/parts/measurements.jsonl
                                                             REPORT/parts/<codec>/… the compressed files

A task compresses one image to a real file, reads the file back and measures the pixels that it decodes to. The result
is stored under a digest of everything that it depends on. So a run that was killed goes on where it was, and a run
with more images, settings or metrics measures only those.
"""

import concurrent.futures
import functools
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import features
from tqdm import tqdm

from vqcodec import __version__
from vqcodec.codec import Codec
from vqcodec.errors import ImageError, LimitError, VqcodecError
from vqcodec.exact.wavefront import Codes
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import Container
from vqcodec.files.images import read_image
from vqcodec.machine import cores
from vqcodec.metrics import measure
from vqcodec.rd.anchors import ANCHORS, OWN, Setting
from vqcodec.rd.provenance import package_version
from vqcodec.rd.sources import Image, Skipped
from vqcodec.rd.store import Contents, Measurement, Store, Task
from vqcodec.workers import at_work

__all__ = ["PARTS", "Parts", "Plan", "sweep"]

PARTS = "parts"
"""The folder in a report that holds what was measured so far."""

Parts = Mapping[tuple[str, str, int], Measurement]
"""Measurements by name of the image, name of the codec, and index of the setting."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and with what.

    Attributes:
        images: at least one.
        settings: those of each codec by name, from the smallest file to the largest.
        metrics: names as in :data:`vqcodec.metrics.METRICS`.
        weights: the file of the model's decoder side.
        fingerprint: of both sides of the model, in hex.
        device: where vqcodec computes, ``"cpu"`` or ``"cuda"``.
        threads: that each worker computes with.
    """

    images: Sequence[Image]
    settings: Mapping[str, Sequence[Setting]]
    metrics: Sequence[str]
    weights: Path
    fingerprint: str
    device: str
    threads: int


def sweep(plan: Plan, folder: Path, *, jobs: int = 1, quiet: bool = False) -> tuple[Parts, list[Skipped]]:
    """Measure ``plan`` in ``jobs`` processes and keep the parts in ``folder``; ``quiet`` shows no progress bar.

    Returns the measurements, and the images that a codec failed on with the reason. Such an image is left out of the
    curves of all codecs: otherwise their means would be over different images.
    """
    parts = folder / PARTS
    store = Store(parts)
    tasks = dict(_tasks(plan, parts))
    waiting = [task for task in tasks.values() if not store.holds(task)]
    failed: dict[str, str] = {}
    bar = tqdm(
        total=len(tasks), initial=len(tasks) - len(waiting), unit="file", disable=True if quiet else None, leave=False
    )
    with bar, store:
        for task, outcome in _work(plan, waiting, jobs):
            bar.update()
            if isinstance(outcome, str):
                failed.setdefault(task.image.name, outcome)
            else:
                store.keep(task, outcome)
    measured = {place: store.get(task) for place, task in tasks.items() if task.image.name not in failed}
    for (image, codec, _), part in measured.items():
        if math.inf in part.metrics.values():
            failed.setdefault(image, f"{codec} reproduces it exactly, an infinite PSNR, which no mean can hold")
    kept = {place: part for place, part in measured.items() if place[0] not in failed}
    return kept, [Skipped(name, reason) for name, reason in failed.items()]


def _tasks(plan: Plan, parts: Path) -> Iterator[tuple[tuple[str, str, int], Task]]:
    """The tasks by place, those of one image together, so that a worker reads its pixels once."""
    for image in plan.images:
        for codec, settings in plan.settings.items():
            for index, setting in enumerate(settings):
                facts = [image.sha256, codec, dict(setting.options), *_identity(plan, codec)]
                key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
                suffix = ".vq" if codec == OWN else ANCHORS[codec].suffix
                file = parts / codec / f"{key}{suffix}"
                yield (image.name, codec, index), Task(image, codec, setting, plan.metrics, file, key)


def _identity(plan: Plan, codec: str) -> list[str | int | None]:
    """Versions of the packages that make a codec's files and pixels, and of those that measure them."""
    measuring = [__version__, package_version("pytorch-msssim"), package_version("ssimulacra2")]
    if codec == OWN:
        return [*measuring, plan.fingerprint, plan.device]
    library = ANCHORS[codec].library
    version = features.version(library) if isinstance(library, str) else package_version(library.package)
    libraries = [features.version("pil"), version]
    return [*measuring, *libraries, *([cores()] if codec == "avif" else [])]


def _work(plan: Plan, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Measurement | str]]:
    """Each task with its outcome, in the order in which they end: a measurement, or the reason why there is none."""
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
    """The model, loaded when the first task needs it."""
    weights, device = _model
    return Codec.load(weights, device=device)


@functools.lru_cache(maxsize=1)
def _pixels(path: Path) -> NDArray[np.uint8]:
    return read_image(path)[0]


def _measure(task: Task) -> Measurement | str:
    """Carry out one task; where the image or the codec is at fault, the reason is returned instead."""
    try:
        pixels = _pixels(task.image.path)
    except (ImageError, LimitError) as error:
        return str(error).removeprefix(f"{task.image.path}: ")
    if task.codec == OWN:
        _codec()  # the clock starts after it is loaded
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
        seen = _codec().decode(codes, file.quality, file.height, file.width, grey=file.grey)
        decode_seconds = time.perf_counter() - start
        contents = _own_contents(file, codes)
    else:
        seen = ANCHORS[task.codec].decompress(data, grey=pixels.shape[2] == 1)
        decode_seconds = time.perf_counter() - start
    values = measure(pixels, seen, task.chosen)
    return Measurement(task.file, len(data), values, encode_seconds, decode_seconds, torch.get_num_threads(), contents)


def _compress(task: Task, pixels: NDArray[np.uint8]) -> bytes:
    if task.codec == OWN:
        return _codec().compress(pixels, task.setting.quality, effort=task.setting.effort)
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
