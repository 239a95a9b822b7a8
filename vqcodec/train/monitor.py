"""How much of each level is in use on validation images: live channels, perplexity and usage of the codebooks.

::

    images ──▶ walk at λ = .03 ──▶ r_hat [B, G·D, h, w] of each level ──▶ standard deviation of every channel ──▶ live?
                                └─▶ codes [B, G, h, w] ──▶ counts [G, K] ──▶ perplexity, usage

A channel is live if the standard deviation of r_hat, the codewords or in phase "vae" the rounded residuals, is above a
quarter of a step over all positions of all images. Dead channels carry no information, with codebooks of any size.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.networks.choices import Encode, Round
from vqcodec.networks.codebooks import LIVE, Usage
from vqcodec.networks.levels import Latent
from vqcodec.networks.vqvae import VQVAE

__all__ = ["ENOUGH", "LAMBDA", "LevelActivity", "activity", "figures", "live_share", "warning"]

LAMBDA = 0.03
ENOUGH = 0.7  # share of live channels over the trunk's levels


@dataclass(frozen=True)
class LevelActivity:
    """One level, over a set of images.

    Attributes:
        pixels: whether it is a level of pixels.
        channels, live: how many channels it has, and how many are live.
        perplexity: 2^entropy of the codes of a group, mean over groups; None without codes.
        usage: share of the codewords that occur, mean over groups; None without codes.
    """

    pixels: bool
    channels: int
    live: int
    perplexity: float | None = None
    usage: float | None = None


@torch.no_grad()
def activity(model: VQVAE, images: Iterable[Tensor], *, hard: bool, lmbda: float = LAMBDA) -> list[LevelActivity]:
    """Every level, coarsest first, on ``images``, each ``[1, 3, H, W]`` in 0..1, at least one.

    With ``hard=False`` residuals are rounded, as long as there are no codebooks, and levels of pixels are left out.
    ``lmbda`` is moved into the model's range.
    """
    lmbda = min(max(lmbda, model.config.lambda_min), model.config.lambda_max)
    moments: list[Tensor] = []  # of each level: sums of 1, r_hat and r_hat², [3, G·D]
    counts: list[Tensor] = []
    for x in images:
        r_hats, codes = _observe(model, x, torch.tensor([lmbda], device=x.device), hard)
        moments = _add(moments, [_moments(r_hat) for r_hat in r_hats])
        sizes = [level.codebook_size for level in model.config.levels]
        counts = _add(counts, [_counts(grid, size) for grid, size in zip(codes, sizes, strict=False)])
    levels: list[LevelActivity] = []
    for index, (count, first, second) in enumerate(moments):
        variance = second / count - (first / count).square()
        live = int((variance > LIVE**2).sum())
        usage = Usage.of(counts[index]) if hard else None
        levels.append(
            LevelActivity(
                pixels=model.config.levels[index].pixels,
                channels=len(variance),
                live=live,
                perplexity=None if usage is None else float(usage.perplexity.mean()),
                usage=None if usage is None else float(usage.share.mean()),
            )
        )
    return levels


def live_share(levels: Iterable[LevelActivity]) -> float:
    """Share of the trunk levels' channels that are live, 0..1."""
    trunk = [level for level in levels if not level.pixels]
    return sum(level.live for level in trunk) / sum(level.channels for level in trunk)


def figures(levels: list[LevelActivity]) -> dict[str, float]:
    """``levels`` as numbers for the log: ``live_share``, ``live_0``, ``validation_perplexity_0``, and so on."""
    found: dict[str, float] = {"live_share": live_share(levels)}
    for index, level in enumerate(levels):
        found[f"live_{index}"] = float(level.live)
        if level.perplexity is not None and level.usage is not None:
            found[f"validation_perplexity_{index}"] = level.perplexity
            found[f"validation_usage_{index}"] = level.usage
    return found


def warning(share: float) -> str | None:
    """A sentence if too few of the trunk's channels are live."""
    if share >= ENOUGH:
        return None
    return (
        f"only {share:.0%} of the trunk's channels are live at λ = {LAMBDA:g}, expected at least {ENOUGH:.0%}: "
        "the codebooks will hold less than their size suggests"
    )


def _observe(model: VQVAE, x: Tensor, lmbda: Tensor, hard: bool) -> tuple[list[Tensor], list[Tensor]]:
    """r_hat of every level, and its codes if it has any."""
    choice, r_hats = Encode() if hard else Round(), list[Tensor]()

    def choose(latent: Latent) -> Tensor:
        r_hats.append(choice(latent))
        return r_hats[-1]

    model.reconstruct(x, lmbda, choose, pixels=hard)
    return r_hats, choice.codes if isinstance(choice, Encode) else []


def _moments(r_hat: Tensor) -> Tensor:
    rows = r_hat.double().transpose(0, 1).flatten(1)
    return torch.stack([torch.ones_like(rows).sum(1), rows.sum(1), rows.square().sum(1)])


def _counts(grid: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs in ``grid [B, G, h, w]``, ``[G, K]``."""
    rows = grid.transpose(0, 1).flatten(1)
    zeros = torch.zeros(len(rows), codebook_size, device=grid.device)
    return zeros.scatter_add_(1, rows, torch.ones_like(rows, dtype=zeros.dtype))


def _add(totals: list[Tensor], parts: list[Tensor]) -> list[Tensor]:
    return [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
