"""Time to decode images of one size together, and one after another.

::

    IMAGE ── 16 crops of a size ── Codec.compress ──▶ files ──┬── decompress each ────▶ s
                                                              └── decompress_many ────▶ s      alternating, medians
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from vqcodec import Codec
from vqcodec.config import DEFAULT_QUALITY
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.geometry import batch_size
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["main", "markdown", "measure"]

COUNT = 16  # pictures
SIZES = ((96, 128), (256, 256), (512, 768))  # height and width


def measure(codec: Codec, image: NDArray[np.uint8], height: int, width: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds per image, decoded alone and together."""
    files = [codec.compress(crop, effort=0) for crop in _crops(image, height, width)]
    ways: dict[str, Callable[[], list[NDArray[np.uint8]]]] = {
        "alone": lambda: [codec.decompress(data) for data in files],
        "together": lambda: codec.decompress_many(files),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        pictures = {}
        for name, way in ways.items():
            start = time.perf_counter()
            pictures[name] = way()
            if number:  # the first run is a warm-up
                times[name].append(1000 * (time.perf_counter() - start) / COUNT)
        if not all(np.array_equal(a, b) for a, b in zip(*pictures.values(), strict=True)):
            raise VqcodecError(f"{width}×{height}: decoded pixels differ together and alone; please report this")
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "height": height,
        "width": width,
        "batch": batch_size(height, width),
        "milliseconds": medians,
        "ratio": medians["alone"] / medians["together"],
    }


def markdown(result: dict[str, Any]) -> str:
    """A table with one row per size."""
    lines = [
        "| pictures | in a batch | ms each, alone | ms each, together | times as fast |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {COUNT} of {size['width']}×{size['height']} | {min(size['batch'], COUNT)} | "
        f"{size['milliseconds']['alone']:.1f} | {size['milliseconds']['together']:.1f} | {size['ratio']:.2f} |"
        for size in result["sizes"]
    ]
    return "\n".join(lines)


def _crops(image: NDArray[np.uint8], height: int, width: int) -> Sequence[NDArray[np.uint8]]:
    """COUNT crops of the image from its top left to its bottom right; a small image is tiled to be large enough."""
    rows, columns = (-(-2 * side // whole) for side, whole in zip((height, width), image.shape, strict=False))
    large = np.tile(image, (rows, columns, 1))
    places = np.linspace((0, 0), (large.shape[0] - height, large.shape[1] - width), COUNT).astype(int)
    return [np.ascontiguousarray(large[top : top + height, left : left + width]) for top, left in places]


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("image", type=options.STORED)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Timed runs of each.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads to compute with.")
@options.weights
@options.device
@options.output
def main(image: Path, repeats: int, threads: int | None, weights: Path | None, device: str, output: Path) -> None:
    torch.set_num_threads(threads or torch.get_num_threads())
    try:
        path = weights or find_weights()
        codec = Codec.load(path, device=device)
        pixels, _ = read_image(image)
        sizes = [measure(codec, pixels, height, width, repeats) for height, width in SIZES]
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    result = {
        "image": image.name,
        "quality": DEFAULT_QUALITY,
        "repeats": repeats,
        "sizes": sizes,
        "provenance": provenance(codec, path, threads=torch.get_num_threads()),
    }
    write_json(output, result)
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
