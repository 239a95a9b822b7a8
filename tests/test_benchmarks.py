"""The benchmarks: their options, and each script run as a user would."""

import copy
import json
import math
import multiprocessing
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import (
    busy,
    contexts,
    effort,
    exactness,
    flat,
    options,
    shipped,
    sizes,
    speed,
    speed_codecs,
    speed_plot,
    speed_profile,
    speed_tables,
    tables,
    targets,
    throughput,
    together,
    trials,
    visual_distortion,
)
from vqcodec.codec import Codec
from vqcodec.config import LevelConfig, ModelConfig, PhaseConfig, PriorConfig
from vqcodec.files.container import parse
from vqcodec.files.images import encode_image, read_image
from vqcodec.networks.levels import Level
from vqcodec.networks.pixelcnn import LevelPrior, PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.vae import rate_distortion
from vqcodec.weights import find_weights

ROOT = Path(__file__).resolve().parents[1]


def test_digest_tells_codes_and_shapes_apart() -> None:
    grid = np.arange(6, dtype=np.int16).reshape(1, 2, 3)
    grids: list[list[NDArray[np.int16]]] = [[grid], [grid + 1], [grid.reshape(1, 3, 2)], [grid, grid]]
    assert len({exactness.digest(codes) for codes in grids}) == 4
    assert exactness.digest([grid]) == exactness.digest([np.asfortranarray(grid).copy()])


# --- options ----------------------------------------------------------------------------------------------------

_CONTEXT, _PARAMETER = click.Context(click.Command("x")), click.Option(["--x"])


@pytest.mark.parametrize(("text", "expected"), [("50", [50]), ("90,10,90, 1", [1, 10, 90])])
def test_numbers(text: str, expected: list[int]) -> None:
    assert options.numbers(_CONTEXT, _PARAMETER, text) == expected


@pytest.mark.parametrize(
    ("callback", "text", "message"),
    [
        (options.numbers, "", "expected numbers such as"),
        (options.numbers, "10,x", "expected numbers such as"),
        (options.numbers, "0,10", "expected numbers from 1 to 100"),
        (options.numbers, "101", "expected numbers from 1 to 100"),
    ],
)
def test_options_refuse(callback: Callable[..., object], text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        callback(_CONTEXT, _PARAMETER, text)


def test_the_folder_of_the_output_is_made_before_hours_of_work(folder: Path) -> None:
    assert options.make_folder(_CONTEXT, _PARAMETER, folder / "new" / "rd.json") == folder / "new" / "rd.json"
    assert (folder / "new").is_dir()
    (folder / "file").touch()
    with pytest.raises(click.BadParameter, match="cannot be made"):
        options.make_folder(_CONTEXT, _PARAMETER, folder / "file" / "rd.json")


# --- whole runs -------------------------------------------------------------------------------------------------


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.slow
def test_exactness(tiny_data: Path, tiny_weights: Path, folder: Path) -> None:
    images = sorted((tiny_data / "val").iterdir())
    run = _run(
        "benchmarks.exactness", *images, "-o", folder / "e.json", "--weights", tiny_weights, "--qualities", "20,80"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((folder / "e.json").read_text(encoding="utf-8"))
    rows = {row["decoded_on"]: row for row in result["rows"] if row["made_on"] == exactness.REFERENCE.name}
    assert {way.name for way in exactness.OTHERS} <= rows.keys()
    assert {row["files"] for row in rows.values()} == {2 * len(images)}
    assert len({tuple(row["codes_sha256"]) for row in rows.values()}) == 1
    assert rows["CPU, no vector units"]["cpu_capability"] == "DEFAULT"
    assert max(row["largest_pixel_difference"] for row in rows.values()) <= 1


@pytest.mark.slow
def test_speed(tiny_data: Path, tiny_weights: Path, folder: Path) -> None:
    image = min((tiny_data / "val").iterdir())
    options = ["--weights", tiny_weights, "--repeats", 2, "--threads", 1, "--against", "webp,avif"]
    run = _run(
        "benchmarks.speed", image, "-o", folder / "s.json", *options, "--megapixels", "0.01,0.002", "--profile", "64x48"
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    assert run.stdout == speed_tables.markdown(result) + "\n"
    assert result["provenance"]["threads"] == 1
    assert result["left_out"] is None
    with Image.open(image) as picture:
        width, height = picture.size
    steps = [-(-width // s) + 2 * (-(-height // s) - 1) for s in (16, 8, 8)]
    assert [level["steps"] for level in result["levels"]] == steps
    assert result["steps"] == sum(steps)
    assert f"{sum(steps)} wavefront steps" in run.stdout
    rows = result["codecs"]
    assert list(rows) == ["vqcodec", "avif", "webp"]
    assert len(result["parts"]) == 4
    for row in rows.values():
        for direction in speed_tables.DIRECTIONS:
            assert len(row[direction]["seconds"]) == len(row[direction]["processor"]) == 2
            assert row[direction]["median"] == sum(row[direction]["seconds"]) / 2
        assert row["bpp"] > 0
    assert rows["vqcodec"]["encode"]["ratio"] == rows["vqcodec"]["decode"]["ratio"] == 1
    assert result["macs_per_pixel"].keys() == {"vqcodec"}
    assert all(count > 0 for count in result["macs_per_pixel"]["vqcodec"].values())
    assert result["memory"].keys() == rows.keys()
    for memory in result["memory"].values():
        assert memory.keys() == set(speed_tables.DIRECTIONS)
        assert all(
            0 < memory[direction]["opened"] <= memory[direction]["peak"] for direction in speed_tables.DIRECTIONS
        )
    # Pillow's codecs are measured without torch.
    assert result["memory"]["webp"]["decode"]["peak"] < result["memory"]["vqcodec"]["decode"]["opened"]
    assert result["start_up"]["processes"]["import torch"]["ratio"] == 1
    points = result["sweep"]["points"]
    counts = [point["width"] * point["height"] for point in points]
    assert counts == pytest.approx([2_000, 10_000], rel=0.05)
    assert [point["width"] / point["height"] for point in points] == pytest.approx([width / height] * 2, rel=0.05)
    assert result["sweep"]["memory"]["encode"]["peak"] > 0
    with Image.open(folder / "s.png") as picture:
        assert picture.format == "PNG"
    (profile,) = result["profile"]
    assert (profile["width"], profile["height"]) == (64, 48)
    for direction in speed_tables.DIRECTIONS:
        kinds = profile[direction]["kinds"]
        assert list(kinds) == list(speed_profile.KINDS)
        assert min(kinds.values()) >= 0
        assert kinds["convolutions"] > 0 < kinds["range coder"]
        assert (kinds["choice of codes"] > 0) == (direction == "encode")


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::argmin", "choice of codes"),
        ("aten::bmm", "choice of codes"),
        ("aten::mm", "products of the prior"),
        ("aten::addmm", "products of the prior"),
        ("aten::fbgemm_linear_fp16_weight", "products of the prior"),
        ("mkldnn::_linear_pointwise", "products of the prior"),
        ("aten::_embedding_bag_forward_only", "gathers and tables"),
        ("aten::index_select", "gathers and tables"),
        ("aten::clamp_", "copies, sums, clamps …"),
    ],
)
def test_kinds_of_operations(operation: str, kind: str) -> None:
    assert speed_profile.kind(operation) == kind


def test_profile_as_a_table() -> None:
    kinds = {name: 0.01 * (i + 1) for i, name in enumerate(speed_profile.KINDS)}
    one = {"median": sum(kinds.values()), "kinds": kinds}
    lines = speed_profile.table([{"width": 8, "height": 4, "encode": one, "decode": one}])
    assert lines[0] == "| ms | 8×4 encode | 8×4 decode |"
    assert lines[2] == "| convolutions | 10 (4%) | 10 (4%) |"
    assert lines[-1] == "| all | 280 | 280 |"


def test_calls_alternate_and_a_slow_one_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order, cost = 0.0, [], {"quick": 1.0, "dear": 4.0, "slow": 10.0}

    def call(name: str) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += cost[name]
            order.append(name[0])

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    times = speed.alternate({name: call(name) for name in cost}, repeats=3, budget=10)
    assert "".join(order) == "qdsqdqdq"
    assert {name: one["seconds"] for name, one in times.items()} == {"quick": [1] * 3, "dear": [4] * 2, "slow": [10]}
    assert {name: one["warm"] for name, one in times.items()} == {"quick": True, "dear": True, "slow": False}
    assert times["dear"]["median"] == 4
    assert len(times["dear"]["processor"]) == 2


def test_an_image_of_any_size_is_cut_or_mirrored() -> None:
    pixels = np.arange(3 * 4, dtype=np.uint8).reshape(3, 4, 1)
    np.testing.assert_array_equal(speed.sized(pixels, 3, 4), pixels)
    np.testing.assert_array_equal(speed.sized(pixels, 1, 2), pixels[1:2, 1:3])
    large = speed.sized(pixels, 8, 2)
    np.testing.assert_array_equal(large[:3], pixels[:, 1:3])
    np.testing.assert_array_equal(large[3:6], pixels[::-1, 1:3])
    np.testing.assert_array_equal(large[6:], pixels[:2, 1:3])


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_slope_is_the_exponent(exponent: float) -> None:
    pixels = [1e5, 4e5, 6e6]
    assert speed.slope(pixels, [3e-6 * count**exponent for count in pixels]) == pytest.approx(exponent)


def _speed_result(left_out: str | None = None) -> dict[str, Any]:
    """A result of :mod:`benchmarks.speed` with invented numbers."""

    def times(median: float, *, warm: bool = True) -> dict[str, Any]:
        seconds = [median - 0.25, median, median + 0.25] if warm else [median]
        return {"median": median, "warm": warm, "seconds": seconds, "processor": [s / 2 for s in seconds]}

    ours = {"label": "vqcodec", "about": "quality 75", "untrained": False, "bpp": 0.5}
    other = {"label": "mbt2018 (untrained)", "about": "quality 3", "untrained": True, "bpp": None}
    ours |= {"encode": times(1.0) | {"ratio": 1.0}, "decode": times(0.5) | {"ratio": 1.0}}
    other |= {"encode": times(12.0) | {"ratio": 12.0}, "decode": times(40.0, warm=False) | {"ratio": 80.0}}
    peaks = {"opened": 300_000_000, "peak": 400_000_000}
    return {
        "provenance": {"threads": 1, "device": "cpu", "machine": {"cpu": "a processor"}},
        "image": {"name": "a.png", "width": 30, "height": 20},
        "repeats": 3,
        "budget_seconds": 30.0,
        "left_out": left_out,
        "steps": 7,
        "codecs": {"vqcodec": ours} if left_out else {"vqcodec": ours, "mbt2018": other},
        "parts": {"encode: codes (float)": times(0.5)},
        "memory": {name: {"encode": peaks, "decode": peaks} for name in ("vqcodec", "mbt2018")},
        "macs_per_pixel": {"vqcodec": {"encoder": 2000.0, "prior": 1500.0, "decoder": 1000.0}},
        "start_up": {"width": 64, "height": 48, "processes": {"import torch": times(1.0) | {"ratio": 1.0}}},
        "sweep": {
            "points": [
                {"width": 400, "height": 250, "bpp": 0.5, "encode": times(1.0), "decode": times(0.5)},
                {"width": 800, "height": 500, "bpp": 0.5, "encode": times(4.0), "decode": times(1.0, warm=False)},
            ],
            "slope": {"encode": 1.0, "decode": 0.5},
            "memory": {"encode": peaks, "decode": peaks},
        },
        "profile": None,
    }


def test_speed_as_tables() -> None:
    text = speed_tables.markdown(_speed_result())
    assert "Untrained codecs have random weights" in text
    assert "Processors at work during the calls: 0.50." in text
    for line in (
        "| vqcodec | quality 75 | 0.500 | 1.000 | 1 | 0.500 | 1 | 3 + 3 |",
        "| mbt2018 (untrained) | quality 3 | – | 12.000 | 12 | 40.000 | 80 | 3 + 1 cold |",
        "| encode: codes (float) | 0.500 | 0.250–0.750 |",
        "| vqcodec | 400 MB | 400 MB | 300 MB | 2.0 | 1.5 | 1.0 |",
        "| mbt2018 (untrained) | 400 MB | 400 MB | 300 MB | – | – | – |",
        "| import torch | 1.000 | 1.00 |",
        "| 800×500 | 0.40 | 0.500 | 4.000 | 1.000 | 3 + 1 cold |",
        "Slope of log time against log pixels: encode 1.00, decode 0.50. "
        "Peak memory of the largest: encode 0.40 GB, decode 0.40 GB.",
    ):
        assert line in text.splitlines()


def test_speed_as_tables_without_compressai_and_sweep() -> None:
    result = _speed_result("CompressAI is left out") | {"sweep": None}
    text = speed_tables.markdown(result)
    assert "\nCompressAI is left out\n" in text
    assert "ntrained" not in text
    assert "Slope" not in text


def test_busy_loops_end_with_the_block() -> None:
    with busy.busy_loops(1):
        (loop,) = multiprocessing.active_children()
        assert loop.is_alive()
    assert not multiprocessing.active_children()


def test_busy_as_a_table() -> None:
    row = {"all": 0.25, "one": 0.2, "ratio": 1.25}
    both = dict.fromkeys(busy.DIRECTIONS, row)
    lines = busy.table({"loops": 2, "threads": 2, "idle": both, "busy": both})
    assert lines[0] == "| beside | direction | 2 threads, s | 1 thread, s | ratio |"
    assert lines[2:4] == [f"| nothing | {direction} | 0.250 | 0.200 | 1.25 |" for direction in busy.DIRECTIONS]
    assert lines[5] == "| 2 busy loops | decode | 0.250 | 0.200 | 1.25 |"


def test_sizes_are_distinct_and_small() -> None:
    found = sizes.distinct_sizes(2000, 16)
    assert len(set(found)) == 2000
    assert all(0 < height <= width and height % 16 == width % 16 == 0 for height, width in found)
    assert sizes.distinct_sizes(5, 8) == [(8, 8), (8, 16), (8, 24), (8, 32), (16, 16)]
    assert max(height * width for height, width in found) < 160 * 1000


def test_memory_over_sizes(tiny_codec: Codec, photograph: NDArray[np.uint8]) -> None:
    readings = sizes.measure(tiny_codec, photograph, 5, 2)
    assert [reading.pictures for reading in readings] == [1, 2, 4]
    assert all(10**7 < reading.resident < 10**11 for reading in readings)
    assert sizes.table([sizes.Reading(2000, 512_000_000)])[2:] == ["| 2,000 | 512 |"]


@pytest.mark.slow
def test_effort_saves_bits(codec: Codec, photograph: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    plain, searched = effort.measure(codec, [tmp_path / "photo.png"], [20, 45, 70, 95], [0, 2])
    assert (plain.effort, plain.bd_rate, plain.ratio, plain.lost) == (0, None, 1.0, 0.0)
    assert searched.bd_rate is not None
    assert searched.bd_rate < -2
    assert searched.lost == 0
    lines = effort.table([plain, searched])
    assert lines[0] == "| effort | bits at equal PSNR | seconds | times effort 0 |"
    assert lines[3].startswith(f"| 2 | {searched.bd_rate:+.1f} % |")


@pytest.mark.slow
def test_targets_are_met(codec: Codec, photograph: NDArray[np.uint8]) -> None:
    found = targets.measure(codec, "photo.png", photograph, [60], [0, 2])
    assert [(one.kind, one.effort) for one in found] == [("size", 0), ("size", 2), ("psnr", 0), ("psnr", 2)]
    assert all(one.excess <= 0 for one in found[:2])
    assert all(one.excess >= 0 for one in found[2:])
    assert all(one.full >= 1 for one in found if one.effort)
    lines = targets.table(found)
    assert len(lines) == 6
    assert lines[2].startswith(f"| 0 | psnr | {int(found[2].is_close)} of 1 | {found[2].excess:+.2f} dB | ")


def test_middle_of_a_picture() -> None:
    pixels = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7, 1)
    assert np.array_equal(targets.middle(pixels, 3), pixels[1:4, 2:5])
    assert np.array_equal(targets.middle(pixels, 9), pixels)


@pytest.mark.parametrize("kind", flat.DRAWN)
def test_drawings_are_the_same_each_time(kind: str) -> None:
    first, second = flat.drawn(kind, 2)
    again = next(flat.drawn(kind, 1))
    assert first.shape == (flat.DRAWN[kind][1], flat.DRAWN[kind][1], 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_what_a_drawing_costs(codec: Codec) -> None:
    (icon,) = flat.drawn("icon", 1)
    (low, high) = flat.cost(codec, icon, [20, 75], 0)
    assert low.size < high.size
    assert low.png == high.png == len(encode_image(icon, ".png"))
    assert 28 <= low.framing <= 30
    assert low.webp is not None
    assert low.ratio == low.size / min(low.webp, low.webp_lossless)
    mean = flat.Mean.of("icon", 20, [low, low])
    assert (mean.pictures, mean.worst, mean.reached) == (2, low.ratio, 1.0)
    assert mean.ratio == pytest.approx(low.ratio)


def test_the_document_on_drawings_shows_what_is_stored() -> None:
    stored = json.loads((ROOT / tables.FLAT).read_text(encoding="utf-8"))
    assert tables.marked((ROOT / tables.DRAWINGS).read_text(encoding="utf-8")) == tables.flat_block(stored)


def test_golden_files_are_of_many_kinds(tiny_codec: Codec) -> None:
    cat, cup = (read_image(ROOT / "examples" / f"{name}.png")[0] for name in ("chelsea", "coffee"))
    files = {name: parse(data) for name, data in shipped.golden(tiny_codec, tiny_codec, cat, cup)}
    assert sorted(files) == sorted(path.name for path in (ROOT / shipped.GOLDEN).glob("*.vq"))
    assert {file.fingerprint for file in files.values()} == {tiny_codec.fingerprint}
    assert (
        {file.grey for file in files.values()} == {file.height > file.width for file in files.values()} == {True, False}
    )
    assert (files["v1-one-pixel-q75.vq"].width, files["v1-silent-q5.vq"].levels[-1]) == (1, b"")


def test_what_the_shipped_model_makes_is_of_the_shipped_model(codec: Codec) -> None:
    """``python -m benchmarks.shipped`` writes it."""
    gallery = {path.name: parse(path.read_bytes()).fingerprint for path in (ROOT / shipped.GALLERY).glob("*.vq")}
    names = {
        f"{path.stem}-q{quality}.vq" for path in (ROOT / "examples").glob("*.png") for quality in shipped.QUALITIES
    }
    assert gallery == dict.fromkeys(names, codec.fingerprint)
    assert (ROOT / "weights" / "SHA256SUMS").read_text() == shipped.manifest(ROOT / "weights")
    readme = (ROOT / shipped.README).read_text(encoding="utf-8")
    assert re.findall(r"^  weights +(\w+)$", readme, re.MULTILINE) == [codec.fingerprint.hex()]
    size = find_weights().stat().st_size
    assert f"the weights, {size / 1e6:.1f} MB" in readme


def test_readme_quotes_the_shipped_model() -> None:
    readme = (ROOT / shipped.README).read_text(encoding="utf-8")
    told = "demo/chelsea.vq: 451×300\n  weights          01020304\n"
    found = shipped.quoting(readme, (7_040, 21.04), (6_960, 29.96), 1_234_567, told)
    assert "JPEG of 7.0 kB, vqcodec of 7.0 kB]" in found
    assert "JPEG needs 7.0 kilobytes at 21.0 dB, vqcodec 7.0 at 30.0 dB" in found
    assert "the weights, 1.2 MB, are" in found
    assert f"\n```\n{told}```\n" in found
    assert len(found.splitlines()) < len(readme.splitlines())
    with pytest.raises(ValueError, match=r"README\.md: 0 times .*, expected once"):
        shipped.quoting("# another text", (1, 1.0), (1, 1.0), 1, "")


def test_speed_as_a_picture(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        speed_plot.plot(_speed_result(), folder / name)
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()


def test_compressai_is_left_out_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "compressai", "compressai.zoo"):
        monkeypatch.setitem(sys.modules, name, None)
    reason = speed_codecs.why_no_compressai()
    assert reason is not None
    assert reason.startswith("CompressAI is left out")
    assert ".[speed]" in reason


@pytest.mark.slow
def test_a_model_of_compressai(photograph: NDArray[np.uint8]) -> None:
    """The interface, if CompressAI is installed, on an image whose sides are not multiples of 64."""
    if reason := speed_codecs.why_no_compressai():
        pytest.skip(reason)
    settings = speed_codecs.Settings(Path(), "cpu", 75, 1, torch.get_num_threads())
    pixels = photograph[:100, :150]
    coder, again = (speed_codecs.open_coder("bmshj2018-hyperprior", settings) for _ in range(2))
    assert coder.untrained
    decoded = again.decode(coder.encode(pixels))
    assert decoded.dtype == np.uint8
    assert decoded.shape == pixels.shape
    macs = coder.macs(np.ascontiguousarray(photograph[:64, :64]))
    assert macs is not None
    # Four transposed convolutions of 5×5, 192 → 128 → 128 → 128 → 3 channels, and the normalisation of their outputs.
    sides, channels = (4, 8, 16, 32), (192, 128, 128, 128, 3)
    convolutions = sum(25 * a * b * side**2 for a, b, side in zip(channels[:-1], channels[1:], sides, strict=True))
    assert macs["decoder"] == convolutions + sum(128**2 * (2 * side) ** 2 for side in sides[:3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "avif,flif"], "flif: expected some of bmshj2018-hyperprior"),
        (["--megapixels", "1"], "expected two or more sizes"),
        (["--megapixels", "0.1,200"], "expected two or more sizes"),
        (["--megapixels", "a,b"], "expected numbers such as"),
        (["--profile", "64"], "expected sizes such as"),
        (["--profile", "0x9"], "expected sizes such as"),
        (["--profile", "90000x90000"], "expected sizes such as"),
    ],
)
def test_speed_refuses(root: Path, folder: Path, arguments: list[str], message: str) -> None:
    image = min((root / "examples").glob("*.png"))
    run = CliRunner().invoke(speed.main, [str(image), "-o", "s.json", *arguments])
    assert run.exit_code == 2
    assert message in run.output


@pytest.mark.slow
def test_trials(tiny_data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny architectures, one of which is changed beyond its configuration."""
    model = ModelConfig(
        levels=(LevelConfig(stride=16, groups=4), LevelConfig(stride=8, groups=4)), widths=(8, 8, 8), blocks=(1, 1, 1)
    )
    phase = PhaseConfig(batch=8, crop=64)
    pair = (trials.Trial("one", model, phase=phase), trials.Trial("other", model, trials.no_mean, phase))
    monkeypatch.setitem(trials.SETS, "architectures", pair)
    monkeypatch.setattr(trials, "CENTRE", 64)
    command = [str(tiny_data / "train"), "--validation", str(tiny_data / "val"), "--minutes", "0.02", "-o", "t.json"]
    run = CliRunner().invoke(trials.main, command)
    assert run.exit_code == 0, run.output
    result = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert [trial["name"] for trial in result["trials"]] == ["one", "other"]
    for trial in result["trials"]:
        assert trial["steps"] >= 1
        assert [row["lambda"] for row in trial["rows"]] == list(trials.LAMBDAS)
        for row in trial["rows"]:
            assert row["J"] > row["bpp"] > 0
    assert run.stdout == trials.markdown(result["trials"]) + "\n"


def test_each_trial_can_be_built() -> None:
    everything = [trial for trials_of_one in trials.SETS.values() for trial in trials_of_one]
    names = [trial.name for trial in everything]
    assert len(set(names)) == len(names)
    x, lmbda = torch.rand(1, 3, 32, 32), torch.tensor([0.01])
    for trial in everything:
        out = trials.built(trial)(x, lmbda, hard=False)
        assert out.x_hat.shape == x.shape
    without = trials.built(next(trial for trial in everything if trial.change is trials.no_mean))
    level = without.levels[0]
    assert isinstance(level, Level)
    mean, scale = level.mean_scale(torch.randn(1, level.predict_hidden.shape[1], 2, 2))
    assert not mean.any()
    assert scale.all()


@pytest.mark.parametrize("trial", trials.SETS["optimisers"], ids=lambda trial: trial.name)
def test_each_optimiser_learns(trial: trials.Trial) -> None:
    torch.manual_seed(0)
    model = VQVAE(ModelConfig(levels=(LevelConfig(4, 4),), widths=(8,), blocks=(1,)))
    stepper = trial.stepper(model, trial.phase)
    x, lmbda = torch.rand(2, 3, 16, 16), torch.tensor([0.001, 0.01])
    losses: list[float] = []
    for _ in range(30):
        loss = rate_distortion(x, model(x, lmbda, hard=False), lmbda)[0].mean()
        torch.autograd.backward(loss)
        assert stepper.step(0.5) > 0
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])


TINY = ModelConfig(
    levels=(LevelConfig(16, 4, codebook_size=8), LevelConfig(8, 4, codebook_size=8)),
    widths=(8, 8, 8),
    blocks=(1, 1, 1),
)


@pytest.mark.parametrize(
    ("change", "deaf_to"),
    [
        (None, set[str]()),
        (contexts.without_coarser_level, {"coarser"}),
        (contexts.without_neighbours, {"neighbour"}),
        (contexts.without_quality, {"quality"}),
    ],
)
def test_a_prior_without_a_context_does_not_hear_it(
    change: Callable[[PixelCNN], None] | None, deaf_to: set[str]
) -> None:
    torch.manual_seed(0)
    prior = contexts.built(contexts.Variant("x", PriorConfig(16, 1, 1), change=change), TINY)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    prior = copy.deepcopy(prior)  # as the average of the weights is
    finest = prior.levels[1]
    assert isinstance(finest, LevelPrior)
    logits: list[Tensor] = []
    finest.heads[-1].register_forward_hook(lambda _module, _inputs, output: logits.append(output))
    coarse, fine = torch.zeros(1, 4, 2, 2, dtype=torch.long), torch.zeros(1, 4, 4, 4, dtype=torch.long)
    lmbda = torch.tensor([0.01])
    left = fine.clone()
    left[0, 0, 2, 1] = 1
    with torch.no_grad():
        for codes, value in [([coarse, fine], lmbda), ([coarse + 1, fine], lmbda), ([coarse, left], lmbda)]:
            prior(codes, value)
        prior([coarse, fine], 3 * lmbda)
    # The code to the right of the changed one; no code at its own position has changed.
    before, *after = (grid[0, :, 2, 2] for grid in logits)
    heard = {
        what for what, grid in zip(("coarser", "neighbour", "quality"), after, strict=True) if (grid != before).any()
    }
    assert heard == {"coarser", "neighbour", "quality"} - deaf_to


@pytest.mark.slow
def test_contexts(tiny_data: Path, tiny_weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = (contexts.Variant("all contexts"), contexts.Variant("no quality", change=contexts.without_quality))
    for name, value in {"VARIANTS": variants, "CROP": 64, "CENTRE": 64, "COUNTED": 2}.items():
        monkeypatch.setattr(contexts, name, value)
    command = [str(tiny_data / "train"), "--validation", str(tiny_data / "val"), "--minutes", "0.02", "-o", "c.json"]
    run = CliRunner().invoke(contexts.main, [*command, "--weights", str(tiny_weights)])
    assert run.exit_code == 0, run.output
    result = json.loads(Path("c.json").read_text(encoding="utf-8"))
    uniform, static, *priors = result["priors"]
    assert [prior["name"] for prior in priors] == ["all contexts", "no quality"]
    for quality, bpp in uniform["bpp"].items():
        # 2 codes of 4 bits at 1/16, 4 at 1/8 and 6 more at 1/8, of 64 × 64 pixels.
        assert bpp == pytest.approx([8 / 256, 16 / 64, 24 / 64])
        assert 0 <= sum(static["bpp"][quality]) < sum(bpp)
        assert all(sum(prior["bpp"][quality]) > 0 for prior in priors)
    assert run.stdout == contexts.markdown(result["priors"]) + "\n"


@pytest.mark.slow
def test_throughput(tiny_data: Path, folder: Path) -> None:
    phase = {"batch": 2, "crop": 64}
    lines = [
        f"[train.{name}]\n" + "\n".join(f"{k} = {v}" for k, v in phase.items()) for name in ("vae", "codes", "prior")
    ]
    lines.append("[model]\nwidths = [8, 16, 16]\nblocks = [1, 1, 1]\nlevels = [{stride = 16, groups = 4}]")
    Path("tiny.toml").write_text("\n".join(lines), encoding="utf-8")
    command = [str(tiny_data / "train"), "--config", "tiny.toml", "--steps", "2", "--threads", "1", "-o", "t.json"]
    run = CliRunner().invoke(throughput.main, command)
    assert run.exit_code == 0, run.output
    result = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert [phase["phase"] for phase in result["phases"]] == ["vae", "codes", "prior"]
    for measured in result["phases"]:
        assert measured["pixels_per_second"] == pytest.approx(2 * 64 * 64 / measured["seconds"])
        assert 0 < measured["flop_per_second"] < 1e15
    assert run.stdout == throughput.markdown(result) + "\n"


@pytest.mark.slow
def test_together(root: Path, tiny_weights: Path, folder: Path) -> None:
    before = torch.get_num_threads()
    command = [str(root / "examples" / "chelsea.png"), "--weights", str(tiny_weights), "--repeats", "1", "-o", "t.json"]
    run = CliRunner().invoke(together.main, [*command, "--threads", str(before)])
    assert run.exit_code == 0, run.output
    result = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert [(size["height"], size["width"], size["batch"]) for size in result["sizes"]] == [
        (96, 128, 16),
        (256, 256, 16),
        (512, 768, 10),
    ]
    for size in result["sizes"]:
        times = size["milliseconds"]
        assert size["ratio"] == pytest.approx(times["alone"] / times["together"])
    assert run.stdout == together.markdown(result) + "\n"


def test_visual_distortion_measures_every_part() -> None:
    x = np.random.default_rng(0).integers(40, 200, (48, 64, 3), np.uint8)
    score, figures = visual_distortion.measure(x, x + np.random.default_rng(1).integers(0, 20, x.shape, np.uint8))
    assert score < 100
    assert list(figures) == ["MSE", "MS-SSIM", "SSIMULACRA2", "D"]
    value, size, along = figures["MSE"]
    assert size == pytest.approx(along, rel=1e-4)  # the gradient of the squared error is 2·(x_hat − x) / samples
    assert size == pytest.approx(2 * math.sqrt(value / x.size), rel=1e-4)
    for value, size, along in figures.values():
        assert value > 0
        assert size >= 0.9999 * abs(along)
    table = visual_distortion.table({80: [(70.0, figures)], 20: [(10.0, figures), (20.0, figures)]}).splitlines()
    assert [row.split("|")[1:3] for row in table[2:]] == [[" 20 ", " 15.0 "], [" 80 ", " 70.0 "]]


@pytest.mark.slow
def test_visual_distortion(tiny_data: Path, tiny_weights: Path) -> None:
    command = [str(tiny_data / "val"), "-q", "20,80", "--side", "64", "--weights", str(tiny_weights)]
    run = CliRunner().invoke(visual_distortion.main, command)
    assert run.exit_code == 0, run.output
    rows = [row.split("|") for row in run.stdout.splitlines()[2:]]
    assert [int(row[1]) for row in rows] == [20, 80]
    assert all(len(row) == len(rows[0]) == 14 for row in rows)
    assert all(float(cell) > 0 for row in rows for cell in row[3:5])
