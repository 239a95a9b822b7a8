"""How long a warm compress and decompress of one image take, and which half takes it.

::

    compress   = codes (float) + encode (prior, coder) + the check that decodes the bytes again
    decompress = decode (prior, coder) + reconstruct (float)

The model is loaded and has run before anything is timed; medians of wall-clock time.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import options
from vqcodec.codec import DEFAULT_QUALITY, Codec
from vqcodec.config import QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import VqcodecError
from vqcodec.images import read_image
from vqcodec.metrics import bpp
from vqcodec.prior import Wavefront
from vqcodec.rd.provenance import image_facts, provenance, write_json
from vqcodec.weights import find_weights

__all__ = ["main", "markdown", "measure"]


def measure(codec: Codec, image: Path, quality: int, repeats: int) -> dict[str, Any]:
    """Seconds of each part for one image, each ``repeats`` times, and the number of sequential steps."""
    pixels, _ = read_image(image)
    height, width, channels = pixels.shape
    data = codec.compress(pixels, quality)
    _, codes = codec.read(data)
    calls: dict[str, Callable[[], object]] = {
        "compress": lambda: codec.compress(pixels, quality),
        "compress: codes (float)": lambda: codec.codes(pixels, quality),
        "compress: encode (prior, coder)": lambda: codec.cross_entropy(codes, quality),
        "decompress": lambda: codec.decompress(data),
        "decompress: decode (prior, coder)": lambda: codec.read(data),
        "decompress: reconstruct (float)": lambda: codec.reconstruct(codes, quality, height, width, grey=channels == 1),
    }
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    # In turn, so that whatever else the machine does for a while falls on all parts.
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(_seconds(call))
    levels = [
        {"groups": groups, "height": h, "width": w, "steps": len(Wavefront(h, w).spans)}
        for groups, h, w in (grid.shape for grid in codes)
    ]
    return {
        "image": image_facts(image, width, height),
        "quality": quality,
        "bpp": bpp(len(data), width, height),
        "levels": levels,
        "steps": sum(level["steps"] for level in levels),
        "median_seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "seconds": seconds,
    }


def markdown(result: dict[str, Any]) -> str:
    """The medians as a table."""
    image, facts = result["image"], result["provenance"]
    lines = [
        f"{image['width']}×{image['height']}, quality {result['quality']}, {result['bpp']:.3f} bpp, "
        f"{result['steps']} wavefront steps, {facts['threads']} threads, {facts['device']}, {facts['machine']['cpu']}",
        "",
        "| part | median, s | fastest–slowest |",
        "|---|---:|---:|",
    ]
    for name, median in result["median_seconds"].items():
        times = result["seconds"][name]
        lines.append(f"| {name} | {median:.3f} | {min(times):.3f}–{max(times):.3f} |")
    return "\n".join(lines)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("image", type=options.STORED)
@options.output
@click.option(
    "-q", "--quality", type=click.IntRange(QUALITY_MIN, QUALITY_MAX), default=DEFAULT_QUALITY, show_default=True
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: torch's own choice]")
@click.option("--repeats", type=click.IntRange(min=1), default=9, show_default=True)
@options.weights
@options.device
def main(
    image: Path, output: Path, quality: int, threads: int | None, repeats: int, weights: Path | None, device: str
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        weights = weights or find_weights()
        start = time.perf_counter()
        codec = Codec.load(weights, device=device)
        load_seconds = time.perf_counter() - start
        facts = provenance(codec, weights, threads=torch.get_num_threads())
        result = {"provenance": facts, "load_seconds": load_seconds, **measure(codec, image, quality, repeats)}
        write_json(output, result)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
