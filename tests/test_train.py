"""Training: whole runs of a tiny model, resuming, and the parts on their own."""

import contextlib
import copy
import dataclasses
import json
import math
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import vqcodec.train
from vqcodec.cli.main import main
from vqcodec.codec import Codec
from vqcodec.config import Config, ModelConfig, PhaseConfig, TrainConfig
from vqcodec.errors import ConfigError, TrainingError, TrainingPaused, WeightsError
from vqcodec.files.images import image_files
from vqcodec.metrics import bpp, psnr
from vqcodec.networks.layers import Conv
from vqcodec.networks.pixelcnn import CausalConv, PixelCNN
from vqcodec.networks.quantize import VectorQuantizer
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train import distributed
from vqcodec.train.codes import CodesPhase
from vqcodec.train.data import Photographs
from vqcodec.train.export import FACTORS, QUALITIES, SCALE_POINTS, distortion_weights, export_weights, quality_scale
from vqcodec.train.joint import JointPhase, Model
from vqcodec.train.loop import Phase, Run, load_checkpoint, run_phase, save_checkpoint
from vqcodec.train.optim import Average, Optimizer, schedule
from vqcodec.train.prior import PriorPhase, draw_quality_lambda
from vqcodec.train.sheet import write_sheet
from vqcodec.train.vae import VAEPhase, draw_lambda
from vqcodec.weights import load_weights

PHASES = ["vae", "codes", "prior", "joint"]
CPU = torch.device("cpu")


def entries(folder: Path) -> list[dict[str, Any]]:
    """The log, every line of which is JSON that any reader takes."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


# --- a finished run --------------------------------------------------------------------------------------------


def test_the_run_leaves_what_it_should_and_nothing_else(tiny_run: Path, tiny_config: Config) -> None:
    assert {path.name for path in tiny_run.iterdir()} - {"sheets"} == {
        *(f"{phase}.pt" for phase in PHASES),
        "config.json",
        "log.jsonl",
        "tiny.md",
        "tiny.safetensors",
    }
    for name in PHASES:
        state = torch.load(tiny_run / f"{name}.pt", weights_only=True)
        assert state.keys() == {"module", "average", "optimizer", "step", "seconds", "done"}
        assert state["done"]
        assert state["step"] == getattr(tiny_config.train, name).steps
        assert 0 < state["seconds"] < 600


def test_the_log(tiny_run: Path, tiny_config: Config) -> None:
    log = entries(tiny_run)
    assert list(dict.fromkeys(entry["phase"] for entry in log)) == PHASES
    for name in PHASES:
        training = [entry for entry in log if entry["phase"] == name and "loss" in entry]
        evaluations = [entry for entry in log if entry["phase"] == name and entry.get("evaluation")]
        steps = getattr(tiny_config.train, name).steps
        assert [entry["step"] for entry in training] == [*range(50, steps, 50), steps]
        assert [entry["step"] for entry in evaluations] == [steps]
        for entry in training:
            assert {"minutes", "gradient_norm", "bpp"} <= entry.keys()
        assert ("psnr_q40" in evaluations[0]) == (name != "prior")


def test_it_learns(tiny_run: Path) -> None:
    evaluated = {entry["phase"]: entry for entry in entries(tiny_run) if entry.get("evaluation")}
    assert evaluated["vae"]["psnr_q95"] > 17
    assert evaluated["codes"]["psnr_q95"] > 17
    # Hard codes chosen by rate are cheaper than noise, and the PixelCNN knows more than the heads do.
    assert evaluated["codes"]["bpp_q95"] < evaluated["vae"]["bpp_q95"]
    assert evaluated["joint"]["bpp_q95"] < 1.1 * evaluated["codes"]["bpp_q95"]


def test_the_sheets(tiny_run: Path) -> None:
    sheets = sorted((tiny_run / "sheets").iterdir())
    assert [path.name for path in sheets] == ["codes-000030.png", "joint-000005.png", "vae-000100.png"]
    for path in sheets:
        with Image.open(path) as image:
            assert image.size == (4 * 64, 2 * 64)  # original and three qualities, two images


def test_the_weights_are_the_averaged_ones_of_the_last_phase(tiny_run: Path, tiny_weights: Path) -> None:
    average = torch.load(tiny_run / "joint.pt", weights_only=True)["average"]
    weights = load_weights(tiny_weights)
    assert weights.name == "tiny"
    for name, tensor in weights.vqvae.items():
        assert torch.equal(tensor, average[f"vqvae.{name}"].half().float())


def test_the_model_card(tiny_run: Path, tiny_data: Path, tiny_codec: Codec, tiny_config: Config) -> None:
    card = (tiny_run / "tiny.md").read_text(encoding="utf-8")
    assert card.startswith("# Model card: tiny\n")
    assert f"`{tiny_codec.fingerprint.hex()}`" in card
    assert "6 photographs, 0 megapixels, from `train`; 1 more were unreadable or too small" in card
    assert "2 groups × 2 channels, K = 16, 1/8: 4 groups" in card
    for name in PHASES:
        (row,) = re.findall(rf"^\| {name} \|(.*)\|$", card, flags=re.MULTILINE)
        cells = row.replace(" ", "").split("|")
        assert [cells[0], *cells[2:4]] == [str(getattr(tiny_config.train, name).steps), "64", "4"]
        (last,) = [e["loss"] for e in entries(tiny_run) if e["phase"] == name and "loss" in e][-1:]
        assert float(cells[4]) == pytest.approx(last, abs=1e-4)
    images = [np.asarray(Image.open(path)) for path in image_files(tiny_data / "val")]
    for quality in QUALITIES:
        files = [tiny_codec.compress(image, quality) for image in images]
        rate = np.mean([bpp(len(data), i.shape[1], i.shape[0]) for data, i in zip(files, images, strict=True)])
        decibel = np.mean([psnr(i, tiny_codec.decompress(data)) for data, i in zip(files, images, strict=True)])
        assert f"| {quality} | {rate:.4f} | {decibel:.2f} |" in card


# --- short runs, resumed and refused ---------------------------------------------------------------------------


@pytest.fixture
def short(tiny_config: Config) -> Config:
    """Four steps a phase, with a checkpoint after each."""
    phase = dataclasses.replace(tiny_config.train.vae, steps=4, batch=2)
    train = dataclasses.replace(
        tiny_config.train, vae=phase, codes=phase, prior=phase, joint=phase, checkpoint_minutes=0.0
    )
    return dataclasses.replace(tiny_config, train=train)


@pytest.fixture
def start(tiny_data: Path, tmp_path: Path, short: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs ``short`` in ``tmp_path/run``, quietly; keywords change what it is called with."""
    monkeypatch.setattr("vqcodec.train.EVALUATION_CROP", 64)
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", (50,))
    monkeypatch.setattr("vqcodec.train.codes.FIT_BATCHES", 2)

    def run(**changes: Any) -> Path:
        settings: dict[str, Any] = {
            "data_dir": tiny_data / "train",
            "run_dir": tmp_path / "run",
            "config": short,
            "validation_dir": tiny_data / "val",
            "device": "cpu",
            "quiet": True,
        }
        return vqcodec.train.run(**settings | changes)

    return run


@pytest.fixture
def done(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run in ``tmp_path/run``."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


class Kill(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the losses and preparations of each phase; raises Kill at the loss number ``steps["limit"]``."""
    count: Counter[str] = Counter(limit=10**9)

    def watch(kind: type[Phase], method: str) -> None:
        honest = getattr(kind, method)

        def watched(self: Phase) -> Any:
            if method == "loss":
                count["losses"] += 1
                if count["losses"] == count["limit"]:
                    raise Kill
            count[f"{self.name} {method}"] += 1
            return honest(self)

        monkeypatch.setattr(kind, method, watched)

    for kind in (VAEPhase, PriorPhase, JointPhase):  # CodesPhase has VAEPhase's loss
        watch(kind, "loss")
    for kind in (CodesPhase, PriorPhase):
        watch(kind, "prepare")
    return count


@pytest.mark.parametrize(("killed_in", "at"), [("codes", 3), ("prior", 1), ("joint", 4)])
def test_a_killed_run_goes_on_where_it_was(
    start: Callable[..., Path], steps: Counter[str], tmp_path: Path, killed_in: str, at: int
) -> None:
    index = PHASES.index(killed_in)
    steps["limit"] = 4 * index + at
    with pytest.raises(Kill):
        start()
    state = tmp_path / "run" / f"{killed_in}.pt"
    assert state.exists() == (at > 1)
    before = torch.load(state, weights_only=True) if at > 1 else {"step": 0, "seconds": 0.0, "done": False}
    assert (before["step"], before["done"]) == (at - 1, False)

    steps.update({name: -steps[name] for name in list(steps)})
    steps["limit"] = 10**9
    weights = start(resume=True)
    for i, name in enumerate(PHASES):
        assert steps[f"{name} loss"] == (0 if i < index else 4 if i > index else 4 - before["step"])
    assert steps["codes prepare"] == 0  # the codebooks are not fitted twice
    assert steps["prior prepare"] == (killed_in == "codes" or (killed_in, at) == ("prior", 1))
    after = torch.load(state, weights_only=True)
    assert (after["step"], after["done"]) == (4, True)
    assert after["seconds"] > before["seconds"]
    assert Codec.load(weights, device="cpu").compress(np.zeros((8, 8, 3), np.uint8))
    assert [e["phase"] for e in entries(tmp_path / "run") if "loss" in e] == PHASES


def test_resuming_a_finished_run_exports_the_same_file_again(
    start: Callable[..., Path],
    steps: Counter[str],
    done: Path,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", QUALITIES)  # all of them, as the finished run had
    before = (done / "tiny.safetensors").read_bytes()
    (done / "tiny.safetensors").unlink()
    log = (done / "log.jsonl").read_text()
    assert start(config=tiny_config, resume=True, name="tiny") == done / "tiny.safetensors"
    assert (done / "tiny.safetensors").read_bytes() == before
    assert (done / "log.jsonl").read_text() == log
    assert set(steps) == {"limit"}


def test_the_same_seed_gives_the_same_weights(start: Callable[..., Path], short: Config, tmp_path: Path) -> None:
    other = dataclasses.replace(short, train=dataclasses.replace(short.train, seed=1))
    files = [
        start(run_dir=tmp_path / name, config=config).read_bytes()
        for name, config in (("a", short), ("b", short), ("c", other))
    ]
    assert files[0] == files[1] != files[2]


def test_rules_of_the_run_folder(start: Callable[..., Path], done: Path, short: Config, tmp_path: Path) -> None:
    def refuses(reason: str, **changes: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(TrainingError, match=reason):
            start(**changes)
        assert sorted(tmp_path.rglob("*")) == before

    refuses(r"run: holds a run already; go on with it by --resume, or name another folder$")
    refuses(r"run: was started with another configuration; see .*config\.json", resume=True)
    refuses(r"none: holds no run to resume$", resume=True, run_dir=tmp_path / "none")
    refuses(r"config\.json: not a folder", run_dir=done / "config.json")
    (done / "config.json").unlink()
    refuses(r"run: holds a run already")  # checkpoints that nobody asked to resume
    refuses(r"run: holds no run to resume", resume=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "not a checkpoint of vqcodec: EOFError"),
        (lambda data: data[:999], "not a checkpoint of vqcodec: "),
        (lambda _: b"cos\nsystem\n(S'touch owned'\ntR.", "not a checkpoint of vqcodec: UnpicklingError"),
    ],
)
def test_damaged_checkpoints(
    start: Callable[..., Path],
    done: Path,
    tiny_config: Config,
    damage: Callable[[bytes], bytes],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(done)
    (done / "prior.pt").write_bytes(damage((done / "prior.pt").read_bytes()))
    with pytest.raises(TrainingError, match=rf"run/prior\.pt: {reason}"):
        start(config=tiny_config, resume=True)
    assert not Path("owned").exists()


def test_checkpoints_of_something_else(start: Callable[..., Path], done: Path, tiny_config: Config) -> None:
    torch.save({"module": {}, "step": 3}, done / "codes.pt")
    with pytest.raises(TrainingError, match=r"codes\.pt: .* it has no average, done, optimizer, seconds$"):
        start(config=tiny_config, resume=True)
    shutil.copy(done / "joint.pt", done / "codes.pt")
    with pytest.raises(TrainingError, match=r"codes\.pt: a checkpoint of another model than this version trains$"):
        start(config=tiny_config, resume=True)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vae.pt"
    state = {"module": {}, "average": {}, "optimizer": [], "step": 1, "seconds": 0.5, "done": False}
    save_checkpoint(path, state)
    assert [path.name for path in tmp_path.iterdir()] == ["vae.pt"]

    def half(_: object, file: Any) -> None:
        file.write(b"half of it")
        raise Kill

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Kill):
        save_checkpoint(path, state | {"step": 2})
    assert load_checkpoint(path, CPU) == state


def test_impossible_requests_are_refused_before_the_data_is_read(
    start: Callable[..., Path], short: Config, tmp_path: Path
) -> None:
    odd = dataclasses.replace(short.train, joint=dataclasses.replace(short.train.joint, crop=72))
    with pytest.raises(ConfigError, match=r"^crop is 72, expected a multiple of the coarsest stride 16$"):
        start(config=dataclasses.replace(short, train=odd), data_dir=tmp_path / "none")
    for name in ("", "a/b", "..", "/a"):
        with pytest.raises(TrainingError, match=r"cannot be the name of a model"):
            start(name=name, data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["run", "weights"])
def test_a_run_starts_from_another_one(
    kind: str, start: Callable[..., Path], tiny_run: Path, short: Config, tmp_path: Path
) -> None:
    trained = load_checkpoint(tiny_run / "vae.pt", CPU)["average"] if kind == "run" else None
    levels = [dataclasses.replace(level, groups=2 * level.groups) for level in short.model.levels]
    model = dataclasses.replace(short.model, levels=tuple(levels), widths=(8, 16, 24))
    start(
        init=tiny_run if kind == "run" else tiny_run / "tiny.safetensors",
        config=dataclasses.replace(short, model=model),
    )
    if trained is not None:  # a few steps on, the old part of a kernel is still near where it started
        grown = load_checkpoint(tmp_path / "run" / "vae.pt", CPU)["average"]
        name = "encoder.0.blocks.0.first.weight"
        assert grown[name].shape == trained[name].shape
        difference = (grown[name] - trained[name]).norm() / trained[name].norm()
        assert float(difference) < 0.5


def test_what_a_run_cannot_start_from(
    start: Callable[..., Path], tiny_run: Path, short: Config, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty: holds no run to start from, expected config\.json and vae\.pt$"):
        start(init=tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"none: cannot be read"):
        start(init=tmp_path / "none", run_dir=tmp_path / "other")
    model = dataclasses.replace(short.model, widths=(8, 8, 16))
    with pytest.raises(ConfigError, match=r"width at stride 8: 8 cannot start from 16"):
        start(init=tiny_run, config=dataclasses.replace(short, model=model), run_dir=tmp_path / "third")
    assert not [path for name in ("run", "other", "third") if (path := tmp_path / name).exists()]


def test_data_that_cannot_be_used(start: Callable[..., Path], tiny_data: Path, tmp_path: Path) -> None:
    empty, small, text = (tmp_path / name for name in ("empty", "small", "text"))
    for folder in (empty, small, text):
        folder.mkdir()
    (empty / "notes.txt").write_text("no images")
    (text / "a.png").write_text("no image")
    Image.new("RGB", (63, 200)).save(small / "a.png")
    for folder, reason in [
        (tmp_path / "none", r"none: not a folder; expected a folder of images$"),
        (empty, r"empty: holds no images; expected files such as"),
        (small, r"none of 1 images can be used; the first: .*a\.png: smaller than 64 pixels$"),
        (text, r"none of 1 images can be used; the first: .*a\.png: "),
    ]:
        for role in ("data_dir", "validation_dir"):
            with pytest.raises(TrainingError, match=reason):
                start(**{role: folder})
    assert not (tmp_path / "run").exists()  # so that the corrected command is not refused


def test_what_is_said_and_left_out(
    start: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start(quiet=False)
    said = capfd.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert re.match(r"vqcodec: warning: 1 images left out; the first: .*broken\.png: ", lines[0])
    assert [line.partition(":")[0] for line in lines[1:]] == [f"{phase} 4" for phase in PHASES]
    start(run_dir=tmp_path / "again")
    assert capfd.readouterr() == ("", "")


def test_the_command(
    tiny_data: Path, short: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_codec: Codec
) -> None:
    monkeypatch.setattr("vqcodec.train.EVALUATION_CROP", 64)
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", (50,))
    tables = json.loads(json.dumps(short.to_dict()).replace("Infinity", "1e9"))
    lines = [
        f"model = {_toml(tables['model'])}",
        f"prior = {_toml(tables['prior'])}",
        f"train = {_toml(tables['train'])}",
    ]
    Path("short.toml").write_text("\n".join(lines))
    data, val = str(tiny_data / "train"), str(tiny_data / "val")
    command = ["train", data, "-o", "run", "--config", "short.toml", "--device", "cpu", "--validation", val]
    result = CliRunner().invoke(main, [*command, "--name", "mine"])
    assert (result.exit_code, result.stdout) == (0, "run/mine.safetensors: weights of a finished run\n")
    trained = load_weights("run/mine.safetensors").model
    assert trained == dataclasses.replace(tiny_codec.model, quality_scale=trained.quality_scale, levels=trained.levels)
    assert {level.distortion_weight for level in trained.levels} <= set(FACTORS)
    assert len(trained.quality_scale) == SCALE_POINTS
    part = [*command[:3], "parts", *command[4:], "--stop-after", "0.0001"]
    result = CliRunner().invoke(main, part)
    assert re.fullmatch(r"parts: paused: vae: 0\.\d minutes done, [123] steps; --resume goes on\n", result.stdout)
    assert result.exit_code == 0
    result = CliRunner().invoke(main, [*part[:-2], "--resume", "--name", "mine"])
    assert (result.exit_code, result.stdout) == (0, "parts/mine.safetensors: weights of a finished run\n")
    result = CliRunner().invoke(main, [*part, "--minutes", "4"])
    assert "holds a run already" in result.stderr
    again = CliRunner().invoke(main, command)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("vqcodec: error: run: holds a run already")
    assert again.stderr.count("\n") == 1


def _toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def test_without_a_validation_folder_some_images_are_held_out(start: Callable[..., Path], tmp_path: Path) -> None:
    weights = start(validation_dir=None)
    card = weights.with_suffix(".md").read_text(encoding="utf-8")
    assert "Data: 5 photographs" in card
    assert "Whole files of 1 validation images" in card


# --- the loop, with a model of one number ----------------------------------------------------------------------


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
    """Each step takes a second, each evaluation an hour."""

    name = "toy"

    def __init__(self, run: Run, config: PhaseConfig, clock: Clock, *, bad_step: int = -1) -> None:
        super().__init__(run)
        self.config, self.clock, self.bad_step = config, clock, bad_step
        self.module = Number()
        self.losses = 0
        self.evaluated: list[str] = []
        self.updates: list[tuple[int, float]] = []
        self.drawn: list[float] = []

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        value = math.nan if self.losses == self.bad_step else 1.0
        module = cast(Number, self.module)
        self.losses += 1
        self.clock.now += 1
        self.drawn += [self.rng.random(), float(torch.rand(1))]
        slope = value * (2 + module.seen.cos())  # no two steps alike
        module.seen.add_(value)
        return (module.weight * slope).sum(), {"infinite": math.inf}

    def evaluate(self, module: nn.Module, label: str) -> dict[str, float]:
        self.clock.now += 3600
        self.evaluated.append(label)
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


def test_evaluation_is_not_training_time(toy: Callable[..., Toy], tmp_path: Path) -> None:
    phase = toy(steps=130, evaluate_minutes=0.5, checkpoint_minutes=9.0)
    run_phase(phase)
    assert phase.evaluated == [f"toy-{step:06d}" for step in (31, 62, 93, 124, 130)]
    assert load_checkpoint(tmp_path / "toy.pt", CPU)["seconds"] == 130
    assert [entry["step"] for entry in entries(tmp_path) if "loss" in entry] == [50, 100, 130]


def test_a_phase_ends_by_minutes_and_still_logs_its_end(toy: Callable[..., Toy], tmp_path: Path) -> None:
    phase = toy(steps=10**6, minutes=0.2)
    run_phase(phase)
    assert phase.updates == [(step, (step - 1) / 12) for step in range(1, 13)]
    (training, evaluation) = entries(tmp_path)
    assert (training["step"], training["loss"], training["after"]) == (12, pytest.approx(2, abs=1.1), 12.0)
    assert training["infinite"] is None
    assert evaluation["evaluation"] is True


def test_a_run_pauses_when_its_time_is_up_and_loses_nothing(toy: Callable[..., Toy], tmp_path: Path) -> None:
    done: list[int] = []
    while not done or done[-1] < 6:
        with contextlib.suppress(TrainingPaused):
            run_phase(toy(stop_after=2 / 60))
        done.append(load_checkpoint(tmp_path / "toy.pt", CPU)["step"])
    assert done == [2, 4, 6]
    # An evaluation counts too: it is the machine's time, not the training's, that is limited.
    slow = toy(steps=100, evaluate_minutes=0.05, stop_after=30)
    (tmp_path / "toy.pt").unlink()
    with pytest.raises(TrainingPaused, match=r"^toy: 0\.1 minutes done, 5 steps; --resume goes on$"):
        run_phase(slow)


def test_a_batch_that_is_not_finite_changes_nothing(toy: Callable[..., Toy], tmp_path: Path) -> None:
    clean, spoilt = toy(steps=3), toy(steps=4, bad_step=3)
    run_phase(clean)
    (tmp_path / "toy.pt").unlink()
    (tmp_path / "log.jsonl").unlink()
    average = run_phase(spoilt)
    for module in (average, spoilt.module):
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    assert float(cast(Number, spoilt.module).seen) == 3
    assert entries(tmp_path)[0]["loss"] is None
    assert entries(tmp_path)[0]["gradient_norm"] is None


def test_a_restart_loses_nothing(toy: Callable[..., Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_phase(toy())
    straight = load_checkpoint(tmp_path / "toy.pt", CPU)
    (tmp_path / "toy.pt").unlink()
    killed = toy(checkpoint_minutes=0.0)
    monkeypatch.setattr(killed, "after_step", _raise_at(4))
    with pytest.raises(Kill):
        run_phase(killed)
    assert load_checkpoint(tmp_path / "toy.pt", CPU)["step"] == 3
    average = run_phase(toy())
    resumed = load_checkpoint(tmp_path / "toy.pt", CPU)
    for name in ("module", "average"):
        assert straight[name].keys() == resumed[name].keys() == {"weight", "seen"}
        assert all(torch.equal(resumed[name][key], tensor) for key, tensor in straight[name].items())
    assert torch.equal(cast(Number, average).weight, resumed["average"]["weight"])
    assert (resumed["step"], resumed["seconds"]) == (6, 6.0)


def test_a_restart_draws_other_crops_but_the_same_ones_each_time(toy: Callable[..., Toy], tmp_path: Path) -> None:
    first = toy(steps=4, checkpoint_minutes=0.0)
    with contextlib.suppress(Kill), pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "after_step", _raise_at(3))
        run_phase(first)
    checkpoint = (tmp_path / "toy.pt").read_bytes()
    drawn = []
    for _ in range(2):
        (tmp_path / "toy.pt").write_bytes(checkpoint)
        phase = toy(steps=4)
        run_phase(phase)
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

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append((name, value, step))

    phase = toy(steps=2)
    phase.run.writer = Writer()
    run_phase(phase)
    assert ("toy/after", 2.0, 2) in Writer.scalars
    assert {name for name, _, _ in Writer.scalars} >= {"toy/loss", "toy/weight", "toy/minutes"}


# --- data ------------------------------------------------------------------------------------------------------


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Images whose red is the row, green the column and blue the image: 40×70, 70×40, and 64×64 in grey."""
    for i, (height, width) in enumerate([(40, 70), (70, 40)]):
        y, x = np.mgrid[:height, :width].astype(np.uint8)
        Image.fromarray(np.stack([y, x, np.full_like(x, i)], 2)).save(tmp_path / f"{i}.png")
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(tmp_path / "grey.PNG")
    return tmp_path


def photographs(folder: Path, **settings: Any) -> Photographs:
    return Photographs(image_files(folder), CPU, **{"smallest": 32} | settings)


def test_crops_are_windows_turned_or_mirrored(maps: Path) -> None:
    (maps / "grey.PNG").unlink()
    data = photographs(maps)
    crops = data.crops(64, 32, random.Random(0))
    assert (crops.shape, crops.dtype) == ((64, 3, 32, 32), torch.float32)
    pixels = (crops * 255).round().long()
    kinds = set()
    for row, column, image in pixels:
        (number,) = image.unique().tolist()
        height, width = data.images[number].shape[1:]
        assert int(row.max()) < height
        assert int(column.max()) < width
        assert len(row.unique()) == len(column.unique()) == 32
        turned = bool(row[0, 0] == row[1, 0])
        mirrored = bool(column.flatten()[0] > column.flatten()[-1])
        kinds.add((number, turned, mirrored))
        assert torch.equal(row.diff(dim=1 if turned else 0).abs(), torch.ones_like(row.diff(dim=1 if turned else 0)))
    assert len(kinds) == 8  # both images, turned or not, mirrored or not
    assert torch.equal(data.crops(64, 32, random.Random(0)), crops)
    assert not torch.equal(data.crops(64, 32, random.Random(1)), crops)


def test_shrunk_crops_show_more_of_the_image(maps: Path) -> None:
    data = photographs(maps, downscale_share=1.0)
    crops = data.crops(64, 32, random.Random(0)) * 255
    assert crops.shape == (64, 3, 32, 32)
    assert crops.min() >= 0
    assert crops.max() < 70
    spans = (crops[:, :2].amax((2, 3)) - crops[:, :2].amin((2, 3))).amax(1)
    assert spans.max() > 36
    assert (
        not photographs(maps)
        .crops(64, 32, random.Random(0))
        .mul(255)
        .frac()
        .gt(1e-3)
        .logical_and(photographs(maps).crops(64, 32, random.Random(0)).mul(255).frac().lt(1 - 1e-3))
        .any()
    )


def test_centres(maps: Path) -> None:
    centres = list(photographs(maps).centres())
    assert [tile.shape for tile in centres] == [(1, 3, 32, 32)] * 3
    wide, tall, grey = ((tile[0] * 255).round().long() for tile in centres)
    assert (int(wide[0, 0, 0]), int(wide[1, 0, 0])) == (4, 19)
    assert (int(tall[0, 0, 0]), int(tall[1, 0, 0])) == (19, 4)
    assert torch.equal(grey[0], grey[1])  # grey files have three equal channels
    assert int(grey[0, 0, 0]) == 16


def test_unusable_images_are_listed(maps: Path) -> None:
    (maps / "deeper").mkdir()
    (maps / "deeper" / "x.jpg").write_bytes(b"\xff\xd8\xff but no more")
    (maps / "0.png").write_bytes((maps / "0.png").read_bytes()[:60])
    (maps / "notes.txt").write_text("not an image by its name")
    data = photographs(maps, smallest=48)
    assert len(data.images) == 1
    for line, name, reason in zip(
        data.skipped, ("0.png", "1.png", "deeper/x.jpg"), ("", "smaller than 48 pixels", ""), strict=True
    ):
        assert line.startswith(f"{maps / name}: {reason}")


def test_hold_out(maps: Path) -> None:
    data = photographs(maps, downscale_share=0.5)
    held_out = data.hold_out(2, 40)
    assert [image.shape[1:] for image in held_out.images] == [(40, 70), (64, 64)]
    assert [image.shape[1:] for image in data.images] == [(70, 40)]
    assert {tile.shape for tile in held_out.centres()} == {(1, 3, 40, 40)}
    data = photographs(maps)
    assert [image.shape[1:] for image in data.hold_out(20, 64).images] == [(64, 64)]  # the small ones cannot serve
    assert len(data.images) == 2
    with pytest.raises(TrainingError, match="none of 2 images has 64 pixels a side to validate with"):
        data.hold_out(20, 64)
    lone = data.hold_out(1, 32)
    assert len(lone.images) == len(data.images) == 2


def test_sheet(tmp_path: Path) -> None:
    shades = [[torch.full((3, 2, 5), value) for value in row] for row in ([0.0, 0.5, 1.0], [1.0, 0.25, 0.0])]
    write_sheet(tmp_path / "sheets" / "a.png", shades)
    pixels: NDArray[np.uint8] = np.asarray(Image.open(tmp_path / "sheets" / "a.png"))
    assert pixels.shape == (4, 15, 3)
    assert pixels[::2, ::5, 0].tolist() == [[0, 128, 255], [255, 64, 0]]


# --- λ, optimiser, average -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_lambda_is_stratified(batch: int) -> None:
    config = ModelConfig()
    strata: Tensor = torch.stack([draw_lambda(config, batch, CPU) for _ in range(50)])
    assert strata.min() >= config.lambda_min * 0.999
    assert strata.max() <= config.lambda_max * 1.001
    t = (strata / config.lambda_min).log() / math.log(config.lambda_max / config.lambda_min)
    assert torch.equal((t * batch).floor().clamp(0, batch - 1), torch.arange(float(batch)).expand(50, -1))
    assert t[:, 0].std() > 0.2 / batch


def test_the_prior_learns_at_the_qualities_that_files_have() -> None:
    vqvae = cast(VQVAE, type("Stub", (), {"config": ModelConfig()})())
    drawn = set(draw_quality_lambda(vqvae, 3000, CPU).tolist())
    assert drawn == {float(torch.tensor(ModelConfig().lmbda(quality))) for quality in range(1, 101)}


def test_schedule() -> None:
    assert [schedule(0.0, step, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(0.5, 99, 0) == pytest.approx(0.5)
    assert schedule(1.0, 99, 0) == pytest.approx(0)
    assert schedule(1.5, 99, 0) == pytest.approx(0)  # minutes overrun by a step
    factors = [schedule(i / 20, 100, 0) for i in range(21)]
    assert factors == sorted(factors, reverse=True)


def test_muon_gets_the_convolution_kernels_and_adam_the_rest(tiny_config: Config) -> None:
    vqvae = VQVAE(tiny_config.model, learn="gradient")
    model = Model(vqvae, PixelCNN(tiny_config.model, tiny_config.prior))
    config = PhaseConfig(muon_lr=0.02, adam_lr=0.003)
    optimizer = Optimizer(model, config, extra_lr={"codebook": 7e-4})
    adam, muon = optimizer.optimizers
    assert isinstance(muon, torch.optim.Muon)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def of(*groups: dict[str, Any]) -> set[str]:
        return {names[id(parameter)] for group in groups for parameter in group["params"]}

    kernels = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv)}
    codebooks = {name for name in names.values() if name.endswith("codebook")}
    assert any(isinstance(module, CausalConv) for module in model.modules())
    assert of(*muon.param_groups) == kernels
    assert of(*adam.param_groups) == set(names.values()) - kernels
    assert of(adam.param_groups[1]) == codebooks != set()
    assert [[group["lr"] for group in o.param_groups] for o in optimizer.optimizers] == [[0.003, 7e-4], [0.02]]
    assert {id(p) for p in optimizer.parameters} == set(names)


def test_a_step_is_clipped_scaled_and_cleared() -> None:
    conv = Conv(2, 2, 1)
    optimizer = Optimizer(conv, PhaseConfig(clip=0.5, adam_lr=0.1, muon_lr=0.1))
    seen = []
    handle = optimizer.optimizers[0].register_step_pre_hook(lambda *_: seen.append(_norm(conv)))
    before = {name: p.detach().clone() for name, p in conv.named_parameters()}
    conv.weight.grad, conv.bias.grad = torch.full((2, 2), 30.0), torch.full((2,), 40.0)
    norm = optimizer.step(0.25)
    handle.remove()
    assert norm == pytest.approx(math.sqrt(4 * 30**2 + 2 * 40**2))
    assert seen == [pytest.approx(0.5, rel=1e-4)]
    assert all(p.grad is None for p in conv.parameters())
    assert [g["lr"] for o in optimizer.optimizers for g in o.param_groups] == [0.025, 0.025]
    assert torch.allclose(
        before["bias"] - conv.bias, torch.full((2,), 0.025), atol=1e-5
    )  # Adam's first step is the rate
    assert not torch.equal(before["weight"], conv.weight)


def _norm(module: nn.Module) -> float:
    return math.sqrt(sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_skipped(value: float) -> None:
    conv = Conv(2, 2, 1)
    optimizer = Optimizer(conv, PhaseConfig())
    for gradient in (1.0, value, 1.0):
        before = conv.bias.detach().clone()
        conv.weight.grad, conv.bias.grad = torch.ones(2, 2), torch.full((2,), gradient)
        norm = optimizer.step(1.0)
        assert math.isfinite(norm) == math.isfinite(gradient)
        assert torch.equal(conv.bias, before) == (not math.isfinite(gradient))
        assert conv.weight.isfinite().all()


def test_the_optimizer_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    results = []
    for restart in (False, True):
        torch.manual_seed(0)
        conv = Conv(3, 4)
        optimizer = Optimizer(conv, PhaseConfig())
        for step in range(4):
            if restart and step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = Optimizer(conv, PhaseConfig())
                optimizer.load_state_dict(state)
            conv.weight.grad = torch.sin(torch.arange(4.0 * 27) * (step + 1)).view(4, 27)
            conv.bias.grad = torch.cos(torch.arange(4.0) * (step + 1))
            optimizer.step(1.0 / (step + 1))
        results.append(torch.cat([conv.weight.flatten(), conv.bias]))
    assert torch.equal(results[0], results[1])


def test_average() -> None:
    module = Number()
    average = Average(module, 0.9)
    averaged = cast(Number, average.module)
    expected = 1.0
    for step, value in enumerate([2.0, 3.0, 5.0, 8.0]):
        module.weight.data.fill_(value)
        module.seen.fill_(-value)
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(averaged.weight) == pytest.approx(expected)
        assert float(averaged.seen) == -value  # buffers are averages themselves
    average.update(module, 10**6)
    assert float(averaged.weight) == pytest.approx(0.9 * expected + 0.1 * 8)
    assert not averaged.training
    assert not averaged.weight.requires_grad
    assert module.weight.requires_grad


# --- codes and export ------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_state(tiny_data: Path, tiny_config: Config, tmp_path: Path) -> Run:
    data = Photographs(image_files(tiny_data / "val"), CPU, smallest=64)
    return Run(tmp_path, tiny_config.train, CPU, data, data, quiet=True)


@pytest.fixture
def tiny_model(tiny_run: Path, tiny_config: Config) -> Model:
    model = Model(VQVAE(tiny_config.model), PixelCNN(tiny_config.model, tiny_config.prior))
    model.load_state_dict(torch.load(tiny_run / "joint.pt", weights_only=True)["average"])
    return model


def test_dead_codes_are_moved_only_while_there_is_time(tiny_state: Run, tiny_model: Model) -> None:
    phase = CodesPhase(tiny_state, tiny_model.vqvae)
    quantizers = tiny_model.vqvae.quantizers()
    assert len(quantizers) == 3
    for quantizer in quantizers:
        quantizer.usage[0, :3] = 0
    before = [quantizer.codebook.clone() for quantizer in quantizers]
    assert phase.after_step(199, 0.1) == {}
    late = phase.after_step(200, 0.5)
    perplexities = {f"perplexity_{i}" for i in range(3)}
    assert late.keys() == perplexities
    assert all(torch.equal(a, q.codebook) for a, q in zip(before, quantizers, strict=True))
    early = phase.after_step(400, 0.49)
    assert early.keys() == perplexities | {f"revived_{i}" for i in range(3)}
    assert early["revived_0"] >= 3
    assert all(not torch.equal(a[0, 1:3], q.codebook[0, 1:3]) for a, q in zip(before, quantizers, strict=True))
    assert all(1 <= early[f"perplexity_{i}"] <= 16 for i in range(3))


def test_codebooks_are_fitted_alike_whatever_came_before(tiny_state: Run, tiny_model: Model) -> None:
    fitted = []
    start = {name: tensor.clone() for name, tensor in tiny_model.vqvae.state_dict().items()}
    for seed in range(2):
        torch.manual_seed(seed)
        tiny_model.vqvae.load_state_dict(start)
        phase = CodesPhase(tiny_state, tiny_model.vqvae)
        phase.rng.seed(seed)
        phase.seed("prepare")
        phase.prepare()
        fitted.append([tensor.clone() for tensor in tiny_model.vqvae.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*fitted, strict=True))


def test_distortion_weights_are_those_of_the_best_curve(
    tiny_state: Run, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model whose curve is known: one level is best at 2, the others as they were."""
    best = (1.0, 2.0, 1.0)
    quantizers = [m for m in tiny_model.vqvae.modules() if isinstance(m, VectorQuantizer)]

    def bits(self: PixelCNN, codes: list[Tensor], lmbda: Tensor) -> list[Tensor]:
        wrong = sum(abs(math.log(q.distortion_weight / b)) for q, b in zip(quantizers, best, strict=True))
        return [(1 + wrong) * lmbda.sqrt() * 1000]

    def decode(self: VQVAE, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        # Squared error weighs more, so PSNR rises as well: that must not pay by itself.
        x_hat: Tensor = codes[0] + 0.01 / (lmbda * quantizers[1].distortion_weight).sqrt()
        return x_hat

    monkeypatch.setattr(VQVAE, "encode", lambda self, x, lmbda: [x])
    monkeypatch.setattr(VQVAE, "decode", decode)
    monkeypatch.setattr(PixelCNN, "forward", bits)
    found = distortion_weights(tiny_state, tiny_model)
    assert found == best == tuple(q.distortion_weight for q in quantizers)


def test_qualities_are_evenly_spaced_in_decibels(
    tiny_state: Run, tiny_model: Model, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model whose PSNR is known: 20·√place dB, place being 0..1 along log λ."""
    low, high = (math.log(bound) for bound in (tiny_config.model.lambda_min, tiny_config.model.lambda_max))

    def decode(self: VQVAE, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        place = max(0.0, (float(lmbda.log()) - low) / (high - low))
        return codes[0] + 10 ** -math.sqrt(place)

    monkeypatch.setattr(VQVAE, "encode", lambda self, x, lmbda: [x])
    monkeypatch.setattr(VQVAE, "decode", decode)
    scale = quality_scale(tiny_state, tiny_model.vqvae)
    # Linear between its points, and steepest at the low end.
    assert scale == pytest.approx([(i / (len(scale) - 1)) ** 2 for i in range(len(scale))], abs=0.025)
    model = dataclasses.replace(tiny_config.model, quality_scale=scale)
    decibels = [20 * math.sqrt((math.log(model.lmbda(q)) - low) / (high - low) + 1e-12) for q in range(10, 101, 10)]
    assert np.diff(decibels)[2:] == pytest.approx([20 * 10 / 99] * 7, rel=0.15)


def test_the_quality_scale_of_a_model_that_is_the_same_at_every_quality(
    tiny_state: Run, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VQVAE, "decode", lambda self, codes, lmbda: torch.zeros(1, 3, 64, 64))
    scale = quality_scale(tiny_state, tiny_model.vqvae)
    assert scale == pytest.approx([i / (len(scale) - 1) for i in range(len(scale))])


def test_a_diverged_model_is_not_exported(tiny_state: Run, tiny_model: Model, tiny_config: Config) -> None:
    cast(Any, tiny_model.vqvae).start.data[0] = math.nan
    with pytest.raises(WeightsError, match=r"m\.safetensors: tensor vqvae\.start is not finite"):
        export_weights(tiny_state, tiny_model, tiny_config, Path("data"), name="m")
    assert not list(tiny_state.folder.iterdir())


def test_a_card_is_written_from_a_damaged_log(
    tiny_state: Run, tiny_model: Model, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.train.export.QUALITIES", (50,))
    log = [
        '{"phase": "vae", "step": 3, "minutes": 1.5, "loss": 2.5}',
        '{"phase": "vae", "step": 4, "loss": null}',
        '{"pha',
    ]
    (tiny_state.folder / "log.jsonl").write_text("\n".join(log))
    path = export_weights(tiny_state, tiny_model, tiny_config, Path("."), name="m")
    assert "| vae | 3 | 1.5 | 64 | 4 | 2.5000 |" in path.with_suffix(".md").read_text(encoding="utf-8")


# --- more than one process -------------------------------------------------------------------------------------


def test_alone_nothing_is_exchanged() -> None:
    conv = Conv(1, 1, 1)
    distributed.average_gradients(list(conv.parameters()))
    assert conv.weight.grad is None
    assert (distributed.rank(), distributed.is_main(), distributed.from_main(0.5)) == (0, True, 0.5)
    assert distributed.start(CPU) == CPU


def together(code: str, folder: Path, *arguments: str, timeout: float) -> list[str]:
    """What each of two processes prints that run ``code`` as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(vqcodec.train.__file__).parents[2])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    environment = os.environ | shared | {"PYTHONPATH": root}
    command = [sys.executable, "-c", code, *arguments]
    processes = [
        subprocess.Popen(
            command,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [output for output, _ in outputs]


EXCHANGES = """
import torch
from vqcodec.files.images import image_files
from vqcodec.networks.layers import Conv
from vqcodec.train import distributed as d
device = d.start(torch.device("cpu"))
rank = d.rank()
conv = Conv(1, 2, 1)
torch.nn.init.constant_(conv.weight, rank + 5.0)
d.broadcast(conv)
conv.weight.grad = torch.tensor([[1.0], [rank]])
if rank: conv.bias.grad = torch.ones(2)
d.average_gradients([conv.weight, conv.bias])
print(conv.weight.tolist(), conv.weight.grad.tolist(), conv.bias.grad.tolist(), d.from_main(rank + 0.25), d.is_main())
d.wait()
d.finish()
"""


@pytest.mark.slow
def test_two_processes_exchange(tmp_path: Path) -> None:
    same = "[[5.0], [5.0]] [[1.0], [0.5]] [0.5, 0.5] 0.25"
    assert together(EXCHANGES, tmp_path, timeout=120) == [f"{same} True\n", f"{same} False\n"]


TRAINING = """
import hashlib, json, sys
from pathlib import Path
import vqcodec.train, vqcodec.train.codes, vqcodec.train.export
from vqcodec.config import Config
from vqcodec.networks.quantize import VectorQuantizer
from vqcodec.train.codes import CodesPhase
vqcodec.train.EVALUATION_CROP = 64
vqcodec.train.codes.REVIVE_STEPS = 1
vqcodec.train.export.QUALITIES = (50,)

def show(name, module):
    tensors = b"".join(tensor.contiguous().numpy().tobytes() for tensor in module.state_dict().values())
    print(name, hashlib.sha256(tensors).hexdigest())

def run_phase(phase, honest=vqcodec.train.run_phase):
    average = honest(phase)
    show(phase.name, phase.module)
    show(phase.name, average)
    return average

def after_step(self, step, progress, honest=CodesPhase.after_step):
    figures = honest(self, step, progress)
    show(f"revived {sum('revived' in name for name in figures)}", self.module)
    return figures

vqcodec.train.run_phase, CodesPhase.after_step = run_phase, after_step
data, config = Path(sys.argv[1]), Config.from_dict(json.loads(sys.argv[2]))
print(vqcodec.train.run(data, Path("run"), config, device="cpu", quiet=True, validation_dir=data.parent / "val"))
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tiny_data: Path, short: Config, tmp_path: Path) -> None:
    """The same weights and codebooks everywhere, also where a clock ends a phase and codes are revived."""
    timed = dataclasses.replace(short.train.vae, steps=10**6, minutes=0.02)
    config = dataclasses.replace(short, train=dataclasses.replace(short.train, vae=timed, revive_below=0.05))
    text = json.dumps(config.to_dict()).replace("Infinity", "1e9")
    first, second = together(TRAINING, tmp_path, str(tiny_data / "train"), text, timeout=300)
    assert first == second
    assert [line.split()[0] for line in first.splitlines()[:-1] if "revived" not in line] == sorted(
        PHASES * 2, key=PHASES.index
    )
    assert first.count("revived 3") == 2
    assert Codec.load(tmp_path / "run" / "compact.safetensors", device="cpu").name == "compact"
    evaluated = [entry["phase"] for entry in entries(tmp_path / "run") if entry.get("evaluation")]
    assert evaluated == PHASES  # by one process only
