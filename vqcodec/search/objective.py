r"""J = bits + λ·255²·MSE·pixels of one window, differentiable in what stands in the place of its codes.

::

    codewords z [N, G·D] of each level ──▶ decoder ──▶ x_hat ──▶ λ·255²·MSE·pixels ─┐
                                                                                    + ──▶ J in bits
    embedded [N, C], inner [N, C] ───────▶ PixelCNN ──▶ features ──▶ Σ −log2 p ─────┘

With codes, z and the embeddings are rows of tables, and −log2 p is that of the codes. With weights over several
candidates they are weighted sums of rows, and so is −log2 p (the relaxation of Yang, Bamler and Mandt 2020). Both
forms are given to :meth:`Objective.__call__`, which knows neither codes nor candidates.

Legend: N = h·w positions of a level's grid, G groups, D channels a group, K codewords, C channels of the prior, S
stages; H and W height and width of the window in pixels.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.networks.choices import Given
from vqcodec.networks.levels import Inputs
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE

__all__ = ["LN2", "Cost", "Leaves", "Objective", "StageNats", "to_grid", "to_rows"]

LN2 = math.log(2)


def to_rows(grid: Tensor) -> Tensor:
    """``[1, C, h, w] -> [N, C]``."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def to_grid(rows: Tensor, height: int, width: int) -> Tensor:
    """``[N, C] -> [1, C, h, w]``, channels last."""
    return rows.view(1, height, width, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Leaves:
    """What stands in the place of one level's codes.

    Attributes:
        z: ``[N, G·D]``.
        embedded: Σ over groups, ``[N, C]``.
        inner: of every stage but the last, ``[N, C]``.
    """

    z: Tensor
    embedded: Tensor
    inner: list[Tensor]


StageNats = Callable[[int, Tensor], Tensor]
"""``nats(stage, features [N, C])``: −ln p of the codes of a stage of one level, a scalar."""


@dataclass(frozen=True)
class Cost:
    """J of a window.

    Attributes:
        total: J in bits, a scalar with gradients.
        kept: the share of it that the errors of kept pixels have, a scalar without gradients.
    """

    total: Tensor
    kept: Tensor


class Objective:
    """J of one window.

    Args:
        vqvae: its decoder.
        prior: the float form for the window's quality.
        x: the target ``[1, 3 or 1, H, W]`` in 0..1, with one channel for a grey picture. Sides that are not multiples
            of the coarsest stride are padded when coding; distortion counts inside only.
        quality_lmbda: λ of the quality, ``[1]``, which the networks get.
        shapes: ``(h, w)`` of each level's grid, coarsest first.
        kept: rows and columns of the window's pixels that no other window keeps.
        lmbda: λ in J, by default the same.
        bfloat16: whether decoder and prior compute in bfloat16.
    """

    def __init__(
        self,
        vqvae: VQVAE,
        prior: PixelCNN,
        x: Tensor,
        quality_lmbda: Tensor,
        shapes: Sequence[tuple[int, int]],
        *,
        kept: tuple[slice, slice] = (slice(None), slice(None)),
        lmbda: float | None = None,
        bfloat16: bool,
    ) -> None:
        self.vqvae, self.prior, self.x, self.shapes = vqvae, prior, x, shapes
        self.kept = kept
        self._inputs = Inputs(quality_lmbda, vqvae.embedding(quality_lmbda))
        self._quality = [level.quality(prior.embedding(quality_lmbda)) for level in prior.each_level()]
        # λ·255²·MSE·pixels, with the mean over channels.
        self._weight = (float(quality_lmbda) if lmbda is None else lmbda) * 255**2 / x.shape[1]
        self._bfloat16 = bfloat16

    def __call__(self, leaves: Sequence[Leaves], nats: Sequence[StageNats]) -> Cost:
        """J, given what stands for the codes of each level, coarsest first, and their ``nats``."""
        distortion = self._distortion([level.z for level in leaves])
        bits = distortion.sum()
        for level, stages in zip(nats, self._features(leaves), strict=True):
            for stage, features in enumerate(stages):
                bits = bits + level(stage, to_rows(features).float()) / LN2
        return Cost(bits, distortion.detach()[self.kept].sum())

    def curvature(self, z: Sequence[Tensor], first: int) -> list[Tensor]:
        """a of each channel, ``[G·D]`` of each level from index ``first`` on, at the codewords ``z`` of all levels.

        An error of δ at one position costs a·δ² bits of distortion on average.

        For random signs v, the expectation of (Jᵀv)² is diag(JJᵀ), J being the Jacobian of x_hat (Bekas, Kokiopoulou
        and Saad 2007). One probe suffices, because squares are averaged over all positions.
        """
        leaves = [rows.detach().requires_grad_(level >= first) for level, rows in enumerate(z)]
        x_hat = self._x_hat(leaves)
        signs = 2.0 * torch.randint(2, x_hat.shape, generator=torch.Generator().manual_seed(0)).to(x_hat) - 1
        slopes = torch.autograd.grad((signs * x_hat).sum(), leaves[first:])  # of a scalar: others import a compiler
        return [self._weight * slope.square().mean(0) for slope in slopes]

    @torch.no_grad()
    def kept_distortion(self, z: Sequence[Tensor]) -> float:
        """The share of J that the errors of kept pixels have, given the codewords ``z [N, G·D]`` of each level."""
        return float(self._distortion(z)[self.kept].sum())

    def _distortion(self, z: Sequence[Tensor]) -> Tensor:
        """``[H, W]``, in bits."""
        return self._weight * (self._x_hat(z) - self.x).square().sum(1)[0]

    def _x_hat(self, z: Sequence[Tensor]) -> Tensor:
        """The window's pixels, in the shape of x."""
        grids = [to_grid(rows, *shape) for rows, shape in zip(z, self.shapes, strict=True)]
        with self._autocast():
            x_hat = self.vqvae.walk(self.vqvae.steps, self._inputs, Given(grids), *self.shapes[0]).x_hat
        assert x_hat is not None
        x_hat = x_hat[:, :, : self.x.shape[2], : self.x.shape[3]].clamp(0, 1)
        return x_hat.mean(1, keepdim=True) if self.x.shape[1] == 1 else x_hat

    def _features(self, leaves: Sequence[Leaves]) -> list[list[Tensor]]:
        embedded: list[Tensor] = []
        inner: list[list[Tensor]] = []
        for level, shape in zip(leaves, self.shapes, strict=True):
            embedded.append(to_grid(level.embedded, *shape))
            inner.append([to_grid(rows, *shape) for rows in level.inner])
        with self._autocast():
            return self.prior.features(embedded, inner, self._quality)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self._bfloat16):
            yield
