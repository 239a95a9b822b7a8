"""The commands that make and measure models: ``train``, ``rd-curve`` and ``blind``.

::

    train     photographs ──vqcodec.train──▶ weights
    rd-curve  images ───────vqcodec.rd─────▶ a report of rates and distortions
    blind     images ───────vqcodec.rd─────▶ a page on which people say what is nearer to the original

Both packages import torch, so they are imported after the arguments were checked.
"""

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import click

from vqcodec.cli import options
from vqcodec.cli.messages import say
from vqcodec.cli.progress import Progress
from vqcodec.config import Config
from vqcodec.errors import TrainingPaused, VqcodecError, printable
from vqcodec.files.streams import STREAM, output_name, shown, write_bytes
from vqcodec.metrics import METRICS

__all__ = ["blind", "rd_curve", "train"]


@click.command()
@click.argument("data_dir", metavar="DATA_DIR", type=options.PATH)
@click.option(
    "-o",
    "--output",
    "run_dir",
    metavar="RUN_DIR",
    required=True,
    type=options.PATH,
    help="Folder of the run: checkpoints, log, and at the end the model.",
)
@click.option(
    "--config", "preset", type=options.NAME, metavar="FILE", help="A TOML preset.  [default: presets/compact.toml]"
)
@options.device
@click.option(
    "--validation",
    "validation_dir",
    type=options.PATH,
    metavar="DIR",
    help="Images to evaluate on.  [default: one in twenty of DATA_DIR, held out]",
)
@click.option(
    "--init",
    type=options.PATH,
    metavar="PATH",
    help="Start from the weights in a file, or in another run's folder; the new model may be larger.",
)
@click.option("--name", metavar="NAME", help="Name of the exported model.  [default: that of RUN_DIR]")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Minutes for everything together: reading, the phases in the preset's proportions, the export.",
)
@click.option(
    "--stop-after",
    type=click.FloatRange(min=0, min_open=True),
    default=math.inf,
    metavar="M",
    help="Pause after M minutes, with a checkpoint from which --resume continues.",
)
@click.option("--resume", is_flag=True, help="Continue the run in RUN_DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object, and nothing else.")
@options.quiet
def train(
    data_dir: Path,
    run_dir: Path,
    preset: str | None,
    device: str,
    validation_dir: Path | None,
    init: Path | None,
    name: str | None,
    minutes: float | None,
    stop_after: float,
    resume: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a model on the images under DATA_DIR.

    Its weights are exported to RUN_DIR.
    """
    since = time.monotonic()
    config = Config.from_toml(preset) if preset else Config()
    if minutes is not None:
        config = replace(config, train=replace(config.train, minutes=minutes))
    if not os.path.isdir(data_dir):
        raise VqcodecError(f"{data_dir}: not a folder, expected one with the training images")
    from vqcodec.train import run, shortfall

    exported, paused = None, None
    try:
        exported = run(
            data_dir,
            run_dir,
            config,
            device=device,
            resume=resume,
            quiet=quiet or as_json,
            validation_dir=validation_dir,
            init=init,
            stop_after=stop_after,
            name=name,
            since=since,
        )
    except TrainingPaused as pause:
        paused = str(pause)
    if os.environ.get("RANK", "0") != "0":  # torchrun's name for a process; the first one speaks for all
        return
    few = shortfall(run_dir, config.train) if exported else None
    if as_json:
        entry = {"weights": exported and str(exported), "paused": paused, "shortfall": few}
        click.echo(json.dumps({"run": str(run_dir), **entry}))
    elif exported and not quiet:
        click.echo(f"{printable(str(exported))}: {few or 'weights of a finished run'}")
    elif not quiet:
        click.echo(f"{printable(str(run_dir))}: paused: {paused}")


@click.command("rd-curve")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=options.PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=options.FOLDER,
    metavar="DIR",
    help="Folder of the report. A report that was begun there is continued.",
)
@click.option(
    "-q",
    "--qualities",
    callback=options.qualities,
    metavar="Q,Q,…",
    help="Qualities of vqcodec.  [default: 1,10,20,…,100]",
)
@options.effort
@click.option(
    "--anchors",
    callback=options.comma_list,
    metavar="NAMES",
    help="Codecs to compare with: jpeg,webp,avif,jpeg2000,jpegxl,heif, or none.  [default: those installed]",
)
@click.option(
    "--metrics",
    callback=options.comma_list,
    metavar="NAMES",
    help="psnr,ms-ssim,ssimulacra2,lpips,dists.  [default: those installed]",
)
@click.option(
    "--overlay",
    "overlays",
    multiple=True,
    metavar="FILE",
    help="Published curves in CompressAI's JSON, FILE#NAME,NAME for some of a collection; drawn apart. Repeatable.",
)
@click.option("--log", "log_rate", is_flag=True, help="Draw rd.png and rd.svg over the logarithm of the rate.")
@options.jobs
@options.threads
@options.device
@options.weights
@click.option("--json", "as_json", is_flag=True, help="Print the contents of rd.json instead of a table.")
@options.quiet
def rd_curve(
    images: tuple[Path, ...],
    output: Path,
    qualities: list[int] | None,
    effort: int,
    anchors: list[str] | None,
    metrics: list[str] | None,
    overlays: tuple[str, ...],
    log_rate: bool,
    jobs: int,
    threads: int | None,
    device: str,
    weights: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure rate and distortion over IMAGES.

    IMAGES are files or folders. vqcodec and the anchors code every image to real files. The report
    in DIR has the curves (rd.json, rd.png, rd.svg), every file's figures (per_image.csv), and a page
    to look at (index.html).
    """
    from vqcodec.rd.anchors import ANCHORS, installed_anchors
    from vqcodec.rd.report import DEFAULT_QUALITIES, Options, make_report
    from vqcodec.rd.tables import summary

    _check_names("--anchors", anchors, list(ANCHORS))
    _check_names("--metrics", metrics, [metric.name for metric in METRICS])
    settings = Options(
        qualities=qualities or DEFAULT_QUALITIES,
        effort=effort,
        anchors=installed_anchors() if anchors is None else anchors,
        overlays=overlays,
        metrics=metrics,
        weights=None if weights is None else Path(weights),
        device=device,
        jobs=jobs,
        threads=threads,
        log_rate=log_rate,
    )
    if not quiet and (warning := settings.warning()):
        say("warning", f"{warning}: add qualities with -q")
    result = make_report(images, output, settings, quiet=quiet)
    for skipped in result.skipped:
        say("error", f"{skipped.name}: skipped: {skipped.reason}")
    if as_json:
        click.echo(json.dumps(result.to_json()))
    elif not quiet:
        click.echo(summary(result))
        click.echo(f"\n{printable(str(output / 'index.html'))}: the report")
    if result.skipped:
        click.get_current_context().exit(1)


def _rates(context: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    """Callback: ``.1,.4`` to rising rates in bits per pixel."""
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError:
        rates = [0.0]
    if not all(0 < rate <= 24 for rate in rates):
        raise click.BadParameter(f"{text!r}, expected bits per pixel such as 0.1,0.2,0.4, above 0 and at most 24")
    return rates


@click.command()
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=options.PATH)
@click.option("-o", "--output", required=True, type=options.NAME, metavar="FILE", help="The page, such as blind.html.")
@click.option(
    "--bpp",
    "rates",
    callback=_rates,
    default="0.1,0.2,0.4",
    show_default=True,
    metavar="BPP,…",
    help="Rates to compare at.",
)
@click.option(
    "--anchors",
    callback=options.comma_list,
    default="avif,webp",
    show_default=True,
    metavar="NAMES",
    help="Codecs to compare with: jpeg,webp,avif,jpegxl,heif.",
)
@options.effort
@click.option(
    "--weights",
    type=options.PATH,
    multiple=True,
    metavar="FILE",
    help="A model's .decoder.safetensors file; repeatable, to compare models.",
)
@options.force
@options.quiet
def blind(
    images: tuple[Path, ...],
    output: str,
    rates: list[float],
    anchors: list[str],
    effort: int,
    weights: tuple[Path, ...],
    force: bool,
    quiet: bool,
) -> None:
    """Make a page for people to compare codecs without knowing which is which.

    Each question shows the middle of one of IMAGES, files or folders, beside two pictures that come
    from files of equal size: which one is nearer to the original? Every two codecs are compared at
    every rate that both reach. The page works without a network. At the end it says what the pictures
    were and who won how often, and saves the answers as JSON; it adds up the answers of several people.
    """
    from vqcodec.files.images import read_image
    from vqcodec.rd.blind import Trial, render, trials
    from vqcodec.rd.equal import WITH_QUALITY, coders
    from vqcodec.rd.sources import gather

    _check_names("--anchors", anchors, list(WITH_QUALITY))
    target = output_name(STREAM, output, ".html", force)
    found, skipped, warnings = gather(images, beside=Path(target))
    for problem in skipped:
        say("error", f"{problem.name}: skipped: {problem.reason}")
    for warning in warnings if not quiet else ():
        say("warning", warning)
    compared = coders(weights, anchors, effort)
    asked: list[Trial] = []
    with Progress(f"coding {len(found)}", quiet=quiet):
        for image in found:
            pixels = read_image(image.path)[0]
            asked += trials(image.name, pixels.repeat(3 // pixels.shape[2], axis=2), compared, rates)
    if not asked:
        raise VqcodecError(f"{output}: nothing to ask: no two codecs have files of equal size at any rate (see --bpp)")
    write_bytes(target, render(asked).encode())
    if not quiet:
        click.echo(f"{printable(shown(target, 'output'))}: {len(asked)} questions", err=target == STREAM)
    if skipped:
        click.get_current_context().exit(1)


def _check_names(option: str, names: list[str] | None, known: list[str]) -> None:
    for name in names or []:
        if name not in known:
            raise click.BadParameter(f"{name!r}, expected some of {','.join(known)}", param_hint=option)
