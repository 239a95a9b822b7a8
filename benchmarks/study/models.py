r"""Which model gives how little distortion for how many bits: autoencoder, VAE, β-VAE, VQ-VAE?

::

    AE       ‖x − D(r)‖²                                          no rate: a real number has no finite code
    VAE      ‖x − D(z)‖² / 2s² + β·KL(q(z | x) ‖ p(z))            −ELBO at β = 1; the rate is the KL divergence
    VQ-VAE   ‖x − D(e)‖² / σ² + ‖sg(z_e) − e‖² + ¼·‖z_e − sg(e)‖²  the rate is log2 K, and less with a prior

The lecture says: the ELBO is a rate and a distortion, and β chooses between them. The latent space of an autoencoder
has gaps, that of a VAE has none. The rate of a VQ-VAE is at most log2 K a code, and a prior over the codes, trained
afterwards, makes the bound tighter. Here all models are one network with one bottleneck of 8×8 positions, and the
VQ-VAE's codes are written to bytes.
"""

import itertools
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.study import lab
from benchmarks.study.data import Labelled
from benchmarks.study.output import COLOURS, Settings, command, log_axis, scatter, show, sketch, store
from vqcodec.config import LevelConfig
from vqcodec.networks.choices import Encode
from vqcodec.networks.head import LN2
from vqcodec.networks.vqvae import VQVAE

__all__ = ["gap", "main", "run"]

STRIDE = 4  # pixels: a grid of 8×8
CHANNELS = 4  # of z, at each position
BETAS = (0.25, 1.0, 4.0, 16.0)
SIZES = (16, 128)  # K
NOISE = 0.05  # s: the VAE assumes that a pixel is off by 13 grey levels
STEPS, PRIOR_STEPS = 600, 500
RATED, WRITTEN, PLOTTED, SHOWN = 2000, 300, 800, 8  # test images: for rates, written to bytes, in plots, side by side


def train_ae(training: lab.Training, data: Labelled) -> VQVAE:
    """The autoencoder: the squared error alone."""
    model = lab.network([LevelConfig(STRIDE, 1, CHANNELS, 2, 1)])

    def loss() -> Tensor:
        x = data.x(training.pick(data))
        return (model.reconstruct(x, lab.constant(model, len(x)), lab.Plain()) - x).square().mean()

    training(model, loss, STEPS)
    return model


def train_vae(training: lab.Training, data: Labelled, beta: float) -> VQVAE:
    """The β-VAE: the negative ELBO with β, in nats a value."""
    model = lab.network([LevelConfig(STRIDE, 1, 2 * CHANNELS, 2, 1)])

    def loss() -> Tensor:
        x, bottleneck = data.x(training.pick(data)), lab.Gaussian()
        x_hat = model.reconstruct(x, lab.constant(model, len(x)), bottleneck)
        distortion = (x_hat - x).square().sum((1, 2, 3)) / (2 * NOISE**2)  # −log p(x | z) up to a constant
        return (distortion + beta * LN2 * bottleneck.bits[0].sum(1)).mean() / x[0].numel()

    training(model, loss, STEPS)
    return model


def gap(vectors: Tensor) -> float:
    """Distance of halfway points between two images from the next image, in distances between neighbours."""
    halfway = (vectors + vectors.roll(1, 0)) / 2
    to_self_and_next = torch.cdist(vectors, vectors).topk(2, largest=False).values
    return float(torch.cdist(halfway, vectors).amin(1).mean() / to_self_and_next[:, 1].mean())


def run(settings: Settings) -> None:
    """Train every model for the same number of steps, and measure them on the same images."""
    training = lab.Training(settings.minutes, shares=1 + len(BETAS) + 2 * len(SIZES))
    rated = settings.test.take(slice(0, RATED))
    rows, spaces = {"image": rated.x(slice(0, SHOWN))}, {}

    model = train_ae(training, settings.train)
    x_hat, spaces["autoencoder"] = lab.inputs(model, rated, lab.Plain())
    autoencoder, rows["AE"] = lab.psnr(x_hat, rated), x_hat[:SHOWN]

    vae: list[dict[str, float]] = []
    for beta in BETAS:
        model, bottleneck = train_vae(training, settings.train, beta), lab.Gaussian()
        x_hat, r = lab.inputs(model, rated, bottleneck)
        vae.append(
            {"beta": beta, "bits": float(torch.cat(bottleneck.bits).sum(1).mean()), "psnr": lab.psnr(x_hat, rated)}
        )
        rows[f"VAE, β {beta:g}"] = x_hat[:SHOWN]
        m, log_s = r.chunk(2, 1)
        spaces[f"VAE, β {beta:g}"] = m + log_s.exp() * torch.randn_like(m)

    vq: list[dict[str, float]] = []
    for size in SIZES:
        model = lab.network([LevelConfig(STRIDE, 1, 2 * CHANNELS, size, 1)])
        lab.train_vqvae(training, model, settings.train, STEPS)
        prior = lab.train_prior(training, model, lab.code_grids(model, settings.train), None, PRIOR_STEPS)
        x_hat, _ = lab.inputs(model, rated, Encode())
        bits = lab.coded(prior, [grid[:WRITTEN] for grid in lab.code_grids(model, rated)])
        vq.append({"codebook_size": size, "psnr": lab.psnr(x_hat, rated), **vars(bits)})
        rows[f"VQ-VAE, K {size}"] = x_hat[:SHOWN]

    result = {
        "steps": training.steps,
        "autoencoder": {"psnr": autoencoder},
        "vae": vae,
        "beta_is_monotone": all(a["bits"] > b["bits"] and a["psnr"] > b["psnr"] for a, b in itertools.pairwise(vae)),
        "vqvae": [{**row, "prior_gain": 1 - row["real"] / row["uniform"]} for row in vq],
        "latent_space": {name: _describe(vectors, rated.labels) for name, vectors in spaces.items()},
    }
    store(settings, "models", result, _picture(result, rows, spaces, rated, settings.seed))


def _describe(vectors: Tensor, labels: Tensor) -> dict[str, float]:
    """How far apart images are, and whether a plane separates the classes: trained on one half, tested on the other."""
    half = len(vectors) // 2
    separable = lab.linear_accuracy((vectors[:half], labels[:half]), (vectors[half:], labels[half:]))
    return {"gap": gap(vectors[:PLOTTED]), "linear_accuracy": separable}


def _picture(
    result: dict[str, Any], rows: dict[str, Tensor], spaces: dict[str, Tensor], data: Labelled, seed: int
) -> Figure:
    figure, panels = sketch(2, 3, height=8.4)
    log_axis(axes := panels[0], "bits an image", (100, 200, 400, 800, 1600))
    axes.plot(*_curve(result["vae"], "bits"), "o-", color=COLOURS[0], label="VAE: KL, at several β")
    for key, style, label in (("uniform", "v:", "log₂ K"), ("real", "o--", "real bytes")):
        axes.plot(*_curve(result["vqvae"], key), style, color=COLOURS[1], label=f"VQ-VAE: {label}, at two K")
    axes.axhline(result["autoencoder"]["psnr"], color=COLOURS[2], label="autoencoder, which has no rate")
    axes.set_ylabel("PSNR, dB")
    axes.set_ylim(top=1.6 + max(point["psnr"] for point in result["vae"]))  # room for the legend
    axes.legend(frameon=False, fontsize=7, loc="upper left")
    show(panels[1], list(rows.values()), list(rows))
    for i, name in enumerate(("autoencoder", f"VAE, β {BETAS[-1]:g}")):
        for axes, method in ((panels[2 + i], "PCA"), (panels[4 + i], "t-SNE")):
            part = spaces[name][:PLOTTED]
            places = lab.principal(part) if method == "PCA" else lab.neighbours(part, seed)
            scatter(axes, places, data.labels[:PLOTTED], data.names)
            axes.set_title(f"{method} of the latent space: {name}", fontsize=8)
    panels[3].legend(frameon=False, markerscale=3, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _curve(points: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    return [point[key] for point in points], [point["psnr"] for point in points]


main = command(run, __doc__)

if __name__ == "__main__":
    main()
