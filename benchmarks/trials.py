"""Compare architectures and optimisers in equal processor time: phase 0 on the same crops.

::

    trial ──▶ VQVAE, random weights ──▶ noise form, steps for SECONDS of processor time ──▶ average of the weights
                                                                                              │
              bits by the Gaussian head and MSE of *rounded* residuals, middle of each validation image ──▶ J(λ)

Unless a trial changes them, steps are those of training: Muon and Adam, with one cosine decay to zero.

With noise, even channels without information cost bits. Trials are therefore compared with rounded residuals, by
J = bpp + λ·255²·MSE relative to the first trial at four λ.
"""

import random
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import Any, Protocol

import click
import pytorch_optimizer
import torch
from torch import Tensor, nn

from benchmarks import options
from vqcodec.config import LevelConfig, ModelConfig, PhaseConfig
from vqcodec.errors import VqcodecError
from vqcodec.files.images import image_files
from vqcodec.jsonfile import write_json
from vqcodec.networks.choices import Round
from vqcodec.networks.layers import Conv, ResidualBlock
from vqcodec.networks.levels import Level
from vqcodec.networks.vqvae import VQVAE
from vqcodec.rd.provenance import surroundings
from vqcodec.train.data import Photographs
from vqcodec.train.lambdas import draw_lambda
from vqcodec.train.optim import Optimizer, averaged, schedule
from vqcodec.train.vae import rate_distortion

__all__ = ["SETS", "Trial", "built", "main", "markdown", "measure", "no_mean", "train"]

LAMBDAS = (0.001, 0.004, 0.016, 0.064)
CENTRE = 256  # pixels a side of validation crops
CROP = 128  # pixels a side of training crops
SIGMA_MIN = 0.11  # the smallest σ, in steps, for computing bits


def _levels(*levels: tuple[int, int, int]) -> tuple[LevelConfig, ...]:
    return tuple(LevelConfig(stride=stride, groups=groups, dim=dim) for stride, groups, dim in levels)


def no_mean(model: VQVAE) -> None:
    """Let levels predict σ of a residual, but not its mean."""

    def scale_only(self: Level, f: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = Level.mean_scale(self, f)
        return torch.zeros_like(mean), scale

    for level in model.levels:
        assert isinstance(level, Level)
        # A bound method, so that the average of the weights, which is a copy of the model, gets its own.
        level.mean_scale = MethodType(scale_only, level)  # type: ignore[method-assign]


def _second_kernel(kernel: int) -> Callable[[VQVAE], None]:
    """Another size for the second kernel of every residual block."""

    def change(model: VQVAE) -> None:
        for block in model.modules():
            if isinstance(block, ResidualBlock):
                channels = block.second.shape[0]
                block.second = Conv(channels, channels, kernel, gain=0.1)

    return change


class Stepper(Protocol):
    """The part of an optimiser's interface that a trial uses."""

    def step(self, factor: float) -> float: ...


class Foreign:
    """An optimiser for all parameters alike, with training's clipping, at ``factor`` of its learning rate."""

    def __init__(self, optimizer: torch.optim.Optimizer, phase: PhaseConfig) -> None:
        self.optimizer, self.clip = optimizer, phase.clip
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.peak = optimizer.param_groups[0]["lr"]

    def step(self, factor: float) -> float:
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


class ScheduleFree(Foreign):
    """Average the iterates instead of decaying the step size (Defazio et al. 2024); ignores ``factor``."""

    def step(self, factor: float) -> float:
        return super().step(1.0)


def adam(model: VQVAE, phase: PhaseConfig) -> Stepper:
    """Adam for all parameters, kernels included."""
    return Foreign(torch.optim.Adam(model.parameters(), phase.adam_lr, betas=(0.9, 0.98)), phase)


def soap(model: VQVAE, phase: PhaseConfig) -> Stepper:
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024)."""
    return Foreign(pytorch_optimizer.SOAP(model.parameters(), phase.adam_lr, weight_decay=0.0), phase)


def schedule_free(model: VQVAE, phase: PhaseConfig) -> Stepper:
    optimizer = pytorch_optimizer.ScheduleFreeAdamW(
        model.parameters(), phase.adam_lr, betas=(0.9, 0.98), warmup_steps=phase.warmup
    )
    return ScheduleFree(optimizer, phase)


PHASE = PhaseConfig(batch=8, crop=CROP)


@dataclass(frozen=True)
class Trial:
    """An architecture and its training; ``change`` makes changes that a configuration cannot express."""

    name: str
    model: ModelConfig
    change: Callable[[VQVAE], None] | None = None
    phase: PhaseConfig = PHASE
    stepper: Callable[[VQVAE, PhaseConfig], Stepper] = Optimizer


BASE = ModelConfig(
    levels=_levels((16, 8, 2), (8, 24, 2)), widths=(48, 96, 128), blocks=(1, 2, 2), lambda_min=0.0003, lambda_max=0.1
)
ARCHITECTURES = (
    Trial("48/96/128 channels, 8×2 at 1/16, 24×2 at 1/8", BASE),
    Trial(
        "64/128/128 channels, 8×2 and 32×3",
        replace(BASE, widths=(64, 128, 128), levels=_levels((16, 8, 2), (8, 32, 3))),
    ),
    Trial("32/64/96 channels", replace(BASE, widths=(32, 64, 96))),
    Trial("all codes at 1/16: 32×4", replace(BASE, levels=_levels((16, 32, 4)))),
    Trial("all codes at 1/8: 24×2", replace(BASE, widths=(48, 96), blocks=(1, 4), levels=_levels((8, 24, 2)))),
    Trial(
        "three levels: 8×2 at 1/32, 8×2 at 1/16, 24×2 at 1/8",
        replace(
            BASE, widths=(48, 96, 128, 128), blocks=(1, 2, 1, 1), levels=_levels((32, 8, 2), (16, 8, 2), (8, 24, 2))
        ),
    ),
    Trial("blocks 2, 3, 3", replace(BASE, blocks=(2, 3, 3))),
    Trial("blocks 1, 1, 1", replace(BASE, blocks=(1, 1, 1))),
    Trial("no prediction of μ", BASE, no_mean),
    Trial("second kernel 1×1", BASE, _second_kernel(1)),
    Trial("second kernel 5×5", BASE, _second_kernel(5)),
)
OPTIMISERS = (
    Trial("Muon 0.01 and Adam 0.0015, batch 8", BASE),
    Trial("Muon 0.005", BASE, phase=replace(PHASE, muon_lr=0.005)),
    Trial("Muon 0.02", BASE, phase=replace(PHASE, muon_lr=0.02)),
    Trial("batch 4", BASE, phase=replace(PHASE, batch=4)),
    Trial("batch 16", BASE, phase=replace(PHASE, batch=16)),
    Trial("Adam 0.0015 alone", BASE, stepper=adam),
    Trial("SOAP 0.003", BASE, phase=replace(PHASE, adam_lr=0.003), stepper=soap),
    Trial("schedule-free AdamW 0.0025", BASE, phase=replace(PHASE, adam_lr=0.0025), stepper=schedule_free),
    Trial("schedule-free AdamW 0.01", BASE, phase=replace(PHASE, adam_lr=0.01), stepper=schedule_free),
)
SETS = {"architectures": ARCHITECTURES, "optimisers": OPTIMISERS}


def built(trial: Trial) -> VQVAE:
    """The trial's model, with random weights."""
    model = VQVAE(trial.model)
    if trial.change is not None:
        trial.change(model)
    return model


def train(trial: Trial, photographs: Photographs, seconds: float) -> tuple[VQVAE, int]:
    """The averaged model after ``seconds`` of processor time, and the number of steps."""
    torch.manual_seed(0)
    rng = random.Random(0)
    model, phase = built(trial), trial.phase
    optimizer, average = trial.stepper(model, phase), averaged(model, 0.99)
    start, step = time.process_time(), 0
    while (progress := (time.process_time() - start) / seconds) < 1:
        x = photographs.crops(phase.batch, phase.crop, rng).contiguous(memory_format=torch.channels_last)
        lmbda = draw_lambda(trial.model, len(x), x.device)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _, _ = rate_distortion(x, model(x, lmbda, hard=False), lmbda)
        ((trial.model.lambda_min / lmbda).sqrt() * loss).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step(schedule(progress, step, phase.warmup))
        average.update_parameters(model)
        step += 1
    if isinstance(optimizer, ScheduleFree):
        typing.cast(Any, optimizer.optimizer).eval()  # the average takes the place of the parameters
        return model.eval().requires_grad_(False), step
    assert isinstance(average.module, VQVAE)
    return average.module, step


@torch.no_grad()
def measure(model: VQVAE, validation: Photographs) -> list[dict[str, float]]:
    """Mean bpp, PSNR and J over the centres of the images at every λ, with rounded residuals."""
    rows: list[dict[str, float]] = []
    for value in LAMBDAS:
        lmbda = torch.tensor([value])
        figures: list[tuple[float, float, float]] = []
        for x in validation.centres():
            rounded = Round(sigma_min=SIGMA_MIN)
            x_hat = model.reconstruct(x, lmbda, rounded)
            bpp, mse = float(sum(rounded.bits)) / (x.shape[2] * x.shape[3]), float((x_hat - x).square().mean())
            figures.append((bpp, -10 * torch.tensor(mse).log10().item(), bpp + value * 255**2 * mse))
        bpp, psnr, cost = (sum(column) / len(column) for column in zip(*figures, strict=True))
        rows.append({"lambda": value, "bpp": bpp, "psnr": psnr, "J": cost})
    return rows


def markdown(results: list[dict[str, Any]]) -> str:
    """A table: the J of each trial relative to the first one's at every λ, and its steps."""
    first = [row["J"] for row in results[0]["rows"]]
    lines = [
        "| trial | steps | J at λ = " + " | ".join(f"{value:g}" for value in LAMBDAS) + " |",
        "|---|---:|" + "---:|" * len(LAMBDAS),
    ]
    for result in results:
        costs = [row["J"] / base for row, base in zip(result["rows"], first, strict=True)]
        cells = [f"{cost:.3f}" if result is results[0] else f"{100 * cost - 100:+.1f} %" for cost in costs]
        if result is results[0]:
            cells = [f"{value:.3f}" for value in first]
        lines.append(f"| {result['name']} | {result['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--validation", type=click.Path(path_type=Path, exists=True), required=True, metavar="DIR")
@click.option("--what", type=click.Choice(list(SETS)), default="architectures", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=8.0, show_default=True)
@click.option(
    "--images", type=click.IntRange(min=1), default=16, show_default=True, help="Validation images to measure."
)
@options.output
def main(data: Path, validation: Path, what: str, minutes: float, images: int, output: Path) -> None:
    try:
        device = torch.device("cpu")
        photographs = Photographs(image_files(data), device, smallest=CENTRE, downscale_share=0.25)
        held_out = Photographs(image_files(validation)[:images], device, smallest=CENTRE)
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    results: list[dict[str, Any]] = []
    for trial in SETS[what]:
        model, steps = train(trial, photographs, minutes * 60)
        parameters = sum(p.numel() for p in model.parameters())
        results.append({"name": trial.name, "steps": steps, "parameters": parameters, "rows": measure(model, held_out)})
        facts = surroundings(threads=torch.get_num_threads())
        write_json(output, {"minutes": minutes, "images": len(held_out.images), "trials": results, "provenance": facts})
        click.echo(f"{trial.name}: {steps} steps", err=True)
    click.echo(markdown(results))


if __name__ == "__main__":
    main()
