"""Sheets of reconstructions."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vqcodec.train.sheet import write_sheet


def test_sheet(tmp_path: Path) -> None:
    shades = [[torch.full((3, 2, 5), value) for value in row] for row in ([0.0, 0.5, 1.0], [1.0, 0.25, 0.0])]
    write_sheet(tmp_path / "sheets" / "a.png", shades)
    pixels: NDArray[np.uint8] = np.asarray(Image.open(tmp_path / "sheets" / "a.png"))
    assert pixels.shape == (4, 15, 3)
    assert pixels[::2, ::5, 0].tolist() == [[0, 128, 255], [255, 64, 0]]
