r"""Do codebooks learned by gradient and by moving averages come to rest at the same points?

::

    gradient   e ← e − η·∇‖sg(z_e) − e‖²          ∇ = 0 where e_k is the mean of the z_e that chose it
    EMA        e_k = sums_k / usage_k             the same mean, of the last batches

The lecture says (slides 75 and 76): the codebook loss is k-means by gradient, the moving average is k-means in
batches, and both have the same stationary points. Shown here is the distance of every live codeword from the mean of
its cluster, in radii of a cluster (root mean square distance of its vectors from their mean). In the second part the
encoder is at rest, and only the codebooks go on, with all vectors in every step.
"""

from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.study import lab
from benchmarks.study.data import Labelled
from benchmarks.study.output import COLOURS, Settings, command, sketch, store
from vqcodec.config import LevelConfig
from vqcodec.networks.fitting import residuals
from vqcodec.networks.quantize import VectorQuantizer
from vqcodec.networks.vqvae import VQVAE

__all__ = ["distances", "main", "run"]

RULES = {"EMA": "ema", "gradient": "gradient"}
LEVEL = LevelConfig(stride=4, groups=1, dim=8, codebook_size=16, stages=1)
IMAGES = 400  # of the training set; all vectors of these are seen and measured
STEPS, REST_STEPS, EVERY = 200, 500, 25
RATE, REST_RATE = 0.01, 0.05  # η of the codebook, while the encoder learns and at rest
DECAY = 0.8  # of the moving averages at rest, where a step sees all vectors and averages have no noise to smooth


@torch.no_grad()
def distances(quantizer: VectorQuantizer, r: Tensor) -> tuple[Tensor, float]:
    """Distance of each live codeword from its cluster's mean, ``[live]``, and the clusters' mean radius.

    ``r [N, D, h, w]`` are all vectors.
    """
    vectors = quantizer.rows(r)
    codes = quantizer.assign(vectors, None)
    counts, sums = quantizer.statistics(vectors, codes)
    live = counts[0] > 0
    means = sums[0] / counts[0].clamp_min(1)[:, None]
    spread = torch.zeros_like(counts[0]).index_add(0, codes[0], (vectors[0] - means[codes[0]]).square().sum(1))
    radii = (spread[live] / counts[0, live]).sqrt()
    return (quantizer.codebook[0] - means).norm(dim=1)[live].detach(), float(radii.mean())


@dataclass
class Track:
    """The distances during one training."""

    model: VQVAE
    data: Labelled
    steps: list[int] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)  # over live codewords, in mean radii
    worst: list[float] = field(default_factory=list)
    live: list[int] = field(default_factory=list)

    def vectors(self) -> Tensor:
        """z_e ``[N, D, h, w]`` of all images."""
        parts = (self.data.x(slice(i, i + 500)) for i in range(0, len(self.data), 500))
        return torch.cat([residuals(self.model, x, lab.constant(self.model, len(x)))[0][0] for x in parts])

    def note(self, step: int, r: Tensor) -> None:
        """Measure after ``step``."""
        distance, radius = distances(self.model.quantizers()[0], r)
        self.steps.append(step)
        self.mean.append(float(distance.mean()) / radius)
        self.worst.append(float(distance.max()) / radius)
        self.live.append(len(distance))


def learn(training: lab.Training, rule: str, data: Labelled, seed: int) -> Track:
    """Train a VQ-VAE whose codebook learns by ``rule``, then the codebook alone."""
    torch.manual_seed(seed)
    track = Track(lab.network([LEVEL], learn=rule), data)

    def after(step: int) -> None:
        if step % EVERY == 0:
            track.note(step, track.vectors())

    joint = lab.train_vqvae(training, track.model, data, STEPS, codebook_lr=RATE, after=after)
    rest(training, track, joint)
    return track


def rest(training: lab.Training, track: Track, joint: int) -> None:
    """Let the codebook alone go on after ``joint`` steps, by its own rule, on the vectors of the encoder at rest."""
    r, quantizer = track.vectors(), track.model.quantizers()[0]
    quantizer.decay = DECAY

    def loss() -> Tensor:
        loss: Tensor = quantizer(r).codebook_loss  # also updates the averages
        return loss

    def after(step: int) -> None:
        if step % EVERY == 0:
            track.note(joint + step, r)

    if quantizer.learn == "gradient":
        training(quantizer, loss, REST_STEPS, codebook_lr=REST_RATE, after=after)
        return
    quantizer.train()
    for step in range(1, REST_STEPS + 1):
        loss()
        after(step)


def run(settings: Settings) -> None:
    """Both rules, from the same start."""
    training = lab.Training(settings.minutes, shares=3)
    data = settings.train.take(slice(0, IMAGES))
    tracks = {name: learn(training, rule, data, settings.seed) for name, rule in RULES.items()}
    result = {
        "steps": training.steps,
        "rules": {
            name: {"steps": t.steps, "mean_distance": t.mean, "largest_distance": t.worst, "live_codewords": t.live}
            for name, t in tracks.items()
        },
    }
    store(settings, "codebooks", result, _picture(tracks, training.steps[0]))


def _picture(tracks: dict[str, Track], rest: int) -> Figure:
    figure, (axes,) = sketch(1, width=6)
    for colour, (name, track) in zip(COLOURS, tracks.items(), strict=False):
        axes.plot(
            track.steps, track.mean, "o-", color=colour, label=f"{name}: mean of the live codewords", markersize=4
        )
        axes.plot(track.steps, track.worst, ":", color=colour, label=f"{name}: the farthest")
    axes.axvline(rest, color="#59636e", linewidth=1)
    axes.axhline(0.01, color="#59636e", linewidth=1, linestyle="--")
    axes.text(rest, axes.get_ylim()[1], " the encoder is at rest", va="top", fontsize=7)
    axes.set(yscale="log", xlabel="steps", ylabel="distance from the cluster's mean, in radii")
    axes.legend(frameon=False, fontsize=7)
    return figure


main = command(run, __doc__)

if __name__ == "__main__":
    main()
