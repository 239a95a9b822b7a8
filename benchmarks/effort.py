"""What each effort of the search saves, and what it costs.

::

    images × qualities × efforts ──▶ real files ──▶ mean bpp and PSNR ──▶ BD-rate against effort 0
                                              └───▶ median seconds of encoding ──▶ ratio to effort 0

Efforts of one picture follow each other, so that a busy minute of the machine slows all of them.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.config import EFFORT_MAX
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.metrics import bpp, psnr
from vqcodec.rd.curves import bd
from vqcodec.rd.provenance import image_facts, provenance
from vqcodec.weights import find_weights

__all__ = ["Effort", "main", "measure", "table"]

LEAST = 2.0  # dB that two curves must share for a BD-rate


@dataclass(frozen=True)
class Effort:
    """One effort's figures.

    Attributes:
        effort: 0..9.
        bpp, psnr: means over images, one for each quality.
        bd_rate: per cent of bits at equal PSNR against effort 0; None for effort 0.
        seconds: median over images and qualities.
        ratio: median of the ratios to effort 0 of the same picture and quality.
        lost: share of files for which the search was dropped.
    """

    effort: int
    bpp: list[float]
    psnr: list[float]
    bd_rate: float | None
    seconds: float
    ratio: float
    lost: float


def measure(codec: Codec, images: Sequence[Path], qualities: Sequence[int], efforts: Sequence[int]) -> list[Effort]:
    """The figures of each of ``efforts``, the first of which is 0."""
    rates: dict[tuple[int, int], list[float]] = {(e, q): [] for e in efforts for q in qualities}
    decibels = {key: list[float]() for key in rates}
    seconds: dict[int, list[float]] = {effort: [] for effort in efforts}
    same: dict[int, int] = dict.fromkeys(efforts, 0)
    codec.compress(read_image(images[0])[0], qualities[0], effort=1)  # a warm-up, which does not count
    for path in images:
        pixels, _ = read_image(path)
        height, width, _ = pixels.shape
        for quality in qualities:
            plain = b""
            for effort in efforts:
                start = time.perf_counter()
                data = codec.compress(pixels, quality, effort=effort)
                seconds[effort].append(time.perf_counter() - start)
                plain = plain or data
                same[effort] += data == plain
                rates[effort, quality].append(bpp(len(data), width, height))
                decibels[effort, quality].append(psnr(pixels, codec.decompress(data)))
    found: list[Effort] = []
    for effort in efforts:
        rate = [statistics.mean(rates[effort, quality]) for quality in qualities]
        quality_of = [statistics.mean(decibels[effort, quality]) for quality in qualities]
        saved = None
        if found:
            anchor = list(zip(found[0].bpp, found[0].psnr, strict=True))
            saved = bd(anchor, list(zip(rate, quality_of, strict=True)), least=LEAST).rate
        ratio = statistics.median(a / b for a, b in zip(seconds[effort], seconds[efforts[0]], strict=True))
        lost = same[effort] / len(seconds[effort]) if effort else 0.0
        found.append(Effort(effort, rate, quality_of, saved, statistics.median(seconds[effort]), ratio, lost))
    return found


def table(found: Sequence[Effort]) -> list[str]:
    """Lines of markdown."""
    lines = ["| effort | bits at equal PSNR | seconds | times effort 0 |", "|---:|---:|---:|---:|"]
    for one in found:
        saved = "" if one.bd_rate is None else f"{one.bd_rate:+.1f} %"
        lines.append(f"| {one.effort} | {saved} | {one.seconds:.2f} | {one.ratio:.1f} |")
    return lines


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@click.option(
    "-q", "--qualities", callback=options.numbers, default="10,30,50,70,90", show_default=True, help="At least four."
)
@click.option(
    "-e",
    "--effort",
    "efforts",
    type=click.IntRange(1, EFFORT_MAX),
    multiple=True,
    default=range(1, EFFORT_MAX + 1),
    help="To compare with effort 0; repeatable.  [default: all]",
)
@options.weights
@options.output
def main(
    images: tuple[Path, ...], qualities: list[int], efforts: tuple[int, ...], weights: Path | None, output: Path
) -> None:
    try:
        path = weights or find_weights()
        codec = Codec.load(path, device="cpu")
        codec.load_encoder()
        found = measure(codec, images, qualities, sorted({0, *efforts}))
        facts = provenance(codec, path, threads=torch.get_num_threads())
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    names = [image_facts(image, *read_image(image)[0].shape[1::-1]) for image in images]
    content = {"qualities": qualities, "efforts": [asdict(one) for one in found]}
    write_json(output, content | {"images": names, "provenance": facts})
    click.echo("\n".join(table(found)))


if __name__ == "__main__":
    main()
