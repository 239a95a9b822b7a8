"""Time of vqcodec by kind of work at several sizes, on a CPU.

::

    pixels ──▶ encode, decode ──┬─ as they are ──────────────▶ seconds, medians ──────────────┐
                                └─ under torch's profiler ──▶ seconds of each operation       │
                                     with a clock in the coder     └─▶ added up by kind ──────┴──▶ rest: Python, numpy

An operation's seconds are those of the calling thread, so the kinds add up to the time that a user waits.
"""

import functools
import re
import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity

from benchmarks.speed_codecs import VqcodecCoder
from vqcodec.exact import entropy

__all__ = ["KINDS", "kind", "profile", "table"]

_OPERATIONS = {
    "convolutions": r"conv",
    "choice of codes": r"bmm|argmin",
    "products of the prior": r"linear|addmm|\bmm\b",
    "gathers and tables": r"index|embedding|gather",
}
KINDS = (*_OPERATIONS, "copies, sums, clamps …", "range coder", "Python, numpy")


def kind(operation: str) -> str:
    """The kind of an operation of torch."""
    for name, pattern in _OPERATIONS.items():
        if re.search(pattern, operation):
            return name
    return KINDS[len(_OPERATIONS)]


def profile(ours: VqcodecCoder, images: Sequence[NDArray[np.uint8]], repeats: int, budget: float) -> dict[str, Any]:
    """Seconds by direction and kind for each image."""
    points: list[dict[str, Any]] = []
    for pixels in images:
        coded = ours.encode(pixels)
        point: dict[str, Any] = {"width": pixels.shape[1], "height": pixels.shape[0]}
        calls: dict[str, Callable[[], object]] = {
            "encode": functools.partial(ours.encode, pixels),
            "decode": functools.partial(ours.decode, coded),
        }
        for direction, call in calls.items():
            seconds: list[float] = []
            while len(seconds) < repeats and sum(seconds) < budget:
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            median = statistics.median(seconds)
            kinds = _by_kind(call)
            kinds[KINDS[-1]] = max(0.0, median - sum(kinds.values()))
            point[direction] = {"median": median, "seconds": seconds, "kinds": kinds}
        points.append(point)
    return {"profile": points}


def _by_kind(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of one call by kind, for all kinds except the last."""
    kinds = dict.fromkeys(KINDS, 0.0)
    clock = _Clock()
    queue = constriction.stream.queue
    timed = SimpleNamespace(
        RangeEncoder=lambda: clock.around(queue.RangeEncoder()),
        RangeDecoder=lambda words: clock.around(queue.RangeDecoder(words)),
    )
    with (
        patch.object(entropy, "constriction", SimpleNamespace(stream=SimpleNamespace(queue=timed))),
        torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler,
    ):
        call()
    for event in profiler.key_averages():
        kinds[kind(event.key)] += event.self_cpu_time_total / 1e6
    return kinds | {"range coder": clock.seconds}


class _Clock:
    """Adds up the seconds of a range coder's calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, coder: Any) -> Any:
        """``coder``, with this clock running in ``encode`` and ``decode``."""
        methods = {name: getattr(coder, name) for name in dir(coder) if not name.startswith("_")}
        methods |= {name: self._timed(methods[name]) for name in ("encode", "decode") if name in methods}
        return SimpleNamespace(**methods)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def table(points: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown: milliseconds of each kind, and their share."""
    columns = [
        (f"{point['width']}×{point['height']} {direction}", point[direction])
        for point in points
        for direction in ("encode", "decode")
    ]
    lines = [f"| ms | {' | '.join(name for name, _ in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in KINDS:
        cells = (f"{1e3 * c['kinds'][name]:.0f} ({c['kinds'][name] / c['median']:.0%})" for _, c in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    totals = (f"{1e3 * column['median']:.0f}" for _, column in columns)
    return [*lines, f"| all | {' | '.join(totals)} |"]
