"""The commands of the study bench: ``inspect``.

::

    inspect   images ──vqcodec.study.report──▶ a page and pictures of what is in their codes

``vqcodec.study`` imports torch, so it is imported after the arguments were checked.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from vqcodec.cli import options
from vqcodec.cli.jobs import Models
from vqcodec.cli.progress import Progress
from vqcodec.config import DEFAULT_QUALITY, QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import printable
from vqcodec.files.streams import check_input

__all__ = ["inspect"]

quality = click.option(
    "-q",
    "--quality",
    type=click.IntRange(QUALITY_MIN, QUALITY_MAX),
    default=DEFAULT_QUALITY,
    show_default=True,
    help="Higher is better and bigger.",
)


@click.command()
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the page and the pictures.",
)
@quality
@options.force
@options.device
@options.weights
@options.threads
@options.quiet
def inspect(
    images: tuple[Path, ...],
    output: Path,
    quality: int,
    force: bool,
    device: str,
    weights: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Show what is in the codes of IMAGES, files or folders.

    The figures are of all images: the rate three ways, and the use of the codebooks. The pictures
    are of the first: codes, heat maps of the bits, what each level and group adds, and what the most
    used codes mean. DIR/index.html shows everything on one page.
    """
    sources = _images(images)
    with Progress(f"inspecting {len(sources)}", quiet=quiet):
        codec = Models(weights, device, threads).to_encode()
        from vqcodec.study.report import inspect, rate_table, write_report

        found = inspect(codec, sources, quality)
        write_report(codec, found, output, force=force)
    if not quiet:
        click.echo(f"{'bits a pixel':<12} {'uniform':>9} {'static':>9} {'PixelCNN':>9} {'saved':>9}")
        for name, *cells in rate_table(found):
            click.echo(f"{name:<12} {' '.join(f'{cell:>9}' for cell in cells)}")
        click.echo(f"{printable(str(output / 'index.html'))}: the page")


def _images(sources: Sequence[Path]) -> list[Path]:
    """The image files among ``sources``; raises VqcodecError for one that is missing or holds none."""
    from vqcodec.files.images import image_files

    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += image_files(source)
        else:
            check_input(str(source))
            found.append(source)
    return found
