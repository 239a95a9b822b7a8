"""The measures of the visual tune on a model's reconstructions: their sizes, their gradients, and the scores.

::

    photographs ─ middle ─▶ x ─ encode, decode, effort 0 ─▶ x_hat ─▶ value and gradient of each measure, and of D

The divisors in ``vqcodec/visual/distortion.py`` are right if the columns of values are near 1 at all qualities: then
λ·255²·D is about as large as λ·255²·MSE, and a quality costs about the same bits. ``along`` is the part of a gradient
along that of the mean squared error, which is x_hat − x.
"""

import math
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.errors import VqcodecError
from vqcodec.files.images import image_files, read_image
from vqcodec.pixels import to_image
from vqcodec.visual.distortion import DEFAULT, Shares, VisualDistortion
from vqcodec.visual.ssimulacra2 import Ssimulacra2

__all__ = ["MEASURES", "main", "measure", "middle", "table"]

MEASURES = {
    "MSE": Shares(1, 0, 0),
    "MS-SSIM": Shares(0, 1, 0),
    "SSIMULACRA2": Shares(0, 0, 1),
    "D": DEFAULT,
}

Figures = dict[str, tuple[float, float, float]]
"""Of each measure: value, size of the gradient, and its part along that of the mean squared error."""


def middle(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle ``[side, side, C]``, or as much as there is, of ``[H, W, C]``."""
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def measure(pixels: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> tuple[float, Figures]:
    """The score by SSIMULACRA2, and the figures of every measure."""
    device = torch.device("cpu")
    x, x_hat = to_image(pixels, device), to_image(decoded, device).requires_grad_()
    direction = torch.nn.functional.normalize((x_hat.detach() - x).flatten(), dim=0)
    figures: Figures = {}
    for name, shares in MEASURES.items():
        value = VisualDistortion(x, shares)(x_hat).sum()
        gradient = torch.autograd.grad(value, x_hat)[0].flatten()
        figures[name] = value.item(), gradient.norm().item(), torch.dot(gradient, direction).item()
    with torch.no_grad():
        score = Ssimulacra2(x.expand(-1, 3, -1, -1))(x_hat.expand(-1, 3, -1, -1)).item()
    return score, figures


def table(measured: dict[int, list[tuple[float, Figures]]]) -> str:
    """Markdown: a row for each quality; geometric means over pictures, relative to the mean squared error."""
    others = list(MEASURES)[1:]
    titles = ["quality", "score", "MSE", *(f"{name}: {part}" for name in others for part in ("value", "size", "along"))]
    lines = ["| " + " | ".join(titles) + " |", "|---:" * len(titles) + "|"]
    for quality, pictures in sorted(measured.items()):
        scores = [score for score, _ in pictures]
        cells = [f"{quality}", f"{sum(scores) / len(scores):.1f}"]
        cells.append(f"{_mean([figures['MSE'][0] for _, figures in pictures]):.3g}")
        for name in others:
            for part in range(3):
                cells.append(f"{_mean([figures[name][part] / figures['MSE'][part] for _, figures in pictures]):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("folder", type=options.FOLDER)
@click.option("-q", "--qualities", callback=options.numbers, default="5,20,50,80,97", show_default=True)
@click.option("--side", type=click.IntRange(min=1), default=256, show_default=True, help="Pixels of the middle's side.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Take every N-th photograph.")
@options.weights
def main(folder: Path, qualities: list[int], side: int, every: int, weights: Path | None) -> None:
    try:
        codec = Codec.load(weights, device="cpu")
        measured: dict[int, list[tuple[float, Figures]]] = {quality: [] for quality in qualities}
        for path in image_files(folder)[::every]:
            pixels = middle(read_image(path)[0], side)
            height, width, channels = pixels.shape
            for quality, pictures in measured.items():
                codes = codec.encode(pixels, quality)
                decoded = codec.decode(codes, quality, height, width, grey=channels == 1)
                pictures.append(measure(pixels, decoded))
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo(table(measured))


if __name__ == "__main__":
    main()
