"""Time to show a picture in Chromium: the first preview, the whole picture, and the shares of prior and network.

::

    IMAGES ── Codec.compress ──▶ files ── Viewer.show, in turn ──▶ milliseconds ── medians ──▶ table

A file is in memory, the weights are loaded, and one file was shown before. Run it on an idle machine; on a busy one,
only the processor time of the page stays the same.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from benchmarks import options
from benchmarks.browser import Viewer, installed, launched, usage, viewer
from benchmarks.speed import sized
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["main", "markdown", "measure"]

SECONDS = 1800  # that a file may take; a large one takes half a minute on an idle machine


def measure(browser: "Browser", files: Sequence[bytes], repeats: int) -> tuple[dict[str, float], int]:
    """Medians over ``repeats`` showings of each of ``files``, in milliseconds, and the peak bytes of the page.

    Under ``processor`` is the mean of the milliseconds of processor time of the page's process.
    """
    with viewer(browser, seconds=SECONDS) as page:
        page.show(files[0], pixels=False)  # loads the weights
        before = usage(browser)
        medians = _show(page, files, repeats)
        after = usage(browser)
    taken = max(after[process].processor - before[process].processor for process in before.keys() & after.keys())
    memory = max(process.memory for process in after.values())
    return medians | {"processor": 1000 * taken / (repeats * len(files))}, memory


def _show(page: Viewer, files: Sequence[bytes], repeats: int) -> dict[str, float]:
    runs: dict[str, list[float]] = {name: [] for name in ("preview", "picture", "prior", "network")}
    for data in [data for _ in range(repeats) for data in files]:
        view = page.show(data, pixels=False)
        if view.state != "complete" or view.problem:
            raise VqcodecError(f"the browser does not show a file: {view.problem or view.state}")
        coarsest = [time for levels, time in view.previews if levels == 1]
        found = {"preview": coarsest[-1], "picture": view.milliseconds, **view.times}
        for name, values in runs.items():
            values.append(found[name])
    return {name: statistics.median(values) for name, values in runs.items()}


def markdown(result: dict[str, Any]) -> str:
    """A table with one row per quality."""
    lines = [
        "| quality | first preview, s | picture, s | prior | network | memory, MB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for quality, medians in result["milliseconds"].items():
        shares = " | ".join(f"{100 * medians[half] / medians['picture']:.0f} %" for half in ("prior", "network"))
        times = f"{medians['preview'] / 1000:.2f} | {medians['picture'] / 1000:.2f}"
        lines.append(f"| {quality} | {times} | {shares} | {result['memory_bytes'][quality] / 1e6:.0f} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@click.option("--qualities", callback=options.numbers, default="20,60,95", show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Showings of each file.")
@click.option(
    "--size", callback=options.sizes, default="", metavar="WxH", help="Extend or cut the images to this size."
)
@options.output
def main(
    images: tuple[Path, ...], qualities: list[int], repeats: int, size: list[tuple[int, int]], output: Path
) -> None:
    """Show files of IMAGES, which should be of one size, in Chromium; needs ``make web``."""
    try:
        weights = find_weights()
        codec = Codec.load(weights, device="cpu")
        facts = provenance(codec, weights, threads=torch.get_num_threads())
        path = installed()
        pictures = [read_image(image)[0] for image in images]
        if size:
            pictures = [sized(pixels, height, width) for pixels in pictures for width, height in size]
        medians: dict[str, dict[str, float]] = {}
        memory: dict[str, int] = {}
        with launched(path) as browser:
            version = browser.version
            for quality in qualities:
                files = [codec.compress(pixels, quality, effort=0) for pixels in pictures]
                medians[str(quality)], memory[str(quality)] = measure(browser, files, repeats)
                click.echo(f"quality {quality} is measured", err=True)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    sizes = sorted({f"{pixels.shape[1]}×{pixels.shape[0]}" for pixels in pictures})
    result = {"images": [image.name for image in images], "sizes": sizes, "repeats": repeats}
    result |= {"browser": version, "milliseconds": medians, "memory_bytes": memory, "provenance": facts}
    write_json(output, result)
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
