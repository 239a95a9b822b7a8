"""The ``vqcodec`` command: arguments, messages and exit codes; the work is done elsewhere.

::

    encode   images ──vqcodec.cli.jobs, many by vqcodec.cli.batch──▶ .vq files
    decode   .vq files ──vqcodec.cli.jobs, many by vqcodec.cli.batch──▶ images
    info     photo.vq ──parse──▶ what its header says
    verify   .vq files ──parse──▶ whether they are whole
    train    photographs ──vqcodec.train──▶ weights
    rd-curve images ──vqcodec.rd──▶ a report of rates and distortions

Results go to stdout, one line a file; everything else to stderr. Exit codes: 0 done, 1 failed
with a line for each file that says why, 2 wrong usage, 130 interrupted. ``torch`` takes seconds to
import, so only the commands that compute import it, and not before the input has been looked at.
"""

import atexit
import contextlib
import io
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import click

from vqcodec import __version__
from vqcodec.cli.jobs import Coder, Decoder, Encoder, FileResult, Models, Task
from vqcodec.config import DEFAULT_QUALITY, QUALITY_MAX, QUALITY_MIN, Config
from vqcodec.errors import TrainingPaused, VqcodecError, explain, printable
from vqcodec.files.container import Container
from vqcodec.files.streams import STREAM, output_name, read_container, shown
from vqcodec.metrics import bpp

__all__ = ["main", "qualities"]

_F = TypeVar("_F", bound=Callable[..., Any])


class _Main(click.Group):
    """Makes of every exception one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):  # a file name need not be text that the terminal can show
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise  # click deals with these, and ends quietly if whoever read our output has gone
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("VQCODEC_DEBUG"):
                traceback.print_exc()
            _say("error", explain(error))
            ctx.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
        finally:
            # An interrupt while Python shuts down, when all is written, would end in torch's tracebacks.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _say(kind: str, message: str) -> None:
    click.echo(f"vqcodec: {kind}: {printable(message.strip())}", err=True)


class _Progress:
    """A spinner with the time so far on ``stream``, once the work takes over ``delay`` seconds.

    Silent where the stream is no terminal.
    """

    def __init__(self, task: str, *, quiet: bool, delay: float = 1.0) -> None:
        self.task = task
        self._delay = delay
        self._stream = sys.stderr
        self._done = threading.Event()
        self._writing = threading.Lock()
        self._visible = False
        self._thread: threading.Thread | None = None
        if not quiet and self._stream is not None and self._stream.isatty():
            self._thread = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the line to other output."""
        with self._writing:
            self._clear()
            yield

    def _spin(self) -> None:
        if self._done.wait(self._delay):
            return
        for mark in itertools.cycle("|/-\\"):
            with self._writing:
                self._write(f"\r{mark} {self.task}, {time.perf_counter() - self._start:.0f} s ")
                self._visible = True
            if self._done.wait(0.2):
                break
        self._clear()

    def _clear(self) -> None:
        if self._visible:
            self._write("\r\033[K")
            self._visible = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that went away must not end the work
            self._stream.write(text)
            self._stream.flush()


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vqcodec", message="%(prog)s %(version)s")
def main() -> None:
    """Turn images into very small .vq files, and back.

    A file name of - is standard input or output. Errors end with exit code 1 and one line on
    standard error.
    """


def _coding_options(function: _F) -> _F:
    """The options that encode and decode share."""
    options = [
        click.option("-f", "--force", is_flag=True, help="Overwrite the output file if it exists."),
        click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Files at a time."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option("--weights", type=click.Path(), metavar="FILE", help="A .safetensors file to use as the model."),
        click.option(
            "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of each.  [default: cores/jobs]"
        ),
        click.option("--quiet", is_flag=True, help="Say nothing on success, not even warnings."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


_max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Pixels that a picture may have.  [default: 134217728, fewer in a .vq file of a few bytes]",
)


@main.command()
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
@click.option("--psnr", is_flag=True, help="Decode again and report the PSNR.")
@click.option("--check", is_flag=True, help="Write nothing that does not decode to the same codes.")
@_max_pixels
@_coding_options
def encode(
    sources: tuple[str, ...],
    output: str | None,
    quality: int,
    psnr: bool,
    check: bool,
    max_pixels: int | None,
    force: bool,
    jobs: int,
    device: str,
    weights: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Compress the image INPUT to a .vq file.

    Of several inputs or a folder, each image gets a file of its own: next to it, or below the
    folder that -o names. A name with a slash at its end is always that of a folder. In folders,
    images are files that end in .avif, .bmp, .jpeg, .jpg, .png, .ppm, .tif, .tiff or .webp.

    The time reported is that of compressing, with the model loaded; of several files in the end,
    that from the first to the last, with reading and writing.
    """
    coder = Encoder(
        Models(weights, device, threads), quality, psnr=psnr and not quiet, check=check, max_pixels=max_pixels
    )
    _code(coder, sources, output, force=force, jobs=jobs, quiet=quiet)


@main.command()
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
    help="Decode only the N coarsest levels, the rest may be missing.",
)
@click.option("--preview", is_flag=True, help="Decode only the coarsest level: --levels 1.")
@click.option("--salvage", is_flag=True, help="Of a damaged file, show the levels before the damage; exit code 1.")
@_max_pixels
@_coding_options
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

    The extension of the output says which format. Of several inputs or a folder, each .vq file
    gives a .png: next to it, or below the folder that -o names. A name with a slash at its end
    is always that of a folder.

    Fewer levels, by --levels or for damage that --salvage gets over, give a picture of the same
    size with less detail. With --levels, a file may end after these levels.

    The time reported is that of decompressing, with the model loaded; of several files in the
    end, that from the first to the last, with reading and writing. Pictures of one size that
    follow each other are decoded together, and have equal shares of that time.
    """
    if preview and levels is not None:
        raise click.UsageError("--preview is --levels 1, and goes with no other --levels")
    if salvage and (preview or levels is not None):
        raise click.UsageError(
            "--salvage decodes every level that is whole, and goes with neither --levels nor --preview"
        )
    coder = Decoder(Models(weights, device, threads), 1 if preview else levels, salvage, max_pixels)
    _code(coder, sources, output, force=force, jobs=jobs, quiet=quiet)


@main.command()
@click.argument("source", metavar="FILE", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@_max_pixels
def info(source: str, as_json: bool, max_pixels: int | None) -> None:
    """Show what the .vq file FILE holds, without decoding it."""
    data, container = read_container(source, max_pixels=max_pixels)
    facts = _facts(source, len(data), container)
    click.echo(json.dumps(facts) if as_json else _describe(facts))


@main.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@_max_pixels
@click.option("--quiet", is_flag=True, help="Say nothing of files that are whole.")
def verify(sources: tuple[str, ...], max_pixels: int | None, quiet: bool) -> None:
    """Check that .vq files are whole, without decoding them.

    Every byte is covered by a checksum. Exit code 1 if a file is damaged or cannot be read.
    """
    broken = 0
    for source in sources:
        try:
            file = read_container(source, intact=1, max_pixels=max_pixels)[1]
        except VqcodecError as error:
            _say("error", str(error))
            broken += 1
            continue
        name = shown(source, "input")
        if file.damage:
            whole = f"{len(file.levels)} of {file.level_count} levels are whole (decode --salvage)"
            _say("error", f"{name}: {file.damage}; {whole}")
            broken += 1
        elif not quiet:
            click.echo(f"{printable(name)}: whole")
    if broken:
        if len(sources) > 1:
            _say("error", f"{broken} of {_files(len(sources))} {'is' if broken == 1 else 'are'} not whole")
        click.get_current_context().exit(1)


@main.command()
@click.argument("data_dir", metavar="DATA_DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", "run_dir", metavar="RUN_DIR", required=True, type=click.Path(path_type=Path))
@click.option(
    "--config", "preset", type=click.Path(), metavar="FILE", help="A TOML preset.  [default: the shipped model]"
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--validation",
    "validation_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Images to evaluate on.  [default: one in twenty of DATA_DIR, held out]",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Start from the weights in a file, or in another run's folder; the new model may be larger.",
)
@click.option("--name", metavar="NAME", help="Name of the exported model.  [default: compact]")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Minutes of all phases together, shared out as the preset's are.",
)
@click.option(
    "--stop-after",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Pause after so many minutes, with a checkpoint that --resume goes on from.",
)
@click.option("--resume", is_flag=True, help="Go on with the run that RUN_DIR holds.")
@click.option("--quiet", is_flag=True, help="Say nothing on success, not even warnings.")
def train(
    data_dir: Path,
    run_dir: Path,
    preset: str | None,
    device: str,
    validation_dir: Path | None,
    init: Path | None,
    name: str | None,
    minutes: float | None,
    stop_after: float | None,
    resume: bool,
    quiet: bool,
) -> None:
    """Train a model on the images under DATA_DIR and export its weights to RUN_DIR."""
    config = Config.from_toml(preset) if preset else Config()
    if minutes is not None:
        config = replace(config, train=config.train.within(minutes))
    if not data_dir.is_dir():
        raise VqcodecError(f"{data_dir}: not a folder, expected one with the training images")
    from vqcodec.train import run

    # The defaults of what is not given are run's own.
    options: dict[str, Any] = {
        "validation_dir": validation_dir,
        "init": init,
        "name": name,
        "stop_after": stop_after,
    }
    given = {key: value for key, value in options.items() if value is not None}
    try:
        exported = run(data_dir, run_dir, config, device=device, resume=resume, quiet=quiet, **given)
    except TrainingPaused as pause:
        if not quiet:
            click.echo(f"{printable(str(run_dir))}: paused: {pause}")
        return
    if not quiet:
        click.echo(f"{printable(str(exported))}: weights of a finished run")


def _comma_list(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str] | None:
    """Callback: ``a,b`` to names, ``none`` to no names."""
    if text is None:
        return None
    return [] if text == "none" else [word.strip() for word in text.split(",")]


def qualities(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    """Callback of options: qualities such as ``10,50,90``, put in rising order."""
    if text is None:
        return None
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r}, expected numbers such as 10,50,90") from None
    if not QUALITY_MIN <= found[0] <= found[-1] <= QUALITY_MAX:
        raise click.BadParameter(f"{text!r}, expected numbers from {QUALITY_MIN} to {QUALITY_MAX}")
    return found


@main.command("rd-curve")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the report. A report that was begun there is continued.",
)
@click.option(
    "-q",
    "--qualities",
    callback=qualities,
    metavar="Q,Q,…",
    help="Qualities of vqcodec.  [default: 1,10,20,…,100]",
)
@click.option(
    "--anchors",
    callback=_comma_list,
    metavar="NAMES",
    help="Codecs of Pillow beside it: jpeg,webp,avif,jpeg2000, or none.  [default: all]",
)
@click.option(
    "--metrics", callback=_comma_list, metavar="NAMES", help="psnr,ms-ssim,ssimulacra2.  [default: those installed]"
)
@click.option(
    "--overlay",
    "overlays",
    multiple=True,
    metavar="FILE",
    help="Published curves in CompressAI's JSON, FILE#NAME,NAME for some of a collection; drawn apart. Repeatable.",
)
@click.option("--log", "log_rate", is_flag=True, help="Draw rd.png and rd.svg over the logarithm of the rate.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Files at a time.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of each.  [default: cores/jobs]")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="For vqcodec."
)
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE", help="A .safetensors file to use as the model."
)
@click.option("--json", "as_json", is_flag=True, help="Print what rd.json holds instead of a table.")
@click.option("--quiet", is_flag=True, help="Say nothing on success, not even warnings.")
def rd_curve(
    images: tuple[Path, ...],
    output: Path,
    qualities: list[int] | None,
    anchors: list[str] | None,
    metrics: list[str] | None,
    overlays: tuple[str, ...],
    log_rate: bool,
    jobs: int,
    threads: int | None,
    device: str,
    weights: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure rate and distortion over IMAGES, files or folders, and write a report to DIR.

    vqcodec and Pillow's codecs code every image to real files. The report has the curves (rd.json,
    rd.png, rd.svg), every file's figures (per_image.csv), and a page to look at (index.html).
    """
    from vqcodec.rd.anchors import ANCHORS
    from vqcodec.rd.report import DEFAULT_QUALITIES, Options, make_report
    from vqcodec.rd.tables import summary

    _check_names("--anchors", anchors, list(ANCHORS))
    _check_names("--metrics", metrics, ["psnr", "ms-ssim", "ssimulacra2"])
    options = Options(
        qualities=qualities or DEFAULT_QUALITIES,
        anchors=list(ANCHORS) if anchors is None else anchors,
        overlays=overlays,
        metrics=metrics,
        weights=weights,
        device=device,
        jobs=jobs,
        threads=threads,
        log_rate=log_rate,
    )
    if not quiet and (warning := options.warning()):
        _say("warning", f"{warning}: add qualities with -q")
    result = make_report(images, output, options, quiet=quiet)
    for skipped in result.skipped:
        _say("error", f"{skipped.name}: skipped: {skipped.reason}")
    if as_json:
        click.echo(json.dumps(result.to_json()))
    elif not quiet:
        click.echo(summary(result))
        click.echo(f"\n{printable(str(output / 'index.html'))}: the report")
    if result.skipped:
        click.get_current_context().exit(1)


def _check_names(option: str, names: list[str] | None, known: list[str]) -> None:
    for name in names or []:
        if name not in known:
            raise click.BadParameter(f"{name!r}, expected some of {','.join(known)}", param_hint=option)


def _facts(source: str, file_bytes: int, container: Container) -> dict[str, Any]:
    """What ``info`` shows, in the names and order of its JSON."""
    levels = [len(level) for level in container.levels]
    chunks = [{"tag": tag.decode("ascii"), "bytes": len(payload)} for tag, payload in container.chunks]
    return {
        "file": source,
        "width": container.width,
        "height": container.height,
        "colours": "grey" if container.grey else "RGB",
        "quality": container.quality,
        "fingerprint": container.fingerprint.hex(),
        "bytes": file_bytes,
        "bpp": bpp(file_bytes, container.width, container.height),
        "levels": levels,
        "chunks": chunks,
    }


def _describe(facts: dict[str, Any]) -> str:
    total = facts["bytes"]
    rows = [(f"level {number}", size) for number, size in enumerate(facts["levels"])]
    rows += [(f"chunk {chunk['tag']}", chunk["bytes"]) for chunk in facts["chunks"]]
    rows.append(("framing", total - sum(size for _, size in rows)))
    lines = [
        f"{printable(shown(facts['file'], 'input'))}: {facts['width']}×{facts['height']}, {facts['colours']}, "
        f"quality {facts['quality']}, {total:,} bytes, {facts['bpp']:.3f} bpp",
        f"  {'weights':<12} {facts['fingerprint']:>12}",
        *(f"  {name:<12} {size:>12,} bytes {100 * size / total:5.1f} %" for name, size in rows),
    ]
    return "\n".join(lines)


def _code(coder: Coder, sources: Sequence[str], output: str | None, *, force: bool, jobs: int, quiet: bool) -> None:
    folder = output is not None and (os.path.isdir(output) or output.endswith(("/", os.sep)))
    if len(sources) > 1 or folder or os.path.isdir(sources[0]):
        _code_many(coder, sources, output, force=force, jobs=jobs, quiet=quiet)
        return
    (source,) = sources
    if source == STREAM and output is None:
        raise click.UsageError("-o is needed when INPUT is standard input")
    target = output_name(source, output, coder.suffix, force)
    with _Progress(f"{coder.verb} {printable(source)}", quiet=quiet):
        (coded,) = coder([Task(source, target)])
    if not quiet:
        _report(coder, coded)
    if coded.damage:
        _say_damage(coded)
        click.get_current_context().exit(1)


def _code_many(
    coder: Coder, sources: Sequence[str], output: str | None, *, force: bool, jobs: int, quiet: bool
) -> None:
    """Each file to one of its own; a file that fails does not keep the others from it."""
    from vqcodec.cli.batch import Failure, plan, run_batches

    if STREAM in (*sources, output):
        raise click.UsageError("- is one INPUT or output file, and goes with neither several nor a folder")
    if output is not None and os.path.exists(output) and not os.path.isdir(output):
        raise click.UsageError(f"-o {output} is a file, expected a folder for several outputs")
    tasks = plan(sources, output, coder, force=force)
    batches = coder.batches(tasks, jobs)
    coder.models.processes = min(jobs, len(batches))
    done: list[FileResult] = []
    with (
        _Progress(coder.verb, quiet=quiet) as progress,
        contextlib.closing(run_batches(coder, batches, coder.models.processes)) as outcomes,
    ):
        for number in range(1, len(tasks) + 1):
            progress.task = f"{coder.verb} {number} of {len(tasks)}"
            outcome = next(outcomes)
            with progress.aside():
                if isinstance(outcome, Failure):
                    _say("error", outcome.reason)
                    continue
                done.append(outcome)
                if not quiet:
                    _report(coder, outcome)
                if outcome.damage:
                    _say_damage(outcome)
    if done and not quiet:
        click.echo(_summary(done))
    if len(done) < len(tasks):
        _say("error", f"{len(tasks) - len(done)} of {_files(len(tasks))} failed")
    if len(done) < len(tasks) or any(coded.damage for coded in done):
        click.get_current_context().exit(1)


def _say_damage(coded: FileResult) -> None:
    _say("warning", f"{shown(coded.source, 'input')}: {coded.damage}")


def _files(count: int) -> str:
    return f"{count:,} file" if count == 1 else f"{count:,} files"


def _summary(done: Sequence[FileResult]) -> str:
    """Totals, and means of what each file has; the time is that from the first file to the last."""
    seconds = max(coded.end for coded in done) - min(coded.start for coded in done)
    pixels = sum(coded.width * coded.height for coded in done)
    facts = [
        _files(len(done)),
        f"{sum(coded.size for coded in done):,} bytes",
        f"{sum(coded.bpp for coded in done) / len(done):.3f} bpp",
        f"{seconds:.1f} s",
        f"{pixels / seconds / 1e6:.2f} Mpixel/s",
    ]
    decibels = [coded.psnr for coded in done if coded.psnr is not None]
    if decibels:
        facts.append(f"{sum(decibels) / len(decibels):.2f} dB")
    return ", ".join(facts)


def _report(coder: Coder, coded: FileResult) -> None:
    """The result line of a file; on stderr when the file itself goes to stdout."""
    for warning in coded.warnings:
        _say("warning", f"{shown(coded.source, 'input')}: {warning}")
    facts = [f"{coded.width}×{coded.height}", f"quality {coded.quality}"]
    if isinstance(coder, Encoder):
        facts += [f"{coded.size:,} bytes", f"{coded.bpp:.3f} bpp"]
    facts.append(f"{coded.seconds:.2f} s")
    if coded.psnr is not None:
        facts.append(f"{coded.psnr:.2f} dB")
    if coded.preview:
        facts.append(coded.preview)
    line = f"{shown(coded.target, 'output')}: {', '.join(facts)}"
    click.echo(printable(line), err=_is_standard_output(coded.target))


def _is_standard_output(target: str) -> bool:
    """Whether results on stdout would end up in the file: it is stdout, by whatever name."""
    try:
        return target == STREAM or os.path.samestat(os.stat(target), os.fstat(1))
    except OSError:
        return False
