r"""Are two levels of codes better than one, and three better than two, at equal rate?

::

    one    e at stride 4 ─────────────────────────────▶ x_hat
    two    e at stride 8 ─▶ the rest at stride 4 ─────▶ x_hat        r_l = g(λ)·(y_l − μ_l(f))
    three  e at stride 16 ─▶ the rest at 8 ─▶ at 4 ───▶ x_hat

The lecture says: with codes at several strides the coarse ones carry the whole and the fine ones the detail, as in
VQ-VAE-2. Each model is the codec's, with as many blocks and one model for all λ, trained as the codec is: under noise,
then with codes that are chosen by ‖·‖² and bits, then a PixelCNN over all levels. The loss is R + λ·D, so each gives a
curve, and curves are compared at equal rate.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.study import lab
from benchmarks.study.output import COLOURS, Settings, command, log_axis, sketch, store
from vqcodec.config import LevelConfig
from vqcodec.networks.fitting import fit_level
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.lambdas import draw_lambda, draw_quality_lambda
from vqcodec.train.vae import rate_distortion

__all__ = ["gain_at_equal_rate", "main", "run"]

STRIDES = {"one level": (4,), "two levels": (8, 4), "three levels": (16, 8, 4)}
BLOCKS = {"one level": (3,), "two levels": (2, 1), "three levels": (1, 1, 1)}
LAMBDAS = 0.0001, 0.002  # with a larger one, 64 codewords do not reach the largest residuals
QUALITIES = (1, 25, 50, 75, 100)
STEPS, CODE_STEPS, PRIOR_STEPS = 500, 200, 400
FITTED, KNOWN, TESTED = 500, 5000, 300  # images for the codebooks, for the prior, for the curves


def train(training: lab.Training, name: str, settings: Settings) -> VQVAE:
    """The VQ-VAE: phases "vae" and "codes" of the codec."""
    levels = [LevelConfig(stride, groups=4, dim=2, codebook_size=64, stages=2) for stride in STRIDES[name]]
    model, data = lab.network(levels, blocks=BLOCKS[name], rate_aware=True, lambdas=LAMBDAS), settings.train

    def loss(hard: bool) -> Tensor:
        x = data.x(training.pick(data))
        lmbda = draw_lambda(model.config, len(x), x.device)
        out = model(x, lmbda, hard=hard)
        cost, _, _ = rate_distortion(x, out, lmbda)
        # A file's loss grows about as √λ; dividing by it lets every rate weigh the same.
        total: Tensor = ((model.config.lambda_min / lmbda).sqrt() * cost).mean() + 0.02 * out.commitment_loss
        return total

    training(model, lambda: loss(hard=False), STEPS)
    x = data.x(slice(0, FITTED))
    lmbda = draw_lambda(model.config, len(x), x.device)
    for index in range(len(levels)):
        fit_level(model, index, x, lmbda)
    training(model, lambda: loss(hard=True), CODE_STEPS)
    return model


def measure(training: lab.Training, model: VQVAE, settings: Settings) -> list[dict[str, Any]]:
    """The curve: bits and PSNR at every quality."""
    known, tested = settings.train.take(slice(0, KNOWN)), settings.test.take(slice(0, TESTED))
    prior = lab.new_prior(model)

    def loss() -> Tensor:
        x = known.x(training.pick(known))
        lmbda = draw_quality_lambda(model.config, len(x), x.device)
        codes = [grid.clone() for grid in model.encode(x, lmbda)]
        return torch.stack(prior(codes, lmbda)).sum(0).mean() / x[0, 0].numel()

    training(prior, loss, PRIOR_STEPS)
    points: list[dict[str, Any]] = []
    for quality in QUALITIES:
        grids = lab.code_grids(model, tested, quality)
        x_hat = model.decode(grids, lab.constant(model, len(tested), quality))
        points.append({"quality": quality, "psnr": lab.psnr(x_hat, tested), **vars(lab.coded(prior, grids, quality))})
    return points


def gain_at_equal_rate(reference: list[dict[str, Any]], other: list[dict[str, Any]]) -> float | None:
    """Mean dB by which ``other`` is above ``reference`` at equal bits, over the rates that both have; None without."""
    logs = [np.log([point["cross_entropy"] for point in curve]) for curve in (reference, other)]
    low, high = max(log[0] for log in logs), min(log[-1] for log in logs)
    if low >= high:
        return None
    at = np.linspace(low, high, 50)
    a, b = (
        np.interp(at, log, [point["psnr"] for point in curve])
        for log, curve in zip(logs, (reference, other), strict=True)
    )
    return float((b - a).mean())


def run(settings: Settings) -> None:
    """Three models, trained for the same number of steps."""
    training = lab.Training(settings.minutes, shares=3 * len(STRIDES))
    curves: dict[str, list[dict[str, Any]]] = {}
    for name in STRIDES:
        torch.manual_seed(settings.seed)
        curves[name] = measure(training, train(training, name, settings), settings)
    reference = curves["one level"]
    gains = {name: gain_at_equal_rate(reference, curve) for name, curve in curves.items() if curve is not reference}
    result = {"steps": training.steps, "decibels_above_one_level_at_equal_rate": gains, "curves": curves}
    store(settings, "levels", result, _picture(curves))


def _picture(curves: dict[str, list[dict[str, Any]]]) -> Figure:
    figure, (axes,) = sketch(1, width=5)
    log_axis(axes, "bits an image, −log₂ p of the PixelCNN", (100, 200, 400, 800))
    for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
        decibels = [point["psnr"] for point in points]
        axes.plot([point["cross_entropy"] for point in points], decibels, "o-", color=colour, label=name)
    axes.set_ylabel("PSNR, dB")
    axes.legend(frameon=False)
    return figure


main = command(run, __doc__)

if __name__ == "__main__":
    main()
