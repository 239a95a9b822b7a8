"""The command lines of the experiments, and what they leave: a JSON file and a picture of each.

::

    --data, --minutes, --seed ──command──▶ Settings ──▶ experiment ──▶ result, figure ──store──▶ NAME.json, NAME.png
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.study.data import FASHION, Labelled, load
from vqcodec.errors import VqcodecError
from vqcodec.files.atomic import write_atomic
from vqcodec.jsonfile import write_json
from vqcodec.rd.plot import STYLES
from vqcodec.rd.provenance import package_version, surroundings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "Settings", "command", "grid", "log_axis", "scatter", "show", "sketch", "store"]

COLOURS = [style.light for style in STYLES.values()]
RESULTS = Path(__file__).parent / "results"
TEXT, QUIET, GRID = "#1f2328", "#59636e", "#e4e7eb"
SMALLEST = 40  # images, of training and of test


@dataclass(frozen=True)
class Settings:
    """What a script was asked for: the data and its name, minutes of processor time, the seed, and the folder."""

    train: Labelled
    test: Labelled
    source: str
    minutes: float
    seed: int
    folder: Path


def command(run: Callable[[Settings], None], doc: str | None, *, shapes: bool = False) -> click.Command:
    """A command line that calls ``run``; ``doc`` is the script's docstring. With ``shapes`` it takes no other data."""

    @click.command(help=(doc or "").splitlines()[0])
    @click.option(
        "--minutes",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help="Processor time for all training together; shorter than the default, it trains less.",
    )
    @click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
    @click.option(
        "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Folder to write to."
    )
    def main(minutes: float, seed: int, output: Path, data: str = "shapes") -> None:
        try:
            train, test = load(data)
            if min(len(train), len(test)) < SMALLEST:
                raise click.ClickException(f"{data}: {len(train)} and {len(test)} images, expected at least {SMALLEST}")
            output.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(seed)
            run(Settings(train, test, Path(data).name, minutes, seed, output))
        except OSError as error:
            raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from None
        except VqcodecError as error:
            raise click.ClickException(str(error)) from None

    if not shapes:
        option = click.Option(
            ["--data"],
            default=str(FASHION),
            show_default=True,
            envvar="VQCODEC_STUDY_DATA",
            show_envvar=True,
            metavar="FOLDER",
            help="Labelled images, or 'shapes'.",
        )
        main.params.insert(0, option)
    return main


def store(settings: Settings, name: str, result: Mapping[str, object], figure: Figure) -> None:
    """Write ``NAME.json``, with data, seed, processor time and machine, and ``NAME.png``; print the result."""
    seconds = round(time.process_time(), 1)
    facts: dict[str, Any] = surroundings(threads=torch.get_num_threads())
    facts["versions"] |= {package: package_version(package) for package in ("scikit-learn", "matplotlib")}
    images = {"train": len(settings.train), "test": len(settings.test)}
    start = {"data": settings.source, "images": images, "minutes": settings.minutes, "seed": settings.seed}
    write_json(settings.folder / f"{name}.json", {**start, "processor_seconds": seconds, **result, "provenance": facts})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    small = io.BytesIO()  # 128 colours are enough
    Image.open(buffer).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    write_atomic(settings.folder / f"{name}.png", small.getvalue())
    for key, value in result.items():
        click.echo(f"{key}: {value}")


def sketch(columns: int, rows: int = 1, *, width: float = 7.5, height: float = 3.2) -> tuple[Figure, list["Axes"]]:
    """A figure, in inches, and its panels row by row."""
    matplotlib.rcdefaults()  # ignore the user's own settings
    matplotlib.rcParams["font.size"] = 8
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(np.ravel(figure.subplots(rows, columns)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(QUIET)
        axes.tick_params(which="both", color=QUIET, labelcolor=QUIET)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
    return figure, panels


def log_axis(axes: "Axes", label: str, ticks: Sequence[int]) -> None:
    """Make the x axis of ``axes`` logarithmic."""
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def scatter(axes: "Axes", places: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """``places [N, 2]`` in the colours of their ``labels [N]``, without numbers on the axes."""
    colours = matplotlib.colormaps["tab10"]
    for label, name in enumerate(names):
        x, y = places[labels == label].T
        axes.scatter(x, y, s=3, color=colours(label % colours.N), label=name, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def grid(rows: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Rows of images, each ``[N, 3, H, W]`` in 0..1, as one picture ``[R·H, N·W, 3]``."""
    tiles = torch.stack(list(rows)).permute(0, 3, 1, 4, 2)  # [R, H, N, W, 3]
    picture = (tiles.clamp(0, 1) * 255).round().to(torch.uint8)
    return picture.reshape(tiles.shape[0] * tiles.shape[1], -1, 3).numpy()


def show(axes: "Axes", rows: Sequence[Tensor], names: Sequence[str]) -> None:
    """Rows of images with a name beside each."""
    picture = grid(rows)
    axes.imshow(picture, interpolation="nearest", aspect="equal")
    height = picture.shape[0] / len(names)
    axes.set_yticks([height * (i + 0.5) for i in range(len(names))], names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
