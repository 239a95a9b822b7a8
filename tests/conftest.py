"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vqcodec.codec import Codec

ROOT = Path(__file__).resolve().parents[1]

# The same examples on every run, so that a failure is the change's fault, and no deadline: CI machines stall.
hypothesis.settings.register_profile("vqcodec", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("vqcodec")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def codec() -> "Codec":
    """The shipped model on the CPU."""
    from vqcodec.codec import Codec

    return Codec.load(device="cpu")


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """128 rows of 192 pixels from the middle of the first photograph in ``examples/``; ``[128, 192, 3]``."""
    from PIL import Image

    path = min((ROOT / "examples").glob("*.png"))
    with Image.open(path) as image:
        left, top = (image.width - 192) // 2, (image.height - 128) // 2
        return np.asarray(image.convert("RGB").crop((left, top, left + 192, top + 128)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder that must hold no temporary files in the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".")]
