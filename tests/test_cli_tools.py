"""The commands ``train`` and ``rd-curve``; the functions that they start have their own tests."""

import dataclasses
import json
import math
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from tests.command import fails, vq
from vqcodec.config import Config


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The calls that reach a stand-in for ``vqcodec.train.run``."""
    calls: list[tuple[Any, ...]] = []

    def run(
        data_dir: Path, run_dir: Path, config: Config, *, device: str, resume: bool, quiet: bool, **options: Any
    ) -> Path:
        assert options.pop("since") <= time.monotonic()
        calls.append((data_dir, run_dir, config, device, resume, quiet, options))
        return run_dir / "compact.decoder.safetensors"

    module = types.ModuleType("vqcodec.train")
    module.run = run  # type: ignore[attr-defined]
    module.shortfall = lambda folder: "barely" if folder == Path("short") else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vqcodec.train", module)
    return calls


def test_train(folder: Path, trainer: list[tuple[Any, ...]]) -> None:
    Path("data").mkdir()
    Path("small.toml").write_text("[train]\nseed = 7\n")
    result = vq("train", "data", "-o", "run")
    assert (result.exit_code, result.output) == (0, "run/compact.decoder.safetensors: weights of a finished run\n")
    options = ["--config", "small.toml", "--device", "cpu", "--resume", "--quiet"]
    assert vq("train", "data", "-o", "run", *options).output == ""
    data, run = Path("data"), Path("run")
    defaults = {"validation_dir": None, "init": None, "stop_after": math.inf, "name": None}
    assert trainer[0] == (data, run, Config(), "auto", False, False, defaults)
    assert trainer[1] == (data, run, Config.from_dict({"train": {"seed": 7}}), "cpu", True, True, defaults)


def test_train_as_json(folder: Path, trainer: list[tuple[Any, ...]]) -> None:
    result = vq("train", ".", "-o", "run", "--json")
    assert json.loads(result.stdout) == {
        "run": "run",
        "weights": str(Path("run/compact.decoder.safetensors")),
        "paused": None,
        "shortfall": None,
    }
    assert trainer[0][5] is True  # quiet
    assert json.loads(vq("train", ".", "-o", "short", "--json").stdout)["shortfall"] == "barely"


def test_train_for_minutes(folder: Path, trainer: list[tuple[Any, ...]]) -> None:
    result = vq("train", ".", "-o", "short", "--minutes", "2")
    assert result.output == "short/compact.decoder.safetensors: barely\n"
    train = trainer[0][2].train
    assert train == dataclasses.replace(Config().train, minutes=2.0)


def test_train_refuses_before_it_starts(folder: Path, trainer: list[tuple[Any, ...]]) -> None:
    Path("bad.toml").write_text("[train]\nsede = 7\n")
    fails(vq("train", "missing", "-o", "run"), "missing: not a folder")
    fails(vq("train", ".", "-o", "run", "--config", "bad.toml"), "bad.toml: ", "sede")
    fails(vq("train", ".", "-o", "run", "--config", "none.toml"), "none.toml: ")
    assert not trainer


def test_train_options(folder: Path, trainer: list[tuple[Any, ...]]) -> None:
    options = ["--validation", "val", "--init", "old", "--name", "new", "--stop-after", "1.5"]
    assert vq("train", ".", "-o", "run", *options).exit_code == 0
    expected = {"validation_dir": Path("val"), "init": Path("old"), "name": "new", "stop_after": 1.5}
    assert trainer[0][-1] == expected
