"""The commands of the study bench."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.command import fails, vq
from vqcodec.files.images import write_image


@pytest.fixture
def photo(folder: Path, photograph: NDArray[np.uint8]) -> Path:
    write_image("photo.png", photograph[:64, :96])
    return folder / "photo.png"


def test_inspect(photo: Path, tiny_weights: Path) -> None:
    result = vq("inspect", "photo.png", "-o", "out", "--weights", str(tiny_weights), "--device", "cpu")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["bits", "a", "pixel", "uniform", "static", "PixelCNN", "saved"]
    assert lines[-1] == f"{Path('out', 'index.html')}: the page"
    again = ["inspect", "photo.png", "-o", "out", "--weights", str(tiny_weights), "--quiet"]
    fails(vq(*again), "out: holds files")
    assert vq(*again, "-f").output == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.png"], "none.png: cannot be read: No such file"),
        (["empty"], "empty: holds no images"),
        (["broken.png"], "broken.png: not an image"),
    ],
)
def test_inspect_refuses(photo: Path, tiny_weights: Path, arguments: list[str], said: str) -> None:
    Path("empty").mkdir()
    Path("broken.png").write_bytes(b"no image")
    fails(vq("inspect", *arguments, "-o", "out", "--weights", str(tiny_weights)), said)
    assert not Path("out").exists()


def test_sample(photo: Path, tiny_weights: Path) -> None:
    options = ["--weights", str(tiny_weights), "--device", "cpu"]
    result = vq("sample", "-o", "a.png", "-n", "3", "--size", "48x32", *options)
    assert (result.exit_code, result.output) == (0, "a.png: 3 samples of 48×32\n")
    assert vq("sample", "-o", "b.png", "-n", "3", "--size", "48x32", "--quiet", *options).output == ""
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    fails(vq("sample", "-o", "a.png", *options), "a.png: exists already")
    kept = ["-n", "1", "--levels-from", "photo.png:1", "--temperature", "0.7"]
    assert vq("sample", "-o", "c.png", *kept, *options).stdout == "c.png: 1 sample of 96×64\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--temperature", "-1"], "expected a number such as 0.8"),
        (["--temperature", "nan"], "expected a number such as 0.8"),
        (["--levels-from", "photo.png"], "expected an image and a number of levels"),
        (["--levels-from", "photo.png:3"], "expected 1 to 2 of this model"),
        (["--levels-from", "photo.png:1", "--size", "8x8"], "cannot be combined"),
        (["--size", "0x8"], "expected a size such as 640x480"),
        (["--size", "9999x8"], "at most 4096 pixels a side"),
        (["--size", "4096x4096", "-n", "9"], "9 samples of 4096×4096 are more than 134,217,728 pixels"),
        (["--size", "big"], "expected a size such as 640x480"),
    ],
)
def test_sample_explains_wrong_usage(photo: Path, tiny_weights: Path, arguments: list[str], said: str) -> None:
    result = vq("sample", "-o", "a.png", "--weights", str(tiny_weights), *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not Path("a.png").exists()


def test_interpolate(photo: Path, photograph: NDArray[np.uint8], tiny_weights: Path) -> None:
    write_image("other.png", photograph[64:100, :80])
    options = ["--weights", str(tiny_weights), "--device", "cpu"]
    result = vq("interpolate", "photo.png", "other.png", "-o", "strip.png", "--steps", "3", *options)
    assert (result.exit_code, result.output) == (0, "strip.png: 3 steps of 80×36\n")
    fails(vq("interpolate", "photo.png", "other.png", "-o", "strip.png", *options), "strip.png: exists already")
    fails(vq("interpolate", "photo.png", "none.png", "-o", "new.png", *options), "none.png: cannot be read")
    assert vq("interpolate", "photo.png", "other.png", "-o", "new.png", "--steps", "1").exit_code == 2
    assert not Path("new.png").exists()


def test_results_as_json(photo: Path, tiny_weights: Path) -> None:
    options = ["--json", "--weights", str(tiny_weights), "--device", "cpu"]
    (rates,) = (json.loads(line) for line in vq("inspect", "photo.png", "-o", "out", *options).stdout.splitlines())
    assert rates["output"] == str(Path("out", "index.html"))
    assert all(level["uniform"] > level["prior"] for level in rates["bits_a_pixel"])
    drawn = json.loads(vq("sample", "-o", "a.png", "-n", "2", "--size", "48x32", *options).stdout)
    assert drawn == {"output": "a.png", "samples": 2, "width": 48, "height": 32, "seed": 0}
    walk = json.loads(vq("interpolate", "photo.png", "photo.png", "-o", "b.png", *options).stdout)
    assert walk == {"output": "b.png", "steps": 5, "width": 96, "height": 64}
