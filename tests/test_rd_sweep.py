"""The sweep: what it measures, what it keeps, and how it goes on after a kill."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vqcodec.codec import Codec
from vqcodec.files.images import read_image
from vqcodec.metrics import psnr
from vqcodec.rd.anchors import ANCHORS, OWN, Setting
from vqcodec.rd.sources import Image, gather
from vqcodec.rd.sweep import PARTS, Plan, sweep

QUALITY = [Setting({"quality": 20}), Setting({"quality": 80})]


@pytest.fixture
def plan(tiny_data: Path, tiny_weights: Path, tiny_codec: Codec) -> Plan:
    images, *_ = gather([tiny_data / "val"], beside=tiny_data / "report")
    settings = {OWN: QUALITY, "jpeg": ANCHORS["jpeg"].settings[2:5], "jpeg2000": ANCHORS["jpeg2000"].settings[6:7]}
    # With as many threads as this process, with whose results theirs are compared.
    return Plan(images, settings, ["psnr"], tiny_weights, tiny_codec.fingerprint.hex(), "cpu", torch.get_num_threads())


def _anchors_only(plan: Plan, **changes: Any) -> Plan:
    """``plan`` without vqcodec, whose workers need no model."""
    return replace(plan, **{"settings": {"jpeg": plan.settings["jpeg"]}, **changes})


@pytest.mark.slow
def test_measurements_are_those_of_the_files_that_are_kept(plan: Plan, tiny_codec: Codec, folder: Path) -> None:
    parts, failed = sweep(plan, folder, quiet=True)
    assert failed == []
    assert len(parts) == len(plan.images) * 6
    for (name, codec, index), part in parts.items():
        path = next(image.path for image in plan.images if image.name == name)
        pixels, _ = read_image(path)
        data = part.file.read_bytes()
        assert part.size == len(data)
        assert part.encode_seconds > 0
        assert part.decode_seconds > 0
        if codec == OWN:
            assert data == tiny_codec.compress(pixels, QUALITY[index].quality, effort=0)
            _, codes = tiny_codec.read(data)
            assert part.contents is not None
            assert [sum(map(sum, counts)) for counts in part.contents.counts] == [grid.size for grid in codes]
            assert part.contents.cross_entropy == tiny_codec.cross_entropy(codes, QUALITY[index].quality)
            assert 0 < len(data) - sum(part.contents.level_bytes) < 40
            seen = tiny_codec.decompress(data)
        else:
            assert part.contents is None
            seen = ANCHORS[codec].decompress(data)
        assert part.metrics == {"psnr-rgb": pytest.approx(psnr(pixels, seen), abs=0.05)}


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(plan: Plan, folder: Path) -> None:
    plan = _anchors_only(plan)
    first, _ = sweep(plan, folder, quiet=True)
    log = folder / PARTS / "measurements.jsonl"
    lines = log.read_bytes()
    again, _ = sweep(plan, folder, quiet=True)
    assert again == first  # to the second of every time
    assert log.read_bytes() == lines
    # A line that was being written, a file that was lost, one that was changed: these are measured again.
    kept = lines.splitlines(keepends=True)
    log.write_bytes(b"".join(kept[:-1]) + kept[-1][:40])
    lost, changed = (first[image.name, "jpeg", 0].file for image in plan.images[:2])
    lost.unlink()
    changed.write_bytes(bytes(changed.stat().st_size))
    repaired, failed = sweep(plan, folder, quiet=True)
    assert failed == []
    assert {place: part.metrics for place, part in repaired.items()} == {k: v.metrics for k, v in first.items()}
    whole = [line for line in log.read_text().splitlines() if line.endswith("}")]
    assert len([json.loads(line) for line in whole]) == len(kept) - 1 + 3


@pytest.mark.slow
def test_a_new_metric_is_measured_where_it_is_missing(plan: Plan, folder: Path) -> None:
    first, _ = sweep(_anchors_only(plan), folder, quiet=True)
    more, _ = sweep(_anchors_only(plan, metrics=["psnr", "ms-ssim", "ssimulacra2"]), folder, quiet=True)
    for place, part in more.items():
        assert part.metrics["psnr-rgb"] == first[place].metrics["psnr-rgb"]
        assert part.metrics["ms-ssim-rgb"] is None  # 96 x 64 pixels
        assert part.metrics["ssimulacra2"] is not None
        assert math.isfinite(part.metrics["ssimulacra2"])


@pytest.mark.slow
def test_fewer_metrics_are_taken_from_more_and_do_not_replace_them(plan: Plan, folder: Path) -> None:
    every = ["psnr", "ms-ssim", "ssimulacra2"]
    one = _anchors_only(plan, images=plan.images[:1], metrics=every)
    sweep(one, folder, quiet=True)
    parts, _ = sweep(_anchors_only(plan), folder, quiet=True)
    assert {tuple(part.metrics) for part in parts.values()} == {("psnr-rgb",)}
    log = (folder / PARTS / "measurements.jsonl").read_bytes()
    again, _ = sweep(one, folder, quiet=True)
    assert all("ssimulacra2" in part.metrics for part in again.values())
    assert (folder / PARTS / "measurements.jsonl").read_bytes() == log


def _metrics(value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry | {"metrics": value}


@pytest.mark.slow
def test_a_damaged_store_is_measured_again(plan: Plan, folder: Path) -> None:
    plan = _anchors_only(plan, images=plan.images[:1])
    first, _ = sweep(plan, folder, quiet=True)
    log = folder / PARTS / "measurements.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    damages: list[Callable[[dict[str, Any]], Any]] = [
        _metrics(None),
        _metrics({"psnr-rgb": "abc"}),
        _metrics({"psnr-rgb": "nan"}),
        _metrics({"psnr-rgb": None}),
        _metrics({"other": 1.0}),
        lambda entry: {k: v for k, v in entry.items() if k != "size"},
        lambda entry: entry | {"encode_seconds": 1e999},
        lambda entry: entry | {"contents": {"counts": []}},
        lambda entry: entry | {"contents": {"counts": [], "level_bytes": [1], "cross_entropy": []}},
        lambda entry: entry | {"threads": "many"},
        lambda entry: [entry],
        lambda entry: entry | {"key": ["a", "list"]},
    ]
    for damage in damages:
        lines = [json.dumps(damage(entry)).encode() for entry in entries]
        log.write_bytes(b"\n".join([*lines, b"\xff\xfe", b"[" * 100_000, b""]))
        again, failed = sweep(plan, folder, quiet=True)
        assert failed == []
        assert {place: part.metrics for place, part in again.items()} == {k: v.metrics for k, v in first.items()}


@pytest.mark.slow
def test_workers_end_with_their_parent(plan: Plan, tiny_data: Path, folder: Path) -> None:
    arguments = [str(tiny_data / "val"), "-o", "r", "--metrics", "psnr", "-j", "2", "--weights", str(plan.weights)]
    log = folder / "r" / PARTS / "measurements.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "vqcodec", "rd-curve", *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not (log.exists() and log.read_bytes().count(b"\n") > 2):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("workers outlive their parent")
    for path in folder.rglob("*.tmp"):
        path.unlink()


@pytest.mark.slow
def test_an_image_that_one_codec_fails_on_is_left_out_of_all(
    plan: Plan, folder: Path, photograph: NDArray[np.uint8]
) -> None:
    flat, thin = folder / "flat.png", folder / "thin.png"
    PillowImage.new("RGB", (64, 64), (16, 16, 16)).save(flat)
    PillowImage.new("RGB", (16_400, 1)).save(thin)  # a side more than WebP can hold
    images, *_ = gather([flat, thin], beside=folder / "r")
    images = [*images, Image("gone.png", 8, 8, "00", folder / "gone.png"), *plan.images]
    settings = {name: ANCHORS[name].settings[-1:] for name in ("jpeg", "webp")}
    parts, failed = sweep(_anchors_only(plan, images=images, settings=settings), folder, jobs=2, quiet=True)
    reasons = {one.name: one.reason for one in failed}
    assert reasons.keys() == {"flat.png", "thin.png", "gone.png"}
    assert reasons["flat.png"] == "jpeg reproduces it exactly, an infinite PSNR, which no mean can hold"
    assert reasons["thin.png"].startswith("webp cannot code it: ")
    assert "No such file" in reasons["gone.png"]
    assert {name for name, _, _ in parts} == {image.name for image in plan.images}
