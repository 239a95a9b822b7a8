"""The commands of the study bench."""

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
