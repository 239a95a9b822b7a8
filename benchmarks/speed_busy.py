"""How long vqcodec takes beside busy processes, with all threads and with one.

::

    busy loops, one for each core ──┐ (or none)
                                    ▼
    process with all threads: encode, decode ┐
    process with one thread:  encode, decode ┴─ in turn ──▶ medians, ratio of all threads to one
"""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.decoder import fresh_process, loaded
from benchmarks.speed_codecs import Settings
from vqcodec.cli.main import SPINS
from vqcodec.machine import cores

__all__ = ["busy_loops", "measure", "table"]

DIRECTIONS = ("encode", "decode")
ENVIRONMENT = {"GOMP_SPINCOUNT": SPINS}  # as the vqcodec command does


def measure(settings: Settings, pixels: NDArray[np.uint8], repeats: int) -> dict[str, Any]:
    """Seconds of each call with all threads and with one, in an idle and in a busy machine, and their ratio."""
    result: dict[str, Any] = {"loops": cores(), "threads": settings.threads}
    weights = Path(settings.weights)
    with (
        fresh_process(weights, settings.device, settings.threads, ENVIRONMENT) as all_threads,
        fresh_process(weights, settings.device, 1, ENVIRONMENT) as one_thread,
    ):
        pools = {"all": all_threads, "one": one_thread}
        coded = {name: pool.submit(_encode, pixels, settings.quality).result()[1] for name, pool in pools.items()}
        for name, pool in pools.items():
            pool.submit(_decode, coded[name]).result()  # a first call, which is not counted
        for load, loops in (("idle", 0), ("busy", cores())):
            seconds: dict[str, dict[str, list[float]]] = {d: {name: [] for name in pools} for d in DIRECTIONS}
            with busy_loops(loops):
                for _ in range(repeats):
                    for name, pool in pools.items():
                        seconds["encode"][name].append(pool.submit(_encode, pixels, settings.quality).result()[0])
                        seconds["decode"][name].append(pool.submit(_decode, coded[name]).result())
            result[load] = {direction: _ratio(times) for direction, times in seconds.items()}
    return {"busy": result}


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """That many processes which do nothing but use a processor, until the block ends."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_loop, daemon=True) for _ in range(count)]
    try:
        for loop in loops:
            loop.start()
        if loops:
            time.sleep(1)  # they have begun by then
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def table(measured: dict[str, Any]) -> list[str]:
    """Lines of markdown."""
    lines = [
        f"| beside | direction | {measured['threads']} threads, s | 1 thread, s | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for load, beside in (("idle", "nothing"), ("busy", f"{measured['loops']} busy loops")):
        for direction in DIRECTIONS:
            row = measured[load][direction]
            lines.append(f"| {beside} | {direction} | {row['all']:.3f} | {row['one']:.3f} | {row['ratio']:.2f} |")
    return lines


def _ratio(seconds: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return medians | {"ratio": medians["all"] / medians["one"], "seconds": seconds}


def _loop() -> None:
    while True:
        pass


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    outcome = call()
    return time.perf_counter() - start, outcome


def _encode(pixels: NDArray[np.uint8], quality: int) -> tuple[float, bytes]:
    seconds, data = _timed(lambda: loaded().compress(pixels, quality))
    return seconds, data


def _decode(data: bytes) -> float:
    return _timed(lambda: loaded().decompress(data))[0]
