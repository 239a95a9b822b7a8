"""Photographs in memory, and random crops of them, cut on the training device.

::

    DATA_DIR/**/*.{avif,png,…} ──decode once──▶ uint8 [3, H, W] on the device
                                                   │ random place, flip, transpose, downscale
                                                   ▼
                                      crops [B, 3, crop, crop] float in 0..1
"""

import concurrent.futures
import copy
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.errors import ImageError, LimitError, TrainingError
from vqcodec.files.images import read_image
from vqcodec.train.drawings import draw

__all__ = ["Photographs"]

DRAWINGS = 400  # kept at a time
RENEWED = 0.125  # share of the crops of drawings for which a new one is made


class Photographs:
    """Decoded images, and random crops of them.

    Args:
        files: image files; those that cannot be read are left out and listed in ``skipped``.
        device: holds the pixels and cuts the crops.
        smallest: images with a side below this many pixels are left out.
        stride: if most images are smaller than ``smallest``, it becomes the largest multiple of this that fits them.
        seconds: after which no more images are read.
        downscale_share: share of the crops that are shrunk, by a factor of up to ``downscale_max``.
        grain: mean standard deviation, in grey levels, of the film grain that is added to crops of photographs.
        drawn_share: share of the crops that are taken from drawings instead; see :mod:`vqcodec.train.drawings`.

    Raises TrainingError if no image can be used.
    """

    def __init__(
        self,
        files: list[Path],
        device: torch.device,
        *,
        smallest: int,
        stride: int | None = None,
        seconds: float = math.inf,
        downscale_share: float = 0.0,
        downscale_max: float = 2.0,
        grain: float = 0.0,
        drawn_share: float = 0.0,
    ) -> None:
        self.images: list[Tensor] = []
        self.skipped: list[str] = []
        self.downscale_share, self.downscale_max = downscale_share, downscale_max
        self.grain, self.drawn_share = grain, drawn_share
        self._drawings: list[Tensor] = []
        read = self._read(files, seconds)
        if stride is not None and read:
            sides = sorted(min(image.shape[1:]) for _, image in read)
            smallest = min(smallest, max(stride, sides[len(sides) // 2] // stride * stride))
        for path, image in read:
            if min(image.shape[1:]) < smallest:
                self.skipped.append(f"{path}: smaller than {smallest} pixels")
            else:
                self.images.append(image.to(device))
        if not self.images:
            raise TrainingError(f"none of {len(files)} images can be used; the first: {self.skipped[0]}")
        self.smallest = smallest

    def _read(self, files: list[Path], seconds: float) -> list[tuple[Path, Tensor]]:
        """The images among ``files`` with their paths, at least one; the others are listed as skipped."""
        begun, read = time.monotonic(), list[tuple[Path, Tensor]]()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for path, loaded in zip(files, pool.map(_load, files), strict=True):
                if isinstance(loaded, str):
                    self.skipped.append(loaded)
                else:
                    read.append((path, loaded))
                if read and time.monotonic() - begun > seconds:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        done = len(read) + len(self.skipped)
        self.skipped += [f"{path}: not read, for lack of time" for path in files[done:]]
        return read

    def hold_out(self, every: int, smallest: int) -> "Photographs":
        """Take one image in ``every`` out for validation, from those with at least ``smallest`` pixels a side.

        If there is only one image, it serves for both. Raises TrainingError if none is large enough.
        """
        large = [i for i, image in enumerate(self.images) if min(image.shape[1:]) >= smallest]
        if not large:
            raise TrainingError(f"none of {len(self.images)} images has {smallest} pixels a side to validate with")
        taken = set(large[::every])
        held_out = copy.copy(self)
        held_out.images = [self.images[i] for i in sorted(taken)]
        held_out.smallest = smallest
        held_out.skipped = []
        self.images = [image for i, image in enumerate(self.images) if i not in taken] or held_out.images
        return held_out

    def crops(self, batch: int, size: int, rng: random.Random) -> Tensor:
        """``[batch, 3, size, size]`` float32 in 0..1, each from a photograph or a drawing chosen at random."""
        return torch.stack([self._crop(size, rng) for _ in range(batch)]).div_(255)

    def centres(self) -> Iterator[Tensor]:
        """The middle ``[1, 3, smallest, smallest]`` of every image, in order: the same for every evaluation."""
        size = self.smallest
        for image in self.images:
            top, left = ((side - size) // 2 for side in image.shape[1:])
            yield image[None, :, top : top + size, left : left + size].float().div(255)

    def _crop(self, size: int, rng: random.Random) -> Tensor:
        drawn = self.drawn_share > 0 and rng.random() < self.drawn_share
        image = self._drawing(rng) if drawn else self.images[rng.randrange(len(self.images))]
        height, width = image.shape[1:]
        window = size
        if rng.random() < self.downscale_share:
            window = min(height, width, round(size * rng.uniform(1.0, self.downscale_max)))
        top, left = rng.randrange(height - window + 1), rng.randrange(width - window + 1)
        crop = image[:, top : top + window, left : left + window]
        if window != size:
            shrunk = F.interpolate(crop[None].float(), (size, size), mode="bilinear", antialias=True)
            crop = shrunk[0].round().clamp(0, 255).to(torch.uint8)
        if rng.random() < 0.5:
            crop = crop.flip(2)
        if rng.random() < 0.5:
            crop = crop.transpose(1, 2)
        crop = crop.float()
        if self.grain and not drawn:
            # Mostly the same in all channels, as film grain is.
            sigma = rng.expovariate(1 / self.grain)
            crop = crop + sigma * (torch.randn_like(crop[:1]) + 0.4 * torch.randn_like(crop))
            crop = crop.round_().clamp_(0, 255)
        return crop

    def _drawing(self, rng: random.Random) -> Tensor:
        """One of the last drawings, or a new one."""
        if len(self._drawings) == DRAWINGS and rng.random() >= RENEWED:
            return self._drawings[rng.randrange(DRAWINGS)]
        new = draw(rng.getrandbits(48), max(512, self.smallest)).to(self.images[0].device)
        if len(self._drawings) == DRAWINGS:
            self._drawings.pop(rng.randrange(DRAWINGS))
        self._drawings.append(new)
        return new


def _load(path: Path) -> Tensor | str:
    """Pixels ``[3, H, W]`` uint8, or the reason why the file has none."""
    try:
        pixels, _ = read_image(path)
    except (ImageError, LimitError) as error:
        return str(error)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return image.expand(3, -1, -1).contiguous()
