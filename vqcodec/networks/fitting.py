"""Codebooks, and the transform of a level of pixels, fitted to the residuals of a trained VQ-VAE.

::

    level 0: residuals ──▶ rank channels, deal them to groups ──▶ k-means, or integers
    level 1: residuals, given the codes of level 0 ──▶ …
    level of pixels: x − x_hat, given the codes of all other levels ──▶ principal components ──▶ residuals ──▶ …

Legend: B batch, H and W image height and width, G_l groups and D_l channels a group of level l.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vqcodec.networks.choices import Decode, Encode, Noise, Record, Split
from vqcodec.networks.levels import Level, PixelLevel
from vqcodec.networks.vqvae import VQVAE

__all__ = ["deal_channels", "fit_level", "residuals"]


@torch.no_grad()
def residuals(model: VQVAE, x: Tensor, lmbda: Tensor, *, quantized: int = 0) -> list[tuple[Tensor, Tensor]]:
    """``(r, 1/σ²)`` of every level, coarsest first, each ``[B, G_l·D_l, …]``, of ``x [B, 3, H, W]`` at ``lmbda [B]``.

    The decoder gets codes at the ``quantized`` coarsest levels and noise at the others.
    """
    record = Record(Split(quantized, Encode(), Noise()))
    model.reconstruct(x, lmbda, record)
    return record.residuals


@torch.no_grad()
def fit_level(
    model: VQVAE,
    index: int,
    x: Tensor,
    lmbda: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Fit the codebooks of level ``index`` to its residuals of ``x [B, 3, H, W]`` at ``lmbda [B]``.

    Coarser levels must have been fitted before, since the residuals depend on their codes. Channels are ranked by
    entropy and dealt to the groups; otherwise one group uses all of its K codes while others use ten. A level of
    pixels gets its transform first. ``progress`` is called with the share of the iterations that is done, 0..1.
    """
    level = model.levels[index]
    assert isinstance(level, (Level, PixelLevel))
    if isinstance(level, PixelLevel):
        x_hat = model.reconstruct(x, lmbda, Split(index, Encode(), Decode([])))
        level.fit(x - x_hat, level.gain(lmbda))
    r, precision = residuals(model, x, lmbda, quantized=index)[index]
    # Bits of a Gaussian above the quantiser's own noise of 1/12.
    variance = r.square() if isinstance(level, PixelLevel) else 1 / precision
    ranked = (1 + 12 * variance).log2().mean((0, 2, 3)).argsort(descending=True)
    order = deal_channels(ranked, level.quantizer.groups)
    level.permute(order)
    level.quantizer.fit(r[:, order], precision[:, order], seed=seed, progress=progress)


def deal_channels(channels: Tensor, groups: int) -> Tensor:
    """Deal ``channels``, ranked, to ``groups`` in turn, every other round backwards, so that all groups get as much.

    Returns the channels of group 0, then those of group 1, …
    """
    rounds = [row if i % 2 == 0 else row.flip(0) for i, row in enumerate(torch.split(channels, groups))]
    return torch.stack(rounds, 1).flatten()
