r"""Does a larger β make a latent channel of its own for each factor of the images?

::

    v = (shape, x, y, size, rotation, hue) ──draw──▶ x ──E──▶ q(z | x) = N(m, s²), ten channels ──D──▶ x_hat
    loss = ‖x − x_hat‖² / 2s² + β·KL(q(z | x) ‖ p(z))

The lecture says (slides 62 to 66): β above 1 presses the posterior towards a prior of independent channels, and so
disentangles. The BetaVAE metric (Higgins et al. 2017) measures it: pairs of images share one factor and no other; a
linear classifier tells which one from the mean of |m − m'| over some pairs. Traversals show one channel at a time. A
disentangled code should also need fewer labels: linear classifiers of the factors from 100 labels against 10,000.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.study import lab
from benchmarks.study.data import FACTORS, Labelled, draw
from benchmarks.study.output import COLOURS, Settings, command, show, sketch, store
from vqcodec.config import LevelConfig
from vqcodec.networks.choices import Given
from vqcodec.networks.head import LN2
from vqcodec.networks.levels import Inputs
from vqcodec.networks.vqvae import VQVAE

__all__ = ["Encoder", "main", "metric", "run", "train"]

CHANNELS = 10  # of z, one vector an image
LEVEL = LevelConfig(stride=32, groups=1, dim=2 * CHANNELS, codebook_size=2, stages=1)
BETAS = (1.0, 8.0)
SEEDS = 2
NOISE = 0.1  # s
WIDTHS = (32, 64, 64, 64)  # channels at strides 4, 8, 16 and 32: one position has to hold the whole image
STEPS = 1500
PAIRS, POINTS = 32, 600  # pairs whose differences are averaged; such averages, half of them for the test
FEW, MANY, TESTED = 100, 10_000, 1000  # labels
BINS = 3  # classes that a factor is cut into, for the classifiers
TRAVERSAL = torch.linspace(-2, 2, 7)  # standard deviations of m


class Encoder:
    """m ``[N, 10]`` of drawn images."""

    def __init__(self, model: VQVAE) -> None:
        self.model = model

    def __call__(self, factors: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
        images = Labelled(draw(factors), torch.zeros(len(factors), dtype=torch.int64), ("",))
        _, r = lab.inputs(self.model, images, lab.Gaussian(sample=False))
        return r.chunk(2, 1)[0]


def train(training: lab.Training, data: Labelled, beta: float, seed: int) -> VQVAE:
    """A β-VAE with one vector an image."""
    torch.manual_seed(seed)
    model = lab.network([LEVEL], widths=WIDTHS)

    def loss() -> Tensor:
        x, bottleneck = data.x(training.pick(data)), lab.Gaussian()
        x_hat = model.reconstruct(x, lab.constant(model, len(x)), bottleneck)
        distortion = (x_hat - x).square().sum((1, 2, 3)) / (2 * NOISE**2)
        return (distortion + beta * LN2 * bottleneck.bits[0].sum(1)).mean() / x[0].numel()

    training(model, loss, STEPS)
    return model


def metric(encode: Encoder, seed: int) -> list[float]:
    """The BetaVAE metric by factor: how often the shared one is told from mean |m − m'|; 1/6 is chance."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(len(FACTORS), size=POINTS)
    a, b = rng.random((2, POINTS, PAIRS, len(FACTORS)))
    b[np.arange(POINTS), :, shared] = a[np.arange(POINTS), :, shared]
    ends = [encode(v.reshape(-1, len(FACTORS))).view(POINTS, PAIRS, CHANNELS) for v in (a, b)]
    difference, labels = (ends[0] - ends[1]).abs().mean(1), torch.from_numpy(shared)
    half = POINTS // 2
    told = lab.linear_classes((difference[:half], labels[:half]), difference[half:])
    right = (told == labels[half:]).float()
    return [float(right[labels[half:] == factor].mean()) for factor in range(len(FACTORS))]


def accuracy_by_labels(encode: Encoder, seed: int) -> dict[int, list[float]]:
    """Accuracy of linear classifiers that tell each factor's third from m, by the number of labels; 1/3 is chance."""
    factors = np.random.default_rng(seed).random((MANY + TESTED, len(FACTORS)))
    m = encode(factors)
    classes = torch.from_numpy((factors * BINS).astype(np.int64)).T
    tested = m[MANY:]
    return {
        count: [lab.linear_accuracy((m[:count], k[:count]), (tested, k[MANY:])) for k in classes]
        for count in (FEW, MANY)
    }


@torch.no_grad()
def traverse(model: VQVAE, encode: Encoder) -> list[Tensor]:
    """A row of images for each channel, which goes along TRAVERSAL while the others stay at an image's m."""
    m = encode(np.random.default_rng(0).random((500, len(FACTORS))))
    start = encode(np.full((1, len(FACTORS)), 0.5))
    rows: list[Tensor] = []
    lmbda = lab.constant(model, len(TRAVERSAL))
    for channel in range(CHANNELS):
        z = start.repeat(len(TRAVERSAL), 1)
        z[:, channel] = m[:, channel].mean() + TRAVERSAL * m[:, channel].std()
        r_hat = torch.cat([z, torch.zeros_like(z)], 1)[:, :, None, None]
        x_hat = model.walk(model.steps, Inputs(lmbda, model.embedding(lmbda)), Given([r_hat]), 1, 1).x_hat
        assert x_hat is not None
        rows.append(x_hat)
    return rows


def run(settings: Settings) -> None:
    """VAE and β-VAE with several seeds each, from ``settings.seed`` on."""
    training = lab.Training(settings.minutes, shares=len(BETAS) * SEEDS)
    rows: list[dict[str, Any]] = []
    traversals: dict[float, list[Tensor]] = {}
    for beta in BETAS:
        for seed in range(settings.seed, settings.seed + SEEDS):
            model = train(training, settings.train, beta, seed)
            encode = Encoder(model)
            told, labels = metric(encode, seed), accuracy_by_labels(encode, seed)
            rows.append(
                {
                    "beta": beta,
                    "seed": seed,
                    "metric": float(np.mean(told)),
                    "sample_efficiency": sum(labels[FEW]) / sum(labels[MANY]),
                    **rate_and_psnr(model, settings.test),
                    "told_factors": told,
                    "accuracy": {str(count): values for count, values in labels.items()},
                }
            )
            traversals.setdefault(beta, traverse(model, encode))
    means = {
        key: {f"{beta:g}": sum(row[key] for row in rows if row["beta"] == beta) / SEEDS for beta in BETAS}
        for key in ("metric", "sample_efficiency", "bits", "psnr")
    }
    facts = {"factors": FACTORS, "chance": 1 / len(FACTORS)}
    result = {"steps": training.steps, **facts, "mean": means, "models": rows}
    store(settings, "factors", result, _picture(rows, traversals))


def rate_and_psnr(model: VQVAE, data: Labelled) -> dict[str, Any]:
    """Bits of q against p, of an image and of each channel, most first; and PSNR."""
    bottleneck = lab.Gaussian()
    x_hat, _ = lab.inputs(model, data, bottleneck)
    bits = torch.cat(bottleneck.bits).mean(0)
    channels = bits.sort(descending=True).values.tolist()
    return {"bits": float(bits.sum()), "psnr": lab.psnr(x_hat, data), "channel_bits": channels}


def _picture(rows: list[dict[str, Any]], traversals: dict[float, list[Tensor]]) -> Figure:
    figure, panels = sketch(3, height=3.6)
    for axes, (beta, images) in zip(panels, traversals.items(), strict=False):
        show(axes, images, [f"z{i}" for i in range(CHANNELS)])
        axes.set_title(f"channels of z, β = {beta:g}", fontsize=8)
    axes = panels[2]
    for place, key in enumerate(("metric", "sample_efficiency")):
        for i, beta in enumerate(BETAS):
            values = [row[key] for row in rows if row["beta"] == beta]
            x = place + 0.3 * (i - 0.5)
            axes.bar(x, np.mean(values), 0.28, color=COLOURS[i], label=f"β = {beta:g}" if place == 0 else None)
            axes.plot([x] * len(values), values, "k.", markersize=4)
    axes.set_xticks([0, 1], ["BetaVAE metric", f"{FEW} against\n{MANY:,} labels"])
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=7)
    return figure


main = command(run, __doc__, shapes=True)

if __name__ == "__main__":
    main()
