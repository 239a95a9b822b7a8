"""Encode a folder or a bucket of images to .vq files, with Ray Data: on the cores of this machine, or on a cluster.

::

    SOURCE ──list──▶ names without a .vq file ──map_batches──▶ Encoder, one a core or a GPU ──▶ OUTPUT/name.vq
                                                                    └──▶ a row for each image ──▶ table, throughput

    pip install ".[scale]"
    python examples/ray_bulk_encode.py PHOTOS/ CODED/
    python examples/ray_bulk_encode.py s3://bucket/photos s3://bucket/coded --quality 50 --effort 0

The same command goes on after an interruption: images whose .vq file exists are left out. An image that cannot be coded
does not stop the others; all of these are printed in a table, stand in OUTPUT/failed.csv, and make the exit code 1.
"""

import csv
import io
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.fs
import ray
import ray.data

from vqcodec import Codec
from vqcodec.config import EFFORT_MAX, QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import explain, one_line, printable
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import pack, parse
from vqcodec.files.extras import to_chunks
from vqcodec.files.images import is_image_name, read_picture

SHOWN = 40  # rows of the table; all of them are in failed.csv


class Place:
    """A folder, or a prefix in a bucket, as pyarrow opens them: ``PHOTOS/``, ``s3://bucket/photos``, ``gs://…``."""

    def __init__(self, uri: str) -> None:
        local = "://" not in uri
        self.files, self.root = pyarrow.fs.FileSystem.from_uri(os.path.abspath(uri) if local else uri)
        self.local = isinstance(self.files, pyarrow.fs.LocalFileSystem)

    def names(self, *, may_be_missing: bool = False) -> Iterator[str]:
        """Every file, by its path below this place; raises OSError if the place does not exist, unless it may."""
        selector = pyarrow.fs.FileSelector(self.root, recursive=True, allow_not_found=may_be_missing)
        for info in self.files.get_file_info(selector):
            if info.type == pyarrow.fs.FileType.File:
                yield info.path[len(self.root) :].lstrip("/")

    def read(self, name: str) -> bytes:
        with self.files.open_input_stream(f"{self.root}/{name}") as stream:
            data: bytes = stream.readall()
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; an object in a bucket is so by itself."""
        path = f"{self.root}/{name}"
        if self.local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        else:
            with self.files.open_output_stream(path) as stream:
                stream.write(data)


@dataclass(frozen=True)
class Row:
    """What became of one image; ``error`` is empty if its file was written."""

    name: str
    pixels: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    error: str = ""


class Encoder:
    """An actor: it loads the model once, and codes batches of names."""

    def __init__(
        self,
        source: str,
        output: str,
        weights: str | None,
        quality: int,
        effort: int,
        max_pixels: int | None,
        device: str,
    ) -> None:
        import torch

        torch.set_num_threads(1)  # one actor a core
        self.source, self.output = Place(source), Place(output)
        self.quality, self.effort, self.max_pixels = quality, effort, max_pixels
        self.codec = Codec.load(weights, device=device)
        self.codec.load_encoder()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = [asdict(self.encode(str(name))) for name in batch["name"]]
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}

    def encode(self, name: str) -> Row:
        """Code one image; every error becomes a row, since a batch job must survive each of its pictures."""
        start = time.perf_counter()
        try:
            original = self.source.read(name)
            picture, _ = read_picture(original, max_pixels=self.max_pixels)
            data = self.codec.compress(picture.pixels, self.quality, effort=self.effort, max_pixels=self.max_pixels)
            data = pack(replace(parse(data), chunks=tuple(to_chunks(picture.extras))))  # transparency, EXIF, profile
            self.output.write(f"{name}.vq", data)
        except Exception as error:
            return Row(name, error=one_line(explain(error)))
        height, width = picture.pixels.shape[:2]
        return Row(name, height * width, len(original), len(data), time.perf_counter() - start)


def missing(source: str, output: str) -> tuple[list[str], int]:
    """Names of images that have no ``.vq`` file yet, in order, and the number of those that have one."""
    images = [name for name in Place(source).names() if is_image_name(Path(name))]
    done = {name for name in Place(output).names(may_be_missing=True) if name.endswith(".vq")}
    left = sorted(name for name in images if f"{name}.vq" not in done)
    return left, len(images) - len(left)


def encode_all(names: list[str], settings: tuple[Any, ...], actors: int | None, per_gpu: int, batch: int) -> list[Row]:
    """Start Ray, encode, print the throughput; rows in Ray's order."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # it tells every step otherwise
    ray.init(logging_level="warning", log_to_driver=False, include_dashboard=False)
    cluster = ray.cluster_resources()
    gpus = int(cluster.get("GPU", 0))
    actors = min(actors or (gpus * per_gpu or int(cluster["CPU"])), -(-len(names) // batch))
    start = time.perf_counter()
    dataset = ray.data.from_items(
        [{"name": name} for name in names], override_num_blocks=max(1, min(len(names) // batch, 20 * actors))
    ).map_batches(
        Encoder,
        fn_constructor_args=(*settings, "cuda" if gpus else "cpu"),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=1 / per_gpu if gpus else 0,
    )
    rows = [Row(**row) for row in dataset.iter_rows()]
    click.echo(summary(rows, time.perf_counter() - start, actors))
    return rows


def count(number: int, noun: str) -> str:
    """``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(failed: list[Row]) -> str:
    """Images and reasons, side by side."""
    width = min(60, max(len(printable(row.name)) for row in failed))
    lines = [f"{'image':<{width}}  reason"]
    lines += [f"{printable(row.name):<{width}}  {row.error}" for row in failed[:SHOWN]]
    return "\n".join(lines + ([f"… and {len(failed) - SHOWN:,} more"] if len(failed) > SHOWN else []))


def summary(rows: Iterable[Row], seconds: float, actors: int) -> str:
    """Counts and throughput of what was written."""
    written = [row for row in rows if not row.error]
    pixels, work = sum(row.pixels for row in written), sum(row.seconds for row in written)
    done = f"{count(len(written), 'image')}, {pixels / 1e6:.2f} Mpixel"
    lines = [f"{done} in {seconds:.1f} s with {count(actors, 'actor')}"]
    if written:
        read, wrote = sum(row.bytes_read for row in written), sum(row.bytes_written for row in written)
        lines += [
            f"{len(written) / seconds:.2f} images/s, {pixels / 1e6 / seconds:.3f} Mpixel/s; "
            f"{pixels / 1e6 / work:.3f} Mpixel per second of an actor's work",
            f"{read:,} bytes read, {wrote:,} written, {8 * wrote / pixels:.3f} bpp",
        ]
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("source")
@click.argument("output")
@click.option("-q", "--quality", type=click.IntRange(QUALITY_MIN, QUALITY_MAX), default=75, show_default=True)
@click.option("--effort", type=click.IntRange(0, EFFORT_MAX), default=0, show_default=True)
@click.option("--weights", metavar="FILE", help="A model's .decoder.safetensors, at this path on every machine.")
@click.option(
    "--actors", type=click.IntRange(min=1), help="Encoders.  [default: one a core, or --per-gpu for each GPU]"
)
@click.option("--per-gpu", type=click.IntRange(min=1), default=4, show_default=True, help="Encoders that share a GPU.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Images that an actor gets at once."
)
@click.option("--max-pixels", type=click.IntRange(min=1), metavar="N", help="Pixels that a picture may have.")
def main(
    source: str,
    output: str,
    quality: int,
    effort: int,
    weights: str | None,
    actors: int | None,
    per_gpu: int,
    batch: int,
    max_pixels: int | None,
) -> None:
    try:
        names, done = missing(source, output)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{source}: {one_line(error)}") from None
    click.echo(f"{count(len(names), 'image')} to encode, {done:,} have their file")
    failed = []
    if names:
        rows = encode_all(names, (source, output, weights, quality, effort, max_pixels), actors, per_gpu, batch)
        failed = sorted((row for row in rows if row.error), key=lambda row: row.name)
    text = io.StringIO()
    csv.writer(text).writerows([("image", "reason"), *((row.name, row.error) for row in failed)])
    Place(output).write("failed.csv", text.getvalue().encode())
    if failed:
        click.echo(f"\n{count(len(failed), 'image')} failed:\n{table(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
