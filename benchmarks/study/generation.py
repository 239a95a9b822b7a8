r"""Are drawn images good enough to learn from? The classification accuracy score of a class-conditional PixelCNN.

::

    (x, c) ──E──▶ codes ──▶ p(codes | c) ──draw──▶ codes' ──D──▶ x' ──▶ classifier of (x', c) ──▶ accuracy on real x

The lecture says (slide 80): a sharp picture is no proof of a good model. A classifier trained on generated pairs and
tested on real ones shows how much of each class the model has learned (Ravuri and Vinyals 2019). Beside it are the
same classifier trained on real pairs, and on reconstructions, which shows how much of the loss is the VQ-VAE's.

The prior is the codec's PixelCNN, told a class as if it were a quality; codes are drawn by the same integers that
write files.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.study import lab
from benchmarks.study.data import Labelled
from benchmarks.study.output import COLOURS, Settings, command, show, sketch, store
from vqcodec.config import LevelConfig
from vqcodec.exact.prior import FixedPrior
from vqcodec.networks.choices import Encode
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.study.sampling import Draw, draw_codes

__all__ = ["generate", "main", "run"]

LEVEL = LevelConfig(stride=8, groups=1, dim=16, codebook_size=128, stages=1)
SEEDS = 3
STEPS, PRIOR_STEPS, CLASSIFIER_STEPS = 300, 400, 250
KNOWN = 10_000  # images that the prior is trained on
PAIRS = 5000  # that each classifier is trained on
TESTED = 2000
SHOWN = 8  # images of each class
KINDS = ("real", "reconstructed", "generated")


def generate(model: VQVAE, prior: PixelCNN, names: tuple[str, ...], count: int, seed: int) -> Labelled:
    """``count`` images of each class, drawn from the prior and decoded."""
    fixed = FixedPrior(fixed_point(prior), prior.model, prior.config)
    side = 32 // LEVEL.stride
    images: list[Tensor] = []
    for label in range(len(names)):
        draw = Draw([(seed, label, number) for number in range(count)])
        (codes,) = draw_codes(fixed, [(side, side)], label + 1, draw, count)
        x_hat = model.decode([torch.from_numpy(codes).long()], lab.constant(model, count))
        images.append((x_hat * 255).round().to(torch.uint8))
    return Labelled(torch.cat(images), torch.arange(len(names)).repeat_interleave(count), names)


def run(settings: Settings) -> None:
    """Everything anew for each seed: VQ-VAE, prior, and three classifiers."""
    training = lab.Training(settings.minutes, shares=SEEDS * (2 + len(KINDS)))
    test, rows = settings.test.take(slice(0, TESTED)), []
    for seed in range(settings.seed, settings.seed + SEEDS):
        torch.manual_seed(seed)
        model = lab.network([LEVEL])
        lab.train_vqvae(training, model, settings.train, STEPS)
        known = settings.train.take(slice(0, KNOWN))
        prior = lab.train_prior(training, model, lab.code_grids(model, known), known.labels, PRIOR_STEPS)
        classes = len(settings.train.names)
        real = settings.train.take(torch.randperm(len(settings.train))[:PAIRS])
        x_hat, _ = lab.inputs(model, real, Encode())
        pairs = {
            "real": real,
            "reconstructed": Labelled((x_hat * 255).round().to(torch.uint8), real.labels, real.names),
            "generated": generate(model, prior, real.names, -(-len(real) // classes), seed),
        }
        scores: dict[str, float] = {}
        for kind, data in pairs.items():
            network = lab.classifier(classes)
            lab.train_classifier(training, network, data.x, data.labels, CLASSIFIER_STEPS)
            scores[kind] = lab.accuracy(network, test.x(slice(None)), test.labels)
        rows.append({"seed": seed, "psnr": lab.psnr(x_hat, real), **scores})
    result = {
        "steps": training.steps,
        "pairs": len(real),
        "mean": {kind: float(np.mean([row[kind] for row in rows])) for kind in KINDS},
        "standard_deviation": {kind: float(np.std([row[kind] for row in rows], ddof=1)) for kind in KINDS},
        "runs": rows,
    }
    store(settings, "generation", result, _picture(rows, pairs["generated"]))


def _picture(rows: list[dict[str, Any]], generated: Labelled) -> Figure:
    figure, panels = sketch(2, height=3.6)
    classes = range(len(generated.names))
    drawn = [generated.take(generated.labels == label).x(slice(0, SHOWN)) for label in classes]
    show(panels[0], drawn, generated.names)
    panels[0].set_title("drawn from p(codes | class)", fontsize=8)
    axes = panels[1]
    for i, kind in enumerate(KINDS):
        values = [row[kind] for row in rows]
        axes.bar(i, np.mean(values), 0.6, color=COLOURS[i])
        axes.plot([i] * len(values), values, "k.", markersize=4)
        axes.text(i, np.mean(values) / 2, f"{np.mean(values):.3f}", ha="center", color="white")
    axes.set_xticks(range(len(KINDS)), KINDS)
    axes.set(ylim=(0, 1), ylabel="accuracy on real test images", xlabel="pairs that the classifier was trained on")
    return figure


main = command(run, __doc__)

if __name__ == "__main__":
    main()
