"""CompressAI's JSON of results, and the codec for its bench, without CompressAI and, where it is installed, with it."""

import argparse
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.command import run_module
from tests.rd_example import example
from vqcodec import metrics
from vqcodec.config import DEFAULT_EFFORT
from vqcodec.errors import ImageError
from vqcodec.files.images import write_image
from vqcodec.rd.compressai import Vqcodec, main, write_curves
from vqcodec.rd.overlay import read_overlay
from vqcodec.rd.result import MeasuredCurve

TIMES = {"encoding_time", "decoding_time"}


def curves() -> list[MeasuredCurve]:
    report = example()
    return [MeasuredCurve.from_json(report), MeasuredCurve.from_json(report["anchors"][0])]


def follows_the_schema(content: Any, points: int) -> None:
    """What ``compressai.utils.bench`` prints, ``compressai.utils.plot`` reads, and its repository holds."""
    assert set(content) == {"name", "description", "results"}
    assert isinstance(content["name"], str)
    assert isinstance(content["description"], str)
    assert {"bpp", "psnr-rgb", *TIMES} <= set(content["results"])
    for values in content["results"].values():
        assert len(values) == points
        assert all(type(value) in (int, float) for value in values)


def test_curves_have_compressais_shape_and_come_back_as_overlays(tmp_path: Path) -> None:
    folder = tmp_path / "compressai"
    own, jpeg = curves()
    write_curves(folder, [own, jpeg])
    write_curves(folder, [own])
    assert [path.name for path in folder.iterdir()] == ["vqcodec.json"]  # nothing of an earlier report
    write_curves(folder, [own, jpeg])
    for curve in (own, jpeg):
        path = folder / f"{curve.name}.json"
        follows_the_schema(json.loads(path.read_text(encoding="utf-8")), points=3)
        (again,) = read_overlay(path)
        assert again.label == curve.label
        assert again.description == curve.description
        assert again.results == {key: values for key, values in curve.results.items() if key not in TIMES}


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    Vqcodec.setup_args(parser)
    return parser.parse_args(["--device", "cpu", *arguments])


def test_options_of_the_bench() -> None:
    assert vars(options()) == {"effort": DEFAULT_EFFORT, "weights": None, "device": "cpu"}
    assert vars(options("--effort", "0", "--weights", "x")) == {"effort": 0, "weights": "x", "device": "cpu"}


@pytest.fixture
def codec(tiny_weights: Path) -> Vqcodec:
    made: Vqcodec = pickle.loads(pickle.dumps(Vqcodec(options("--effort", "0", "--weights", str(tiny_weights)))))
    return made


@pytest.mark.slow  # as everything that needs a trained model
def test_a_picture_is_coded_and_measured(
    codec: Vqcodec, photograph: NDArray[np.uint8], folder: Path, tiny_weights: Path
) -> None:
    x = np.tile(photograph, (2, 1, 1))
    write_image("x.png", x)
    assert codec.name == "vqcodec"
    assert codec.description.endswith("effort 0")
    assert "model tiny" in codec.description
    run = codec.run("x.png", 60, ["psnr-rgb", "ms-ssim-rgb"], return_rec=True)
    assert isinstance(run, tuple)
    found, picture = run
    x_hat = np.array(picture)
    assert found["psnr-rgb"] == metrics.psnr(x, x_hat)
    assert found["ms-ssim-rgb"] == metrics.ms_ssim(x, x_hat)
    assert all(found[name] > 0 for name in TIMES)
    run_module("-m", "vqcodec", "encode", "x.png", "-q60", "--effort=0", f"--weights={tiny_weights}", "--quiet")
    assert found["bpp"] == metrics.bpp(Path("x.vq").stat().st_size, x.shape[1], x.shape[0])
    assert set(codec.run(Path("x.png"), 60)) == {"bpp", "psnr-rgb", *TIMES}


@pytest.mark.slow
def test_unknown_metrics_and_broken_pictures(codec: Vqcodec, folder: Path) -> None:
    with pytest.raises(ValueError, match="metric 'vmaf', expected some of psnr-rgb, ms-ssim-rgb"):
        codec.run("x.png", 50, ["vmaf"])
    Path("x.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"^x\.png: cannot be read as an image: "):
        codec.run("x.png", 50)


def test_without_compressai_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "compressai", None)
    assert main(["PHOTOS/"]) == 1
    output, line = capsys.readouterr()
    assert output == ""
    assert re.fullmatch("vqcodec: error: CompressAI cannot be imported: .+: pip install compressai\n", line)


@pytest.fixture(scope="module")
def with_compressai() -> None:
    """Skips where CompressAI cannot be imported; it needs the torchvision that was built for torch."""
    tried = run_module("-W", "ignore", "-c", "import compressai.utils.bench.__main__")
    if tried.returncode != 0:
        pytest.skip(f"needs CompressAI: {tried.stderr.splitlines()[-1]}")


@pytest.fixture
def photos(folder: Path, photograph: NDArray[np.uint8]) -> Path:
    Path("PHOTOS").mkdir()
    for i in range(2):
        write_image(f"PHOTOS/{i}.png", np.tile(photograph, (2, 1, 1))[i * 40 :][:168])
    return Path("PHOTOS")


@pytest.mark.slow
@pytest.mark.usefixtures("with_compressai")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_compressais_bench_calls_the_codec(photos: Path, tiny_weights: Path, jobs: str) -> None:
    pytest.importorskip("compressai")
    arguments = [
        str(photos),
        "-q",
        "20,80",
        "-j",
        jobs,
        "--effort",
        "0",
        "--device",
        "cpu",
        "--weights",
        str(tiny_weights),
    ]
    result = run_module("-W", "ignore", "-m", "vqcodec.rd.compressai", *arguments, stdout=subprocess.PIPE)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    follows_the_schema(content, points=2)
    assert content["name"] == "vqcodec"
    low, high = content["results"]["bpp"]
    assert low < high
    Path("bench.json").write_text(result.stdout, encoding="utf-8")
    (curve,) = read_overlay("bench.json")
    assert curve.results["ms-ssim-rgb"] == content["results"]["ms-ssim-rgb"]


THEIR_METRICS = """
import json, sys
from PIL import Image
from compressai.utils.bench.codecs import compute_metrics
print(json.dumps(compute_metrics(Image.open(sys.argv[1]), Image.open(sys.argv[2]), ["psnr-rgb", "ms-ssim-rgb"])))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("with_compressai")
def test_compressai_measures_as_we_do(photos: Path, codec: Vqcodec) -> None:
    run = codec.run(photos / "0.png", 60, ["psnr-rgb", "ms-ssim-rgb"], return_rec=True)
    assert isinstance(run, tuple)
    found, picture = run
    picture.save("decoded.png")
    result = run_module("-W", "ignore", "-c", THEIR_METRICS, "decoded.png", "PHOTOS/0.png", stdout=subprocess.PIPE)
    theirs = json.loads(result.stdout)
    assert theirs == pytest.approx({name: found[name] for name in theirs}, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("with_compressai")
def test_compressais_plot_reads_our_curves(folder: Path) -> None:
    write_curves(folder / "compressai", curves())
    files = ["compressai/vqcodec.json", "compressai/jpeg.json"]
    for metric in ("psnr-rgb", "ms-ssim-rgb"):
        result = run_module(
            "-W", "ignore", "-m", "compressai.utils.plot", "-f", *files, "-m", metric, "-o", f"{metric}.png"
        )
        assert result.returncode == 0, result.stderr
        with Image.open(f"{metric}.png") as plot:
            assert plot.width > 100
