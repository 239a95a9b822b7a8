"""One phase of training: steps, checkpoints, evaluation, log; resumes after a kill.

::

    Phase.loss() ─▶ backward ─▶ average over processes ─▶ Optimizer.step ─▶ Average.update
                                                                           │
            RUN_DIR/<phase>.pt  ◀── every few minutes ─────────────────────┤
            RUN_DIR/log.jsonl   ◀── every 50 steps, each evaluation, the end ┤
            RUN_DIR/sheets/     ◀── reconstructions, each evaluation ──────┘
"""

import contextlib
import json
import math
import random
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vqcodec.config import PhaseConfig, TrainConfig
from vqcodec.errors import TrainingError, TrainingPaused
from vqcodec.files.atomic import open_atomic
from vqcodec.train import distributed
from vqcodec.train.data import Photographs
from vqcodec.train.distributed import average_gradients, is_main
from vqcodec.train.optim import Average, Optimizer, schedule

__all__ = ["Phase", "Run", "finite", "run_phase"]

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
    writer: Any = None  # TensorBoard's SummaryWriter, if it is installed
    stop_after: float = math.inf  # minutes from now on, evaluations included
    started: float = field(default_factory=lambda: time.monotonic())

    def is_time_up(self) -> bool:
        """Whether ``stop_after`` has passed, by the first process's clock."""
        if self.stop_after == math.inf:
            return False
        return distributed.from_main(time.monotonic() - self.started) >= self.stop_after * 60

    def log(self, entry: dict[str, Any]) -> None:
        """One JSON line, and the same numbers to TensorBoard."""
        if not is_main():
            return
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(finite(entry)) + "\n")
        if self.writer is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self.writer.add_scalar(f"{entry['phase']}/{name}", value, entry["step"])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 for convolutions; the weights themselves stay float32."""
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

    def after_step(self, step: int, progress: float) -> dict[str, float]:
        """Called after update number ``step``, 0..1 on the way to the end; the figures are logged with the step's."""
        return {}

    def seed(self, label: str) -> None:
        """Start the crops' and torch's random numbers anew."""
        self.rng.seed(f"{self.run.config.seed}/{self.name}/{label}")
        torch.manual_seed(self.rng.getrandbits(32))

    def batch(self) -> Tensor:
        """Crops ``[B, 3, crop, crop]``, in the memory order convolutions like."""
        crops = self.run.photographs.crops(self.config.batch, self.config.crop, self.rng)
        return crops.contiguous(memory_format=torch.channels_last)


def run_phase(phase: Phase) -> nn.Module:
    """Train ``phase`` to its end, from its checkpoint if there is one; returns the averaged module.

    Raises TrainingPaused, with a checkpoint, when the run's time is up.
    """
    run, config, module = phase.run, phase.config, phase.module
    path = run.folder / f"{phase.name}.pt"
    state = load_checkpoint(path, run.device) if path.exists() else None
    if state is None:
        phase.seed("prepare")
        phase.prepare()
        distributed.broadcast(module)
    optimizer = Optimizer(module, config, extra_lr=phase.extra_lr)
    average = Average(module, run.config.ema)
    step, elapsed = 0, 0.0
    if state is not None:
        try:
            module.load_state_dict(state["module"])
            average.module.load_state_dict(state["average"])
            if not state["done"]:
                optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"{path}: a checkpoint of another model than this version trains") from error
        step, elapsed = state["step"], state["seconds"]
        if state["done"]:
            return average.module
    phase.seed(f"{step}/{distributed.rank()}")  # every process and every restart draws crops of its own

    def save(done: bool) -> None:
        if is_main():
            tensors = {"module": module.state_dict(), "average": average.module.state_dict()}
            progress = {"step": step, "seconds": elapsed, "done": done}
            save_checkpoint(path, {**tensors, "optimizer": optimizer.state_dict(), **progress})

    def log(**figures: Any) -> None:
        run.log({"phase": phase.name, "step": step, "minutes": elapsed / 60, **figures})

    def evaluate() -> None:
        if is_main():
            figures = phase.evaluate(average.module, f"{phase.name}-{step:06d}")
            log(evaluation=True, **figures)
            if not run.quiet:
                line = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                tqdm.write(f"{phase.name} {step}: {line}", file=sys.stderr)

    def is_over() -> bool:
        return step >= config.steps or elapsed >= config.minutes * 60

    hidden = True if run.quiet or not is_main() else None  # None: shown where stderr is a terminal
    bar = tqdm(total=config.steps, initial=step, desc=phase.name, disable=hidden, unit="step")
    saved = evaluated = clock = time.monotonic()
    module.train()
    while not is_over():
        progress = max(step / config.steps, elapsed / (config.minutes * 60))
        buffers = [buffer.clone() for buffer in module.buffers()]
        with run.autocast():
            loss, figures = phase.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(optimizer.parameters)
        norm = optimizer.step(schedule(progress, step, config.warmup))
        if not math.isfinite(norm):  # nor may such a batch stay in the codebooks
            for buffer, before in zip(module.buffers(), buffers, strict=True):
                buffer.copy_(before)
        distributed.average(module.buffers())
        average.update(module, step)
        step += 1
        figures |= phase.after_step(step, progress)
        now = time.monotonic()
        elapsed, clock = distributed.from_main(elapsed + now - clock), now
        bar.update()
        if step % LOG_STEPS == 0 or is_over():
            log(loss=float(loss.detach()), gradient_norm=norm, **figures)
            bar.set_postfix_str(f"loss {float(loss.detach()):.3f}")
        if is_over():
            break
        if run.is_time_up():
            save(done=False)
            raise TrainingPaused(f"{phase.name}: {elapsed / 60:.1f} minutes done, {step} steps; --resume goes on")
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
    """Write a checkpoint whole: a kill leaves the old one or the new one."""
    with open_atomic(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint of ours; nothing in it is executed (``weights_only``)."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        missing = {"module", "average", "optimizer", "step", "seconds", "done"} - state.keys()
    except Exception as error:
        raise TrainingError(f"{path}: not a checkpoint of vqcodec: {type(error).__name__}") from error
    if missing:
        raise TrainingError(f"{path}: not a checkpoint of vqcodec: it has no {', '.join(sorted(missing))}")
    return state


def finite(value: Any) -> Any:
    """``value`` for JSON, which has neither infinity nor NaN: null stands for both."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
