"""Search: better codes for one picture than the encoder finds at once. The decoder does not change.

::

    pixels, codes ─ windows ─▶ find_slots ─▶ anneal ─▶ codes    one window after another
                                   │            │
                              Objective: J = bits + λ·255²·MSE·pixels, by the VQ-VAE's decoder and the float PixelCNN

Legend: H and W image height and width in pixels; G_l groups and H_l × W_l positions of level l, coarsest first.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.config import PriorConfig
from vqcodec.exact.entropy import stop_if
from vqcodec.exact.wavefront import Codes
from vqcodec.geometry import Geometry, Tile
from vqcodec.networks.fixed_point import floating_point
from vqcodec.networks.vqvae import VQVAE
from vqcodec.pixels import held, to_image
from vqcodec.search.annealing import anneal
from vqcodec.search.candidates import codewords, curvatures
from vqcodec.search.objective import Objective, to_rows

__all__ = ["ROUNDS", "Found", "Search"]

# Rounds of annealing by effort, each as its number of evaluations of J and its gradient; a round starts at the codes of
# the one before.
ROUNDS = ((), (2,), (3,), (4,), (6,), (12, 4), (16, 6), (16, 16, 6), (16, 16, 16, 16, 6), (16,) * 8 + (6,))
WINDOW = 960  # pixels a side
BYTES_PER_PIXEL = 1000  # of a window: activations that the gradient needs, and candidates
HALO = 4  # positions of the coarsest grid around a window; with 2, codes at the seams would be 20 % worse


@dataclass(frozen=True)
class Found:
    """What a search found, and estimates by the networks' floats, perhaps in bfloat16 and before rounding to 8 bits.

    Attributes:
        codes: ``[G_l, H_l, W_l]`` of each level, coarsest first.
        before: J of the codes before, in bits.
        distortion: λ·255²·MSE·pixels of the codes found, in bits.
    """

    codes: list[Codes]
    before: float
    distortion: float


class Search:
    """Improves codes window by window, so that its memory does not grow with the picture.

    Args:
        vqvae: whose decoder side is filled.
        integers, config: of the prior.
        bfloat16: whether networks compute in bfloat16.
    """

    def __init__(
        self, vqvae: VQVAE, integers: Mapping[str, Tensor], config: PriorConfig, *, bfloat16: bool, window: int = WINDOW
    ) -> None:
        self.vqvae, self.integers, self.config = vqvae, integers, config
        self.bfloat16, self.window = bfloat16, window
        self.device = vqvae.start.device

    # A caller's inference mode or no_grad would leave no gradients.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(
        self,
        pixels: NDArray[np.uint8],
        codes: Sequence[Codes],
        quality: int,
        effort: int,
        *,
        lmbda: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Found:
        """Codes ``[G_l, H_l, W_l]`` with a smaller J, in place of ``codes``, of ``pixels [H, W, C]``. Raises Cancelled.

        A larger ``effort``, 1 to EFFORT_MAX, takes more steps. ``lmbda`` takes the place of the quality's λ in J, but
        not in the networks. ``progress`` is called with the share that is done. The same codes come out on the same
        machine with the same number of threads.
        """
        height, width, _ = pixels.shape
        model = self.vqvae.config
        geometry = Geometry(height, width, model.strides)
        laid_out = geometry.lay_out(pixels)
        prior = floating_point(self.integers, model, self.config, quality, self.device)
        own = torch.tensor([model.lmbda(quality)], device=self.device)
        short, long = sorted((height, width))
        found = [grid.copy() for grid in codes]
        quantizers = self.vqvae.quantizers()
        tiles = list(geometry.tiles(self.window, HALO))
        rounds, done = ROUNDS[effort], itertools.count()
        before = distortion = 0.0

        def poll() -> None:
            stop_if(cancelled)
            if progress is not None:
                progress(next(done) / (sum(rounds) * len(tiles)))

        for tile in tiles:
            rows, columns = tile.rows.computed(), tile.columns.computed()
            part = laid_out[rows, columns][: short - rows.start, : long - columns.start]
            x = to_image(part, self.device)
            places = [(tile.rows, tile.columns, stride) for stride in geometry.strides]
            grids = [grid[:, r.computed(s), c.computed(s)] for grid, (r, c, s) in zip(found, places, strict=True)]
            shapes = [(grid.shape[1], grid.shape[2]) for grid in grids]
            present = [to_rows(torch.from_numpy(grid.astype(np.int64))[None].to(self.device)) for grid in grids]
            movable = [_inside(tile, *at).to(self.device) for at in zip(geometry.strides, shapes, strict=True)]
            kept = tile.rows.inside(), tile.columns.inside()
            objective = Objective(self.vqvae, prior, x, own, shapes, kept=kept, lmbda=lmbda, bfloat16=self.bfloat16)
            curvature = curvatures(objective, present)
            for turn, steps in enumerate(rounds):
                present, cost = anneal(objective, present, movable, curvature, steps, poll=poll)
                before += cost if turn == 0 else 0
            z = [codewords(*each) for each in zip(present, quantizers, strict=True)]
            distortion += objective.kept_distortion(z)
            for whole, new, shape, (r, c, s) in zip(found, present, shapes, places, strict=True):
                inside = new.T.view(-1, *shape)[:, r.inside(s), c.inside(s)]
                whole[:, r.kept(s), c.kept(s)] = inside.cpu().numpy()
        return Found(found, before, distortion)

    def memory(self, height: int, width: int) -> int:
        """Bytes that a search needs at most beyond model, input and output; an estimate on the safe side."""
        geometry = Geometry(height, width, self.vqvae.config.strides)
        window = max(tile.rows.extent * tile.columns.extent for tile in geometry.tiles(self.window, HALO))
        return round(2**27 + BYTES_PER_PIXEL * window + held(self.vqvae.config, geometry))


def _inside(tile: Tile, stride: int, shape: tuple[int, int]) -> Tensor:
    """Which positions of a window's grid, bool ``[N]``, lie in the part that is kept."""
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[tile.rows.inside(stride), tile.columns.inside(stride)] = True
    return inside.flatten()
