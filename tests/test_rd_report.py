"""Whole reports, by the command that users type: files, resuming, what is said of bad input; and the stored ones."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Run
from numpy.typing import NDArray
from PIL import Image

from benchmarks import tables
from vqcodec.cli.main import main
from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_EFFORT
from vqcodec.files.images import read_image
from vqcodec.metrics import METRICS, psnr
from vqcodec.rd.anchors import ANCHORS
from vqcodec.rd.result import Result, read_result
from vqcodec.rd.tables import summary
from vqcodec.weights import load_weights

FILES = {"rd.json", "per_image.csv", "rd.png", "rd-dark.png", "rd.svg", "index.html"}
TIMES = {"encoding_time", "decoding_time", "encode_seconds", "decode_seconds"}


@pytest.fixture
def rd_curve(tiny_weights: Path) -> Callable[..., Run]:
    """Runs ``vqcodec rd-curve`` with the tiny model."""

    def run(*arguments: object) -> Run:
        return CliRunner().invoke(main, ["rd-curve", *map(str, arguments), "--weights", str(tiny_weights)])

    return run


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vqcodec", "rd-curve", *map(str, arguments)]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES | {"provenance"}}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_a_report(rd_curve: Callable[..., Run], tiny_data: Path, tiny_codec: Codec, folder: Path) -> None:
    run = rd_curve(tiny_data / "val", "-o", "report", "-q", "90,10", "--anchors", "jpeg,avif", "--device", "cpu")
    assert run.exit_code == 0, run.stderr
    assert {path.name for path in (folder / "report").iterdir()} == FILES | {"parts", "compressai"}
    assert {path.name for path in (folder / "report" / "compressai").iterdir()} == {
        "vqcodec.json",
        "jpeg.json",
        "avif.json",
    }
    result = json.loads((folder / "report" / "rd.json").read_text(encoding="utf-8"))
    assert run.stdout == f"{summary(Result.from_json(result))}\n\n{Path('report', 'index.html')}: the report\n"
    assert result["settings"] == [{"quality": quality, "effort": DEFAULT_EFFORT} for quality in (10, 90)]
    assert [anchor["name"] for anchor in result["anchors"]] == ["jpeg", "avif"]
    assert result["anchors"][0]["settings"] == [setting.options for setting in ANCHORS["jpeg"].settings]
    assert result["description"] == "rate and distortion over val, mean of 2 images"
    assert result["provenance"]["weights"]["fingerprint"] == tiny_codec.fingerprint.hex()
    assert result["checks"]["coding"]["passed"]
    # The figures again, from the pixels.
    rates: list[float] = []
    decibels: list[float] = []
    for image in result["images"]:
        pixels, _ = read_image(tiny_data / "val" / image["name"])
        data = tiny_codec.compress(pixels, 90)
        rates.append(8 * len(data) / (pixels.shape[0] * pixels.shape[1]))
        decibels.append(psnr(pixels, tiny_codec.decompress(data)))
    assert result["results"]["bpp"][1] == pytest.approx(sum(rates) / 2)
    assert result["results"]["psnr-rgb"][1] == pytest.approx(sum(decibels) / 2, abs=0.05)
    levels = result["rates"]["level_bpp"]
    assert 0 < sum(level[1] for level in levels) < result["results"]["bpp"][1]
    assert result["rates"]["static_bpp"][1] < result["rates"]["uniform_bpp"][1]
    with open(folder / "report" / "per_image.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (2 + 11 + 12)
    assert [float(row["bpp"]) for row in rows if row["codec"] == "vqcodec" and row["setting"] == "quality 90"] == rates
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert result["images"][0]["name"] in page
    assert "image/avif" in page


@pytest.mark.slow
def test_a_killed_run_goes_on(tiny_data: Path, tiny_weights: Path, folder: Path) -> None:
    wanted = ["-q", "10,90", "--anchors", "jpeg,webp,jpeg2000", "--metrics", "psnr", "--weights", tiny_weights]
    log = folder / "killed" / "parts" / "measurements.jsonl"
    with subprocess.Popen(
        _command(tiny_data / "val", "-o", "killed", *wanted, "--threads", 1),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not (log.exists() and log.read_bytes().count(b"\n") > 10):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    kept = log.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    assert not (folder / "killed" / "rd.json").exists()
    for name in ("killed", "whole"):
        command = _command(tiny_data / "val", "-o", name, *wanted, "-j", 2, "--threads", 1)
        subprocess.run(command, check=True, capture_output=True)
    assert log.read_bytes().startswith(kept)  # and nothing of it was measured again
    keys = [json.loads(line)["key"] for line in log.read_text().splitlines() if line.endswith("}")]
    assert len(keys) == len(set(keys)) == 2 * (2 + 11 + 11 + 10)
    results = [json.loads((folder / name / "rd.json").read_text()) for name in ("killed", "whole")]
    assert _without_times(results[0]) == _without_times(results[1])
    for path in folder.rglob("*.tmp"):
        path.unlink()  # what the kill left behind


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["report", "report/parts/measurements.jsonl"])
def test_an_interrupt_is_one_line_and_leaves_no_pieces(
    tiny_data: Path, tiny_weights: Path, folder: Path, moment: str
) -> None:
    """Once the workers start, and once they measure."""
    command = _command(tiny_data / "val", "-o", "report", "-j", 2, "--weights", tiny_weights, "--threads", 1)
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (folder / moment).exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("vqcodec: error: interrupted\n")
    assert "Traceback" not in errors


@pytest.mark.slow
def test_one_image_one_quality_no_anchors(rd_curve: Callable[..., Run], tiny_data: Path, folder: Path) -> None:
    image = min((tiny_data / "val").iterdir())
    run = rd_curve(image, "-o", "r", "-q", 50, "--anchors", "none", "--json")
    assert run.exit_code == 0, run.stderr
    result = json.loads(run.stdout)
    assert result == json.loads((folder / "r" / "rd.json").read_text(encoding="utf-8"))
    assert len(result["results"]["bpp"]) == 1
    assert (result["anchors"], result["bd"]) == ([], [])
    assert result["description"] == f"rate and distortion of {image.name}"
    assert any(note.startswith("MS-SSIM leaves out images") for note in result["notes"])
    assert {path.name for path in (folder / "r").iterdir()} >= FILES


@pytest.mark.slow
def test_a_bad_image_is_named_and_skipped(
    rd_curve: Callable[..., Run], folder: Path, photograph: NDArray[np.uint8]
) -> None:
    (folder / "in").mkdir()
    Image.fromarray(photograph).save(folder / "in" / "good.png")
    (folder / "in" / "broken.png").write_bytes(b"\x89PNG, but no more")
    run = rd_curve("in", "-o", "r", "-q", "30", "--anchors", "none", "--metrics", "psnr")
    assert run.exit_code == 1
    assert run.stderr == "vqcodec: error: broken.png: skipped: not an image that Pillow can read\n"
    result = json.loads((folder / "r" / "rd.json").read_text(encoding="utf-8"))
    assert [image["name"] for image in result["images"]] == ["good.png"]
    assert result["skipped"] == [{"name": "broken.png", "reason": "not an image that Pillow can read"}]
    assert result["results"].keys() == {"bpp", "psnr-rgb", "encoding_time", "decoding_time"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none", "-o", "r"], 1, "none: does not exist, expected an image or a folder of images"),
        (["in", "-o", "r", "--overlay", "no.json"], 1, "no.json: "),
        (["in", "-o", "r", "--anchors", "jpeg,gif"], 2, "'gif', expected some of jpeg,webp,avif,jpeg2000,jpegxl,heif"),
        (["in", "-o", "r", "--metrics", "vmaf"], 2, "'vmaf', expected some of psnr,ms-ssim,ssimulacra2,lpips,dists"),
        (["in", "-o", "r", "-q", "0,10"], 2, "expected numbers from 1 to 100"),
        (["in", "-o", "r", "-q", "a"], 2, "expected numbers such as 10,50,90"),
        (["in"], 2, "'-o'"),
        (["in", "-o", "in/broken.png"], 2, "is a file"),
        (["in", "-o", "in"], 1, "in: holds other files, expected a new or empty folder, or a report begun before"),
        (["in", "-o", "r"], 1, "broken.png: not an image that Pillow can read; there is no other image"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, said: str, rd_curve: Callable[..., Run], folder: Path
) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "broken.png").write_bytes(b"no picture")
    run = rd_curve(*arguments)
    assert run.exit_code == code
    assert said in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (folder / "r").exists()


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (["-q", "50"], "1 quality gives"),
        (["-q", "10,50,90"], "3 qualities give"),
        (["-q", "10,50,90,100"], None),
        (["-q", "10,50,90", "--anchors", "none"], None),
        (["-q", "10,50,90", "--quiet"], None),
        ([], None),
    ],
)
def test_too_few_qualities_for_bd_rates_are_said_before_any_work(
    options: list[str], given: str | None, rd_curve: Callable[..., Run], folder: Path
) -> None:
    run = rd_curve("none", "-o", "r", *options)
    *warnings, error = run.stderr.splitlines()
    assert error == "vqcodec: error: none: does not exist, expected an image or a folder of images"
    need = "no BD-rates, which need at least 4 points of each curve: add qualities with -q"
    assert warnings == ([] if given is None else [f"vqcodec: warning: {given} {need}"])


def test_the_documents_show_what_is_stored(root: Path) -> None:
    stored = read_result(root / tables.KODAK / "rd.json")
    assert (root / tables.KODAK / "README.md").read_text(encoding="utf-8") == tables.kodak_page(stored)
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert tables.marked(readme) == tables.headline_block(stored)
    shipped = load_weights(root / "weights" / "compact.decoder.safetensors")
    card = (root / "weights" / "compact.md").read_text(encoding="utf-8")
    assert f"`{shipped.fingerprint.hex()}`" in card
    # Or measured before the model was split into two files, which the card says.
    assert f"`{stored.provenance.weights.fingerprint}`" in card
    measured = [metric.name for metric in METRICS if metric.key in stored.own.results]
    assert measured[:3] == ["psnr", "ms-ssim", "ssimulacra2"]
    assert len(stored.images) == 24


def test_sentences_quote_what_is_stored(root: Path) -> None:
    stored = read_result(root / tables.KODAK / "rd.json")
    readme = (root / "README.md").read_text(encoding="utf-8")
    names = {"vtm": "VTM", "bpg_444_x265_ycbcr": "BPG", "mbt2018_mse": "mbt2018"}
    names["bmshj2018-factorized_mse"] = "bmshj2018-factorized"
    rates = {names.get(bd.label, bd.label): bd.bd_rate for bd in stored.bd if bd.metric == "psnr-rgb"}
    against = {name: rate for name, rate in rates.items() if rate is not None}
    labels = "|".join(sorted(map(re.escape, against), key=len, reverse=True))
    signed = re.findall(rf"([+−][\d.]+) % against ({labels})", readme)
    signed += [(rate, label) for label, rate in re.findall(rf"({labels})[a-z ]* \(([+−][\d.]+) %\)", readme)]
    for quoted, label in signed:
        assert f"{against[label]:+.1f}".replace("-", "−") == quoted
    worded = re.findall(rf"(\d+) % (fewer|more)(?: bits)? than ({labels})", readme)
    assert len(worded) >= 3
    for percent, side, label in worded:
        assert (percent, side) == (f"{abs(against[label]):.0f}", "fewer" if against[label] < 0 else "more")
