"""The commands that code files and look at them: ``encode``, ``decode``, ``info`` and ``verify``.

::

    encode   images ──vqcodec.cli.jobs, several by vqcodec.cli.batch──▶ .vq files
    decode   .vq files ──vqcodec.cli.jobs, several by vqcodec.cli.batch──▶ images
    info     photo.vq ──parse──▶ the contents of its header
    verify   .vq files ──parse──▶ whether they are whole

``torch`` takes a second to import, so only the commands that compute import it, and only after a look at the input.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace

import click

from vqcodec.cli import options
from vqcodec.cli.batch import Failure, plan, run_batches
from vqcodec.cli.jobs import Coder, Decoder, Encoder, FileResult, Models, Task
from vqcodec.cli.messages import count, describe, facts, report, say, summary, warn_of_damage
from vqcodec.cli.progress import Progress
from vqcodec.config import DEFAULT_QUALITY, QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import VqcodecError, printable
from vqcodec.files.streams import STREAM, output_name, read_container, shown

__all__ = ["decode", "encode", "info", "verify"]


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="PATH",
    help="Output file, or the folder for several.  [default: INPUT with .vq]",
)
@click.option(
    "-q",
    "--quality",
    type=click.IntRange(QUALITY_MIN, QUALITY_MAX),
    default=DEFAULT_QUALITY,
    show_default=True,
    help="Higher is better and bigger.",
)
@options.effort
@click.option("--psnr", is_flag=True, help="Decode the result and report its PSNR.")
@click.option("--check", is_flag=True, help="Write a file only if it decodes to the same codes.")
@click.option(
    "--strip",
    callback=options.kinds,
    metavar="KINDS",
    default="",
    help="Leave out some of all,alpha,exif,gps,icc,xmp; without alpha the picture is laid over white.",
)
@options.coding
def encode(
    sources: tuple[str, ...],
    output: str | None,
    quality: int,
    effort: int,
    psnr: bool,
    check: bool,
    strip: list[str],
    max_pixels: int | None,
    force: bool,
    jobs: int,
    device: str,
    weights: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Compress the image INPUT to a .vq file.

    With several inputs or a folder, each image becomes a file of its own: next to the image, or in
    the folder that -o names. A name that ends in a slash always means a folder. In folders, the
    images are the files that end in .avif, .bmp, .jpeg, .jpg, .png, .ppm, .tif, .tiff or .webp.

    Transparency, EXIF and XMP are kept, and the picture is turned upright. Colours are converted to
    sRGB; a profile of another space is kept, and decode converts them back to it.

    The time of a file is that of compression, without loading the model. The last line for several
    files gives the time from the first to the last, with reading and writing.
    """
    models = Models(weights, device, threads)
    coder = Encoder(
        models, quality, effort, psnr=psnr and not quiet, check=check, max_pixels=max_pixels, strip=strip
    )
    _code(coder, sources, output, force=force, jobs=jobs, quiet=quiet)


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="PATH",
    help="Output image, or the folder for several.  [default: INPUT with .png]",
)
@click.option(
    "--levels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Decode only the N coarsest levels; the others may be missing.",
)
@click.option("--preview", is_flag=True, help="Decode only the coarsest level: --levels 1.")
@click.option("--salvage", is_flag=True, help="Decode a damaged file up to the damage; exit code 1.")
@options.coding
def decode(
    sources: tuple[str, ...],
    output: str | None,
    levels: int | None,
    preview: bool,
    salvage: bool,
    max_pixels: int | None,
    force: bool,
    jobs: int,
    device: str,
    weights: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Decompress the .vq file INPUT to an image.

    The extension of the output names the format. With several inputs or a folder, each .vq file
    becomes a .png: next to the .vq file, or in the folder that -o names. A name that ends in a
    slash always means a folder.

    With fewer levels, because of --levels or because --salvage leaves out damaged ones, the picture
    has the same size and less detail. With --levels, a file may end after these levels.

    The time of a file is that of decompression, without loading the model. The last line for
    several files gives the time from the first to the last, with reading and writing. Consecutive
    pictures of one size are decoded together and get equal shares of that time.
    """
    if preview and levels is not None:
        raise click.UsageError("--preview means --levels 1 and cannot be combined with --levels")
    if salvage and (preview or levels is not None):
        raise click.UsageError("--salvage decodes every whole level and cannot be combined with --levels or --preview")
    coder = Decoder(Models(weights, device, threads), 1 if preview else levels, salvage, max_pixels)
    _code(coder, sources, output, force=force, jobs=jobs, quiet=quiet)


@click.command()
@click.argument("source", metavar="FILE", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@options.max_pixels
def info(source: str, as_json: bool, max_pixels: int | None) -> None:
    """Show what the .vq file FILE holds, without decoding it."""
    data, container = read_container(source, max_pixels=max_pixels)
    if as_json:
        click.echo(json.dumps(facts(source, len(data), container)))
    else:
        click.echo(describe(source, len(data), container))


@click.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@options.max_pixels
@click.option("--quiet", is_flag=True, help="Print nothing about files that are whole.")
def verify(sources: tuple[str, ...], max_pixels: int | None, quiet: bool) -> None:
    """Check that .vq files are whole, without decoding them.

    Every byte is covered by a checksum. Exit code 1 if a file is damaged or cannot be read.
    """
    broken = 0
    for source in sources:
        try:
            file = read_container(source, intact=1, max_pixels=max_pixels)[1]
        except VqcodecError as error:
            say("error", str(error))
            broken += 1
            continue
        name = shown(source, "input")
        if file.damage:
            whole = f"{len(file.levels)} of {file.level_count} levels intact (decode --salvage shows them)"
            say("error", f"{name}: {file.damage}; {whole}")
            broken += 1
        elif not quiet:
            click.echo(f"{printable(name)}: whole")
    if broken:
        if len(sources) > 1:
            say("error", f"{broken} of {count(len(sources))} {'is' if broken == 1 else 'are'} not whole")
        click.get_current_context().exit(1)


def _code(coder: Coder, sources: Sequence[str], output: str | None, *, force: bool, jobs: int, quiet: bool) -> None:
    """Code one file, or several files and folders; exits with 1 if one fails or is damaged."""
    folder = output is not None and (os.path.isdir(output) or output.endswith(("/", os.sep)))
    if len(sources) > 1 or folder or os.path.isdir(sources[0]):
        _code_many(coder, sources, output, force=force, jobs=jobs, quiet=quiet)
        return
    (source,) = sources
    if source == STREAM and output is None:
        raise click.UsageError("-o is needed when INPUT is standard input")
    target = output_name(source, output, coder.suffix, force)
    with Progress(f"{coder.verb} {printable(source)}", quiet=quiet) as progress:
        if isinstance(coder, Encoder):
            coder = replace(coder, progress=progress.share)
        (coded,) = coder([Task(source, target)])
    if not quiet:
        report(coder, coded)
    if coded.damage:
        warn_of_damage(coded)
        click.get_current_context().exit(1)


def _code_many(
    coder: Coder, sources: Sequence[str], output: str | None, *, force: bool, jobs: int, quiet: bool
) -> None:
    """Code each file to one of its own; after one that fails, go on with the others."""
    if STREAM in (*sources, output):
        raise click.UsageError("- means one file, and cannot be combined with several inputs or a folder")
    if output is not None and os.path.exists(output) and not os.path.isdir(output):
        raise click.UsageError(f"-o {output} is a file, expected a folder for several outputs")
    tasks = plan(sources, output, coder, force=force)
    batches = coder.batches(tasks, jobs)
    coder.models.processes = min(jobs, len(batches))
    done: list[FileResult] = []
    with (
        Progress(coder.verb, quiet=quiet) as progress,
        contextlib.closing(run_batches(coder, batches, coder.models.processes)) as outcomes,
    ):
        for number in range(1, len(tasks) + 1):
            progress.describe(f"{coder.verb} {number} of {len(tasks)}")
            outcome = next(outcomes)
            with progress.aside():
                if isinstance(outcome, Failure):
                    say("error", outcome.reason)
                    continue
                done.append(outcome)
                if not quiet:
                    report(coder, outcome)
                if outcome.damage:
                    warn_of_damage(outcome)
    if done and not quiet:
        click.echo(summary(done))
    if len(done) < len(tasks):
        say("error", f"{len(tasks) - len(done)} of {count(len(tasks))} failed")
    if len(done) < len(tasks) or any(coded.damage for coded in done):
        click.get_current_context().exit(1)
