"""How the codec handles damaged and forged ``.vq`` files, at what cost, and its peak memory relative to its estimate.

::

    images ──crop, compress──▶ good files ──a class of damage──▶ many bad ones ──examine──▶ counts
                                                  └─ a fresh process for each class: its peak memory
    first image ──tiled to the given sizes─────▶ fresh processes: compress, decompress ──▶ their peaks, Codec.memory
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from benchmarks import options, speed_memory
from benchmarks.damage import CLASSES, Good, Kind, examine
from benchmarks.decoder import fresh_process, loaded
from benchmarks.speed_codecs import Settings
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["PIECES", "damage_table", "main", "measure", "memory_table", "small_file"]

# Height, width and quality of the small file made from the centre of each image.
PIECES = ((32, 48, 75), (40, 24, 95), (64, 64, 20))
SLOW = 10  # seconds; if a small file takes longer, the run fails
SIZES = "16x16,768x512,1536x1024,3072x2048,4000x3000"  # sizes of the images for which memory is measured
QUALITY = 75  # quality of these images


def measure(index: int, files: Sequence[bytes], count: int, seed: int) -> dict[str, Any]:
    """Examine copies of ``files`` with one of CLASSES, in a process of :func:`benchmarks.decoder.fresh_process`."""
    own, codec, rng = CLASSES[index], loaded(), random.Random(seed)
    goods = [Good.of(codec, data) for data in files[: own.files]]
    before, slowest = speed_memory.peak(), 0.0
    kinds: Counter[Kind] = Counter()
    for good in goods:
        for data in own.damage(good.data, count // len(goods), rng):
            if data == good.data:
                continue
            start = time.process_time()  # does not count the time of other programs
            outcome = examine(codec, data, None if own.forged else good)
            slowest = max(slowest, time.process_time() - start)
            kinds[outcome.kind] += 1
    return {
        "class": own.name,
        "inputs": sum(kinds.values()),
        **{kind: kinds[kind] for kind in get_args(Kind)},
        "slowest_seconds": slowest,
        "memory_bytes": speed_memory.peak() - before,
    }


def memory(codec: Codec, image: Path, settings: Settings, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Peak bytes of a process beyond the loaded model, and the codec's estimate, for each width and height."""
    pixels, _ = read_image(image)
    rows: list[dict[str, Any]] = []
    for width, height in sizes:
        times = -(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1
        peaks = speed_memory.measure("vqcodec", settings, np.tile(pixels, times)[:height, :width])
        taken = {f"{direction}_bytes": own["peak"] - own["opened"] for direction, own in peaks.items()}
        rows.append({"height": height, "width": width, **taken, "estimate_bytes": codec.memory(height, width)})
    return rows


def damage_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`measure` as Markdown."""
    lines = ["| damage | inputs | refused | salvaged | decoded | the same | slowest, s | memory, MB |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    lines += [
        f"| {row['class']} | {row['inputs']} | "
        f"{' | '.join(str(row[kind]) for kind in ('refused', 'salvaged', 'decoded', 'same'))} | "
        f"{row['slowest_seconds']:.2f} | {row['memory_bytes'] / 1e6:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def memory_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`memory` as Markdown."""
    lines = ["| pixels | compressing, MB | decompressing, MB | estimate, MB |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row['width']}×{row['height']} | "
        f"{' | '.join(f'{row[part] / 1e6:.0f}' for part in ('encode_bytes', 'decode_bytes', 'estimate_bytes'))} |"
        for row in rows
    ]
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@options.output
@click.option("--mutations", "count", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--sizes", callback=options.sizes, default=SIZES, show_default=True, help="Sizes for memory.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@options.weights
def main(
    images: tuple[Path, ...],
    output: Path,
    count: int,
    sizes: list[tuple[int, int]],
    seed: int,
    threads: int,
    weights: Path | None,
) -> None:
    """Damage a small file made from the centre of each of IMAGES."""
    try:
        weights = weights or find_weights()
        codec = Codec.load(weights, device="cpu")
        facts = provenance(codec, weights, threads=threads)
        files = [small_file(codec, path, *piece) for path, piece in zip(images, PIECES, strict=False)]
        rows: list[dict[str, Any]] = []
        for index in range(len(CLASSES)):
            with fresh_process(weights, "cpu", threads) as process:
                rows.append(process.submit(measure, index, files, count, seed).result())
            click.echo(f"{rows[-1]['class']}: {rows[-1]['inputs']} inputs", err=True)
        peaks = memory(codec, images[0], Settings(weights, "cpu", QUALITY, 1, threads), sizes)
        slow = any(row["slowest_seconds"] >= SLOW for row in rows)
        beyond = any(max(row["encode_bytes"], row["decode_bytes"]) > row["estimate_bytes"] for row in peaks)
        result = {"provenance": facts, "file_bytes": [len(file) for file in files], "damage": rows, "memory": peaks}
        write_json(output, result | {"passed": not slow and not beyond})
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{damage_table(rows)}\n\n{memory_table(peaks)}")
    if slow:
        raise click.ClickException(f"a small file took {SLOW} seconds or more")
    if beyond:
        raise click.ClickException("a process took more memory than estimated")


def small_file(codec: Codec, path: Path, height: int, width: int, quality: int) -> bytes:
    """The file of the middle of an image, ``height`` × ``width`` pixels."""
    pixels, _ = read_image(path)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return codec.compress(np.ascontiguousarray(pixels[top : top + height, left : left + width]), quality, effort=0)


if __name__ == "__main__":
    main()
