"""The float half of the codec: pixels to code grids and back, tile by tile.

::

    pixels ─ lay out ─▶ tiles ─ /255 ─▶ x ─ VQVAE.encode ─▶ code grids of the tiles' insides, put together
    pixels ◀ restore ── tiles ◀─ ·255 ─ x_hat ◀─ VQVAE.decode ─ code grids of the tiles and their halos

When decoding, the halo is what the pixels of a tile depend on, so tiles change nothing but the order of sums. Another
order changes x_hat in its last bits, which moves a pixel by at most one grey level.

Legend: H and W image height and width in pixels, C = 3 channels or 1 for grey; G_l groups and H_l × W_l positions of
level l, coarsest first.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.config import ModelConfig
from vqcodec.exact.entropy import stop_if
from vqcodec.exact.kernels import multiplies_bfloat16
from vqcodec.exact.wavefront import Codes
from vqcodec.geometry import Geometry
from vqcodec.networks.blank import blank
from vqcodec.networks.vqvae import VQVAE

__all__ = ["TiledVQVAE", "assemble", "held", "to_image"]

TILE = 1056  # pixels a side
HALO = 128  # pixels that are computed around a tile at least when encoding; with 96, pixels at edges lost .3 dB


class TiledVQVAE:
    """A VQVAE that works on one tile of a picture at a time, so that its memory does not grow with the picture.

    Args:
        vqvae: on the device that computes; decoding needs its decoder side only.
        tile: largest side of a tile in pixels, without its halo.
        bfloat16: whether the encoder's features are computed in bfloat16; by default, on a processor that has
            instructions for it. The pixels decoded from given codes do not depend on it.
    """

    def __init__(self, vqvae: VQVAE, *, tile: int = TILE, bfloat16: bool | None = None) -> None:
        self.vqvae, self.config, self.tile = vqvae, vqvae.config, tile
        self.device = vqvae.start.device
        self.bfloat16 = self.device.type == "cpu" and multiplies_bfloat16() if bfloat16 is None else bfloat16

    def geometry(self, height: int, width: int) -> Geometry:
        """How a picture of this size lies on the grids."""
        return Geometry(height, width, self.config.strides)

    def encode(
        self, pixels: NDArray[np.uint8], quality: int, *, cancelled: Callable[[], bool] | None = None
    ) -> list[Codes]:
        """Code grids ``[G_l, H_l, W_l]`` of ``pixels [H, W, C]``; raises Cancelled."""
        geometry, lmbda = self.geometry(*pixels.shape[:2]), self._lmbda(quality)
        laid_out = geometry.lay_out(pixels)
        levels = self.config.levels
        codes = [np.empty((level.groups, *grid), np.int16) for level, grid in zip(levels, geometry.grids, strict=True)]
        for tile in geometry.tiles(self.tile, self._halo):
            stop_if(cancelled)
            x = to_image(laid_out[tile.rows.computed(), tile.columns.computed()], self.device)
            # Convolutions follow the layout of the image: with channels last, they take half the time on a CPU.
            x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            grids = self.vqvae.encode(x, lmbda, bfloat16=self.bfloat16)
            for whole, grid, stride in zip(codes, grids, geometry.strides, strict=True):
                inside = grid[0, :, tile.rows.inside(stride), tile.columns.inside(stride)]
                whole[:, tile.rows.kept(stride), tile.columns.kept(stride)] = inside.cpu().numpy()
        return codes

    def decode(
        self,
        codes: Sequence[Codes],
        quality: int,
        height: int,
        width: int,
        *,
        grey: bool,
        cancelled: Callable[[], bool] | None = None,
    ) -> NDArray[np.uint8]:
        """Pixels ``[height, width, C]`` of code grids; of fewer levels, a preview.

        Raises ValueError unless ``codes`` are grids of the coarsest levels of a picture of this size, and Cancelled.
        """
        geometry, lmbda = self.geometry(height, width), self._lmbda(quality)
        _check_codes(codes, self.config, geometry)
        pixels = np.empty((*geometry.padded, 1 if grey else 3), np.uint8)
        for tile in geometry.tiles(self.tile, self.vqvae.reach):
            stop_if(cancelled)
            grids: list[Tensor] = []
            for grid, stride in zip(codes, geometry.strides, strict=False):
                part = grid[:, tile.rows.computed(stride), tile.columns.computed(stride)]
                grids.append(torch.from_numpy(np.ascontiguousarray(part))[None].to(self.device, torch.int64))
            x_hat = self.vqvae.decode(grids, lmbda)[0, :, tile.rows.inside(), tile.columns.inside()]
            if grey:
                x_hat = x_hat.mean(0, keepdim=True)
            inside = x_hat.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            pixels[tile.rows.kept(), tile.columns.kept()] = inside
        return np.ascontiguousarray(geometry.restore(pixels))

    def memory(self, height: int, width: int) -> int:
        """Bytes that :meth:`encode` or :meth:`decode` needs at most beyond model, input and output.

        An estimate on the safe side: the features of one tile, and the grids and the laid-out pixels of the picture.
        """
        geometry = self.geometry(height, width)
        halo = max(self._halo, self.vqvae.reach)
        tile = max(tile.rows.extent * tile.columns.extent for tile in geometry.tiles(self.tile, halo))
        strides = [self.config.patch << stage for stage in range(len(self.config.widths))]
        features = sum(4 * channels / at**2 for channels, at in zip(self.config.widths, strides, strict=True))
        return round(2**27 + tile * 8 * features + held(self.config, geometry))

    @property
    def _halo(self) -> int:
        """Positions of the coarsest grid around a tile when encoding."""
        return math.ceil(HALO / self.vqvae.stride)

    def _lmbda(self, quality: int) -> Tensor:
        return torch.tensor([self.config.lmbda(quality)], device=self.device)


def held(config: ModelConfig, geometry: Geometry) -> float:
    """Bytes that the grids and the laid-out pixels of a whole picture take, whatever the size of tiles."""
    rows, columns = geometry.padded
    codes = sum(4 * level.groups / level.stride**2 for level in config.levels)
    return rows * columns * (codes + 9)


def _check_codes(codes: Sequence[Codes], config: ModelConfig, geometry: Geometry) -> None:
    if not 1 <= len(codes) <= len(config.levels):
        raise ValueError(f"{len(codes)} grids of codes, expected 1 to {len(config.levels)}")
    for number, (codes_l, level, grid) in enumerate(zip(codes, config.levels, geometry.grids, strict=False)):
        expected = f"expected 0 to {level.codebook_size - 1} in integers {[level.groups, *grid]}"
        if not isinstance(codes_l, np.ndarray):
            raise ValueError(f"the codes of level {number} are of type {type(codes_l).__name__}, {expected}")
        if codes_l.shape != (level.groups, *grid) or codes_l.dtype.kind not in "iu":
            raise ValueError(f"the codes of level {number} are {codes_l.dtype} {list(codes_l.shape)}, {expected}")
        if codes_l.min() < 0 or codes_l.max() >= level.codebook_size:
            raise ValueError(f"the codes of level {number} are {codes_l.min()} to {codes_l.max()}, {expected}")


def to_image(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """``[H, W, C]`` to an image tensor ``[1, C, H, W]`` in 0..1 on ``device``."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1)[None].float().div(255)


def assemble(config: ModelConfig) -> VQVAE:
    """A VQVAE for inference without values: :mod:`vqcodec.weights` fills it, one side at a time."""
    return blank(lambda: VQVAE(config))
