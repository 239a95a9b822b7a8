"""The value of each context of the prior: bits on held-out images of priors trained without it in equal time.

::

    weights ── VQVAE.encode ──▶ codes of random crops ──┬─▶ variant of the PixelCNN, SECONDS of processor time each
                                                        └─▶ how often each codeword occurs (static frequencies)
                                                                        │
    middle of each validation image ── codes ───────────────────────────┴─▶ bpp at four qualities, each level

Every variant starts from the same random numbers and sees the same codes in the same order. The VQ-VAE and its
codes come from the weights; variants differ only in how they predict the codes.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MethodType
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.config import ModelConfig, PhaseConfig, PriorConfig
from vqcodec.errors import VqcodecError
from vqcodec.files.images import image_files
from vqcodec.jsonfile import write_json
from vqcodec.networks.pixelcnn import LevelPrior, PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.rd.provenance import provenance
from vqcodec.train.data import Photographs
from vqcodec.train.lambdas import draw_quality_lambda
from vqcodec.train.optim import Optimizer, averaged, schedule
from vqcodec.train.vae import EVALUATED_QUALITIES
from vqcodec.weights import find_weights

__all__ = ["VARIANTS", "Supply", "Variant", "built", "main", "markdown", "measure", "static_bits", "train"]

CROP = CENTRE = 256  # pixels a side of training crops and of validation crops
PHASE = PhaseConfig(batch=8, crop=CROP, muon_lr=0.01, adam_lr=0.002)
COUNTED = 50  # batches for counting static frequencies


def _zero_output(module: nn.Module, method: str) -> None:
    """Make a method of ``module`` return zeros. It is a bound method, so a copy of the module gets its own."""
    whole = getattr(type(module), method)

    def nothing(self: nn.Module, x: Tensor) -> Tensor:
        return torch.zeros_like(whole(self, x))

    setattr(module, method, MethodType(nothing, module))


def without_coarser_level(prior: PixelCNN) -> None:
    """Hide the codes of the other levels from each level."""
    for level in list(prior.levels)[1:]:
        _zero_output(level, "condition")


def without_neighbours(prior: PixelCNN) -> None:
    """Hide the codes at other positions of the same level."""
    for level in prior.levels:
        assert isinstance(level, LevelPrior)
        _zero_output(level.first, "forward")


def without_quality(prior: PixelCNN) -> None:
    """Hide λ from the prior."""
    _zero_output(prior.embedding, "forward")


@dataclass(frozen=True)
class Variant:
    """A prior; ``change`` makes changes that a configuration cannot express.

    Attributes:
        stages: of each level; the greatest common divisor of these and its groups where they do not divide them.
    """

    name: str
    prior: PriorConfig = field(default_factory=PriorConfig)
    stages: int | None = None
    change: Callable[[PixelCNN], None] | None = None


VARIANTS = (
    Variant("all contexts"),
    Variant("no coarser level", change=without_coarser_level),
    Variant("no neighbours", change=without_neighbours),
    Variant("no quality", change=without_quality),
    Variant("no earlier groups: 1 stage", stages=1),
    Variant("2 stages", stages=2),
    Variant("8 stages", stages=8),
    Variant("nearest neighbours only: no layers", PriorConfig(layers=0)),
    Variant("1 layer", PriorConfig(layers=1)),
    Variant("6 layers", PriorConfig(layers=6)),
    Variant("64 channels", PriorConfig(channels=64)),
    Variant("160 channels", PriorConfig(channels=160)),
)


class Supply:
    """Codes of random crops at random qualities, made once and the same for every variant."""

    def __init__(self, vqvae: VQVAE, photographs: Photographs) -> None:
        self.vqvae, self.photographs = vqvae, photographs
        self._rng = random.Random(0)
        self._made: list[tuple[list[Tensor], Tensor]] = []

    @torch.no_grad()
    def batch(self, number: int) -> tuple[list[Tensor], Tensor]:
        """Codes ``[B, G_l, H_l, W_l]`` of batch ``number``, and λ ``[B]``; earlier batches are made first."""
        while len(self._made) <= number:
            torch.manual_seed(len(self._made))
            x = self.photographs.crops(PHASE.batch, CROP, self._rng).contiguous(memory_format=torch.channels_last)
            lmbda = draw_quality_lambda(self.vqvae.config, len(x), x.device)
            with torch.autocast("cpu", torch.bfloat16):
                codes = self.vqvae.encode(x, lmbda)
            self._made.append(([grid.to(torch.int16) for grid in codes], lmbda))
        codes, lmbda = self._made[number]
        return [grid.long() for grid in codes], lmbda

    @torch.no_grad()
    def held_out(self, validation: Photographs, quality: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Codes and λ of the middle of each validation image."""
        lmbda = torch.tensor([self.vqvae.config.lmbda(quality)])
        for x in validation.centres():
            with torch.autocast("cpu", torch.bfloat16):
                codes = self.vqvae.encode(x.contiguous(memory_format=torch.channels_last), lmbda)
            yield codes, lmbda

    def usage(self, model: ModelConfig) -> list[Tensor]:
        """How often each codeword occurs, ``[G, K]`` a level."""
        counts = [torch.zeros(level.groups, level.codebook_size) for level in model.levels]
        for number in range(COUNTED):
            codes, _ = self.batch(number)
            for count, grid in zip(counts, codes, strict=True):
                count += _histogram(grid, count.shape[1])
        return [count / count.sum(1, keepdim=True) for count in counts]


def _histogram(grid: Tensor, codebook_size: int) -> Tensor:
    """Occurrences ``[G, K]`` in codes ``[B, G, H, W]``."""
    rows = grid.transpose(0, 1).flatten(1)
    return torch.zeros(len(rows), codebook_size).scatter_add_(1, rows, torch.ones(rows.shape))


def built(variant: Variant, model: ModelConfig) -> PixelCNN:
    """The variant's prior, with random weights, of a model's levels."""
    if variant.stages is not None:
        levels = tuple(replace(level, stages=math.gcd(level.groups, variant.stages)) for level in model.levels)
        model = replace(model, levels=levels)
    prior = PixelCNN(model, variant.prior)
    if variant.change is not None:
        variant.change(prior)
    return prior


def train(variant: Variant, supply: Supply, seconds: float) -> tuple[PixelCNN, int]:
    """The averaged prior after ``seconds`` of processor time, and the number of steps."""
    torch.manual_seed(0)
    model = supply.vqvae.config
    prior = built(variant, model)
    prior.start_from(supply.usage(model))
    optimizer, average = Optimizer(prior, PHASE), averaged(prior, 0.99)
    spent, step = 0.0, 0
    while (progress := spent / seconds) < 1:
        codes, lmbda = supply.batch(step)
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            bits = torch.stack(prior(codes, lmbda)).sum(0)
        weight = (model.lambda_min / lmbda).sqrt()
        (weight * bits / CROP**2).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step(schedule(progress, step, PHASE.warmup))
        average.update_parameters(prior)
        spent += time.process_time() - start
        step += 1
    assert isinstance(average.module, PixelCNN)
    return average.module, step


@torch.no_grad()
def measure(prior: PixelCNN, supply: Supply, validation: Photographs) -> dict[str, list[float]]:
    """bpp of each level, mean of the images, at every quality."""
    rows: dict[str, list[float]] = {}
    for quality in EVALUATED_QUALITIES:
        bits = []
        for codes, lmbda in supply.held_out(validation, quality):
            with torch.autocast("cpu", torch.bfloat16):
                bits.append(torch.cat(prior(codes, lmbda)))
        rows[str(quality)] = (torch.stack(bits).mean(0) / CENTRE**2).tolist()
    return rows


def static_bits(supply: Supply, validation: Photographs) -> dict[str, dict[str, list[float]]]:
    """bpp of each level at log2 K bits per code, and with the codewords' frequencies at that quality in the images."""
    levels = supply.vqvae.config.levels
    uniform = [level.groups * torch.tensor(level.codebook_size).log2().item() / level.stride**2 for level in levels]
    static: dict[str, list[float]] = {}
    for quality in EVALUATED_QUALITIES:
        counts = [torch.zeros(level.groups, level.codebook_size) for level in levels]
        for codes, _ in supply.held_out(validation, quality):
            for count, grid in zip(counts, codes, strict=True):
                count += _histogram(grid, count.shape[1])
        shares = [count / count.sum(1, keepdim=True) for count in counts]
        bits = [float(torch.special.entr(share).sum() / torch.tensor(2.0).log()) for share in shares]
        static[str(quality)] = [b / level.stride**2 for b, level in zip(bits, levels, strict=True)]
    return {
        "log2 K": {str(quality): uniform for quality in EVALUATED_QUALITIES},
        "static frequencies at that quality": static,
    }


def markdown(results: list[dict[str, Any]]) -> str:
    """A table: bpp at each quality, relative to the prior with all contexts."""
    base = next(result for result in results if result["name"] == VARIANTS[0].name)
    lines = [
        "| prior | steps | bpp at quality " + " | ".join(map(str, EVALUATED_QUALITIES)) + " |",
        "|---|---:|" + "---:|" * len(EVALUATED_QUALITIES),
    ]
    for result in results:
        cells: list[str] = []
        for quality in map(str, EVALUATED_QUALITIES):
            bpp, reference = sum(result["bpp"][quality]), sum(base["bpp"][quality])
            cells.append(f"{bpp:.4f}" if result is base else f"{bpp:.4f} ({100 * bpp / reference - 100:+.1f} %)")
        steps = "" if result["steps"] is None else str(result["steps"])
        lines.append(f"| {result['name']} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--validation", type=click.Path(path_type=Path, exists=True), required=True, metavar="DIR")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=4.0, show_default=True)
@options.weights
@options.output
def main(data: Path, validation: Path, minutes: float, weights: Path | None, output: Path) -> None:
    try:
        weights = weights or find_weights()
        codec = Codec.load(weights, device="cpu")
        codec.load_encoder()
        device = torch.device("cpu")
        photographs = Photographs(image_files(data), device, smallest=CROP, downscale_share=0.25)
        held_out = Photographs(image_files(validation), device, smallest=CENTRE)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    supply = Supply(codec.vqvae, photographs)
    results: list[dict[str, Any]] = [
        {"name": name, "steps": None, "bpp": bpp} for name, bpp in static_bits(supply, held_out).items()
    ]
    for variant in VARIANTS:
        prior, steps = train(variant, supply, minutes * 60)
        parameters = sum(p.numel() for p in prior.parameters())
        bpp = measure(prior, supply, held_out)
        results.append({"name": variant.name, "steps": steps, "parameters": parameters, "bpp": bpp})
        facts = provenance(codec, weights, threads=torch.get_num_threads())
        write_json(output, {"minutes": minutes, "images": len(held_out.images), "priors": results, "provenance": facts})
        click.echo(f"{variant.name}: {steps} steps", err=True)
    click.echo(markdown(results))


if __name__ == "__main__":
    main()
