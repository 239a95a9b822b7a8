"""Small labelled images for the study: Fashion-MNIST, any folder of labelled images, or drawn shapes.

::

    folder of idx files ───────────┐
    folder/CLASS/*.png ────────────┼──load──▶ training and test images, uint8 [N, 3, 32, 32], and their labels [N]
    known factors ── draw ─────────┘

Fashion-MNIST is Debian's package dataset-fashion-mnist (MIT licence). Its images of 28×28 pixels get a black frame.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vqcodec.errors import ImageError
from vqcodec.files.images import is_image_name, read_image

__all__ = ["FACTORS", "FASHION", "SIDE", "Labelled", "draw", "load"]

SIDE = 32  # pixels
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FACTORS = ("shape", "x", "y", "size", "rotation", "hue")
SHAPES = 3
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
TRAIN, TEST = 10_000, 2_000  # drawn shapes


@dataclass(frozen=True)
class Labelled:
    """Images ``[N, C, 32, 32]`` uint8 with C = 1 or 3, their ``labels [N]`` int64, and the names of the labels."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def x(self, which: Tensor | slice) -> Tensor:
        """Images as the networks see them, ``[B, 3, 32, 32]`` in 0..1."""
        return self.images[which].float().div(255).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def take(self, which: Tensor | slice) -> "Labelled":
        """Some of the images."""
        return Labelled(self.images[which], self.labels[which], self.names)


def load(source: str) -> tuple[Labelled, Labelled]:
    """Training and test images of ``source``: a folder, or ``"shapes"``.

    Raises ImageError if there are no labelled images.
    """
    if source == "shapes":
        return _shapes(TRAIN, seed=0), _shapes(TEST, seed=1)
    folder = Path(source)
    if any(folder.glob("train-images-idx3-ubyte*")):
        return _idx(folder, "train"), _idx(folder, "t10k")
    if not folder.is_dir():
        raise ImageError(
            f"{folder}: no such folder; apt install dataset-fashion-mnist brings it on Debian and Ubuntu, "
            "--data FOLDER names another, and --data shapes draws images"
        )
    return _folder(folder)


def draw(factors: NDArray[np.float64]) -> Tensor:
    """Images ``[N, 3, 32, 32]`` uint8 of ``factors [N, 6]`` in 0..1, in the order of FACTORS.

    The shapes are a half disc, a wedge and an L, none of which looks the same after a turn. No factor goes round in a
    circle: rotation covers a quarter of a turn, and hue goes from red to blue.
    """
    return torch.cat([_draw(part) for part in np.array_split(factors, max(1, len(factors) // 1000))])


def _draw(factors: NDArray[np.float64]) -> Tensor:
    shape, x, y, size, rotation, hue = factors.T[:, :, None, None]
    pixels = (np.arange(SIDE) + 0.5) / SIDE
    angle = (rotation - 0.5) * np.pi / 2
    radius = 0.14 + 0.12 * size
    right = (pixels[None, None, :] - (0.3 + 0.4 * x)) / radius
    down = (pixels[None, :, None] - (0.3 + 0.4 * y)) / radius
    u, v = np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right
    disc = np.maximum(np.hypot(u, v) - 1, v - 0.3)
    wedge = np.maximum(np.abs(u) * 2.6 + v - 1, -v - 0.9)
    corner = np.maximum(np.maximum(np.abs(u), np.abs(v)) - 0.9, np.minimum(u + 0.2, 0.2 - v))
    which = np.minimum((shape * SHAPES).astype(int), SHAPES - 1)
    distance = np.choose(which, [disc, wedge, corner])
    cover = np.clip(0.5 - distance * radius * SIDE, 0, 1)  # of each pixel, anti-aliased
    turn = hue * 4  # 0 red, 2 green, 4 blue, by way of yellow and cyan
    red, green, blue = np.clip(2 - turn, 0, 1), np.clip(2 - np.abs(turn - 2), 0, 1), np.clip(turn - 2, 0, 1)
    colours = np.stack([colour * cover for colour in (red, green, blue)], 1)
    return torch.from_numpy((255 * colours).round().astype(np.uint8))


def _shapes(count: int, seed: int) -> Labelled:
    factors = np.random.default_rng(seed).random((count, len(FACTORS)))
    labels = torch.from_numpy((factors[:, 0] * SHAPES).astype(np.int64))
    return Labelled(draw(factors), labels, ("half disc", "wedge", "L"))


def _idx(folder: Path, part: str) -> Labelled:
    """Images and labels of the format of MNIST."""
    images = _array(folder, f"{part}-images-idx3-ubyte", 3)
    labels = _array(folder, f"{part}-labels-idx1-ubyte", 1).astype(np.int64)
    count, height, width = images.shape
    if len(labels) != count or max(height, width) > SIDE:
        raise ImageError(f"{folder}: {count} images of {width}×{height} with {len(labels)} labels, expected 32×32")
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    framed = np.zeros((count, 1, SIDE, SIDE), np.uint8)
    framed[:, 0, top : top + height, left : left + width] = images
    classes = int(labels.max()) + 1
    names = CLOTHES if "fashion" in folder.name and classes == len(CLOTHES) else tuple(map(str, range(classes)))
    return Labelled(torch.from_numpy(framed), torch.from_numpy(labels), names)


def _array(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """An idx file: four bytes that end with the number of dimensions, big-endian sides, and bytes."""
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
    if not paths:
        raise ImageError(f"{folder / name}: no such file, expected it beside the others")
    try:
        data = gzip.decompress(paths[0].read_bytes()) if paths[0].suffix == ".gz" else paths[0].read_bytes()
    except (OSError, EOFError) as error:
        raise ImageError(f"{paths[0]}: cannot be read: {error}") from None
    sides = np.frombuffer(data, ">u4", dimensions, 4) if len(data) >= 4 + 4 * dimensions else np.zeros(1, int)
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) - 4 - 4 * dimensions != int(np.prod(sides, dtype=object)):
        raise ImageError(f"{paths[0]}: {len(data)} bytes that are not an idx file of {dimensions} dimensions")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(sides.astype(int))


def _folder(folder: Path) -> tuple[Labelled, Labelled]:
    """Every fifth image of each subfolder is for the test; images are cut to squares."""
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    parts: tuple[list[tuple[NDArray[np.uint8], int]], ...] = ([], [])
    for label, name in enumerate(names):
        for i, path in enumerate(sorted(path for path in (folder / name).iterdir() if is_image_name(path))):
            pixels, _ = read_image(path)
            image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).convert("RGB")
            parts[i % 5 == 4].append((np.asarray(ImageOps.fit(image, (SIDE, SIDE))), label))
    if not parts[0] or not parts[1]:
        raise ImageError(f"{folder}: found {len(parts[0])} images in CLASS/ folders, expected five or more in each")
    train, test = (
        Labelled(
            torch.from_numpy(np.stack([pixels for pixels, _ in part])).permute(0, 3, 1, 2).contiguous(),
            torch.tensor([label for _, label in part]),
            names,
        )
        for part in parts
    )
    return train, test
