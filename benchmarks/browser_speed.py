"""Time to show a picture in Chromium: the first preview, the whole picture, and the shares of prior and network.

::

    IMAGES ── Codec.compress ──▶ files ── Viewer.show, in turn ──▶ milliseconds ── medians ──▶ table
    first image, extended to larger sizes ── the same, on a page of its own ──▶ and peak memory

A file is in memory, the weights are loaded, and one file was shown before. Run it on an idle machine.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from benchmarks.browser import Viewer, executable, launched, peaks, viewer
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

SECONDS = 300  # that a file may take


def measure(page: Viewer, files: Sequence[bytes], repeats: int) -> dict[str, float]:
    """Medians over ``repeats`` showings of each of ``files``, in milliseconds."""
    page.show(files[0], pixels=False)  # loads the weights
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
    """A table with one row per quality, and one per larger size."""
    lines = ["| files | first preview, s | picture, s | prior | network |", "|---|---:|---:|---:|---:|"]
    rows = {f"quality {quality}": medians for quality, medians in result["milliseconds"].items()}
    rows |= {
        f"{row['width']}×{row['height']}, quality {row['quality']}": row["milliseconds"] for row in result["large"]
    }
    for name, medians in rows.items():
        shares = " | ".join(f"{100 * medians[half] / medians['picture']:.0f} %" for half in ("prior", "network"))
        lines.append(f"| {name} | {medians['preview'] / 1000:.2f} | {medians['picture'] / 1000:.2f} | {shares} |")
    return "\n".join(lines)


def measure_large(
    browser: "Browser", codec: Codec, pixels: NDArray[np.uint8], size: tuple[int, int], quality: int, repeats: int
) -> dict[str, Any]:
    """The same for ``pixels`` extended to a width and a height, on a page of its own, and its peak memory in bytes."""
    width, height = size
    data = codec.compress(sized(pixels, height, width), quality, effort=0)
    with viewer(browser, seconds=SECONDS) as page:
        medians = measure(page, [data], repeats)
        memory = max(peaks(browser).values())
    row = {"width": width, "height": height, "quality": quality, "bytes": len(data)}
    return row | {"milliseconds": medians, "memory_bytes": memory}


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@click.option("--qualities", callback=options.numbers, default="20,60,95", show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Showings of each file.")
@click.option("--large", callback=options.sizes, default="4000x3000", show_default=True, help="Larger sizes.")
@options.output
def main(
    images: tuple[Path, ...], qualities: list[int], repeats: int, large: list[tuple[int, int]], output: Path
) -> None:
    """Show files of IMAGES, which should be of one size, in Chromium; needs ``make web``."""
    try:
        weights = find_weights()
        codec = Codec.load(weights, device="cpu")
        facts = provenance(codec, weights, threads=torch.get_num_threads())
        path = executable()
        if path is None:
            raise VqcodecError("no browser is installed")
        pictures = [read_image(image)[0] for image in images]
        medians: dict[str, dict[str, float]] = {}
        with launched(path) as browser:
            version = browser.version
            for quality in qualities:
                files = [codec.compress(pixels, quality, effort=0) for pixels in pictures]
                with viewer(browser, seconds=SECONDS) as page:
                    medians[str(quality)] = measure(page, files, repeats)
                click.echo(f"quality {quality} is measured", err=True)
            middle = qualities[len(qualities) // 2]
            rows = [measure_large(browser, codec, pictures[0], size, middle, repeats) for size in large]
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    sizes = sorted({f"{pixels.shape[1]}×{pixels.shape[0]}" for pixels in pictures})
    result = {"images": [image.name for image in images], "sizes": sizes, "repeats": repeats}
    result |= {"browser": version, "milliseconds": medians, "large": rows, "provenance": facts}
    write_json(output, result)
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
