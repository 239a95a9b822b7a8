"""The benchmarks: BD-rate and checks worked out by hand, anchors, tables; and each script run as a user would."""

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from benchmarks import exactness, options, rate_distortion, report
from benchmarks.anchors import ANCHORS
from benchmarks.curves import MIN_COMMON_DB, Point, bd_rate, steps_that_fall
from benchmarks.decoder import Contents, decode_file, fresh_process
from benchmarks.provenance import ROOT, command_line, write_json
from vqcodec.codec import Codec
from vqcodec.config import LevelConfig
from vqcodec.errors import ImageError
from vqcodec.images import read_image
from vqcodec.metrics import psnr
from vqcodec.weights import load_weights

CURVE: list[Point] = [(0.1, 25.0), (0.2, 27.5), (0.4, 30.0), (0.8, 33.0), (1.6, 37.0)]


def _scaled(points: list[Point], factor: float) -> list[Point]:
    return [(factor * bpp, decibels) for bpp, decibels in points]


# --- curves -----------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 10))
def test_bd_rate_of_a_curve_with_scaled_rate(factor: float) -> None:
    bd = bd_rate(CURVE, _scaled(CURVE, factor))
    assert bd.percent == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (bd.common, bd.note) == ((25.0, 37.0), "")


@pytest.mark.parametrize(("factor", "percent"), [(1.0, 0.0), (0.5, -50.0), (2.0, 100.0)])
def test_bd_rate_has_the_sign_of_the_tested_codec(factor: float, percent: float) -> None:
    assert bd_rate(CURVE, _scaled(CURVE, factor)).percent == pytest.approx(percent, abs=1e-9)


def test_bd_rate_is_taken_over_the_common_range_alone() -> None:
    # Half the rate where the curves meet; ten times above, which must not count.
    test = [*_scaled(CURVE[1:4], 0.5), (30.0, 60.0)]
    anchor = CURVE[:4]
    bd = bd_rate(anchor, test)
    assert bd.common == (27.5, 33.0)
    assert bd.percent == pytest.approx(-50, abs=3)  # PCHIP bends a little towards points outside the range


def test_bd_rate_needs_no_equal_number_of_points() -> None:
    straight: list[Point] = [(10 ** (decibels / 10), decibels) for decibels in (20.0, 25.0, 27.0, 40.0)]
    assert bd_rate(straight, [straight[0], straight[-1]]).percent == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("anchor", "test", "common", "note"),
    [
        (CURVE, CURVE[:1], None, "tested curve has fewer than two points"),
        ([], CURVE, None, "anchor curve has fewer than two points"),
        (CURVE, [(1.0, 40.0), (2.0, 45.0)], None, "no PSNR in common"),
        (CURVE, [(1.0, 37.0), (2.0, 45.0)], None, "no PSNR in common"),
        (CURVE, [(1.0, 30.0), (2.0, 30.0 + 0.9 * MIN_COMMON_DB)], (30.0, 31.8), "only 1.8 dB in common"),
        (CURVE, [(1.0, 34.0), (2.0, 48.0)], (34.0, 37.0), "only 3.0 dB in common"),  # a quarter of the shorter
        (CURVE, [(1.0, 30.0), (2.0, 29.0), (3.0, 36.0)], None, "tested curve does not rise at point 1"),
        ([(1.0, 30.0), (2.0, 31.0), (1.9, 36.0)], CURVE, None, "anchor curve does not rise at point 2"),
    ],
)
def test_no_bd_rate_where_it_would_mean_nothing(
    anchor: list[Point], test: list[Point], common: Point | None, note: str
) -> None:
    bd = bd_rate(anchor, test)
    assert bd.percent is None
    assert bd.common == (None if common is None else pytest.approx(common))
    assert note in bd.note


@pytest.mark.parametrize(
    ("points", "falls"),
    [
        (CURVE, []),
        (CURVE[:1], []),
        ([(1.0, 30.0), (1.0, 31.0)], [0]),  # as many bits
        ([(1.0, 30.0), (1.1, 30.0)], [0]),  # as good
        ([(1.0, 30.0), (1.1, 31.0), (1.05, 32.0), (1.2, 31.5)], [1, 2]),
    ],
)
def test_steps_that_fall(points: list[Point], falls: list[int]) -> None:
    assert steps_that_fall(points) == falls


# --- checks of a rate–distortion run ----------------------------------------------------------------------------


def test_coding_check() -> None:
    # 10,000 bytes in theory may take 66 more, 100 may take 16.5 more.
    check = rate_distortion.coding_check([(10_066, 80_000.0), (116, 800.0)])
    assert check["passed"]
    assert check["largest_excess_bytes"] == 66
    assert check["largest_relative_excess"] == pytest.approx(0.16)
    assert check["total_relative_excess"] == pytest.approx(82 / 10_100)
    assert not rate_distortion.coding_check([(10_067, 80_000.0), (116, 800.0)])["passed"]
    assert not rate_distortion.coding_check([(10_066, 80_000.0), (117, 800.0)])["passed"]


def test_coding_check_of_a_payload_shorter_than_theory() -> None:
    check = rate_distortion.coding_check([(0, 800.0), (0, 0.0)])  # a stream of zero bytes is not stored at all
    assert check["passed"]
    assert check["smallest_excess_bytes"] == -100


def test_usage_is_over_all_files() -> None:
    levels = (LevelConfig(stride=16, groups=2, codebook_size=8, stages=1), LevelConfig(stride=8))
    shapes = [(level.groups, level.codebook_size) for level in levels]
    one, two = ([np.zeros(shape, np.int64) for shape in shapes] for _ in range(2))
    one[1][:, 0], two[1][:, 5] = 7, 7
    one[0][0, :] = 1
    found = rate_distortion.usage(levels, [Contents([], [], one), Contents([], [], two)])
    groups, size = shapes[1]
    assert found[1]["perplexity"] == pytest.approx([2] * groups)  # two codewords, equally often
    assert found[1]["share"] == pytest.approx([2 / size] * groups)
    assert (found[1]["dead"], found[1]["codes"]) == ((size - 2) * groups, 14 * groups)
    assert found[0]["perplexity"][0] == pytest.approx(shapes[0][1])
    assert (found[0]["share"][0], found[0]["share"][1]) == (1, 0)


def test_an_image_without_error_has_no_mean(photograph: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"^flat\.png: a codec decodes it without any error"):
        rate_distortion._row(Path("flat.png"), photograph, [100], [photograph])


# --- anchors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_give_pictures_that_rise_with_quality(name: str, photograph: NDArray[np.uint8]) -> None:
    anchor = ANCHORS[name]
    points: list[Point] = []
    for quality in (anchor.qualities[0], 50, anchor.qualities[-1]):
        data = anchor.compress(photograph, quality)
        points.append((len(data), psnr(photograph, anchor.decompress(data))))
    assert not steps_that_fall(points)
    assert points[-1][1] > 33
    assert list(anchor.qualities) == sorted(set(anchor.qualities))


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_keep_grey(name: str, photograph: NDArray[np.uint8]) -> None:
    grey = photograph[:, :, :1]
    back = ANCHORS[name].decompress(ANCHORS[name].compress(grey, 90), grey=True)
    assert back.shape == grey.shape
    assert psnr(grey, back) > 30


def test_jpeg_is_the_one_that_is_stated(photograph: NDArray[np.uint8]) -> None:
    data = ANCHORS["jpeg"].compress(photograph, 50)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert image.info["progressive"]
        assert [component[1:3] for component in getattr(image, "layer")] == [(2, 2), (1, 1), (1, 1)]  # noqa: B009
    assert len(data) < len(_saved(photograph, quality=50, subsampling=2))  # optimize and progressive are in force


def _saved(pixels: NDArray[np.uint8], **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


# --- what is stored and printed ---------------------------------------------------------------------------------


@pytest.fixture
def result() -> dict[str, Any]:
    """A small result with round figures."""
    level = {"stride": 8, "groups": 2, "codebook_size": 16, "codes": 100, "dead": 4, "share": [1, 0.75]}
    return {
        "provenance": {"weights": {"name": "compact", "fingerprint": "01020304"}},
        "images": [{"name": "a.png"}, {"name": "b.png"}],
        "codecs": [
            {
                "name": "vqcodec",
                "label": "vqcodec",
                "settings": [{"quality": 10}, {"quality": 90}],
                "results": {"bpp": [0.2, 0.8], "psnr-rgb": [27.254, 34.0]},
                "level_bpp": [[0.05, 0.1], [0.148, 0.696]],
            },
            {"name": "jpeg", "label": "JPEG", "settings": [], "results": {"bpp": [0.3, 2.0], "psnr-rgb": [26.0, 38.0]}},
        ],
        "bd_rate": [
            {"label": "JPEG", "percent": -35.04, "common_psnr": [27.25, 34.0], "note": ""},
            {"label": "WebP", "percent": None, "common_psnr": None, "note": "the curves have no PSNR in common"},
        ],
        "usage": [{**level, "perplexity": [10.0, 12.0]}],
        "checks": {
            "coding": rate_distortion.coding_check([(10_010, 80_000.0)]),
            "monotone": {"falls": [], "passed": True},
        },
    }


def test_markdown(result: dict[str, Any]) -> None:
    assert report.markdown(result).splitlines() == [
        "2 images, mean of each; weights compact 01020304; a level's column is its share of the bytes.",
        "",
        "| quality | bpp | PSNR, dB | level 0 | level 1 | framing |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 10 | 0.200 | 27.25 | 25.0 % | 74.0 % | 1.0 % |",
        "| 90 | 0.800 | 34.00 | 12.5 % | 87.0 % | 0.5 % |",
        "",
        "| against | BD-rate | over |",
        "| ---: | ---: | ---: |",
        "| JPEG | −35.0 % | 27.2–34.0 dB |",
        "| WebP | the curves have no PSNR in common | – |",
        "",
        "| level | stride | codebooks | codewords in use | perplexity |",
        "| ---: | ---: | ---: | ---: | ---: |",
        "| 0 | 8 | 2 × 16 | 87.5 % | 11.0 (10.0–12.0) |",
        "",
        "- Payload beyond cross-entropy: +0.10 % over 1 files, at most +0.10 % and 10.0 bytes in one; "
        "each within 0.5 % + 16 bytes: yes",
        "- On the mean, more quality gives more bits and more PSNR at each step: yes",
    ]


def test_markdown_names_what_failed(result: dict[str, Any]) -> None:
    result["checks"]["monotone"] = {"falls": [(10, 20), (30, 40)], "passed": False}
    assert report.markdown(result).endswith("at each step: **no** (not from quality 10 to 20, 30 to 40)")


def test_markdown_without_anchors(result: dict[str, Any]) -> None:
    result["bd_rate"] = []
    assert "BD-rate" not in report.markdown(result)


def test_plot(result: dict[str, Any], folder: Path) -> None:
    report.plot(result, folder / "rd.png")
    with Image.open(folder / "rd.png") as image:
        assert image.size == (1200, 750)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert len(set(image.convert("RGB").get_flattened_data())) > 100


def test_json_is_exact_and_compact(folder: Path) -> None:
    contents: dict[str, Any] = {"a": [1.5, -2e-7, 0.1], "b": [[1, 2], [3]], "c": ["1", "[\n1]"], "d": [], "é": None}
    write_json(folder / "r.json", contents)
    text = (folder / "r.json").read_text(encoding="utf-8")
    assert json.loads(text) == contents
    assert ' "a": [1.5, -2e-07, 0.1],\n' in text
    assert "é" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(folder / "r.json", {"psnr": math.inf})


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["kodak", "-o", "results/a.json"], "kodak -o results/a.json"),
        (["/home/someone/my pictures", "--anchors", "none"], "'my pictures' --anchors none"),
        (["../elsewhere/kodak", "--weights=/home/someone/w.safetensors"], "kodak --weights=w.safetensors"),
        ([str(ROOT / "examples"), "--qualities", "1,2"], "examples --qualities 1,2"),
    ],
)
def test_the_command_in_a_result_names_no_private_folder(arguments: list[str], shown: str) -> None:
    assert command_line(["/somewhere/speed.py", *arguments]) == f"python -m benchmarks.speed {shown}"


def test_digest_tells_codes_and_shapes_apart() -> None:
    grid = np.arange(6).reshape(1, 2, 3)
    grids: list[list[NDArray[np.int64]]] = [[grid], [grid + 1], [grid.reshape(1, 3, 2)], [grid, grid]]
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
        (rate_distortion._anchors, "jpeg,gif", "'gif', expected some of jpeg,webp,avif, or none"),
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


@pytest.mark.parametrize("text", ["", "[]", '{"codecs": []}'])
def test_a_table_of_no_result_is_refused(text: str, folder: Path) -> None:
    (folder / "r.json").write_text(text)
    with pytest.raises(click.BadParameter, match=r"r\.json: not a result of this script"):
        rate_distortion._print_stored(_CONTEXT, _PARAMETER, folder / "r.json")


def test_anchor_names() -> None:
    assert rate_distortion._anchors(_CONTEXT, _PARAMETER, "none") == []
    assert rate_distortion._anchors(_CONTEXT, _PARAMETER, "avif,jpeg") == [ANCHORS["jpeg"], ANCHORS["avif"]]


# --- whole runs -------------------------------------------------------------------------------------------------


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.slow
def test_the_other_process_sees_what_decompress_gives(
    tiny_codec: Codec, tiny_weights: Path, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    before = dict(os.environ)
    with fresh_process(tiny_weights, "cpu", 1, {"VQCODEC_TEST": "1"}) as process:
        assert process.submit(os.getenv, "VQCODEC_TEST").result() == "1"
        for name, pixels in {
            "landscape": photograph,
            "upright": photograph[:, :65],
            "grey": photograph[:33, :, :1],
        }.items():
            data = tiny_codec.compress(pixels, 60)
            (tmp_path / name).write_bytes(data)
            seen, contents = process.submit(decode_file, tmp_path / name).result()
            assert np.array_equal(seen, tiny_codec.decompress(data))
            _, codes = tiny_codec.read(data)
            assert [count.sum() for count in contents.counts] == [grid.size for grid in codes]
            assert contents.cross_entropy == tiny_codec.cross_entropy(codes, 60)
            assert 0 < len(data) - sum(contents.level_bytes) < 40
    assert dict(os.environ) == before


@pytest.mark.slow
def test_rate_distortion(tiny_data: Path, tiny_weights: Path, tiny_codec: Codec, folder: Path) -> None:
    output, files = folder / "new" / "rd.json", folder / "files"
    own_options = ["--weights", tiny_weights, "--files", files, "--qualities", "90,10", "--anchors", "jpeg"]
    run = _run("benchmarks.rate_distortion", tiny_data / "val", "-o", output, *own_options)
    result = json.loads(output.read_text(encoding="utf-8"))
    passed = all(check["passed"] for check in result["checks"].values())
    assert (run.returncode, "Traceback" in run.stderr) == (0 if passed else 1, False)
    assert result["checks"]["coding"]["passed"]
    assert result["provenance"]["weights"]["fingerprint"] == tiny_codec.fingerprint.hex()
    assert result["provenance"]["command"].startswith("python -m benchmarks.rate_distortion val -o rd.json")
    own, jpeg = result["codecs"]
    assert own["settings"] == [{"quality": 10}, {"quality": 90}]
    assert jpeg["settings"][0] == ANCHORS["jpeg"].settings(5)
    # The figures again, from the files that were kept.
    rates: list[float] = []
    decibels: list[float] = []
    for index, image in enumerate(result["images"]):
        pixels, _ = read_image(tiny_data / "val" / image["name"])
        data = (files / f"{index:03d}-{Path(image['name']).stem}-90.vq").read_bytes()
        rates.append(8 * len(data) / (pixels.shape[0] * pixels.shape[1]))
        decibels.append(psnr(pixels, tiny_codec.decompress(data)))
    assert [row["bpp"][1] for row in own["per_image"]] == rates
    assert [row["psnr-rgb"][1] for row in own["per_image"]] == pytest.approx(decibels, abs=0.1)
    assert own["results"]["bpp"][1] == pytest.approx(sum(rates) / len(rates))
    assert 0 < sum(level[1] for level in own["level_bpp"]) < own["results"]["bpp"][1]
    # The tables can be had again from the stored result.
    table = _run("benchmarks.rate_distortion", "--table", output)
    assert (table.returncode, table.stdout) == (0, run.stdout)
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("contents", [None, b"not a picture"])
def test_rate_distortion_says_in_one_line_what_is_wrong(
    contents: bytes | None, tiny_weights: Path, folder: Path
) -> None:
    if contents is not None:
        (folder / "a.png").write_bytes(contents)
    run = _run("benchmarks.rate_distortion", folder, "-o", folder / "rd.json", "--weights", tiny_weights)
    assert run.returncode == 1
    lines = [line for line in run.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert str(folder) in lines[0]
    assert "Traceback" not in run.stderr
    assert not (folder / "rd.json").exists()


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
    run = _run(
        "benchmarks.speed", image, "-o", folder / "s.json", "--weights", tiny_weights, "--repeats", 3, "--threads", 1
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    assert result["provenance"]["threads"] == 1
    assert all(len(times) == 3 for times in result["seconds"].values())
    assert result["median_seconds"]["decompress"] == sorted(result["seconds"]["decompress"])[1]
    with Image.open(image) as picture:
        width, height = picture.size
    steps = [-(-width // s) + 2 * (-(-height // s) - 1) for s in (16, 8)]
    assert [level["steps"] for level in result["levels"]] == steps
    assert result["steps"] == sum(steps)
    assert f"{sum(steps)} wavefront steps" in run.stdout


def test_the_readme_shows_what_is_stored() -> None:
    root = Path(__file__).parents[1]
    stored = json.loads((root / "benchmarks" / "results" / "kodak.json").read_text())
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert report.markdown(stored) in readme
    shipped = load_weights(root / "weights" / "compact.safetensors")
    assert stored["provenance"]["weights"]["fingerprint"] == shipped.fingerprint.hex()
