"""Show one photograph as the original, by vqcodec, and by JPEG in a file of equal size.

::

    photograph ─┬─ Codec ──▶ n bytes ──▶ pixels ─┐
                ├─ JPEG of at least n bytes ─────┼─▶ crops side by side, with bytes and PSNR ─▶ PNG
                └─ original ─────────────────────┘
"""

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.files.images import read_image, write_image
from vqcodec.metrics import bpp, psnr
from vqcodec.rd.anchors import ANCHORS, Setting

__all__ = ["compare", "main"]

CAPTION = 24  # height in pixels


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("-q", "--quality", default=25, show_default=True)
@click.option("--crop", nargs=4, type=int, default=(0, 0, 300, 300), show_default=True, help="left top right bottom")
@options.weights
def main(image: Path, output: Path, quality: int, crop: tuple[int, int, int, int], weights: Path | None) -> None:
    """Compare IMAGE by vqcodec with a JPEG that is at least as large."""
    pixels, _ = read_image(image)
    jpeg, ours = compare(Codec.load(weights), pixels, quality, crop, output)
    click.echo(f"{output}: JPEG {_facts(pixels, *jpeg)}; vqcodec {_facts(pixels, *ours)}")


def compare(
    codec: Codec, pixels: NDArray[np.uint8], quality: int, crop: tuple[int, int, int, int], output: Path
) -> tuple[tuple[int, float], tuple[int, float]]:
    """Write the comparison; returns the bytes of the file and its PSNR in dB, of JPEG and of vqcodec."""
    ours = codec.compress(pixels, quality)
    theirs = _jpeg(pixels, len(ours))
    decoded, back = ANCHORS["jpeg"].decompress(theirs), codec.decompress(ours)
    found = (len(theirs), psnr(pixels, decoded)), (len(ours), psnr(pixels, back))
    panels = [
        _panel(pixels, crop, "original"),
        _panel(decoded, crop, f"JPEG {_facts(pixels, *found[0])}"),
        _panel(back, crop, f"vqcodec {_facts(pixels, *found[1])}"),
    ]
    write_image(output, np.concatenate(panels, 1))
    return found


def _jpeg(pixels: NDArray[np.uint8], at_least: int) -> bytes:
    """The smallest JPEG of at least ``at_least`` bytes, or the largest JPEG if all are smaller."""
    jpeg = ANCHORS["jpeg"]
    options = jpeg.settings[0].options
    files = [jpeg.compress(pixels, Setting({**options, "quality": quality})) for quality in range(1, 96)]
    return next((data for data in files if len(data) >= at_least), files[-1])


def _facts(pixels: NDArray[np.uint8], size: int, decibels: float) -> str:
    height, width = pixels.shape[:2]
    return f"{size:,} bytes, {bpp(size, width, height):.2f} bpp, {decibels:.1f} dB"


def _panel(pixels: NDArray[np.uint8], crop: tuple[int, int, int, int], caption: str) -> NDArray[np.uint8]:
    """The crop with a caption under it, ``[H + CAPTION, W, 3]``."""
    left, top, right, bottom = crop
    panel = Image.new("RGB", (right - left, bottom - top + CAPTION), "white")
    panel.paste(Image.fromarray(pixels[top:bottom, left:right]))
    ImageDraw.Draw(panel).text((4, bottom - top + 5), caption, "black", ImageFont.load_default(12))
    return np.asarray(panel)


if __name__ == "__main__":
    main()
