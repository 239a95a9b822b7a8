"""Check that files decode to the same codes on other devices, numbers of threads and instruction sets, and encode back.

::

    images ──maker (CPU, 1 thread; CUDA)──▶ .vq files ──each other way to compute──▶ codes ── SHA-256 equal?
                                                                                      └─coded again─▶ same bytes?
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from benchmarks.decoder import fresh_process, loaded
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.exact import entropy
from vqcodec.exact.wavefront import Codes
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import image_facts, provenance
from vqcodec.weights import find_weights

__all__ = ["CUDA", "OTHERS", "REFERENCE", "Seen", "Way", "compare", "digest", "main", "markdown"]


@dataclass(frozen=True)
class Way:
    """A way to compute, which must not change a code.

    Attributes:
        name: its name in tables.
        device: device of the whole codec.
        threads: number of torch's threads.
        environment: environment variables of the process.
        batch: rows that the prior computes together in an encode; 0 for its default.
    """

    name: str
    device: str = "cpu"
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    batch: int = 0


REFERENCE = Way("CPU, 1 thread")
CUDA = Way("CUDA", device="cuda")
OTHERS = (
    REFERENCE,
    Way("CPU, 2 threads", threads=2),
    # The second variable limits MKL's matrix products as the first limits torch's own kernels.
    Way("CPU, no vector units", environment={"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}),
    Way("CPU, batches of 97", batch=97),
)


@dataclass(frozen=True)
class Seen:
    """What a process decoded from a file.

    Attributes:
        codes: digest of the code grids.
        same_bytes: whether encoding the codes again gives the file's bitstreams.
        pixels: ``[H, W, 3 or 1]``.
    """

    codes: str
    same_bytes: bool
    pixels: NDArray[np.uint8]


def digest(codes: Sequence[Codes]) -> str:
    """SHA-256 of code grids and their shapes."""
    sha = hashlib.sha256()
    for grid in codes:
        sha.update(repr(grid.shape).encode() + grid.astype("<i8").tobytes())
    return sha.hexdigest()


def make(image: Path, quality: int, file: Path) -> Seen:
    """Compress ``image`` to ``file`` in a process of :func:`benchmarks.decoder.fresh_process`."""
    pixels, _ = read_image(image)
    file.write_bytes(loaded().compress(pixels, quality, effort=0))
    return see(file)


def see(file: Path, batch: int = 0) -> Seen:
    """Decode ``file`` and encode its codes again in a process of :func:`benchmarks.decoder.fresh_process`."""
    codec, data = loaded(), file.read_bytes()
    codec.prior.chunk = batch or codec.prior.chunk
    contents, codes = codec.read(data)
    again = entropy.encode(codec.prior, codes, contents.quality)
    same_bytes = tuple(level.bitstream for level in again) == contents.levels
    return Seen(digest(codes), same_bytes, codec.decompress(data))


def capability() -> str:
    """The vector instructions that torch uses in a process of :func:`benchmarks.decoder.fresh_process`."""
    return torch.backends.cpu.get_cpu_capability()


def compare(
    images: Sequence[Path], qualities: Sequence[int], makers: Sequence[Way], ways: Sequence[Way], weights: Path
) -> list[dict[str, Any]]:
    """A row for each pair of a maker and a way to decode, over all images and qualities."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        made = [(maker, _make(maker, images, qualities, Path(folder), weights)) for maker in makers]
        for way in ways:
            with fresh_process(weights, way.device, way.threads, way.environment) as process:
                vectors = process.submit(capability).result()
                for maker, files in made:
                    pairs = [(own, process.submit(see, file, way.batch).result()) for file, own in files.items()]
                    rows.append(
                        {
                            "made_on": maker.name,
                            "decoded_on": way.name,
                            "cpu_capability": vectors,
                            "environment": way.environment,
                            "files": len(pairs),
                            "same_codes": sum(own.codes == seen.codes for own, seen in pairs),
                            "same_bytes": sum(seen.same_bytes for _, seen in pairs),
                            "largest_pixel_difference": max(_difference(a.pixels, b.pixels) for a, b in pairs),
                            "codes_sha256": [seen.codes for _, seen in pairs],
                        }
                    )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| made on | decoded on | files | same codes | same bytes again | pixels differ by |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    lines += [
        f"| {row['made_on']} | {row['decoded_on']} | {row['files']} | {row['same_codes']} | {row['same_bytes']} | "
        f"{row['largest_pixel_difference']} |"
        for row in rows
    ]
    return "\n".join(lines)


def _make(
    maker: Way, images: Sequence[Path], qualities: Sequence[int], folder: Path, weights: Path
) -> dict[Path, Seen]:
    """The files that ``maker`` makes of ``images``, and what it decodes from them itself."""
    files: dict[Path, Seen] = {}
    with fresh_process(weights, maker.device, maker.threads, maker.environment) as process:
        for index, image in enumerate(images):
            for quality in qualities:
                file = folder / f"{maker.device}-{index}-{quality}.vq"
                files[file] = process.submit(make, image, quality, file).result()
    return files


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(np.int16) - b).max())


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@options.output
@click.option("--qualities", callback=options.numbers, default="10,50,90", show_default=True)
@options.weights
def main(images: tuple[Path, ...], output: Path, qualities: list[int], weights: Path | None) -> None:
    cuda = [CUDA] if torch.cuda.is_available() else []
    try:
        weights = weights or find_weights()
        codec = Codec.load(weights, device="cpu")
        pictures = [image_facts(path, *read_image(path)[0].shape[1::-1]) for path in images]
        facts = provenance(codec, weights, threads=REFERENCE.threads)
        rows = compare(images, qualities, [REFERENCE, *cuda], [*OTHERS, *cuda], weights)
        passed = all(row["files"] == row["same_codes"] == row["same_bytes"] for row in rows)
        result = {"provenance": facts, "images": pictures, "qualities": qualities, "rows": rows, "passed": passed}
        write_json(output, result)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo(markdown(rows))
    if not cuda:
        click.echo("CUDA was not compared: torch finds no such device here.", err=True)
    if not passed:
        raise click.ClickException("a file did not decode to the same codes everywhere")


if __name__ == "__main__":
    main()
