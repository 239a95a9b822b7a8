"""The example that encodes a folder through Ray, on a local Ray with 200 images."""

import csv
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import vqcodec
from vqcodec.codec import Codec
from vqcodec.files.container import parse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install ".[scale]"'),
]

# Ray's workers are at the lowest priority otherwise, and wait for ever beside other tests.
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
BROKEN = {"b/cut.jpg": "cut", "b/empty.webp": b"", "b/text.png": b"no picture", "c/huge.png": "huge"}


@pytest.fixture
def photos(root: Path, tmp_path: Path) -> Path:
    """196 pictures in three folders, and four that cannot be coded."""
    folder = tmp_path / "photos"
    for name in "abc":
        (folder / name).mkdir(parents=True)
    with Image.open(root / "examples" / "coffee.png") as image:
        coffee = image.convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = "a cup"
    for i in range(196):
        piece = coffee.crop((i, i, i + 48 + i % 5, i + 40 + i % 3))
        suffix = (".png", ".jpg", ".webp")[i % 3]
        piece.save(folder / "abc"[i % 3] / f"{i:03d}{suffix}", exif=exif)
    for name, content in BROKEN.items():
        if content == "cut":
            content = (folder / "b" / "001.jpg").read_bytes()[:400]
        elif content == "huge":
            coffee.save(folder / name)
            continue
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("no image")
    return folder


def start(photos: Path, output: Path, weights: Path, root: Path) -> "subprocess.Popen[str]":
    options = ["--weights", str(weights), "--actors", "2", "--batch", "4", "--max-pixels", "100000"]
    return subprocess.Popen(
        [sys.executable, str(root / "examples" / "ray_bulk_encode.py"), str(photos), str(output), *options],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(Path(vqcodec.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_goes_on_and_names_what_is_broken(
    photos: Path, tiny_weights: Path, root: Path, tmp_path: Path
) -> None:
    output = tmp_path / "coded"
    killed = start(photos, output, tiny_weights, root)
    deadline = time.monotonic() + 600
    while len(list(output.rglob("*.vq"))) < 12:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    time.sleep(2)  # Ray's processes follow
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.vq")}
    assert 12 <= len(before) < 196

    run = start(photos, output, tiny_weights, root)
    stdout, stderr = run.communicate(timeout=900)
    assert run.returncode == 1, stderr
    lines = stdout.splitlines()
    assert lines[0] == f"{200 - len(before)} images to encode, {len(before)} have their file"
    assert lines[1].startswith(f"{196 - len(before)} images, ")
    assert lines[1].endswith(" with 2 actors")
    assert " images/s, " in lines[2]
    heading = lines.index("4 images failed:")
    assert [line.split()[0] for line in lines[heading + 1 :]] == ["image", *BROKEN]
    assert lines[-1].endswith("too many pixels: 600x400 is 240000, the limit is 100000")
    with (output / "failed.csv").open(encoding="utf-8", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == list(BROKEN)

    coded = {path.relative_to(output).as_posix(): path for path in output.rglob("*.vq")}
    originals = {path.relative_to(photos).as_posix() for path in photos.rglob("*.*")} - BROKEN.keys() - {"notes.txt"}
    assert coded.keys() == {f"{name}.vq" for name in originals}
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())  # done once
    codec = Codec.load(tiny_weights, device="cpu")
    for name in ("a/000.png", "b/001.jpg", "c/194.webp"):
        data = coded[f"{name}.vq"].read_bytes()
        with Image.open(photos / name) as image:
            assert codec.decompress(data).shape == (image.height, image.width, 3)
        assert b"exif" in [tag for tag, _ in parse(data).chunks]
