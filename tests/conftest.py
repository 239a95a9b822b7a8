"""Fixtures that several test modules share."""

import dataclasses
import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from vqcodec.config import Config

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from vqcodec.codec import Codec
    from vqcodec.train.joint import Model
    from vqcodec.train.loop import Run

ROOT = Path(__file__).resolve().parents[1]

# Several processes run tests at a time: a thread that waits must leave its core to them. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Every run has the same examples, so that a failure comes from a change of the code. No deadline: CI machines stall.
hypothesis.settings.register_profile("vqcodec", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("vqcodec")

# Processes that a shell starts in the background ignore interrupts, but tests send interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def codec() -> "Codec":
    """The shipped model on the CPU, both sides."""
    from vqcodec.codec import Codec

    codec = Codec.load(device="cpu")
    codec.load_encoder()
    return codec


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """128 rows of 192 pixels from the centre of the first photograph in ``examples/``; ``[128, 192, 3]``."""
    from PIL import Image

    path = min((ROOT / "examples").glob("*.png"))
    with Image.open(path) as image:
        left, top = (image.width - 192) // 2, (image.height - 128) // 2
        return np.asarray(image.convert("RGB").crop((left, top, left + 192, top + 128)))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train/`` (six crops of photographs and a broken file) and ``val/`` (two other crops)."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    (folder / "train" / "more").mkdir(parents=True)
    (folder / "val").mkdir()
    for path in sorted((ROOT / "examples").glob("*.png")):
        with Image.open(path) as image:
            for i in range(3):
                left, top = 60 + 60 * i, 20 + 40 * i
                piece = image.convert("RGB").crop((left, top, left + 128, top + 96))
                piece.save(folder / "train" / ("more" if i == 2 else "") / f"{path.stem}{i}.png")
            image.convert("RGB").crop((100, 150, 196, 214)).save(folder / "val" / f"{path.stem}.png")
    (folder / "train" / "broken.png").write_bytes(b"\x89PNG, but no more")
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Two levels of the trunk and one of pixels, at the smallest size that learns anything within seconds.

    It states everything that its training depends on, so that a change of the defaults does not change it.
    """
    levels = [
        {"stride": stride, "groups": groups, "codebook_size": 16, "stages": 2, "pixels": pixels}
        for stride, groups, pixels in [(16, 2, False), (8, 4, False), (8, 6, True)]
    ]
    phases: dict[str, dict[str, float]] = {
        "vae": {"steps": 100, "minutes": 150, "muon_lr": 0.01, "adam_lr": 1.5e-3},
        "codes": {"steps": 30, "minutes": 35, "muon_lr": 0.003, "adam_lr": 5e-4},
        "prior": {"steps": 100, "minutes": 45, "muon_lr": 0.01, "adam_lr": 2e-3},
        "joint": {"steps": 5, "minutes": 120, "muon_lr": 0.001, "adam_lr": 2e-4},
    }
    return Config.from_dict(
        {
            "model": {
                "levels": levels,
                "widths": [8, 16, 16],
                "blocks": [1, 1, 1],
                "second_kernel": 3,
                "lambda_min": 0.005,
                "lambda_max": 0.3,
            },
            "prior": {"channels": 16, "layers": 1, "context_layers": 1},
            "train": {
                **{
                    name: {"batch": 4, "crop": 64, "warmup": 5, "cooldown": 1.0} | phase
                    for name, phase in phases.items()
                },
                "ema": 0.999,
                "downscale_share": 0.25,
                "downscale_max": 2.0,
                "grain": 0.0,
                "drawn_share": 0.0,
                "linear_start": False,
                "rounded": False,
                "evaluation_crop": 64,
            },
        }
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training run of ``tiny_config``, which exported ``tiny.decoder.safetensors``."""
    import vqcodec.train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    vqcodec.train.run(
        tiny_data / "train",
        folder,
        tiny_config,
        device="cpu",
        quiet=True,
        validation_dir=tiny_data / "val",
        name="tiny",
    )
    return folder


@pytest.fixture
def tiny_model(tiny_run: Path, tiny_config: Config) -> "Model":
    """The averaged VQ-VAE and prior of ``tiny_run``."""
    import torch

    from vqcodec.networks.pixelcnn import PixelCNN
    from vqcodec.networks.vqvae import VQVAE
    from vqcodec.train.joint import Model

    model = Model(VQVAE(tiny_config.model), PixelCNN(tiny_config.model, tiny_config.prior))
    model.load_state_dict(torch.load(tiny_run / "joint.pt", weights_only=True)["average"])
    return model


@pytest.fixture
def tiny_state(tiny_data: Path, tiny_config: Config, tmp_path: Path) -> "Run":
    """A run of ``tiny_config`` before its first step, in an empty folder, with the validation images as data."""
    import torch

    from vqcodec.files.images import image_files
    from vqcodec.train.data import Photographs
    from vqcodec.train.loop import Run

    device = torch.device("cpu")
    data = Photographs(image_files(tiny_data / "val"), device, smallest=64)
    return Run(tmp_path, tiny_config.train, device, data, data, quiet=True)


@pytest.fixture(scope="session")
def short_config(tiny_config: Config) -> Config:
    """``tiny_config`` with four steps a phase, and a checkpoint after each."""
    phase = dataclasses.replace(tiny_config.train.vae, steps=4, batch=2)
    train = dataclasses.replace(
        tiny_config.train, vae=phase, codes=phase, prior=phase, joint=phase, checkpoint_minutes=0.0, fit_batches=2
    )
    return dataclasses.replace(tiny_config, train=train)


@pytest.fixture(scope="session")
def tiny_weights(tiny_run: Path) -> Path:
    """The decoder side that ``tiny_run`` exported; the encoder side lies next to it."""
    return tiny_run / "tiny.decoder.safetensors"


@pytest.fixture(scope="session")
def tiny_codec(tiny_weights: Path) -> "Codec":
    """``tiny_weights`` on the CPU, both sides. Its images are poor, its files real, and it takes milliseconds."""
    from vqcodec.codec import Codec

    codec = Codec.load(tiny_weights, device="cpu")
    codec.load_encoder()
    return codec


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser without a window; without one, the test is skipped, and fails where CI is true."""
    from tests.browser import started

    yield from started()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, in which the test must leave no temporary files."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".")]


@pytest.fixture
def bound(tmp_path: Path) -> None:
    """Skips the test for a user whom permissions do not bind, such as root."""
    (tmp_path / ".closed").touch(mode=0)
    bound = not os.access(tmp_path / ".closed", os.R_OK)
    (tmp_path / ".closed").unlink()
    if not bound:
        pytest.skip("needs a user whom permissions bind")


@pytest.fixture
def picture(folder: Path) -> NDArray[np.uint8]:
    """The pixels of ``photo.png`` in the current folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    from PIL import Image

    Image.fromarray(pixels).save("photo.png")
    return pixels


@pytest.fixture
def packed(picture: NDArray[np.uint8]) -> bytes:
    """The bytes of ``photo.vq`` in the current folder, a container with all kinds of content."""
    from tests.command import FINGERPRINT
    from vqcodec.files.container import Container, pack

    level = zlib.compress(picture.tobytes())
    chunks = ((b"noTe", b"three"),)
    data = pack(Container(12, 8, False, 60, FINGERPRINT, (level, b"\0" * 20), chunks))
    Path("photo.vq").write_bytes(data)
    return data
