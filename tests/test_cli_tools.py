"""The commands ``train``, ``rd-curve`` and ``blind``; the functions that they start have their own tests."""

import dataclasses
import json
import math
import re
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.command import fails, vq
from vqcodec.config import Config
from vqcodec.files.images import write_image


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
    module.shortfall = lambda folder, _: "barely" if folder == Path("short") else None  # type: ignore[attr-defined]
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


@pytest.fixture
def crop(folder: Path, photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels of ``in/photo.png``; ``in/broken.png`` is no image."""
    pixels = photograph[:96, :128]
    Path("in").mkdir()
    write_image("in/photo.png", pixels)
    Path("in", "broken.png").write_bytes(b"no picture")
    return pixels


def test_blind(crop: NDArray[np.uint8], tiny_weights: Path) -> None:
    rate = 8 * len(compress(crop, 50, tiny_weights)) / crop[:, :, 0].size
    command = ["blind", "in/photo.png", "-o", "page.html", "--bpp", f"{rate:.2f},24", "--effort", "0"]
    command += ["--anchors", "jpeg,webp", "--weights", str(tiny_weights)]
    result = vq(*command)
    asked = re.fullmatch(r"page\.html: (\d) questions\n", result.output)
    assert result.exit_code == 0
    assert asked
    assert 1 <= int(asked[1]) <= 3  # no codec has files of 24 bpp
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "photo" not in page
    fails(vq(*command), "page.html: exists already")
    assert vq(*command, "-f", "--quiet").output == ""
    piped = vq(*command[:3], "-", *command[4:])
    assert (piped.stdout, piped.stderr) == (page, f"standard output: {asked[1]} questions\n")


def test_blind_names_and_leaves_out_what_is_no_image(crop: NDArray[np.uint8], tiny_weights: Path) -> None:
    options = ["--bpp", "2", "--effort", "0", "--anchors", "jpeg,webp", "--weights", str(tiny_weights)]
    result = vq("blind", "in", "-o", "page.html", *options)
    assert result.exit_code == 1
    assert result.stderr == "vqcodec: error: broken.png: skipped: not an image that Pillow can read\n"
    assert Path("page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.png", "-o", "p.html"], 1, "none.png: does not exist"),
        (["in/photo.png", "-o", "none/p.html"], 1, "none/p.html: cannot be written: there is no such folder"),
        (["in/photo.png", "-o", "p.html", "--anchors", "none", "--effort", "0"], 1, "p.html: nothing to ask: no two"),
        (["in/photo.png", "-o", "p.html", "--anchors", "jpeg2000"], 2, "expected some of jpeg,webp,avif,jpegxl,heif"),
        (["in/photo.png", "-o", "p.html", "--bpp", "0"], 2, "expected bits per pixel such as 0.1,0.2,0.4"),
        (["in/photo.png", "-o", "p.html", "--bpp", "nan"], 2, "expected bits per pixel"),
        (["in/photo.png", "-o", "p.html", "--bpp", "a,b"], 2, "expected bits per pixel"),
        (["in/photo.png", "-o", "p.html", "--weights", "none"], 1, "none: cannot be read"),
    ],
)
def test_blind_refuses(crop: NDArray[np.uint8], tiny_weights: Path, arguments: list[str], code: int, said: str) -> None:
    if "--weights" not in arguments:
        arguments = [*arguments, "--weights", str(tiny_weights)]
    result = vq("blind", *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not Path("p.html").exists()


def compress(pixels: NDArray[np.uint8], quality: int, weights: Path) -> bytes:
    from vqcodec.codec import Codec

    return Codec.load(weights, device="cpu").compress(pixels, quality, effort=0)
