"""The trainer, with a model of one number; checkpoints."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.train_support import CPU, Kill, entries
from vqcodec.config import PhaseConfig, TrainConfig
from vqcodec.errors import TrainingPaused
from vqcodec.train.data import Photographs
from vqcodec.train.loop import Checkpoint, Phase, Run, Trainer, load_checkpoint, save_checkpoint


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Number(nn.Module):
    """One weight, and a buffer that follows what it sees, as codebooks do."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("seen", torch.zeros(1))


class Toy(Phase):
    """Each step takes a second, each evaluation a minute."""

    name = "toy"

    def __init__(self, run: Run, config: PhaseConfig, clock: Clock, *, bad_step: int = -1) -> None:
        super().__init__(run)
        self.config, self.clock, self.bad_step = config, clock, bad_step
        self.module = Number()
        self.losses, self.step_seconds = 0, 1.0
        self.evaluated: list[str] = []
        self.allowed: list[float] = []
        self.crops: list[int | None] = []
        self.updates: list[tuple[int, float]] = []
        self.drawn: list[float] = []

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        value = math.nan if self.losses == self.bad_step else 1.0
        module = cast(Number, self.module)
        self.losses += 1
        self.crops.append(self.most_crops)
        self.clock.now += self.step_seconds
        self.drawn += [self.rng.random(), float(torch.rand(1))]
        slope = value * (2 + module.seen.cos())  # no two steps alike
        module.seen.add_(value)
        return (module.weight * slope).sum(), {"infinite": math.inf}

    def measure(self, module: nn.Module, x: Tensor) -> dict[str, float]:
        raise AssertionError("evaluate asks for nothing")

    def evaluate(self, module: nn.Module, label: str, *, seconds: float = math.inf) -> dict[str, float]:
        self.clock.now += 60
        self.evaluated.append(label)
        self.allowed.append(seconds)
        return {"weight": float(cast(Number, module).weight)}

    def after_step(self, step: int, progress: float) -> dict[str, float]:
        self.updates.append((step, progress))
        return {"after": float(step)}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Toy]:
    clock = Clock()
    monkeypatch.setattr("vqcodec.train.loop.time", clock)

    def make(*, bad_step: int = -1, **settings: Any) -> Toy:
        train = {k: settings.pop(k) for k in ("checkpoint_minutes", "evaluate_minutes") if k in settings}
        stop_after = settings.pop("stop_after", math.inf)
        nothing = cast(Photographs, None)
        run = Run(tmp_path, TrainConfig(**train), CPU, nothing, nothing, quiet=True, stop_after=stop_after)
        return Toy(run, PhaseConfig(**{"warmup": 0, "steps": 6, "clip": 9.0} | settings), clock, bad_step=bad_step)

    return make


def test_evaluations_are_counted(toy: Callable[..., Toy], tmp_path: Path) -> None:
    phase = toy(steps=130, evaluate_minutes=0.5, checkpoint_minutes=9.0)
    Trainer(phase).train()
    assert phase.evaluated == [f"toy-{step:06d}" for step in (31, 62, 93, 124, 130)]
    assert phase.allowed == [math.inf] * 5
    assert load_checkpoint(tmp_path / "toy.pt", CPU)["seconds"] == 130 + 5 * 60
    assert [entry["step"] for entry in entries(tmp_path) if "loss" in entry] == [50, 100, 130]


def test_preparation_is_counted(toy: Callable[..., Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phase = toy(minutes=10)

    def prepare() -> None:
        phase.clock.now += 700

    monkeypatch.setattr(phase, "prepare", prepare)
    Trainer(phase).train()  # a phase without a step is evaluated and saved, too
    state = load_checkpoint(tmp_path / "toy.pt", CPU)
    assert (state["step"], state["seconds"], state["done"]) == (0, 760, True)
    assert phase.evaluated == ["toy-000000"]


def test_a_phase_ends_by_minutes_and_still_logs_its_end(toy: Callable[..., Toy], tmp_path: Path) -> None:
    phase = toy(steps=10**6, minutes=0.5, evaluate_minutes=9.0)
    Trainer(phase).train()
    assert phase.updates == [(step, (step - 1) / 27) for step in range(1, 28)]  # a tenth is left for the evaluation
    assert phase.allowed == [3.0]
    (training, evaluation) = entries(tmp_path)
    assert (training["step"], training["loss"], training["after"]) == (27, pytest.approx(2, abs=1.1), 27.0)
    assert training["infinite"] is None
    assert evaluation["evaluation"] is True


def test_where_minutes_are_short_a_step_takes_fewer_crops(toy: Callable[..., Toy]) -> None:
    def crops(step_seconds: float) -> list[int | None]:
        phase = toy(steps=4, minutes=2, batch=8)
        phase.step_seconds = step_seconds  # of one crop, for the first step
        Trainer(phase).train()
        (phase.run.folder / "toy.pt").unlink()
        return phase.crops

    assert crops(1.0) == [1, 2, 4, 8]  # 108 s for 50 steps, and this toy needs no longer for more crops
    assert crops(5.0) == [1, 1, 1, 1]
    unlimited = toy(steps=2)
    Trainer(unlimited).train()
    assert unlimited.crops == [None, None]


def test_a_run_pauses_when_its_time_is_up_and_loses_nothing(toy: Callable[..., Toy], tmp_path: Path) -> None:
    done: list[int] = []
    while not done or done[-1] < 6:
        with contextlib.suppress(TrainingPaused):
            Trainer(toy(stop_after=2 / 60)).train()
        done.append(load_checkpoint(tmp_path / "toy.pt", CPU)["step"])
    assert done == [2, 4, 6]
    # An evaluation counts too: it is the machine's time, not the training's, that is limited.
    slow = toy(steps=100, evaluate_minutes=0.05, stop_after=0.5)
    (tmp_path / "toy.pt").unlink()
    with pytest.raises(TrainingPaused, match=r"^toy: 1\.1 minutes done, 5 steps; --resume goes on$"):
        Trainer(slow).train()


def test_a_batch_that_is_not_finite_changes_nothing(toy: Callable[..., Toy], tmp_path: Path) -> None:
    clean, spoilt = toy(steps=3), toy(steps=4, bad_step=3)
    Trainer(clean).train()
    (tmp_path / "toy.pt").unlink()
    (tmp_path / "log.jsonl").unlink()
    average = Trainer(spoilt).train()
    for module in (average, spoilt.module):
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    assert float(cast(Number, spoilt.module).seen) == 3
    assert entries(tmp_path)[0]["loss"] is None
    assert entries(tmp_path)[0]["gradient_norm"] is None


def test_a_restart_loses_nothing(toy: Callable[..., Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(toy()).train()
    straight = load_checkpoint(tmp_path / "toy.pt", CPU)
    (tmp_path / "toy.pt").unlink()
    killed = toy(checkpoint_minutes=0.0)
    monkeypatch.setattr(killed, "after_step", _raise_at(4))
    with pytest.raises(Kill):
        Trainer(killed).train()
    assert load_checkpoint(tmp_path / "toy.pt", CPU)["step"] == 3
    average = Trainer(toy()).train()
    resumed = load_checkpoint(tmp_path / "toy.pt", CPU)
    for name in ("module", "average"):
        assert straight[name].keys() == resumed[name].keys() == {"weight", "seen"}
        assert all(torch.equal(resumed[name][key], tensor) for key, tensor in straight[name].items())
    assert torch.equal(cast(Number, average).weight, resumed["average"]["weight"])
    assert (resumed["step"], resumed["seconds"]) == (6, 66.0)


def test_a_restart_draws_other_crops_but_the_same_ones_each_time(toy: Callable[..., Toy], tmp_path: Path) -> None:
    first = toy(steps=4, checkpoint_minutes=0.0)
    with contextlib.suppress(Kill), pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "after_step", _raise_at(3))
        Trainer(first).train()
    checkpoint = (tmp_path / "toy.pt").read_bytes()
    drawn = []
    for _ in range(2):
        (tmp_path / "toy.pt").write_bytes(checkpoint)
        phase = toy(steps=4)
        Trainer(phase).train()
        drawn.append(phase.drawn)
    assert len(first.drawn) == 6
    assert len(drawn[0]) == 4
    assert drawn[0] == drawn[1]
    assert set(first.drawn).isdisjoint(drawn[0])


def _raise_at(limit: int) -> Callable[[int, float], dict[str, float]]:
    def after_step(step: int, _: float) -> dict[str, float]:
        if step == limit:
            raise Kill
        return {}

    return after_step


def test_tensorboard_gets_the_same_numbers(toy: Callable[..., Toy]) -> None:
    class Writer:
        scalars: list[tuple[str, float, int]] = []  # noqa: RUF012 - one test's

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.scalars.append((tag, scalar_value, global_step))

        def close(self) -> None:
            raise AssertionError("the run closes it, not a phase")

    phase = toy(steps=2)
    phase.run.writer = Writer()
    Trainer(phase).train()
    assert ("toy/after", 2.0, 2) in Writer.scalars
    assert {name for name, _, _ in Writer.scalars} >= {"toy/loss", "toy/weight", "toy/minutes"}


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_used_where_the_processor_multiplies_it(
    has_bfloat16: bool, dtype: torch.dtype, toy: Callable[..., Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.train.loop.multiplies_bfloat16", lambda: has_bfloat16)
    with toy().run.autocast():
        assert nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == dtype


def test_a_kill_while_a_checkpoint_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vae.pt"
    state: Checkpoint = {"module": {}, "average": {}, "optimizer": [], "step": 1, "seconds": 0.5, "done": False}
    save_checkpoint(path, state)
    assert [path.name for path in tmp_path.iterdir()] == ["vae.pt"]

    def half(_: object, file: Any) -> None:
        file.write(b"half of it")
        raise Kill

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Kill):
        save_checkpoint(path, {**state, "step": 2})
    assert load_checkpoint(path, CPU) == state
