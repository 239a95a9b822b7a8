"""The commands of the study bench: ``inspect``, ``sample`` and ``interpolate``.

::

    inspect       images ──vqcodec.study.report──▶ a page and pictures of what is in their codes
    sample        a seed ──vqcodec.study.sampling──▶ codes drawn from the prior ──▶ pictures
    interpolate   two images ──vqcodec.study.interpolation──▶ a strip of pictures between them

``vqcodec.study`` imports torch, so it is imported after the arguments were checked.
"""

import json
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import click

from vqcodec.cli import options
from vqcodec.cli.jobs import Models
from vqcodec.cli.progress import Progress
from vqcodec.errors import printable
from vqcodec.files.container import MAX_PIXELS
from vqcodec.files.streams import STREAM, check_input, output_name, read_source, shown, write_picture

__all__ = ["inspect", "interpolate", "sample"]

LARGEST = 4096  # pixels a side of a sample, whose memory no input bounds


def _temperature(context: click.Context, parameter: click.Parameter, text: str) -> Fraction:
    """Callback: a decimal number to an exact fraction."""
    if not re.fullmatch(r"\d{1,3}(\.\d{1,4})?", text):
        raise click.BadParameter(f"{text!r}, expected a number such as 0.8, with at most four decimals")
    return Fraction(text)


def _levels_from(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, int] | None:
    """Callback: ``photo.png:2`` to a name and a number."""
    if text is None:
        return None
    name, _, levels = text.rpartition(":")
    if not name or not re.fullmatch(r"\d{1,3}", levels):
        raise click.BadParameter(f"{text!r}, expected an image and a number of levels such as photo.png:1")
    return name, int(levels)


def _size(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Callback: ``640x480`` to width and height."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    width, height = map(int, found.groups()) if found else (0, 0)
    if not (1 <= width <= LARGEST and 1 <= height <= LARGEST):
        raise click.BadParameter(f"{text!r}, expected a size such as 640x480, at most {LARGEST} pixels a side")
    return width, height


@click.command()
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=options.PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=options.FOLDER,
    metavar="DIR",
    help="Folder of the page and the pictures.",
)
@options.study
def inspect(
    images: tuple[Path, ...],
    output: Path,
    quality: int,
    force: bool,
    device: str,
    weights: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what is in the codes of IMAGES, files or folders.

    The figures are of all images: the rate three ways, and the use of the codebooks. The pictures
    are of the first: codes, heat maps of the bits, what each level and group adds, and what the most
    used codes mean. DIR/index.html shows everything on one page. All images are held in memory, at
    about 20 bytes a pixel. They are encoded with effort 0.
    """
    sources = _images(images)
    with Progress(f"inspecting {len(sources)}", quiet=quiet or as_json):
        codec = Models(weights, device, threads).to_encode()
        from vqcodec.study.report import inspect, rate_table, write_report

        found = inspect(codec, sources, quality)
        write_report(codec, found, output, force=force)
    if as_json:
        rates = [{"uniform": one.uniform, "static": one.static, "prior": one.prior} for one in found.levels]
        click.echo(json.dumps({"output": str(output / "index.html"), "images": len(sources), "bits_a_pixel": rates}))
    elif not quiet:
        click.echo(f"{'bits a pixel':<12} {'uniform':>9} {'static':>9} {'PixelCNN':>9} {'saved':>9}")
        for name, *cells in rate_table(found):
            click.echo(f"{name:<12} {' '.join(f'{cell:>9}' for cell in cells)}")
        click.echo(f"{printable(str(output / 'index.html'))}: the page")


@click.command()
@click.option("-o", "--output", required=True, type=options.NAME, metavar="FILE", help="Picture of all samples.")
@click.option("-n", "--count", type=click.IntRange(1, 1024), default=16, show_default=True, help="Number of samples.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same codes.")
@click.option(
    "--temperature",
    callback=_temperature,
    default="1",
    show_default=True,
    metavar="T",
    help="Below 1 likelier codes, 0 the likeliest alone.",
)
@click.option(
    "--levels-from",
    callback=_levels_from,
    metavar="IMAGE:K",
    help="Keep the K coarse levels of an image, and draw the finer ones.",
)
@click.option(
    "--size", callback=_size, metavar="WxH", help="Size of a sample in pixels.  [default: 256x256, or IMAGE's]"
)
@options.study
def sample(
    output: str,
    count: int,
    seed: int,
    temperature: Fraction,
    levels_from: tuple[str, int] | None,
    size: tuple[int, int] | None,
    quality: int,
    force: bool,
    device: str,
    weights: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw pictures from the prior.

    Codes are drawn from the PixelCNN by the integers that code files, so a seed gives the same codes
    on every machine, and pixels within one grey level. With --levels-from, the first picture is the
    image itself and the second its K levels without the finer ones.
    """
    if levels_from is not None and size is not None:
        raise click.UsageError("--size cannot be combined with --levels-from, whose image has a size")
    target = output_name(STREAM, output, ".png", force)
    pixels = None if levels_from is None else read_source(levels_from[0], strip=["alpha"])[0].pixels
    models = Models(weights, device, threads)
    with Progress(f"drawing {count}", quiet=quiet or as_json):
        codec = models.to_decode(None) if pixels is None else models.to_encode()
        from vqcodec.files.extras import Picture
        from vqcodec.study.sampling import Start, sample_sheet

        start = None if levels_from is None or pixels is None else Start(pixels, levels_from[1])
        if start is not None and not 1 <= start.levels < len(codec.model.levels):
            most = len(codec.model.levels) - 1
            raise click.UsageError(f"--levels-from keeps {start.levels} levels, expected 1 to {most} of this model")
        width, height = size or (256, 256)
        if pixels is not None:
            height, width, _ = pixels.shape
        if count * width * height > MAX_PIXELS:
            raise click.UsageError(f"{count} samples of {width}×{height} are more than {MAX_PIXELS:,} pixels")
        picture = sample_sheet(codec, count, quality, height, width, seed=seed, temperature=temperature, start=start)
        write_picture(target, Picture(picture), ".png")
    samples = f"{count} {'sample' if count == 1 else 'samples'} of {width}×{height}"
    _tell(target, samples, {"samples": count, "width": width, "height": height, "seed": seed}, as_json, quiet)


@click.command()
@click.argument("first", metavar="A", type=options.NAME)
@click.argument("second", metavar="B", type=options.NAME)
@click.option("-o", "--output", required=True, type=options.NAME, metavar="FILE", help="Picture of the strip.")
@click.option("--steps", type=click.IntRange(2, 32), default=5, show_default=True, help="Pictures from A to B.")
@options.study
def interpolate(
    first: str,
    second: str,
    output: str,
    steps: int,
    quality: int,
    force: bool,
    device: str,
    weights: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Walk from the image A to the image B.

    The strip has four rows: a cross-fade of the pixels; the decoder's pictures of residuals z_e
    between the two; the same residuals quantised to codes, z_q; and the codes of B at more and more
    places. Of both images the common middle is used, at most 384 pixels a side.
    """
    for source in (first, second):
        check_input(source)
    target = output_name(STREAM, output, ".png", force)
    a, b = (read_source(source, strip=["alpha"])[0].pixels for source in (first, second))
    with Progress("interpolating", quiet=quiet or as_json):
        codec = Models(weights, device, threads).to_encode()
        from vqcodec.files.extras import Picture
        from vqcodec.study.interpolation import common_middle, strip

        a, b = common_middle(a, b)
        write_picture(target, Picture(strip(codec, a, b, quality, steps)), ".png")
    height, width, _ = a.shape
    size = f"{steps} steps of {width}×{height}"
    _tell(target, size, {"steps": steps, "width": width, "height": height}, as_json, quiet)


def _tell(target: str, line: str, facts: dict[str, int], as_json: bool, quiet: bool) -> None:
    """Say what was written, on standard error if the picture goes to standard output."""
    if as_json:
        click.echo(json.dumps({"output": shown(target, "output"), **facts}), err=target == STREAM)
    elif not quiet:
        click.echo(f"{printable(shown(target, 'output'))}: {line}", err=target == STREAM)


def _images(sources: Sequence[Path]) -> list[Path]:
    """The image files among ``sources``; raises VqcodecError for one that is missing or holds none."""
    from vqcodec.files.images import image_files

    found: list[Path] = []
    for source in sources:
        if os.path.isdir(source):
            found += image_files(source)
        else:
            check_input(str(source))
            found.append(source)
    return found
