r"""What the experiments share: one network for all models, which differ in what the decoder gets.

::

                 ┌─ Plain ────▶ r               autoencoder
    x ──E──▶ r ──┼─ Gaussian ─▶ r + s·ε         VAE, β-VAE
                 └─ HardCodes ▶ nearest e_k     VQ-VAE          ──D──▶ x_hat

    codes ──▶ PixelCNN ──▶ integers ──▶ range coder ──▶ bytes

E, D, the quantiser, its codebooks, the prior and the coder are the codec's own: :class:`vqcodec.networks.vqvae.VQVAE`,
:mod:`vqcodec.networks.quantize`, :mod:`vqcodec.networks.pixelcnn` and :mod:`vqcodec.exact`.

Legend: B batch, D channels of the bottleneck, h and w its grid, G groups, K codewords, C classes.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from benchmarks.study.data import Labelled
from vqcodec.config import QUALITY_MAX, LevelConfig, ModelConfig, PhaseConfig, PriorConfig
from vqcodec.exact.entropy import decode, encode
from vqcodec.exact.prior import FixedPrior
from vqcodec.networks.choices import HardCodes
from vqcodec.networks.fitting import fit_level, residuals
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.head import LN2
from vqcodec.networks.layers import EMBEDDING, Downsample, LambdaEmbedding
from vqcodec.networks.levels import Choose, Latent
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.optim import Optimizer, schedule

__all__ = [
    "BETA",
    "QUALITY",
    "ClassEmbedding",
    "Coded",
    "Gaussian",
    "Plain",
    "Training",
    "accuracy",
    "classifier",
    "code_grids",
    "coded",
    "constant",
    "inputs",
    "linear_accuracy",
    "linear_classes",
    "neighbours",
    "network",
    "new_prior",
    "principal",
    "psnr",
    "train_classifier",
    "train_prior",
    "train_vqvae",
]

PATCH, WIDTH = 4, 32  # pixels a side of the blocks that the network reads; channels at every stride
QUALITY = 50  # where λ is a constant: the middle of its range
BETA = 0.25  # weight of the commitment loss, as published
CHUNK = 500  # images that are evaluated together
PHASE = PhaseConfig(muon_lr=0.01, adam_lr=2e-3, warmup=20)
PRIOR = PriorConfig(channels=32, layers=2, context_layers=1)
REVIVE_STEPS = 100
REVIVE_BELOW = 1e-4  # usage of a dead code


@dataclass
class Training:
    """Trains modules, each for some steps, or for its share of a number of minutes if that is shorter.

    Attributes:
        minutes: of processor time, for all trainings of a script together.
        shares: how many trainings of equal length these minutes are for.
        batch: images in a step.
        steps: of each training so far.
    """

    minutes: float
    shares: int
    batch: int = 32
    steps: list[int] = field(default_factory=list)

    def __call__(
        self,
        module: nn.Module,
        loss: Callable[[], Tensor],
        steps: int,
        *,
        codebook_lr: float = 1e-3,
        after: Callable[[int], None] | None = None,
    ) -> int:
        """Minimise ``loss`` with the codec's optimiser and one cosine; returns the number of steps."""
        optimizer = Optimizer(module, PHASE, extra_lr={"codebook": codebook_lr})
        module.train()
        start, seconds, step = time.process_time(), 60 * self.minutes / self.shares, 0
        while (progress := max(step / steps, (time.process_time() - start) / seconds)) < 1 or step == 0:
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step(schedule(progress, step, PHASE.warmup))
            step += 1
            if after is not None:
                after(step)
        module.eval()
        self.steps.append(step)
        return step

    def pick(self, data: Labelled) -> Tensor:
        """Numbers of the images of a random batch."""
        return torch.randint(len(data), (self.batch,))


def network(
    levels: Sequence[LevelConfig],
    *,
    widths: Sequence[int] = (),
    blocks: Sequence[int] = (),
    learn: str = "ema",
    rate_aware: bool = False,
    lambdas: tuple[float, float] = (0.001, 0.1),
) -> VQVAE:
    """The codec's network, down to the coarsest of ``levels``.

    ``widths`` and ``blocks`` are for each stride, finest first, by default WIDTH channels and one block. Without
    ``rate_aware`` a code is the nearest codeword, as published. ``lambdas`` are those of qualities 1 and 100.
    """
    stages = (levels[0].stride // PATCH).bit_length()
    widths, blocks = tuple(widths) or (WIDTH,) * stages, tuple(blocks) or (1,) * stages
    config = ModelConfig(tuple(levels), PATCH, widths, blocks, *lambdas)
    model = VQVAE(config, learn=learn)
    for quantizer in model.quantizers():
        quantizer.rate_aware = rate_aware
    return model


def constant(model: VQVAE, count: int, quality: int = QUALITY) -> Tensor:
    """λ ``[count]`` of ``quality``."""
    return torch.full((count,), model.config.lmbda(quality))


def inputs(model: VQVAE, data: Labelled, choose: Choose) -> tuple[Tensor, Tensor]:
    """x_hat ``[N, 3, 32, 32]`` of all images, with r_hat by ``choose``, and r ``[N, D·h·w]`` of the coarsest level."""
    residuals: list[Tensor] = []

    def keep(latent: Latent) -> Tensor:
        r = latent.residual()
        residuals.append(r.flatten(1))
        return choose(replace(latent, residual=lambda: r))

    with torch.no_grad():
        parts = [data.x(slice(i, i + CHUNK)) for i in range(0, len(data), CHUNK)]
        x_hat = [model.reconstruct(x, constant(model, len(x)), keep) for x in parts]
    levels = len(model.levels)
    return torch.cat(x_hat).clamp(0, 1), torch.cat(residuals[::levels])


def psnr(x_hat: Tensor, data: Labelled) -> float:
    """Of the mean squared error of all pixels, in dB."""
    return -10 * math.log10(float((x_hat - data.x(slice(None))).square().mean()))


class Plain:
    """The autoencoder's bottleneck: the decoder gets r itself."""

    def __call__(self, latent: Latent) -> Tensor:
        return latent.residual()


class Gaussian:
    """The VAE's bottleneck: q(z | x) = N(m, s²), sampled as z = m + s·ε with ε ~ N(0, 1) (reparameterisation).

    Half of the level's channels are m, the other half log s, where the decoder gets zeros. The prior p(z) is N(0, σ²)
    with the σ that the decoder predicts, as in the codec. Each call adds a batch's bits, ``[B, D/2]``, to ``bits``:

        KL(q ‖ p) = Σ log(σ/s) + (s² + m²) / 2σ² − ½, summed over positions.
    """

    def __init__(self, *, sample: bool = True) -> None:
        self.sample = sample
        self.bits: list[Tensor] = []

    def __call__(self, latent: Latent) -> Tensor:
        m, log_s = latent.residual().chunk(2, 1)
        log_s = log_s.clamp(-8, 8)
        sigma = latent.scale().chunk(2, 1)[0]
        z = m + log_s.exp() * torch.randn_like(m) if self.sample else m
        kl = sigma.log() - log_s + ((2 * log_s).exp() + m.square()) / (2 * sigma.square()) - 0.5
        self.bits.append(kl.sum((2, 3)) / LN2)
        return torch.cat([z, torch.zeros_like(z)], 1)


def train_vqvae(
    training: Training,
    model: VQVAE,
    data: Labelled,
    steps: int,
    *,
    choice: Callable[[], HardCodes] = HardCodes,
    codebook_lr: float = 1e-3,
    after: Callable[[int], None] | None = None,
) -> int:
    """Train the VQ-VAE: MSE / variance + ‖sg(z_e) − e‖² + β·‖z_e − sg(e)‖² (van den Oord et al. 2017, eq. 3).

    The codebooks start as k-means of the untrained encoder's residuals. Dead codes are revived until half time.
    ``after`` is called after each step.
    """
    some = data.x(torch.randint(len(data), (256,)))
    variance, lmbda = some.var(), constant(model, len(some))
    for index in range(len(model.levels)):
        fit_level(model, index, some, lmbda)

    def loss() -> Tensor:
        x, hard = data.x(training.pick(data)), choice()
        x_hat = model.reconstruct(x, lmbda[:1].expand(len(x)), hard)
        terms = [q.codebook_loss + BETA * q.commitment_loss for q in hard.quantized]
        return (x_hat - x).square().mean() / variance + torch.stack(terms).sum()

    def look_after(step: int) -> None:
        if step % REVIVE_STEPS == 0 and step <= steps // 2:
            pairs = residuals(model, some, lmbda, quantized=len(model.levels))
            for quantizer, (r, _) in zip(model.quantizers(), pairs, strict=True):
                quantizer.revive(r, below=REVIVE_BELOW)
        if after is not None:
            after(step)

    return training(model, loss, steps, codebook_lr=codebook_lr, after=look_after)


def code_grids(model: VQVAE, data: Labelled, quality: int = QUALITY) -> list[Tensor]:
    """Codes ``[N, G_l, h_l, w_l]`` int64 of all images, coarsest level first."""
    parts = []
    for i in range(0, len(data), CHUNK):
        x = data.x(slice(i, i + CHUNK))
        parts.append([grid.clone() for grid in model.encode(x, constant(model, len(x), quality))])
    return [torch.cat(grids) for grids in zip(*parts, strict=True)]


def new_prior(model: VQVAE) -> PixelCNN:
    """A PixelCNN that knows the static frequencies of the model's codes, and no more."""
    prior = PixelCNN(model.config, PRIOR)
    prior.start_from([quantizer.usage for quantizer in model.quantizers()])
    return prior


def train_prior(training: Training, model: VQVAE, grids: list[Tensor], labels: Tensor | None, steps: int) -> PixelCNN:
    """A PixelCNN of the codes ``grids``; with ``labels [N]``, one for each class: p(codes | class).

    A class is told to the prior as a quality: class c is quality c + 1, and p(codes | quality) is what the codec's
    prior models anyway. Only the embedding differs: a table with a row for each class, since classes have no order.
    """
    prior = new_prior(model)
    if labels is not None:
        prior.embedding = ClassEmbedding(model.config.lambda_min, model.config.lambda_max)
    qualities = torch.full((len(grids[0]),), QUALITY) if labels is None else labels + 1
    lmbda = torch.tensor([model.config.lmbda(quality) for quality in range(QUALITY_MAX + 1)])
    codes = sum(grid[0].numel() for grid in grids)

    def loss() -> Tensor:
        which = torch.randint(len(grids[0]), (training.batch,))
        bits = prior([grid[which] for grid in grids], lmbda[qualities[which]])
        return torch.stack(bits).sum(0).mean() / codes

    training(prior, loss, steps)
    return prior


class ClassEmbedding(LambdaEmbedding):
    """Features ``[B, E]`` of a class, which comes as the λ of quality c + 1: a row of a table."""

    def __init__(self, lambda_min: float, lambda_max: float) -> None:
        super().__init__(lambda_min, lambda_max)
        self.net = nn.Sequential(nn.Embedding(QUALITY_MAX, EMBEDDING))

    def forward(self, lmbda: Tensor) -> Tensor:
        t = (lmbda.log() - self.centre) / self.half_range  # −1..1
        features: Tensor = self.net(((t + 1) / 2 * (QUALITY_MAX - 1)).round().long())
        return features


@dataclass(frozen=True)
class Coded:
    """Mean bits of an image's codes: at log2 K each, by the prior's integers (−log2 p), and of the real bytes."""

    uniform: float
    cross_entropy: float
    real: float


def coded(prior: PixelCNN, grids: list[Tensor], quality: int = QUALITY) -> Coded:
    """Write the codes of each image to bytes of their own, as a .vq file has them, read them back, and count."""
    fixed = FixedPrior(fixed_point(prior.eval()), prior.model, prior.config)
    arrays = [grid.to(torch.int16).numpy() for grid in grids]
    images = [encode(fixed, [array[i] for array in arrays], quality, measure=True) for i in range(len(arrays[0]))]
    streams = [[level.bitstream for level in image] for image in images]
    shapes = [(array.shape[2], array.shape[3]) for array in arrays]
    for i, codes in enumerate(decode(fixed, streams, shapes, [quality] * len(images))):
        assert all(np.array_equal(array[i], grid) for array, grid in zip(arrays, codes, strict=True))
    levels = zip(prior.model.levels, arrays, strict=True)
    return Coded(
        uniform=sum(array[0].size * math.log2(level.codebook_size) for level, array in levels),
        cross_entropy=sum(level.cross_entropy for image in images for level in image) / len(images),
        real=sum(8 * len(stream) for image in streams for stream in image) / len(images),
    )


def classifier(classes: int) -> nn.Module:
    """A small convolutional network, ``[B, 3, 32, 32]`` to logits ``[B, C]``."""
    layers = [Downsample(3, 32, 2), nn.ReLU(), Downsample(32, 48, 2), nn.ReLU(), Downsample(48, 64, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, classes))


def train_classifier(
    training: Training, model: nn.Module, x: Callable[[Tensor], Tensor], labels: Tensor, steps: int
) -> None:
    """Train on pairs of ``x(numbers) [B, …]`` and ``labels [N]``, by cross-entropy."""

    def loss() -> Tensor:
        which = torch.randint(len(labels), (training.batch,))
        return F.cross_entropy(model(x(which)), labels[which])

    training(model, loss, steps)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Share of ``x [N, …]`` whose largest logit is the label's."""
    logits = torch.cat([model(part) for part in torch.split(x, CHUNK)])
    return float((logits.argmax(1) == labels).float().mean())


def linear_classes(train: tuple[Tensor, Tensor], tested: Tensor) -> Tensor:
    """The classes ``[M]`` of ``tested [M, D]``, by a linear classifier (multinomial logistic regression).

    It is trained on vectors ``[N, D]`` and labels ``[N]``.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    x, labels = (part.numpy() for part in train)
    return torch.from_numpy(model.fit(x, labels).predict(tested.numpy()))


def linear_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Accuracy of a linear classifier of vectors ``[N, D]`` and labels ``[N]``."""
    return float((linear_classes(train, test[0]) == test[1]).float().mean())


def principal(vectors: Tensor) -> Tensor:
    """The first two principal components ``[N, 2]`` of ``vectors [N, D]``."""
    centred = vectors - vectors.mean(0)
    _, _, components = torch.linalg.svd(centred, full_matrices=False)
    places: Tensor = centred @ components[:2].T
    return places


def neighbours(vectors: Tensor, seed: int) -> Tensor:
    """The places ``[N, 2]`` that t-SNE gives to ``vectors [N, D]``: neighbours stay neighbours."""
    perplexity = min(30, (len(vectors) - 1) / 3)
    return torch.from_numpy(TSNE(perplexity=perplexity, random_state=seed).fit_transform(vectors.numpy()))
