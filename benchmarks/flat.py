"""What flat and drawn pictures cost, against WebP at equal PSNR and against files without loss.

::

    kinds of drawings ─┬─ qualities ──▶ .vq bytes, dB ──▶ smallest WebP with at least these dB ─┬─▶ ratios by kind
    folders ───────────┘                                  WebP and PNG without loss ────────────┘

The drawings are made here, the same for the same versions of the libraries. Of folders only means are kept.
"""

import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks import options
from benchmarks.targets import middle
from vqcodec.codec import Codec
from vqcodec.config import EFFORT_MAX
from vqcodec.errors import VqcodecError
from vqcodec.files.container import parse
from vqcodec.files.images import encode_image, image_files, read_image
from vqcodec.jsonfile import write_json
from vqcodec.metrics import psnr
from vqcodec.rd.anchors import ANCHORS, Setting
from vqcodec.rd.provenance import provenance
from vqcodec.train import drawings
from vqcodec.weights import find_weights

__all__ = ["DRAWN", "Cost", "Mean", "cost", "drawn", "main", "table"]

SIDE, ICON = 256, 64  # pixels
CEILING = 60.0  # dB: what equal pixels count as, since their PSNR is infinite

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Cost:
    """One picture at one quality.

    Attributes:
        size, framing: bytes of the file, and of what is not levels.
        psnr: in dB, at most ``CEILING``.
        webp: bytes of the smallest WebP with at least this PSNR; None if WebP does not reach it.
        webp_lossless, png: bytes without loss.
    """

    size: int
    framing: int
    psnr: float
    webp: int | None
    webp_lossless: int
    png: int

    @property
    def ratio(self) -> float:
        """Our bytes by those of the smaller WebP, with loss or without."""
        return self.size / min(self.webp_lossless, self.webp or self.webp_lossless)


@dataclass(frozen=True)
class Mean:
    """One kind of pictures at one quality: means of the fields of :class:`Cost`.

    Attributes:
        kind: of the drawing, or name of the folder.
        quality: 1..100.
        pictures: how many.
        ratio, worst: geometric mean and largest of the ratios to WebP.
        reached: share of pictures whose PSNR lossy WebP reaches.
    """

    kind: str
    quality: int
    pictures: int
    size: float
    framing: float
    psnr: float
    webp_lossless: float
    png: float
    ratio: float
    worst: float
    reached: float

    @classmethod
    def of(cls, kind: str, quality: int, costs: Sequence[Cost]) -> "Mean":
        """The means of at least one cost."""
        names = ("size", "framing", "psnr", "webp_lossless", "png")
        means = {name: statistics.mean(float(getattr(one, name)) for one in costs) for name in names}
        ratios = [one.ratio for one in costs]
        reached = statistics.mean(float(one.webp is not None) for one in costs)
        centre = statistics.geometric_mean(ratios)
        return cls(kind, quality, len(costs), **means, ratio=centre, worst=max(ratios), reached=reached)


def _fill(rng: random.Random, side: int) -> Image.Image:
    return Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))


def _ramp(rng: random.Random, side: int) -> Image.Image:
    """A straight change from one colour to another."""
    start, end = (np.array([rng.randrange(256) for _ in range(3)], float) for _ in range(2))
    y, x = np.mgrid[:side, :side] / side
    angle = rng.uniform(0, math.pi / 2)
    t = (x * math.cos(angle) + y * math.sin(angle)) / (math.cos(angle) + math.sin(angle))
    return Image.fromarray((start + t[:, :, None] * (end - start)).round().astype(np.uint8))


def _lines(rng: random.Random, side: int) -> Image.Image:
    """Black lines and arcs with smooth edges on white."""
    fine = 3 * side
    image = Image.new("RGB", (fine, fine), "white")
    canvas = ImageDraw.Draw(image)
    for _ in range(25):
        x, y, reach = (rng.randrange(fine) for _ in range(3))
        if rng.random() < 0.5:
            canvas.arc((x, y, x + reach, y + reach), rng.randrange(360), rng.randrange(360), "black", width=5)
        else:
            canvas.line((x, y, rng.randrange(fine), rng.randrange(fine)), "black", width=5)
    return image.resize((side, side), Image.Resampling.LANCZOS)


_TRAINED = {kind.__name__.strip("_"): kind for kind in drawings.KINDS}
DRAWN = {
    "one colour": (_fill, SIDE),
    "gradient": (_ramp, SIDE),
    "icon": (_TRAINED["shapes"], ICON),
    "shapes": (_TRAINED["shapes"], SIDE),
    "line drawing": (_lines, SIDE),
    "plot": (_TRAINED["plot"], SIDE),
    "text": (_TRAINED["text"], SIDE),
    "interface": (_TRAINED["interface"], SIDE),
}
"""How each kind is drawn, and pixels a side."""


def drawn(kind: str, pictures: int) -> Iterator[_Pixels]:
    """That many pictures of a kind, uint8 ``[H, W, 3]``."""
    draw, side = DRAWN[kind]
    for seed in range(pictures):
        yield np.array(draw(random.Random(f"{kind} {seed}"), side).convert("RGB"))


def cost(codec: Codec, pixels: _Pixels, qualities: Sequence[int], effort: int) -> list[Cost]:
    """What a picture costs at each quality."""
    lossless = {suffix: len(encode_image(pixels, suffix)) for suffix in (".webp", ".png")}
    curve: dict[int, tuple[int, float]] = {}
    found: list[Cost] = []
    for quality in qualities:
        data = codec.compress(pixels, quality, effort=effort)
        decibels = min(CEILING, psnr(pixels, codec.decompress(data)))
        framing = len(data) - sum(map(len, parse(data).levels))
        webp = _smallest_webp(pixels, decibels, curve)
        found.append(Cost(len(data), framing, decibels, webp, lossless[".webp"], lossless[".png"]))
    return found


def _smallest_webp(pixels: _Pixels, decibels: float, curve: dict[int, tuple[int, float]]) -> int | None:
    """Bytes of the WebP of the lowest quality that has at least this PSNR; ``curve`` keeps what was tried."""

    def at(quality: int) -> tuple[int, float]:
        if quality not in curve:
            setting = Setting({"format": "WEBP", "method": 6, "quality": quality})
            data = ANCHORS["webp"].compress(pixels, setting)
            seen = ANCHORS["webp"].decompress(data, grey=pixels.shape[2] == 1)
            curve[quality] = len(data), min(CEILING, psnr(pixels, seen))
        return curve[quality]

    low, high = 0, 100
    if at(high)[1] < decibels:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle)[1] >= decibels else (middle + 1, high)
    return at(low)[0]


def table(rows: Sequence[Mapping[str, float | str]]) -> list[str]:
    """Lines of markdown for :class:`Mean` as JSON stores them."""
    lines = [
        "| picture | quality | .vq, bytes | PSNR, dB | lossless WebP, bytes | times WebP: mean, worst |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['kind']} ({row['pictures']}) | {row['quality']} | {row['size']:,.0f} | {row['psnr']:.1f} "
            f"| {row['webp_lossless']:,.0f} | {row['ratio']:.2f}, {row['worst']:.2f} |"
        )
    return lines


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("folders", nargs=-1, type=options.FOLDER)
@click.option("-q", "--qualities", callback=options.numbers, default="20,50,75,95", show_default=True)
@click.option("--effort", type=click.IntRange(0, EFFORT_MAX), default=0, show_default=True)
@click.option("--pictures", type=click.IntRange(min=1), default=5, show_default=True, help="Of each kind.")
@click.option("--side", type=click.IntRange(min=16), default=512, show_default=True, help="Of folders' middles.")
@options.weights
@options.output
def main(
    folders: tuple[Path, ...],
    qualities: list[int],
    effort: int,
    pictures: int,
    side: int,
    weights: Path | None,
    output: Path,
) -> None:
    means: list[Mean] = []
    try:
        path = weights or find_weights()
        codec = Codec.load(path, device="cpu")
        groups = {kind: list(drawn(kind, pictures)) for kind in DRAWN}
        groups |= {
            folder.name: [middle(read_image(file)[0], side) for file in image_files(folder)] for folder in folders
        }
        for kind, group in groups.items():
            costs = [cost(codec, pixels, qualities, effort) for pixels in group]
            means += [Mean.of(kind, quality, [one[i] for one in costs]) for i, quality in enumerate(qualities)]
        facts = provenance(codec, path, threads=torch.get_num_threads())
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    rows = [asdict(mean) for mean in means]
    write_json(output, {"effort": effort, "side": side, "means": rows, "provenance": facts})
    click.echo("\n".join(table(rows)))


if __name__ == "__main__":
    main()
