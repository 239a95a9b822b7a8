"""Command-line options that the scripts share."""

import math
from pathlib import Path

import click

from vqcodec.cli.options import qualities as numbers
from vqcodec.files.container import MAX_PIXELS

__all__ = ["FILE", "FOLDER", "STORED", "device", "make_folder", "numbers", "output", "sizes", "weights"]

FILE = click.Path(path_type=Path, dir_okay=False)
STORED = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False)


def make_folder(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    """Callback: create the folder of an output file, so that errors appear before hours of work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{path.parent}: cannot be made: {error.strerror}") from None
    return path


output = click.option(
    "-o", "--output", type=FILE, callback=make_folder, required=True, help="The JSON file to write.", metavar="FILE"
)
device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True)
weights = click.option("--weights", type=STORED, metavar="FILE", help="A model other than the shipped one.")


def sizes(context: click.Context, parameter: click.Parameter, text: str) -> list[tuple[int, int]]:
    """Callback: widths and heights in pixels, such as ``768x512,1920x1080``; none if ``text`` is empty."""
    try:
        found = [tuple(map(int, part.split("x"))) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [()]
    if not all(len(size) == 2 and min(size) >= 1 and math.prod(size) <= MAX_PIXELS for size in found):
        raise click.BadParameter(f"{text!r}: expected sizes such as 768x512,1920x1080, or none")
    return [(size[0], size[1]) for size in found]
