r"""Which gradient should pass the quantiser: straight through, by rotation, or by noise?

::

    straight-through      z_q = z_e + sg(e − z_e)                             ∂z_q/∂z_e = 1
    rotation trick        z_q = sg(‖e‖/‖z_e‖ · R)·z_e, R turns z_e onto e     ∂z_q/∂z_e = ‖e‖/‖z_e‖ · R
    noise substitution    z_q = z_e + ‖z_e − e‖·v/‖v‖, v ~ N(0, 1)            the error's length, not its direction

The lecture says: argmin has no gradient, and the straight-through estimator copies that of z_q to z_e. The rotation
trick (Fifty et al. 2024) keeps angles between gradient and codeword; noise substitution (Vali and Bäckström 2022)
needs no copy, but the decoder never sees a codeword in training. All get the same steps, the same EMA codebooks and,
in the test, codewords.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.study import lab
from benchmarks.study.output import COLOURS, Settings, command, sketch, store
from vqcodec.config import LevelConfig
from vqcodec.networks.choices import Encode, HardCodes
from vqcodec.networks.codebooks import Usage
from vqcodec.networks.levels import Latent

__all__ = ["NoiseSubstitution", "Rotation", "main", "run"]

LEVEL = LevelConfig(stride=4, groups=1, dim=8, codebook_size=128, stages=1)
SEEDS = 3
STEPS = 400
TESTED = 2000
TINY = 1e-6
FIGURES = ("psnr", "perplexity", "usage")


class Rotation(HardCodes):
    """z_e turned and stretched onto its codeword; rotation and length are constants of the gradient."""

    def __call__(self, latent: Latent) -> Tensor:
        r = latent.residual()
        e = super().__call__(replace(latent, residual=lambda: r)).detach()
        long, length = (v.norm(dim=1, keepdim=True).clamp_min(TINY).detach() for v in (e, r))
        to, since = e / long, r.detach() / length  # unit vectors
        half = to + since
        half = half / half.norm(dim=1, keepdim=True).clamp_min(TINY)
        turned = r - 2 * half * (half * r).sum(1, keepdim=True) + 2 * to * (since * r).sum(1, keepdim=True)
        r_hat: Tensor = long / length * turned
        return r_hat


class NoiseSubstitution(HardCodes):
    """z_e with an error as long as that of its codeword, in a random direction."""

    def __call__(self, latent: Latent) -> Tensor:
        r = latent.residual()
        e = super().__call__(replace(latent, residual=lambda: r)).detach()
        v = torch.randn_like(r)
        r_hat: Tensor = r + (r - e).norm(dim=1, keepdim=True) * v / v.norm(dim=1, keepdim=True)
        return r_hat


ESTIMATORS = {"straight-through": HardCodes, "rotation trick": Rotation, "noise substitution": NoiseSubstitution}


def run(settings: Settings) -> None:
    """Each estimator with each seed, the first training's number of steps for all."""
    training = lab.Training(settings.minutes, shares=SEEDS * len(ESTIMATORS))
    tested = settings.test.take(slice(0, TESTED))
    rows: list[dict[str, Any]] = []
    for name, choice in ESTIMATORS.items():
        for seed in range(settings.seed, settings.seed + SEEDS):
            torch.manual_seed(seed)
            model = lab.network([LEVEL])
            lab.train_vqvae(training, model, settings.train, STEPS, choice=choice)
            x_hat, _ = lab.inputs(model, tested, Encode())
            (grid,) = lab.code_grids(model, tested)
            counts = grid.flatten().bincount(minlength=LEVEL.codebook_size)
            usage = Usage.of(counts[None])
            figures = lab.psnr(x_hat, tested), float(usage.perplexity), float(usage.share)
            rows.append({"estimator": name, "seed": seed, **dict(zip(FIGURES, figures, strict=True))})
    means = {
        name: {key: float(np.mean([row[key] for row in rows if row["estimator"] == name])) for key in FIGURES}
        for name in ESTIMATORS
    }
    store(settings, "gradients", {"steps": training.steps, "mean": means, "runs": rows}, _picture(rows))


def _picture(rows: list[dict[str, Any]]) -> Figure:
    figure, panels = sketch(2, height=2.6)
    for axes, key, label in zip(panels, ("psnr", "perplexity"), ("PSNR, dB", "perplexity of the codes"), strict=True):
        for i, name in enumerate(ESTIMATORS):
            values = [row[key] for row in rows if row["estimator"] == name]
            axes.plot([i] * len(values), values, "o", color=COLOURS[i], markersize=4)
            axes.plot([i - 0.2, i + 0.2], [np.mean(values)] * 2, color=COLOURS[i])
        axes.set_xticks(range(len(ESTIMATORS)), list(ESTIMATORS))
        axes.set(ylabel=label, xlim=(-0.5, len(ESTIMATORS) - 0.5))
    return figure


main = command(run, __doc__)

if __name__ == "__main__":
    main()
