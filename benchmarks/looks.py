"""What pictures look like at a few rates by vqcodec and other codecs, at equal bytes.

::

    images ──every n-th──▶ pictures ─┬─ vqcodec: the largest file within the rate ──────┐
                                     └─ others: their smallest file of at least as much ─┴─▶ means of metrics
                                                                                         └─▶ the middles side by side

Nothing is chosen by its looks: the pictures come at equal distances in the order of their names, and the crops are
their middles. Of the pictures only means are stored.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks import options
from benchmarks.targets import middle
from vqcodec.cli.options import comma_list
from vqcodec.codec import Codec
from vqcodec.config import EFFORT_MAX
from vqcodec.errors import VqcodecError
from vqcodec.files.atomic import write_atomic
from vqcodec.files.images import encode_image, image_files, read_image
from vqcodec.jsonfile import JsonObject, write_json
from vqcodec.metrics import METRICS, available, bpp, measure
from vqcodec.rd.equal import OVER, WITH_QUALITY, Coder, coders
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["RATES", "Look", "Mean", "chosen", "look", "main", "means", "sheet", "table"]

RATES = (0.05, 0.1, 0.2, 0.4)  # bits per pixel
CROP, CAPTION = 192, 36  # pixels: a crop's side, and the height of the text below it

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """One picture by one codec at one rate: ``asked`` and ``bpp`` in bits per pixel, metrics by key, pixels."""

    codec: str
    asked: float
    bpp: float
    metrics: Mapping[str, float | None]
    seen: _Pixels


@dataclass(frozen=True)
class Mean:
    """Means of all pictures that a codec has a file of: how many, bits per pixel, metrics by their raw keys."""

    codec: str
    asked: float
    pictures: int
    bpp: float
    metrics: Mapping[str, float]


def chosen(files: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of ``files``, at equal distances in their order."""
    count = min(count, len(files))
    return [files[i * len(files) // count] for i in range(count)]


def look(pixels: _Pixels, coders: Sequence[Coder], metrics: Sequence[str]) -> Iterator[Look]:
    """One picture ``[H, W, 3]`` by each codec that can, at each of :data:`RATES`."""
    height, width = pixels.shape[:2]
    measured = [metric for metric in METRICS if metric.name in metrics]
    for rate in RATES:
        for coder in coders:
            data = coder.compress(pixels, rate)
            if data is not None:
                seen = coder.decompress(data)
                yield Look(coder.label, rate, bpp(len(data), width, height), measure(pixels, seen, measured), seen)


def means(looks: Sequence[Look]) -> list[Mean]:
    """Over the pictures of each rate and codec; a metric only if every picture has it."""
    groups: dict[tuple[float, str], list[Look]] = {}
    for one in looks:
        groups.setdefault((one.asked, one.codec), []).append(one)
    found: list[Mean] = []
    for (rate, codec), members in groups.items():
        values: dict[str, float] = {}
        for metric in METRICS:
            column = [value for one in members if (value := one.metrics.get(metric.raw)) is not None]
            if len(column) == len(members):
                values[metric.raw] = statistics.fmean(column)
        found.append(Mean(codec, rate, len(members), statistics.fmean(one.bpp for one in members), values))
    return found


def sheet(pixels: _Pixels, looks: Sequence[Look], labels: Sequence[str]) -> _Pixels:
    """The middles of a picture: a row for each rate, in it the original and a column for each codec of ``labels``."""
    original = middle(pixels, CROP)
    height, width = original.shape[:2]
    across = (1 + len(labels)) * (width + 4) - 4
    page = Image.new("RGB", (across, len(RATES) * (height + CAPTION)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    by_place = {(one.asked, one.codec): one for one in looks}
    for row, rate in enumerate(RATES):
        top = row * (height + CAPTION)
        for column, label in enumerate(["original", *labels]):
            left = column * (width + 4)
            if column == 0:
                crop, note = original, f"at {rate:g} bpp:"
            elif one := by_place.get((rate, label)):
                crop, note = middle(one.seen, CROP), f"{one.bpp:.3f} bpp{_excess(one.bpp, rate)}"
            else:
                crop, note = None, "no file so small"
            if crop is not None:
                page.paste(Image.fromarray(crop), (left, top))
            draw.multiline_text((left + 2, top + height + 1), f"{label}\n{note}", "black", font, spacing=1)
    return np.asarray(page)


def table(found: Sequence[JsonObject]) -> list[str]:
    """Lines of markdown: a row for each rate and codec. ``found`` are means as JSON stores them."""
    shown = [metric for metric in METRICS if any(metric.raw in one["metrics"] for one in found)]
    heads = [
        metric.label + (f", {metric.unit}" if metric.raw == metric.key and metric.unit else "") for metric in shown
    ]
    digits = [2 if metric.raw == metric.key else 4 for metric in shown]
    lines = [
        "| asked, bpp | codec | pictures | bpp | " + " | ".join(heads) + " |",
        "|---:|---|" + "---:|" * (2 + len(shown)),
    ]
    for one in found:
        values = [one["metrics"].get(metric.raw) for metric in shown]
        cells = ["–" if value is None else f"{value:.{d}f}" for value, d in zip(values, digits, strict=True)]
        rate = f"{one['bpp']:.3f}{_excess(one['bpp'], one['asked'])}"
        start = f"| {one['asked']:g} | {one['codec']} | {one['pictures']} | {rate} | "
        lines.append((start + " | ".join(cells) + " |").replace("-", "−"))
    return lines


def _excess(found: float, asked: float) -> str:
    """How much larger a file is than asked for, where the two are not of equal bytes: such as `` (+58 %)``."""
    return f" (+{100 * (found / asked - 1):.0f} %)" if found > OVER * asked else ""


def _check(names: Sequence[str], known: Sequence[str], option: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{unknown[0]!r}, expected some of {','.join(known)}", param_hint=option)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("-n", "--count", type=click.IntRange(min=1), default=10, show_default=True, help="Pictures at most.")
@click.option(
    "--codecs", callback=comma_list, default="avif,jpegxl", show_default=True, help="With a quality of 0..100."
)
@click.option("--metrics", callback=comma_list, help="As of rd-curve.  [default: those installed]")
@click.option("--effort", type=click.IntRange(0, EFFORT_MAX), default=0, show_default=True)
@click.option("--sheets", type=options.FOLDER, help="Also write the middles, a lossless WebP for each picture.")
@click.option(
    "--weights",
    type=options.STORED,
    multiple=True,
    metavar="FILE",
    help="Models, a column each.  [default: the shipped one]",
)
@options.output
def main(
    images: tuple[Path, ...],
    count: int,
    codecs: list[str],
    metrics: list[str] | None,
    effort: int,
    sheets: Path | None,
    weights: tuple[Path, ...],
    output: Path,
) -> None:
    _check(codecs, WITH_QUALITY, "--codecs")
    installed = [metric.name for metric in METRICS if available(metric.name)]
    _check(metrics or [], installed, "--metrics")
    try:
        files = chosen([file for one in images for file in (image_files(one) if one.is_dir() else [one])], count)
        paths = weights or (find_weights(),)
        compared = coders(paths, codecs, effort)
        looks: list[Look] = []
        for file in files:
            pixels, _ = read_image(file)
            pixels = pixels.repeat(3 // pixels.shape[2], axis=2)  # grey as colour
            mine = list(look(pixels, compared, metrics or installed))
            looks += mine
            if sheets:
                sheets.mkdir(parents=True, exist_ok=True)
                drawn = sheet(pixels, mine, [coder.label for coder in compared])
                write_atomic(sheets / f"looks-{file.stem}.webp", encode_image(drawn, ".webp"))
            click.echo(file.name)
        facts = provenance(Codec.load(paths[0], device="cpu"), paths[0], threads=torch.get_num_threads())
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    found = [asdict(one) for one in means(looks)]
    content = {
        "images": [one.resolve().name for one in images],
        "pictures": len(files),
        "effort": effort,
        "means": found,
    }
    write_json(output, content | {"provenance": facts})
    click.echo("\n".join(table(found)))


if __name__ == "__main__":
    main()
