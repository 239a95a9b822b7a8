"""The decoder for browsers: models of every shape, and damaged files."""

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.browser import DIST
from benchmarks.browser_damage import measure
from benchmarks.damage import CLASSES
from benchmarks.reliability import PIECES, small_file
from benchmarks.shipped import codes_digest
from vqcodec.codec import Codec
from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.exact import entropy
from vqcodec.exact.prior import FixedPrior
from vqcodec.files.alpha import pack_alpha
from vqcodec.files.container import Container, pack
from vqcodec.geometry import Geometry
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.weights import save_weights

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DECODE = Path(__file__).parents[1] / "web" / "build" / "decode.mjs"  # `make web` builds it
NODE = shutil.which("node")
MODELS = {
    "pixels": ModelConfig(
        levels=(
            LevelConfig(stride=8, groups=4, dim=3, codebook_size=5, stages=2),
            LevelConfig(stride=4, groups=3, dim=1, codebook_size=16, stages=3),
            LevelConfig(stride=4, groups=4, dim=2, codebook_size=8, stages=1, pixels=True),
        ),
        patch=2,
        widths=(6, 12, 9),
        blocks=(1, 0, 2),
    ),
    "deep": ModelConfig(
        levels=(
            LevelConfig(stride=32, groups=4, dim=2, codebook_size=256, stages=2),
            LevelConfig(stride=16, groups=6, dim=2, codebook_size=256, stages=3),
            LevelConfig(stride=8, groups=28, dim=3, codebook_size=200, stages=4),
        ),
        widths=(8, 16, 16, 20),
        blocks=(1, 3, 2, 1),
        second_kernel=1,
        quality_scale=(0.0, 0.3, 1.0),
    ),
    "single": ModelConfig(
        levels=(LevelConfig(stride=4, groups=1, dim=4, codebook_size=32, stages=1),),
        widths=(16,),
        blocks=(1,),
        second_kernel=5,
    ),
}
A = 1023  # the largest activation


@pytest.mark.skipif(NODE is None or not DECODE.exists(), reason="no node, or `make web` has not been run")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("height", "width", "grey"), [(70, 83, False), (130, 41, True), (1, 1, False)])
def test_a_file_of_any_model(name: str, height: int, width: int, grey: bool, tmp_path: Path) -> None:
    model, prior = MODELS[name], PriorConfig(channels=12, layers=2, context_layers=1)
    torch.manual_seed(24)
    rng = np.random.default_rng(24)
    tensors = fixed_point(PixelCNN(model, prior))
    for key, tensor in tensors.items():  # large entries, so that sums reach the clamps
        if key.endswith(("embed", "inner", "quality")):
            tensors[key] = torch.from_numpy(rng.choice([-1, 0, 1], tuple(tensor.shape)) * A).to(tensor.dtype)
    weights = tmp_path / f"{name}.decoder.safetensors"
    fingerprint = save_weights(weights, name, VQVAE(model), prior, tensors)[:4]
    codec = Codec.load(weights, device="cpu")
    shapes = [
        (level.groups, *grid)
        for level, grid in zip(model.levels, Geometry(height, width, model.strides).grids, strict=True)
    ]
    sizes = [level.codebook_size for level in model.levels]
    codes = [rng.integers(0, size, shape, np.int16) for size, shape in zip(sizes, shapes, strict=True)]
    levels = tuple(level.bitstream for level in entropy.encode(FixedPrior(tensors, model, prior), codes, 40))
    spots = rng.integers(0, 256, (height, width)) * (rng.random((height, width)) < 0.1)
    alpha = (spots + np.arange(width)).astype(np.uint8)
    chunks = ((b"Alph", pack_alpha(alpha)), (b"note", b"hi"))
    data = pack(Container(width, height, grey, 40, fingerprint, levels, chunks))
    (tmp_path / "file.vq").write_bytes(data)
    assert NODE is not None
    command = [NODE, str(DECODE), str(weights), str(tmp_path / "file.vq"), str(tmp_path / "pixels")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == codes_digest(codes)
    found = np.frombuffer((tmp_path / "pixels").read_bytes(), np.uint8)
    pixels, opacity = np.split(found, [3 * height * width])
    expected = codec.decode(codes, 40, height, width, grey=grey)
    assert np.abs(pixels.reshape(height, width, 3).astype(int) - expected).max() <= 1
    assert np.array_equal(opacity.reshape(height, width), alpha)


@pytest.mark.slow
@pytest.mark.skipif(not DIST.exists(), reason="`make web` has not been run")
def test_damaged_files_in_a_browser(browser: "Browser", codec: Codec, root: Path) -> None:
    """Each is refused, shown in part or shown as by the codec; the last class takes seconds a file."""
    images = sorted((root / "examples").glob("*.png"))
    files = [small_file(codec, image, *piece) for image, piece in zip(images, PIECES, strict=False)]
    for index in range(len(CLASSES) - 1):
        row = measure(browser, codec, files, index, 10)
        assert row["inputs"] == 10
        assert row["refused"] + row["salvaged"] > 0
        assert row["memory_bytes"] < 2**31  # the limit of each half of the decoder
