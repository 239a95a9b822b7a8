"""The commands that look at files: several at a time, as JSON, and two pictures side by side."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.command import fails, vq
from vqcodec import metrics
from vqcodec.cli import looking
from vqcodec.files.images import read_image


def test_info_of_many_files(packed: bytes) -> None:
    Path("b.vq").write_bytes(packed[:-1])
    result = vq("info", "photo.vq", "b.vq", "gone.vq", "photo.vq", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == ["photo.vq", "photo.vq"]
    truncated, gone, total = result.stderr.splitlines()
    assert truncated.startswith("vqcodec: error: b.vq: truncated")
    assert gone == "vqcodec: error: gone.vq: cannot be read: No such file or directory"
    assert total == "vqcodec: error: 2 of 4 files failed"
    assert vq("info", "photo.vq", "photo.vq").stdout.count("photo.vq: 12×8, RGB") == 2


def test_verify_as_json(packed: bytes) -> None:
    Path("b.vq").write_bytes(packed[:-25])
    result = vq("verify", "photo.vq", "b.vq", "--json")
    whole, broken = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 1
    assert whole == {"file": "photo.vq", "whole": True, "error": None}
    assert (broken["whole"], broken["error"].startswith("b.vq: truncated")) == (False, True)


def test_compare_images(picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "available", lambda name: name == "psnr")
    Image.fromarray(picture ^ 1).save("other.png")
    Image.fromarray(picture[:, :, 0]).save("grey.png")
    decibels = 10 * math.log10(255**2)
    result = vq("compare", "photo.png", "other.png", "photo.png")
    assert result.stdout == f"other.png: PSNR-RGB {decibels:.2f} dB\nphoto.png: PSNR-RGB inf dB\n"
    grey, equal = map(json.loads, vq("compare", "photo.png", "grey.png", "photo.png", "--json").stdout.splitlines())
    assert grey["psnr-rgb"] == metrics.psnr(picture, picture[:, :, :1].repeat(3, axis=2))
    assert equal == {"original": "photo.png", "file": "photo.png", "bytes": None, "bpp": None, "psnr-rgb": None}
    Image.fromarray(picture[1:]).save("small.png")
    fails(vq("compare", "photo.png", "small.png"), "small.png: 12×7 pixels, expected the 12×8 of photo.png")
    fails(vq("compare", "photo.png", "gone.png"), "gone.png: cannot be read: No such file or directory")


@pytest.mark.slow
def test_compare_measures_a_vq_file(folder: Path, photograph: NDArray[np.uint8], tiny_weights: Path) -> None:
    how = ["--device", "cpu", "--weights", str(tiny_weights)]
    alpha = np.full(photograph.shape[:2], 255, np.uint8)
    alpha[:50] = 0
    Image.fromarray(np.dstack([photograph, alpha])).save("photo.png")
    assert vq("encode", "photo.png", *how).exit_code == 0
    assert vq("decode", "photo.vq", "-o", "out.ppm", *how).exit_code == 0
    expected = metrics.psnr(read_image("photo.png")[0], read_image("out.ppm")[0])
    found = json.loads(vq("compare", "photo.png", "photo.vq", "--json", *how).stdout)
    assert (found["bytes"], found["psnr-rgb"]) == (os.path.getsize("photo.vq"), pytest.approx(expected, abs=0.01))


@pytest.mark.slow
def test_models(root: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(tiny_weights.parent))
    result = vq("models", "--json")
    tiny, compact = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, tiny["name"], tiny["default"], compact["name"], compact["default"]) == (
        0, "tiny", False, "compact", True,
    )  # fmt: skip
    assert tiny["decoder_bytes"] == tiny_weights.stat().st_size
    assert f"compact (default): {compact['fingerprint']}, decoder " in vq("models").stdout
