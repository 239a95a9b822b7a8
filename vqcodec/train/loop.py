"""One phase of training: steps, checkpoints, evaluation, log; resumes after a kill.

::

    Phase.loss(step) ─▶ backward ─▶ average over processes ─▶ Optimizer.step ─▶ Average.update
                                                                   │
            RUN_DIR/<phase>.pt  ◀── every few minutes ─────────────┤
            RUN_DIR/log.jsonl   ◀── every 50 steps and evaluation ─┤
            RUN_DIR/sheets/     ◀── reconstructions, each evaluation ┘
"""

import contextlib
import json
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vqcodec.config import PhaseConfig, TrainConfig
from vqcodec.errors import TrainingError
from vqcodec.train.data import Photographs
from vqcodec.train.distributed import average_gradients, is_main, rank
from vqcodec.train.optim import Average, Optimizer, schedule

__all__ = ["Phase", "Run", "run_phase"]

LOG_STEPS = 50


@dataclass
class Run:
    """Where a run lives and what its phases share."""

    folder: Path
    config: TrainConfig
    device: torch.device
    photographs: Photographs
    validation: Photographs
    quiet: bool = False
    writer: Any = field(default=None)  # TensorBoard's SummaryWriter, if it is installed

    def log(self, entry: dict[str, Any]) -> None:
        """One JSON line, and the same numbers to TensorBoard."""
        if not is_main():
            return
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")
        if self.writer is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self.writer.add_scalar(f"{entry['phase']}/{name}", value, entry["step"])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where the device gains by it."""
        return torch.autocast(self.device.type, torch.bfloat16)


class Phase(ABC):
    """What a phase trains and how it measures itself; :func:`run_phase` does the rest."""

    name: str
    config: PhaseConfig
    module: nn.Module  # its parameters are trained, averaged and kept
    extra_lr: dict[str, float] | None = None

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rng = random.Random()

    @abstractmethod
    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """The loss of one fresh batch, and figures for the log."""

    @abstractmethod
    def evaluate(self, module: nn.Module, label: str) -> dict[str, float]:
        """Figures on the validation images for the averaged ``module``; may write a sheet named ``label``."""

    def prepare(self) -> None:  # noqa: B027 - most phases need no preparation
        """Called once before the first step of a fresh, not a resumed, phase."""

    def after_step(self, step: int) -> dict[str, float]:
        """Called after every update; figures returned are logged with the step's."""
        return {}

    def batch(self) -> Tensor:
        """Crops ``[B, 3, crop, crop]``, in the memory order convolutions like."""
        crops = self.run.photographs.crops(self.config.batch, self.config.crop, self.rng)
        return crops.contiguous(memory_format=torch.channels_last)


def run_phase(phase: Phase) -> nn.Module:
    """Train ``phase`` to its end, from its checkpoint if there is one; returns the averaged module."""
    run, config = phase.run, phase.config
    path = run.folder / f"{phase.name}.pt"
    state = load_checkpoint(path, run.device) if path.exists() else None
    if state is None:
        phase.prepare()
    optimizer = Optimizer(phase.module, config, extra_lr=phase.extra_lr)
    average = Average(phase.module, run.config.ema)
    step, elapsed = 0, 0.0
    if state is not None:
        phase.module.load_state_dict(state["module"])
        average.module.load_state_dict(state["average"])
        step, elapsed = state["step"], state["seconds"]
        if state["done"]:
            return average.module
        optimizer.load_state_dict(state["optimizer"])
    # Every process and every restart draws crops of its own.
    seed = f"{run.config.seed}/{phase.name}/{step}/{rank()}"
    phase.rng.seed(seed)
    torch.manual_seed(phase.rng.getrandbits(32))

    def save(done: bool) -> None:
        if is_main():
            save_checkpoint(
                path,
                {
                    "module": phase.module.state_dict(),
                    "average": average.module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": elapsed,
                    "done": done,
                },
            )

    def evaluate() -> None:
        if is_main():
            figures = phase.evaluate(average.module, f"{phase.name}-{step:06d}")
            run.log({"phase": phase.name, "step": step, "minutes": elapsed / 60, "evaluation": True, **figures})
            if not run.quiet:
                tqdm.write(f"{phase.name} {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))

    bar = tqdm(total=config.steps, initial=step, desc=phase.name, disable=run.quiet or not is_main(), unit="step")
    saved = evaluated = clock = time.monotonic()
    phase.module.train()
    while step < config.steps and elapsed < config.minutes * 60:
        progress = max(step / config.steps, elapsed / (config.minutes * 60))
        with run.autocast():
            loss, figures = phase.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(optimizer.parameters)
        norm = optimizer.step(schedule(progress, step, config.warmup))
        average.update(phase.module, step)
        figures |= phase.after_step(step)
        step += 1
        now = time.monotonic()
        elapsed, clock = elapsed + now - clock, now
        bar.update()
        if step % LOG_STEPS == 0 or step == config.steps:
            run.log(
                {
                    "phase": phase.name,
                    "step": step,
                    "minutes": elapsed / 60,
                    "loss": float(loss.detach()),
                    "gradient_norm": norm,
                    **figures,
                }
            )
            bar.set_postfix_str(f"loss {float(loss.detach()):.3f}")
        if now - evaluated > run.config.evaluate_minutes * 60:
            evaluate()
            evaluated = clock = time.monotonic()  # evaluation is not training time
        if now - saved > run.config.checkpoint_minutes * 60:
            save(done=False)
            saved = time.monotonic()
    bar.close()
    evaluate()
    save(done=True)
    return average.module


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write under another name, then rename: a kill leaves the old checkpoint or the new one."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint of ours; nothing in it is executed (``weights_only``)."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path}: not a checkpoint of vqcodec: {type(error).__name__}") from error
    return state


def qualities_of(count: int) -> Iterator[int]:
    """``count`` qualities spread evenly over 1..100, ends left out."""
    for i in range(count):
        yield round(1 + 99 * (i + 1) / (count + 1))
