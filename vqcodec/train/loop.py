"""One phase of training: steps, checkpoints, evaluation, log; resumes after a kill.

::

    Phase.loss() ─▶ backward ─▶ average over processes ─▶ Optimizer.step ─▶ average of the weights
                                                                                │
            RUN_DIR/<phase>.pt  ◀── every few minutes ──────────────────────────┤
            RUN_DIR/log.jsonl   ◀── every 50 steps, each evaluation, the end ───┤
            RUN_DIR/sheets/     ◀── reconstructions, each evaluation ───────────┘
"""

import json
import math
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vqcodec.config import PhaseConfig, TrainConfig
from vqcodec.errors import TrainingError, TrainingPaused
from vqcodec.exact.kernels import multiplies_bfloat16
from vqcodec.files.atomic import open_atomic
from vqcodec.jsonfile import finite
from vqcodec.train import distributed
from vqcodec.train.data import Photographs
from vqcodec.train.distributed import is_main
from vqcodec.train.optim import Optimizer, averaged, schedule

__all__ = [
    "Checkpoint",
    "Figures",
    "Phase",
    "Run",
    "ScalarWriter",
    "Trainer",
    "load_checkpoint",
    "save_checkpoint",
]

LOG_STEPS = 50
EVALUATION = 0.1  # share of a phase's minutes that an evaluation may take, …
LAST_EVALUATION = 60.0  # … and seconds that are kept for the last one, at most
LEAST_STEPS = 50  # that a phase's minutes must suffice for; it takes fewer crops a step otherwise

Figures = dict[str, float]
"""Numbers for the log, by name."""


class Checkpoint(TypedDict):
    """What ``RUN_DIR/<phase>.pt`` holds.

    Attributes:
        module, average: state of the module, and of its average under the same names.
        optimizer: state of each of :class:`vqcodec.train.optim.Optimizer`'s optimisers.
        step, seconds: how long the phase has trained.
        done: whether it is over.
    """

    module: dict[str, Any]
    average: dict[str, Any]
    optimizer: list[dict[str, Any]]
    step: int
    seconds: float
    done: bool


class ScalarWriter(Protocol):
    """The part of TensorBoard's SummaryWriter that a run uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class Run:
    """The folder of a run, and everything else that its phases share."""

    folder: Path
    config: TrainConfig
    device: torch.device
    photographs: Photographs
    validation: Photographs
    quiet: bool = False
    writer: ScalarWriter | None = None  # TensorBoard's, if it is installed
    stop_after: float = math.inf  # minutes from now on, evaluations included
    started: float = field(default_factory=lambda: time.monotonic())
    spent: float = 0.0  # seconds, by all that came before the next phase

    def is_time_up(self) -> bool:
        """Whether ``stop_after`` has passed, by the first process's clock."""
        if self.stop_after == math.inf:
            return False
        return distributed.from_main(time.monotonic() - self.started) >= self.stop_after * 60

    def log(self, entry: Mapping[str, object]) -> None:
        """Write ``entry``, with the keys ``phase`` and ``step``, as a line of JSON, and its numbers to TensorBoard."""
        if not is_main():
            return
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(finite(entry)) + "\n")
        if self.writer is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self.writer.add_scalar(f"{entry['phase']}/{name}", value, cast(int, entry["step"]))

    def bar(self, what: str, done: float = 0.0) -> tqdm:
        """A bar of the share of ``what`` that is done, 0..1; the first process shows it where stderr is a terminal."""
        hidden = True if self.quiet or not is_main() else None  # None: shown on a terminal
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        return tqdm(total=1.0, initial=done, desc=what, disable=hidden, bar_format=form)

    @property
    def bfloat16(self) -> bool:
        """Whether convolutions are computed in bfloat16: on a CPU only if it has instructions for it."""
        return self.device.type != "cpu" or multiplies_bfloat16()

    def autocast(self) -> torch.autocast:
        """bfloat16 for convolutions where it is fast; the weights themselves stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


class Phase(ABC):
    """What a phase trains and how it measures itself; :class:`Trainer` does the rest."""

    name: str
    config: PhaseConfig
    module: nn.Module  # its parameters are trained, averaged and kept
    extra_lr: dict[str, float] | None = None

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rng = random.Random()
        self.most_crops: int | None = None

    @abstractmethod
    def loss(self) -> tuple[Tensor, Figures]:
        """The loss of one fresh batch, and figures for the log."""

    @abstractmethod
    def measure(self, module: nn.Module, x: Tensor) -> Figures:
        """Figures of the averaged ``module`` on one validation image ``x [1, 3, H, W]``, of which means are logged."""

    def survey(self, module: nn.Module, images: list[Tensor], label: str) -> Figures:
        """Figures on all ``images`` together that were measured; may write a sheet named ``label``."""
        return {}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, label: str, *, seconds: float = math.inf) -> Figures:
        """Figures on the validation images for the averaged ``module``, at least one, at most for ``seconds``."""
        begun, images, measured = time.monotonic(), list[Tensor](), list[Figures]()
        for x in self.run.validation.centres():
            images.append(x.contiguous(memory_format=torch.channels_last))
            with self.run.autocast():
                measured.append(self.measure(module, images[-1]))
            if time.monotonic() - begun > seconds:
                break
        means = {name: sum(figures[name] for figures in measured) / len(measured) for name in measured[0]}
        with self.run.autocast():
            return {"images": float(len(images)), **means, **self.survey(module, images, label)}

    def prepare(self) -> None:  # noqa: B027 - most phases need no preparation
        """Called once before the first step of a fresh, not a resumed, phase."""

    def after_step(self, step: int, progress: float) -> Figures:
        """Called after update number ``step``, when ``progress``, 0..1, is done; returns figures for the log."""
        return {}

    def warning(self, figures: Figures) -> str | None:
        """A sentence about the finished phase if the figures of its last evaluation give cause for concern."""
        return None

    def seed(self, label: str) -> None:
        """Start the crops' and torch's random numbers anew."""
        self.rng.seed(f"{self.run.config.seed}/{self.name}/{label}")
        torch.manual_seed(self.rng.getrandbits(32))

    def batch(self) -> Tensor:
        """Crops ``[B, 3, crop, crop]``, channels last in memory, in which convolutions are fastest.

        B is the configured batch, or ``most_crops`` if these are fewer.
        """
        count = self.config.batch if self.most_crops is None else min(self.config.batch, self.most_crops)
        crops = self.run.photographs.crops(count, self.config.crop, self.rng)
        return crops.contiguous(memory_format=torch.channels_last)


class Trainer:
    """Trains a phase to its end, from its checkpoint if there is one.

    Attributes:
        step: number of updates so far.
        seconds: of the phase so far, with preparation and evaluations.
    """

    def __init__(self, phase: Phase) -> None:
        self.phase, self.run, self.config, self.module = phase, phase.run, phase.config, phase.module
        self.path = self.run.folder / f"{phase.name}.pt"
        self.step, self.seconds = 0, 0.0
        limit = self.config.minutes * 60
        self._most_evaluation = EVALUATION * limit
        self._limit = limit - min(self._most_evaluation, LAST_EVALUATION)  # seconds, after which no step begins
        self._crop_seconds = math.inf  # that a step took for each of its crops, at best

    def train(self) -> nn.Module:
        """Train, evaluate and save; returns the averaged module.

        Raises TrainingPaused, with a checkpoint, when the run's time is up, and TrainingError if the checkpoint
        cannot be used.
        """
        self._clock = time.monotonic()
        if self._start():
            return self.average.module
        self._count_time()
        self._saved = self._evaluated = self._clock
        self.module.train()
        with self.run.bar(self.phase.name, min(1.0, self._progress())) as bar:
            while not self._is_over():
                self._choose_crops()
                progress = self._progress()
                loss, figures = self._update(progress)
                figures |= self.phase.after_step(self.step, progress)
                self._count_step()
                bar.update(min(1.0, self._progress()) - bar.n)
                if self.step % LOG_STEPS == 0 or self._is_over():
                    self._log({"loss": loss, **figures})
                    bar.set_postfix_str(f"{self.step} steps, loss {loss:.3f}")
                if not self._is_over():
                    self._look_after()
        self._conclude(self._evaluate())
        self._count_time()
        self._save(done=True)
        return self.average.module

    def _start(self) -> bool:
        """Prepare the phase or load its checkpoint; whether it is already done."""
        state = load_checkpoint(self.path, self.run.device) if self.path.exists() else None
        if state is None:
            self.phase.seed("prepare")
            self.phase.prepare()
            distributed.broadcast(self.module)
        self.optimizer = Optimizer(self.module, self.config, extra_lr=self.phase.extra_lr)
        self.average = averaged(self.module, self.run.config.ema)
        if state is not None:
            self._load(state)
            if state["done"]:
                return True
        # Every process and every restart draws crops of its own.
        self.phase.seed(f"{self.step}/{distributed.rank()}")
        return False

    def _load(self, state: Checkpoint) -> None:
        try:
            self.module.load_state_dict(state["module"])
            self.average.module.load_state_dict(state["average"])
            if not state["done"]:
                self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"{self.path}: a checkpoint of another model than this version trains") from error
        self.step, self.seconds = state["step"], state["seconds"]
        self.average.n_averaged.fill_(self.step)

    def _is_over(self) -> bool:
        return self.step >= self.config.steps or self.seconds >= self._limit

    def _progress(self) -> float:
        """0..1, by steps or by minutes, whichever is further."""
        return max(self.step / self.config.steps, self.seconds / self._limit)

    def _choose_crops(self) -> None:
        """So few crops that the minutes suffice for LEAST_STEPS steps; one as long as no step was timed."""
        if self._limit < math.inf:
            self.phase.most_crops = max(1, int(min(self.config.batch, self._limit / LEAST_STEPS / self._crop_seconds)))

    def _update(self, progress: float) -> tuple[float, Figures]:
        """One step of the optimiser and of the average; the loss, and figures for the log."""
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        with self.run.autocast():
            loss, figures = self.phase.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients(self.optimizer.parameters)
        norm = self.optimizer.step(schedule(progress, self.step, self.config.warmup, self.config.cooldown))
        if not math.isfinite(norm):  # nor may such a batch stay in the codebooks
            for buffer, before in zip(self.module.buffers(), buffers, strict=True):
                buffer.copy_(before)
        distributed.average(self.module.buffers())
        self.average.update_parameters(self.module)
        self.step += 1
        return float(loss.detach()), {"gradient_norm": norm, **figures}

    def _count_step(self) -> None:
        before = self.seconds
        self._count_time()
        crops = self.config.batch if self.phase.most_crops is None else self.phase.most_crops
        self._crop_seconds = min(self._crop_seconds, (self.seconds - before) / crops)

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds = distributed.from_main(self.seconds + now - self._clock)
        self._clock = now

    def _look_after(self) -> None:
        """Between steps: pause if the run's time is up, evaluate and save if that is due."""
        if self.run.is_time_up():
            self._save(done=False)
            minutes = self.seconds / 60
            raise TrainingPaused(f"{self.phase.name}: {minutes:.1f} minutes done, {self.step} steps; --resume goes on")
        now = self._clock
        if now - self._evaluated > self.run.config.evaluate_minutes * 60:
            self._evaluate()
            self._evaluated = time.monotonic()
        if now - self._saved > self.run.config.checkpoint_minutes * 60:
            self._save(done=False)
            self._saved = time.monotonic()

    def _evaluate(self) -> Figures:
        """Evaluate the averaged module and log its figures, in the first process; others get no figures."""
        if not is_main():
            return {}
        label = f"{self.phase.name}-{self.step:06d}"
        figures = self.phase.evaluate(self.average.module, label, seconds=self._most_evaluation)
        self._log({"evaluation": True, **figures})
        self._say(f"{self.phase.name} {self.step}: " + ", ".join(f"{k} {value:.4g}" for k, value in figures.items()))
        return figures

    def _conclude(self, figures: Figures) -> None:
        """Pass on the phase's warning about its last evaluation, if it has one."""
        warning = self.phase.warning(figures) if is_main() else None
        if warning is not None:
            self._log({"warning": warning})
            self._say(f"vqcodec: warning: {self.phase.name}: {warning}")

    def _say(self, line: str) -> None:
        if not self.run.quiet:
            tqdm.write(line, file=sys.stderr)

    def _log(self, figures: Mapping[str, object]) -> None:
        where = {"phase": self.phase.name, "step": self.step, "minutes": self.seconds / 60}
        self.run.log({**where, **figures})

    def _save(self, *, done: bool) -> None:
        if is_main():
            state: Checkpoint = {
                "module": self.module.state_dict(),
                "average": self.average.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "done": done,
            }
            save_checkpoint(self.path, state)


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint whole: a kill leaves the old one or the new one."""
    with open_atomic(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """Read a checkpoint, and execute nothing in it (``weights_only``); raises TrainingError if it is none."""
    try:
        state: Checkpoint = torch.load(path, map_location=device, weights_only=True)
        missing = Checkpoint.__required_keys__ - state.keys()
    except Exception as error:
        raise TrainingError(f"{path}: not a checkpoint of vqcodec: {type(error).__name__}") from error
    if missing:
        raise TrainingError(f"{path}: not a checkpoint of vqcodec: it has no {', '.join(sorted(missing))}")
    return state
