"""How closely a size or a PSNR that was asked for is met, and with how many encodings.

::

    images × qualities ──effort 0──▶ bytes, dB ──a little off──▶ targets × efforts ──compress_to──▶ excess, encodings

A target is 1.5 % below the size of a quality, or 0.05 dB above its PSNR, so that no quality meets it by itself.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_EFFORT, EFFORT_MAX
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.metrics import psnr
from vqcodec.rd.provenance import image_facts, provenance
from vqcodec.targets import SLACK, Target, compress_to
from vqcodec.weights import find_weights

__all__ = ["Met", "main", "measure", "middle", "table"]


@dataclass(frozen=True)
class Met:
    """One target of one picture.

    Attributes:
        image: name of its file.
        kind, value: of the target.
        effort: 0..9.
        excess: ln of the ratio of sizes, or dB; 0 or less is allowed for sizes, 0 or more for dB.
        quick, full: encodings at effort 0, and at a higher asked effort.
    """

    image: str
    kind: str
    value: float
    effort: int
    excess: float
    quick: int
    full: int

    @property
    def is_close(self) -> bool:
        """Whether the file is on the allowed side and within 3 %, or 0.1 dB."""
        return Target(self.kind, self.value).allows(self.excess) and abs(self.excess) <= SLACK[self.kind]


def middle(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of ``pixels [H, W, C]``, at most ``side`` high and wide."""
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def measure(
    codec: Codec, name: str, pixels: NDArray[np.uint8], qualities: Sequence[int], efforts: Sequence[int]
) -> list[Met]:
    """Every target of one picture."""
    found: list[Met] = []
    for quality in qualities:
        data = codec.compress(pixels, quality, effort=0)
        decibels = psnr(pixels, codec.decompress(data))
        for target in (Target("size", 0.985 * len(data)), Target("psnr", decibels + 0.05)):
            for effort in efforts:
                met = compress_to(codec, pixels, target, effort=effort)
                excess = target.excess(met.value)
                found.append(Met(name, target.kind, target.value, effort, excess, *met.encodings))
    return found


def table(found: Sequence[Met]) -> list[str]:
    """Lines of markdown, one for each effort and kind."""
    lines = [
        "| effort | target | met | farthest | encodings at effort 0: mean, most | at the asked effort: mean, most |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for effort, kind in sorted({(one.effort, one.kind) for one in found}):
        these = [one for one in found if (one.effort, one.kind) == (effort, kind)]
        farthest = max((one.excess for one in these), key=abs)
        off = f"{100 * farthest:+.1f} %" if kind == "size" else f"{farthest:+.2f} dB"
        quick, full = ([getattr(one, name) for one in these] for name in ("quick", "full"))
        lines.append(
            f"| {effort} | {kind} | {sum(one.is_close for one in these)} of {len(these)} | {off} "
            f"| {statistics.mean(quick):.1f}, {max(quick)} | {statistics.mean(full):.1f}, {max(full)} |"
        )
    return lines


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@click.option("-q", "--qualities", callback=options.numbers, default="30,70", show_default=True)
@click.option(
    "-e",
    "--effort",
    "efforts",
    type=click.IntRange(0, EFFORT_MAX),
    multiple=True,
    default=(0, DEFAULT_EFFORT),
    show_default=True,
    help="Repeatable.",
)
@click.option("--side", type=click.IntRange(min=16), default=384, show_default=True, help="Of the middle that is used.")
@options.weights
@options.output
def main(
    images: tuple[Path, ...],
    qualities: list[int],
    efforts: tuple[int, ...],
    side: int,
    weights: Path | None,
    output: Path,
) -> None:
    found: list[Met] = []
    names = []
    try:
        path = weights or find_weights()
        codec = Codec.load(path, device="cpu")
        for image in images:
            pixels, _ = read_image(image)
            names.append(image_facts(image, *pixels.shape[1::-1]))
            found += measure(codec, image.name, middle(pixels, side), qualities, efforts)
        facts = provenance(codec, path, threads=torch.get_num_threads())
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    content = {"qualities": qualities, "side": side, "targets": [asdict(one) for one in found]}
    write_json(output, content | {"images": names, "provenance": facts})
    click.echo("\n".join(table(found)))


if __name__ == "__main__":
    main()
