"""A sheet of reconstructions: one row an image, the original first, then rising quality."""

from pathlib import Path

import torch
from torch import Tensor

from vqcodec.files.images import write_image

__all__ = ["write_sheet"]


def write_sheet(path: Path, rows: list[list[Tensor]]) -> None:
    """Write equal-sized tiles ``[3, H, W]`` in 0..1 as one PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = torch.cat([torch.cat(row, 2) for row in rows], 1)
    write_image(path, sheet.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
