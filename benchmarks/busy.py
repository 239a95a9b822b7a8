"""Time of vqcodec beside busy processes, with all threads and with one.

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

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from benchmarks.decoder import fresh_process, loaded
from vqcodec.cli.main import SPINS
from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_QUALITY
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.machine import cores
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["busy_loops", "main", "measure", "table"]

DIRECTIONS = ("encode", "decode")
ENVIRONMENT = {"GOMP_SPINCOUNT": SPINS}  # as the vqcodec command does


def measure(weights: Path, threads: int, pixels: NDArray[np.uint8], repeats: int) -> dict[str, Any]:
    """Seconds of each call with all ``threads`` and with one, on an idle and on a busy machine, and their ratio."""
    result: dict[str, Any] = {"loops": cores(), "threads": threads}
    with (
        fresh_process(weights, "cpu", threads, ENVIRONMENT) as all_threads,
        fresh_process(weights, "cpu", 1, ENVIRONMENT) as one_thread,
    ):
        pools = {"all": all_threads, "one": one_thread}
        coded = {name: pool.submit(_encode, pixels).result()[1] for name, pool in pools.items()}
        for name, pool in pools.items():
            pool.submit(_decode, coded[name]).result()  # a warm-up, which does not count
        for load, loops in (("idle", 0), ("busy", cores())):
            seconds: dict[str, dict[str, list[float]]] = {d: {name: [] for name in pools} for d in DIRECTIONS}
            with busy_loops(loops):
                for _ in range(repeats):
                    for name, pool in pools.items():
                        seconds["encode"][name].append(pool.submit(_encode, pixels).result()[0])
                        seconds["decode"][name].append(pool.submit(_decode, coded[name]).result())
            result[load] = {direction: _ratio(times) for direction, times in seconds.items()}
    return result


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run ``count`` processes that only use a processor, until the block ends."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_loop, daemon=True) for _ in range(count)]
    try:
        for loop in loops:
            loop.start()
        if loops:
            time.sleep(1)  # by then they have started
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


def _encode(pixels: NDArray[np.uint8]) -> tuple[float, bytes]:
    seconds, data = _timed(lambda: loaded().compress(pixels, effort=0))
    return seconds, data


def _decode(data: bytes) -> float:
    return _timed(lambda: loaded().decompress(data))[0]


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("image", type=options.STORED)
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Times that each is timed.")
@options.weights
@options.output
def main(image: Path, repeats: int, weights: Path | None, output: Path) -> None:
    try:
        path = weights or find_weights()
        pixels, _ = read_image(image)
        measured = measure(path, torch.get_num_threads(), pixels, repeats)
        facts = provenance(Codec.load(path, device="cpu"), path, threads=torch.get_num_threads())
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    facts_of_run = {"image": image.name, "quality": DEFAULT_QUALITY, "repeats": repeats, "provenance": facts}
    write_json(output, measured | facts_of_run)
    click.echo("\n".join(table(measured)))


if __name__ == "__main__":
    main()
