"""The commands that code files: ``encode`` and ``decode``.

::

    encode   images ──vqcodec.cli.jobs, several by vqcodec.cli.batch──▶ .vq files
    decode   .vq files ──vqcodec.cli.jobs, several by vqcodec.cli.batch──▶ images

``torch`` takes a second to import, so only the commands that compute import it, and only after a look at the input.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import click

from vqcodec.cli import options
from vqcodec.cli.batch import Failure, plan, run_batches
from vqcodec.cli.jobs import Coder, Decoder, Encoder, FileResult, Models, Task
from vqcodec.cli.messages import count, record, record_skipped, report, say, summary, warn_of_damage
from vqcodec.cli.progress import Progress
from vqcodec.config import DEFAULT_TUNE, Tune
from vqcodec.errors import printable
from vqcodec.files.streams import STREAM, output_name

__all__ = ["decode", "encode"]


@dataclass(frozen=True)
class _How:
    """The options that ``encode`` and ``decode`` share and that do not concern the codec."""

    output: str | None
    force: bool
    skip_existing: bool
    jobs: int
    as_json: bool
    verbose: bool
    quiet: bool


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=options.NAME)
@click.option(
    "-o",
    "--output",
    type=options.NAME,
    metavar="PATH",
    help="Output file, or the folder for several.  [default: INPUT with .vq]",
)
@options.quality
@options.effort
@options.tune
@options.targets
@click.option("--psnr", is_flag=True, help="Decode the result and report its PSNR.")
@click.option("--check", is_flag=True, help="Write a file only if it decodes to the same codes.")
@click.option(
    "--strip",
    callback=options.kinds,
    shell_complete=options.complete_kinds,
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
    tune: Tune,
    target_size: float | None,
    target_bpp: float | None,
    target_psnr: float | None,
    target_ssimulacra2: float | None,
    psnr: bool,
    check: bool,
    strip: list[str],
    max_pixels: int | None,
    force: bool,
    skip_existing: bool,
    jobs: int,
    device: str,
    weights: str | None,
    threads: int | None,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Compress the image INPUT to a .vq file.

    With several inputs or a folder, each image becomes a file of its own: next to the image, or in
    the folder that -o names. A name that ends in a slash always means a folder. Images of one
    folder that differ only in their extension keep it: a.jpg and a.png become a.jpg.vq and a.png.vq.

    In folders, the images are the files that end in apng, avif, bmp, dib, gif, ico, j2k, jfif, jp2,
    jpe, jpeg, jpg, pbm, pcx, pgm, png, pnm, ppm, psd, qoi, tga, tif, tiff or webp; a warning counts
    the others.

    Transparency, EXIF and XMP are kept, and the picture is turned upright. Colours are converted to
    sRGB; a profile of another space is kept, and decode converts them back to it.

    Give a quality, or a target in its place: the file that comes closest to it on the allowed side
    is written. That takes about four encodings with effort 0, and mostly one or two with the effort
    asked for. Effort 0 does not search, and files of --tune visual are never searched; the decoder
    is the same for all. See docs/search.md.

    A warning names pictures that hardly need more bytes as a PNG without loss, such as drawings,
    screenshots and icons.

    The time of a file is that of compression, without loading the model. The last line for several
    files gives the time from the first to the last, with reading and writing.
    """
    if weights and tune != DEFAULT_TUNE:
        raise click.UsageError("--weights and --tune cannot be combined: each names a model")
    if tune == "visual" and effort and options.is_given("effort"):
        raise click.UsageError("--effort searches for less squared error, which is not what --tune visual is for")
    models = Models(weights, device, threads, tune)
    target = options.target(size=target_size, bpp=target_bpp, psnr=target_psnr, ssimulacra2=target_ssimulacra2)
    coder = Encoder(
        models,
        quality,
        effort,
        psnr=psnr and not quiet,
        check=check,
        max_pixels=max_pixels,
        target=target,
        strip=strip,
        advise=not quiet,
    )
    _code(coder, sources, _How(output, force, skip_existing, jobs, as_json, verbose, quiet))


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=options.NAME)
@click.option(
    "-o",
    "--output",
    type=options.NAME,
    metavar="PATH",
    help="Output image, or the folder for several.  [default: INPUT with .png]",
)
@click.option(
    "--levels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Decode only the N coarsest levels; the others may be missing.",
)
@click.option(
    "--format",
    "extension",
    type=click.Choice(["png", "webp", "avif", "jpg", "tiff", "bmp", "ppm", "pgm"]),
    help="Format of outputs without a name of their own.  [default: png]",
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
    extension: str | None,
    max_pixels: int | None,
    force: bool,
    skip_existing: bool,
    jobs: int,
    device: str,
    weights: str | None,
    threads: int | None,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Decompress the .vq file INPUT to an image.

    The extension of the output names the format. With several inputs or a folder, each .vq file
    becomes an image of its own: next to the .vq file, or in the folder that -o names. A name that
    ends in a slash always means a folder. Their format, and that of standard output, is PNG or what
    --format names.

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
    suffix = _suffix(output, extension, one=len(sources) == 1 and not os.path.isdir(sources[0]))
    coder = Decoder(Models(weights, device, threads), 1 if preview else levels, salvage, max_pixels, suffix)
    _code(coder, sources, _How(output, force, skip_existing, jobs, as_json, verbose, quiet))


def _suffix(output: str | None, extension: str | None, *, one: bool) -> str:
    """The extension of decoded images; raises UsageError if ``--format`` contradicts the name of the one output."""
    suffix = f".{extension or 'png'}"
    if extension and one and output and output != STREAM and not os.path.isdir(output):
        stated = os.path.splitext(output)[1].lower()
        if stated and {".jpeg": ".jpg", ".tif": ".tiff"}.get(stated, stated) != suffix:
            raise click.UsageError(f"-o {output} and --format {extension} name two formats")
    return suffix


def _code(coder: Coder, sources: Sequence[str], how: _How) -> None:
    """Code one file, or several files and folders; exits with 1 if one fails or is damaged."""
    _check_options(how)
    output = how.output
    folder = output is not None and (os.path.isdir(output) or output.endswith(("/", os.sep)))
    if len(sources) > 1 or folder or os.path.isdir(sources[0]):
        _code_many(coder, sources, how)
        return
    (source,) = sources
    if source == STREAM and output is None:
        raise click.UsageError("-o is needed when INPUT is standard input")
    target = output_name(source, output, coder.suffix, how.force or how.skip_existing)
    if how.skip_existing and coder.has_made(target):
        if how.as_json:
            record_skipped(source, target)
        elif not how.quiet:
            click.echo(f"{printable(target)}: exists already, skipped")
        return
    with Progress(f"{coder.verb} {printable(source)}", quiet=how.quiet) as progress:
        if isinstance(coder, Encoder):
            coder = replace(coder, progress=progress.share)
        (coded,) = coder([Task(source, target)])
    _tell(coder, coded, how)
    if coded.damage:
        click.get_current_context().exit(1)


def _code_many(coder: Coder, sources: Sequence[str], how: _How) -> None:
    """Code each file to one of its own; after one that fails, go on with the others."""
    _check_folder(how.output, sources, coder)
    planned = plan(sources, how.output, coder, force=how.force, skip=how.skip_existing)
    tasks, failed = planned.tasks, len(planned.unreadable)
    for line in planned.unreadable:
        say("error", line)
    if planned.passed_over and not how.quiet:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(planned.passed_over.items()))
        say("warning", f"passed over in folders, since they are no {coder.wanted.split(';')[0]}: {kinds}")
    if how.as_json:
        for task in planned.skipped:
            record_skipped(task.source, task.target)
    batches = coder.batches(tasks, how.jobs)
    coder.models.processes = max(1, min(how.jobs, len(batches)))
    done: list[FileResult] = []
    with (
        Progress(coder.verb, quiet=how.quiet) as progress,
        contextlib.closing(run_batches(coder, batches, coder.models.processes)) as outcomes,
    ):
        for number in range(1, len(tasks) + 1):
            progress.describe(f"{coder.verb} {number} of {len(tasks)}")
            progress.share((number - 1) / len(tasks), sum(result.width * result.height for result in done))
            outcome = next(outcomes)
            with progress.aside():
                if isinstance(outcome, FileResult):
                    done.append(outcome)
                    _tell(coder, outcome, how)
                else:
                    failed += 1
                    _tell_failure(outcome, how)
    if not how.quiet and not how.as_json:
        if done:
            click.echo(summary(done))
        if planned.skipped:
            click.echo(f"{count(len(planned.skipped))} skipped, since the outputs exist")
    if failed:
        say("error", f"{failed} of {count(len(tasks) + len(planned.unreadable))} failed")
    if failed or any(coded.damage for coded in done):
        click.get_current_context().exit(1)


def _tell(coder: Coder, result: FileResult, how: _How) -> None:
    """Print the result of one file, and what is wrong with it."""
    if how.as_json:
        record(coder, result)
    elif not how.quiet:
        report(coder, result, verbose=how.verbose)
    if result.damage:
        warn_of_damage(result)


def _tell_failure(failure: Failure, how: _How) -> None:
    say("error", failure.reason)
    if how.as_json:
        click.echo(json.dumps({"error": failure.reason}))


def _check_options(how: _How) -> None:
    """Raise UsageError for options that contradict each other."""
    if how.output == "":
        raise click.UsageError("-o is empty, expected the name of a file or folder")
    if how.force and how.skip_existing:
        raise click.UsageError("-f overwrites outputs that exist, --skip-existing leaves them alone: choose one")
    if how.verbose and (how.quiet or how.as_json):
        raise click.UsageError("-v adds to what is printed for people, and cannot be combined with --json or --quiet")
    if how.as_json and how.quiet:
        raise click.UsageError("--json prints results, --quiet prints none: choose one")


def _check_folder(output: str | None, sources: Sequence[str], coder: Coder) -> None:
    """Raise UsageError if ``output`` cannot be the folder of several outputs."""
    if STREAM in (*sources, output):
        raise click.UsageError("- means one file, and cannot be combined with several inputs or a folder")
    if output is None or os.path.isdir(output) or output.endswith(("/", os.sep)):
        return
    from vqcodec.files.images import has_image_extension

    if os.path.exists(output):
        raise click.UsageError(f"-o {output} is a file, expected a folder for several outputs")
    if os.path.splitext(output)[1].lower() == ".vq" or has_image_extension(output):
        raise click.UsageError(f"-o {output} names a file, expected a folder for several outputs ({output}/ is one)")
