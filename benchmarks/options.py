"""Command-line options that the scripts share."""

from pathlib import Path

import click

from vqcodec.cli.options import qualities as numbers

__all__ = ["FILE", "FOLDER", "STORED", "device", "make_folder", "numbers", "output", "weights"]

FILE = click.Path(path_type=Path, dir_okay=False)
STORED = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False)


def make_folder(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    """Callback: the folder of an output file, made before hours of work and not after."""
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
