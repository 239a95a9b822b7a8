"""Memory of a process that codes pictures of very many sizes, one after another.

::

    pictures, no two of which lie on grids of one size ──encode, decode, effort 0──▶ resident memory, every so often

The math library keeps what it prepared for each size of a picture. This measures whether it keeps too much.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["Reading", "distinct_sizes", "main", "measure", "resident", "table"]


@dataclass(frozen=True)
class Reading:
    """Memory at one moment.

    Attributes:
        pictures: how many have been encoded and decoded.
        resident: bytes of the process that are in memory.
    """

    pictures: int
    resident: int


def distinct_sizes(count: int, stride: int) -> list[tuple[int, int]]:
    """The ``count`` smallest sizes (height, width), height ≤ width, with sides that are multiples of ``stride``."""
    largest = count + 1  # one row of grids would be enough
    sizes = [(a, b) for a in range(1, largest) for b in range(a, largest // a + 1)]
    while len(sizes) < count:
        largest *= 2
        sizes = [(a, b) for a in range(1, largest) for b in range(a, largest // a + 1)]
    smallest = sorted(sizes, key=lambda size: (size[0] * size[1], size))[:count]
    return [(a * stride, b * stride) for a, b in smallest]


def measure(codec: Codec, pixels: NDArray[np.uint8], count: int, every: int) -> list[Reading]:
    """Encode and decode ``count`` parts of ``pixels`` of distinct sizes in a mixed order; readings on the way."""
    sizes = distinct_sizes(count, codec.model.strides[0])
    np.random.default_rng(0).shuffle(sizes)
    readings = []
    for number, (height, width) in enumerate(sizes, 1):
        rows, columns = (np.arange(side) % whole for side, whole in zip((height, width), pixels.shape, strict=False))
        codec.decompress(codec.compress(np.ascontiguousarray(pixels[rows][:, columns]), effort=0))
        if number == 1 or number % every == 0:
            readings.append(Reading(number, resident()))
    return readings


def resident() -> int:
    """Bytes of this process that are in memory, as Linux says."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise VqcodecError("/proc/self/status: no VmRSS; this benchmark needs Linux")
    return 1024 * int(found[1])


def table(readings: list[Reading]) -> list[str]:
    """Lines of markdown."""
    rows = [f"| {reading.pictures:,} | {reading.resident / 1e6:.0f} |" for reading in readings]
    return ["| pictures of as many sizes | memory, MB |", "|---:|---:|", *rows]


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("image", type=options.STORED)
@click.option("--count", type=click.IntRange(min=1), default=2000, show_default=True, help="Pictures.")
@click.option("--every", type=click.IntRange(min=1), default=100, show_default=True, help="Pictures between readings.")
@options.weights
@options.output
def main(image: Path, count: int, every: int, weights: Path | None, output: Path) -> None:
    try:
        path = weights or find_weights()
        codec = Codec.load(path, device="cpu")
        readings = measure(codec, read_image(image)[0], count, every)
        content: dict[str, Any] = {"image": image.name, "readings": [asdict(reading) for reading in readings]}
        write_json(output, content | {"provenance": provenance(codec, path, threads=torch.get_num_threads())})
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(table(readings)))


if __name__ == "__main__":
    main()
