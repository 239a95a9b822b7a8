"""The options that several commands share, and the values that options take."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vqcodec.config import DEFAULT_EFFORT, DEFAULT_QUALITY, DEFAULT_TUNE, EFFORT_MAX, QUALITY_MAX, QUALITY_MIN, TUNES
from vqcodec.files.kinds import STRIPPABLE, stripped

__all__ = [
    "FOLDER",
    "NAME",
    "PATH",
    "as_json",
    "coding",
    "comma_list",
    "complete_kinds",
    "device",
    "effort",
    "force",
    "jobs",
    "kinds",
    "max_pixels",
    "qualities",
    "quality",
    "quiet",
    "skip_existing",
    "study",
    "target",
    "targets",
    "threads",
    "verbose",
    "weights",
]

# A file that cannot be read is an error of that file, not wrong usage: the command, not click, tries to read it.
NAME = click.Path(readable=False)
PATH = click.Path(readable=False, path_type=Path)
FOLDER = click.Path(readable=False, path_type=Path, file_okay=False)

_Command = TypeVar("_Command", bound=Callable[..., object])


def _together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """One decorator for several options, which ``--help`` lists in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the model computes.",
)
effort = click.option(
    "--effort",
    type=click.IntRange(0, EFFORT_MAX),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="How long to search for fewer bits at equal PSNR.",
)
force = click.option("-f", "--force", is_flag=True, help="Overwrite output files that exist.")
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object for each file, on a line of its own."
)
jobs = click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Files at a time.")
max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Pixels that a picture may have.  [default: 134217728, fewer in a .vq file of a few bytes]",
)
quality = click.option(
    "-q",
    "--quality",
    type=click.IntRange(QUALITY_MIN, QUALITY_MAX),
    default=DEFAULT_QUALITY,
    show_default=True,
    help="Higher is better and bigger.",
)
quiet = click.option("--quiet", is_flag=True, help="Print nothing on success, not even warnings.")


def _size(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Callback: ``50k`` or ``1.5M`` to bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kM]?)B?", text)
    if not match or not float(match[1]):
        raise click.BadParameter(f"{text!r}, expected bytes such as 50000, 50k or 1.5M")
    return float(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]


class _Finite(click.FloatRange):
    """A number in a range; neither nan nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r}, expected a finite number.", param, ctx)
        return number


_POSITIVE = _Finite(min=0, min_open=True)

targets = _together(  # what a file shall have, in place of a quality
    click.option("--target-size", callback=_size, metavar="BYTES", help="At most this size: 50000, 50k or 1.5M."),
    click.option("--target-bpp", type=_POSITIVE, metavar="BPP", help="At most these bits per pixel."),
    click.option("--target-psnr", type=_POSITIVE, metavar="DB", help="At least this PSNR."),
    click.option("--target-ssimulacra2", type=_Finite(max=100), metavar="SCORE", help="At least this SSIMULACRA2."),
)


def is_given(name: str) -> bool:
    """Whether the option ``name`` of the present command stands on the command line."""
    return click.get_current_context().get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def target(**values: float | None) -> tuple[str, float] | None:
    """Kind and value of the one target that was given; raises UsageError for two, or for one beside a quality."""
    given = [(kind, value) for kind, value in values.items() if value is not None]
    by_user = is_given("quality")
    if len(given) + by_user > 1:
        names = [f"--target-{kind}" for kind, _ in given] + ["--quality"] * by_user
        raise click.UsageError(f"{' and '.join(names)} cannot be combined: each decides the quality")
    return given[0] if given else None


skip_existing = click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave out inputs whose output exists; one that is empty or of another kind is replaced.",
)
tune = click.option(
    "--tune",
    type=click.Choice(TUNES),
    default=DEFAULT_TUNE,
    show_default=True,
    help="What the model was trained for: the least squared error, or what people see.",
)
threads = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads for each file.  [default: cores/jobs]"
)
verbose = click.option(
    "-v", "--verbose", is_flag=True, help="Also print the model and the bytes of each part of a file."
)
weights = click.option("--weights", type=NAME, metavar="FILE", help="A model's .decoder.safetensors file.")


# Of commands that code files with a model, and of those of the study bench.
coding = _together(max_pixels, force, skip_existing, jobs, device, weights, threads, as_json, verbose, quiet)
study = _together(quality, force, device, weights, threads, as_json, quiet)


def kinds(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """Callback: ``exif,gps`` to kinds of extras."""
    try:
        return sorted(stripped(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def complete_kinds(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The kinds that can end ``incomplete``, such as ``exif,gps`` for ``exif,g``."""
    before, comma, word = incomplete.rpartition(",")
    return [f"{before}{comma}{kind}" for kind in STRIPPABLE if kind.startswith(word)]


def comma_list(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str] | None:
    """Callback: ``a,b`` to names, ``none`` to no names."""
    if text is None:
        return None
    return [] if text == "none" else [word.strip() for word in text.split(",")]


def qualities(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    """Callback: qualities such as ``10,50,90`` to numbers in rising order."""
    if text is None:
        return None
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r}, expected numbers such as 10,50,90") from None
    if not QUALITY_MIN <= found[0] <= found[-1] <= QUALITY_MAX:
        raise click.BadParameter(f"{text!r}, expected numbers from {QUALITY_MIN} to {QUALITY_MAX}")
    return found
