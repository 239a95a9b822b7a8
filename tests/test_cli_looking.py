"""The commands that look at files: several at a time, as JSON, and two pictures side by side."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.command import FINGERPRINT, fails, vq
from vqcodec import metrics
from vqcodec.cli import looking
from vqcodec.codec import Codec
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


def test_info_of_several_files_is_short(packed: bytes) -> None:
    Path("in/more").mkdir(parents=True)
    for name in ("in/a.vq", "in/more/b.vq"):
        Path(name).write_bytes(packed)
    result = vq("info", "in", "photo.vq")
    rate, size = f"{8 * len(packed) / 96:.3f} bpp", f"{len(packed):,} bytes"
    lines = [
        f"{name}: 12×8, RGB, quality 60, {size}, {rate}, weights {FINGERPRINT.hex()}"
        for name in ("in/a.vq", "in/more/b.vq", "photo.vq")
    ]
    assert result.stdout.splitlines() == [*lines, f"3 files, {3 * len(packed):,} bytes, {rate}"]
    assert len(vq("info", "photo.vq").stdout.splitlines()) > 2
    detailed = vq("info", "in", "-v").stdout
    assert vq("info", "in/a.vq").stdout in detailed
    assert detailed.endswith(f"2 files, {2 * len(packed):,} bytes, {rate}\n")
    assert [json.loads(line)["file"] for line in vq("info", "in", "--json").stdout.splitlines()] == [
        "in/a.vq",
        "in/more/b.vq",
    ]
    Path("empty").mkdir()
    fails(vq("info", "empty"), "empty: holds no .vq files")


def test_verify_of_a_folder(packed: bytes) -> None:
    Path("in").mkdir()
    Path("in/a.vq").write_bytes(packed)
    Path("in/b.vq").write_bytes(packed[:-1])
    result = vq("verify", "in")
    assert (result.exit_code, result.stdout) == (1, "in/a.vq: whole\n")
    assert result.stderr.splitlines()[1] == "vqcodec: error: 1 of 2 files is not whole"


def test_a_thumbnail_that_cannot_be_written_is_refused_unread(packed: bytes) -> None:
    fails(vq("thumbnail", "photo.vq", "nope/t.png"), "nope/t.png: cannot be written: there is no such folder")
    fails(vq("thumbnail", "photo.vq", "photo.vq"), "photo.vq: is the input")


@pytest.mark.slow
def test_a_thumbnail_as_json(codec: Codec, photograph: NDArray[np.uint8], folder: Path) -> None:
    Path("a.vq").write_bytes(codec.compress(photograph[:64, :96], 50, effort=0))
    assert vq("thumbnail", "a.vq", "quiet.png", "-s", "48").output == ""
    told = json.loads(vq("thumbnail", "a.vq", "t.png", "-s", "48", "--json").stdout)
    assert told == {"output": "t.png", "width": 48, "height": 32, "bytes": Path("t.png").stat().st_size}
    with Image.open("t.png") as image:
        assert image.size == (48, 32)


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
    tiny, compact, visual = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, tiny["name"], tiny["default"], compact["name"], compact["default"]) == (
        0, "tiny", False, "compact", True,
    )  # fmt: skip
    assert tiny["decoder_bytes"] == tiny_weights.stat().st_size
    head, *rows = vq("models").stdout.splitlines()
    assert head.split() == ["model", "weights", "decoder", "encoder"]
    assert [row.split()[0] for row in rows] == ["tiny", "compact", "visual"]
    assert rows[1].startswith("compact (default) ")
    assert {row.index(entry["fingerprint"]) for row, entry in zip(rows, (tiny, compact, visual), strict=True)} == {29}
    assert max(map(len, [head, *rows])) <= 80
    assert vq("models", "-v").stdout.splitlines()[2] == f"  {tiny['path']}"
