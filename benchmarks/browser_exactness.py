"""Whether Chromium decodes the same codes and pixels as the codec.

::

    IMAGES ── Codec.compress ──▶ files ──┬── Codec.read, decode ──▶ SHA-256 of codes, pixels ──┐
                                         └── Chromium ────────────▶ SHA-256 of codes, pixels ──┴──▶ differences

Codes must be equal bit for bit, and pixels within one grey level.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import options
from benchmarks.browser import Viewer, installed, launched, viewer
from benchmarks.shipped import codes_digest
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.files.images import read_image
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["compare", "main", "markdown"]

SECONDS = 300  # that a file may take


def compare(page: Viewer, codec: Codec, files: Sequence[bytes]) -> dict[str, Any]:
    """Files with equal codes, the largest difference in grey levels, and the share of samples that differ."""
    equal, largest, differing, samples = 0, 0, 0, 0
    for data in files:
        contents, codes = codec.read(data)
        equal += int(page.codes(data) == codes_digest(codes))
        view = page.show(data)
        if view.pixels is None or view.problem:
            raise VqcodecError(f"the browser does not show a file: {view.problem or view.state}")
        pixels = codec.decode(codes, contents.quality, contents.height, contents.width, grey=contents.grey)
        difference = np.abs(view.pixels[:, :, :3].astype(np.int16) - pixels)
        largest = max(largest, int(difference.max()))
        differing, samples = differing + int(np.count_nonzero(difference)), samples + difference.size
    return {"files": len(files), "equal_codes": equal, "difference": largest, "differing": differing / samples}


def markdown(result: dict[str, Any]) -> str:
    """A table with one row per quality."""
    lines = [
        "| quality | files | with equal codes | largest difference | samples that differ |",
        "|---:|---:|---:|---:|---:|",
    ]
    for quality, row in result["qualities"].items():
        share = f"{100 * row['differing']:.4f} %"
        lines.append(f"| {quality} | {row['files']} | {row['equal_codes']} | {row['difference']} | {share} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("images", nargs=-1, required=True, type=options.STORED)
@click.option("--qualities", callback=options.numbers, default="20,60,95", show_default=True)
@options.output
def main(images: tuple[Path, ...], qualities: list[int], output: Path) -> None:
    """Compare files of IMAGES in Chromium; needs ``make web``. Exits with code 1 if they differ."""
    try:
        weights = find_weights()
        codec = Codec.load(weights, device="cpu")
        facts = provenance(codec, weights, threads=1)
        path = installed()
        rows: dict[str, dict[str, Any]] = {}
        with launched(path) as browser, viewer(browser, seconds=SECONDS) as page:
            version = browser.version
            for quality in qualities:
                files = [codec.compress(read_image(image)[0], quality, effort=0) for image in images]
                rows[str(quality)] = compare(page, codec, files)
                click.echo(f"quality {quality} is compared", err=True)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    result = {"images": [image.name for image in images], "browser": version, "qualities": rows, "provenance": facts}
    write_json(output, result)
    click.echo(markdown(result))
    if any(row["equal_codes"] < row["files"] or row["difference"] > 1 for row in rows.values()):
        raise click.ClickException("the browser and the codec differ")


if __name__ == "__main__":
    main()
