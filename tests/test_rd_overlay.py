"""Published curves: the shapes of files that exist, choices, and files that someone else made up."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.errors import ReportError
from vqcodec.jsonfile import JsonObject
from vqcodec.metrics import decibels
from vqcodec.rd import overlay
from vqcodec.rd.overlay import MAX_CURVES, MAX_FILE_BYTES, read_overlay
from vqcodec.rd.result import Columns, PublishedCurve

CURVE = {"bpp": [0.2, 0.1, 0.4], "psnr-rgb": [30.0, 28, 33.5]}
SORTED = {"bpp": [0.1, 0.2, 0.4], "psnr-rgb": [28.0, 30.0, 33.5]}


def save(folder: Path, content: Any, name: str = "curves.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def results(folder: Path, curve: JsonObject) -> Columns:
    """Those of a file of one curve."""
    (one,) = read_overlay(save(folder, {"name": "x", "results": curve}))
    return one.results


def refusal(source: str) -> str:
    with pytest.raises(ReportError) as caught:
        read_overlay(source)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_public_names() -> None:
    assert overlay.__all__ == ["MAX_CURVES", "MAX_FILE_BYTES", "read_overlay"]


def test_compressai_s_shape(tmp_path: Path) -> None:
    content = {
        "name": "mbt2018-mean",
        "description": "Inference (ans)",
        "results": {**CURVE, "ms-ssim-rgb": [0.95, 0.9, 0.99], "encoding_time": [1, 2, 3], "decoding_time": [1, 2, 3]},
    }
    assert read_overlay(save(tmp_path, content, "a.json")) == [
        PublishedCurve(
            name="mbt2018-mean",
            label="mbt2018-mean",
            description="Inference (ans)",
            results={
                **SORTED,
                "ms-ssim-rgb": [0.9, 0.95, 0.99],
                "ms-ssim-rgb-db": [decibels(0.9), decibels(0.95), decibels(0.99)],
            },
            dataset="",
            file="a.json",
        )
    ]


def test_a_path_object_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "bare.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(CURVE).encode())
    (curve,) = read_overlay(path)
    assert (curve.name, curve.label, curve.description, curve.results) == ("bare", "bare", "", SORTED)


def test_our_own_report(tmp_path: Path) -> None:
    anchors = [{"name": name, "label": name.upper(), "results": CURVE} for name in ("jpeg", "webp")]
    ours = {
        **CURVE,
        "ms-ssim-rgb": [0.95, 0.9, 0.99],
        "ms-ssim-rgb-db": [13.5, 10.5, 20.5],
        "ssimulacra2": [60, -5, 90],
    }
    own = {"name": "vqcodec", "label": "vqcodec", "results": ours, "anchors": anchors, "overlays": []}
    file = save(tmp_path, own)
    (curve,) = read_overlay(file)  # of the several in it, the one that the file is about
    assert curve.name == "vqcodec"
    assert curve.results == {
        **SORTED,
        "ms-ssim-rgb": [0.9, 0.95, 0.99],
        "ms-ssim-rgb-db": [10.5, 13.5, 20.5],  # a mean of dB is not the dB of a mean
        "ssimulacra2": [-5, 60, 90],
    }
    assert [curve.name for curve in read_overlay(f"{file}#webp,jpeg")] == ["webp", "jpeg"]


@pytest.mark.parametrize("shape", ["codecs", "versions"])
def test_a_collection(shape: str, tmp_path: Path) -> None:
    file = save(
        tmp_path, {"note": "no [curve]", "sizes": [1, 2], shape: {"b": CURVE, "a": {**CURVE, "file": "a.json"}}}
    )
    assert [curve.name for curve in read_overlay(file)] == ["b", "a"]
    assert [curve.name for curve in read_overlay(f"{file}#a, b")] == ["a", "b"]


def test_a_collection_of_collections(tmp_path: Path) -> None:
    content = {"datasets": {"kodak": {"vtm": CURVE, "qarv": CURVE}, "clic": {"vtm": {"bpp": [0.3], "psnr": [31]}}}}
    file = save(tmp_path, content)
    assert [curve.name for curve in read_overlay(file)] == ["kodak/vtm", "qarv", "clic/vtm"]
    for name in ("clic/vtm", "datasets/clic/vtm"):
        (curve,) = read_overlay(f"{file}#{name}")
        assert (curve.name, curve.results["bpp"]) == ("clic/vtm", [0.3])
    (curve,) = read_overlay(f"{file}#kodak/qarv")
    assert curve.name == "qarv"
    assert refusal(f"{file}#vtm") == f"{file}: 2 curves 'vtm' in it, expected one of kodak/vtm, qarv, clic/vtm"


def test_a_list_of_named_curves(tmp_path: Path) -> None:
    file = save(tmp_path, [{"name": "a", **CURVE}, {"name": "b", "results": CURVE}, CURVE])
    assert [curve.name for curve in read_overlay(file)] == ["a", "b", "2"]


def test_datasets(tmp_path: Path) -> None:
    one = save(tmp_path, {"dataset": "kodak", "codecs": {"a": CURVE}}, "one.json")
    many = save(tmp_path, {"datasets": {"kodak": {"a": CURVE}, "clic": {"b": CURVE}}}, "many.json")
    assert [curve.dataset for curve in read_overlay(one)] == ["kodak"]
    assert [curve.dataset for curve in read_overlay(many)] == ["kodak", "clic"]
    assert [curve.dataset for curve in read_overlay(save(tmp_path, {"dataset": 1, "a": CURVE}, "c.json"))] == [""]


def test_choice(tmp_path: Path) -> None:
    file = save(tmp_path, dict.fromkeys(("a", "b", "a, b", "c#d"), CURVE), "with#mark.json")
    assert len(read_overlay(file)) == 4  # this file's own name has a #
    assert [curve.name for curve in read_overlay(f"{file}#b,a")] == ["b", "a"]
    assert [curve.name for curve in read_overlay(f"{file}#a, b")] == ["a, b"]
    for wanted in ("e", "", "B", "a,,b", "with"):
        assert refusal(f"{file}#{wanted}").endswith("in it, expected one of a, b, a, b, c#d")
    # Longer than a file system lets a name be.
    assert len(read_overlay(f"{file}#{','.join(['a'] * 500)}")) == 500


def test_too_many_to_show_need_a_choice(tmp_path: Path) -> None:
    names = [f"codec{i}" for i in range(MAX_CURVES + 1)]
    file = save(tmp_path, {"codecs": dict.fromkeys(names, CURVE)})
    assert refusal(file) == (
        f"{file}: 13 curves, expected at most 12: choose with {file}#NAME,NAME from {', '.join(names)}"
    )
    assert len(read_overlay(f"{file}#{','.join(names)}")) == 13
    assert len(read_overlay(save(tmp_path, {"codecs": dict.fromkeys(names[1:], CURVE)}))) == MAX_CURVES
    file = save(tmp_path, {f"c{i}": CURVE for i in range(1100)})
    assert refusal(file).endswith(", c98, c99 and 1,000 more")


@pytest.mark.parametrize("key", ["psnr", "psnr-rgb", "psnr_rgb", "PSNR-RGB"])
def test_keys_of_psnr(key: str, tmp_path: Path) -> None:
    assert results(tmp_path, {"bpp": [1], key: [30]}) == {"bpp": [1], "psnr-rgb": [30]}


@pytest.mark.parametrize("key", ["ms-ssim", "ms-ssim-rgb", "ms_ssim_rgb", "msssim", "MS-SSIM", "msssim-rgb"])
def test_keys_of_ms_ssim(key: str, tmp_path: Path) -> None:
    both = results(tmp_path, {"bpp": [1], key: [0.9]})
    assert both == {"bpp": [1], "ms-ssim-rgb": [0.9], "ms-ssim-rgb-db": [pytest.approx(10)]}
    assert results(tmp_path, {"bpp": [1], key: [13.63]}) == {"bpp": [1], "ms-ssim-rgb-db": [13.63]}


@pytest.mark.parametrize("key", ["ms-ssim-db", "ms-ssim-rgb-db", "ms-ssim-db-rgb", "msssim_dB"])
def test_keys_of_ms_ssim_in_decibels(key: str, tmp_path: Path) -> None:
    assert results(tmp_path, {"bpp": [1, 2], key: [0.9, 12]}) == {"bpp": [1, 2], "ms-ssim-rgb-db": [0.9, 12]}


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_distances_are_given_in_decibels_too(name: str, tmp_path: Path) -> None:
    found = results(tmp_path, {"bpp": [1, 2, 3], name.upper(): [0.5, 0.1, 0]})
    assert found == {"bpp": [1, 2], name: [0.5, 0.1], f"{name}-db": pytest.approx([3.0103, 10])}  # 0 would be infinite
    found = results(tmp_path, {"bpp": [1], name: [0.5], f"{name}_db": [4]})
    assert found == {"bpp": [1], name: [0.5], f"{name}-db": [4]}  # a mean of dB is not the dB of a mean
    with pytest.raises(ReportError, match=f"has {name} out of range at point 1"):
        results(tmp_path, {"bpp": [1], name: [-0.5]})


def test_the_plainest_key_counts(tmp_path: Path) -> None:
    for curve in ({"psnr": [30], "psnr-rgb": [31]}, {"psnr-rgb": [31], "psnr": [30]}):
        assert results(tmp_path, {"bpp": [1], **curve, "psnr-y": [33], "ssim": [2]}) == {"bpp": [1], "psnr-rgb": [31]}


def test_points_without_a_number_are_left_out(tmp_path: Path) -> None:
    curve = {
        "bpp": [0.1, None, 0.3, 0.4, 0.5, 0.6],
        "psnr-rgb": [28, 29, math.nan, math.inf, 31, 32],
        "ms-ssim-rgb": [0.9, 0.9, 0.9, 0.9, 1, 0.95],
        "ssimulacra2": [None] * 6,
    }
    found = results(tmp_path, curve)
    assert found["bpp"] == [0.1, 0.6]
    assert found["psnr-rgb"] == [28, 32]
    assert found["ms-ssim-rgb"] == [0.9, 0.95]  # 1 would be infinitely many dB
    assert "ssimulacra2" not in found


def test_labels(tmp_path: Path) -> None:
    def labels(*names: str) -> list[str]:
        return [curve.label for curve in read_overlay(save(tmp_path, dict.fromkeys(names, CURVE), "set.json"))]

    assert labels("5.0") == ["set 5.0"]
    assert labels("compressai-mbt2018_mse_cuda", "compressai-x_ms-ssim_ans_cpu") == ["mbt2018_mse", "x_ms-ssim"]
    assert labels("compressai-a_cuda", "compressai-a_cpu", "b_cpu") == ["compressai-a_cuda", "compressai-a_cpu", "b"]


def test_names_are_one_short_printable_line(tmp_path: Path) -> None:
    names = ["a\nb\x1b[31m", "c\ud800d", "e" * 200, " f  g "]
    file = save(tmp_path, {name: {**CURVE, "description": "x\ty"} for name in names})
    curves = read_overlay(file)
    assert [curve.name for curve in curves] == ["a b [31m", "c d", "e" * 79 + "…", "f g"]
    assert {curve.description for curve in curves} == {"x y"}


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({"bpp": [1, 2], "psnr": [30]}, "has lists of bpp 2, psnr-rgb 1 points, expected as many in each"),
        ({"bpp": [1, "2"], "psnr": [1, 2]}, "has '2' at point 2 of bpp, expected a number"),
        ({"bpp": [1], "psnr": [True]}, "has True at point 1 of psnr-rgb, expected a number"),
        ({"bpp": [1], "psnr": [[1]]}, "has [1] at point 1 of psnr-rgb, expected a number"),
        ({"bpp": [0], "psnr": [30]}, "has bpp out of range at point 1, expected 0 to 1000, not 0"),
        ({"bpp": [-1], "psnr": [30]}, "has bpp out of range at point 1, expected 0 to 1000, not 0"),
        ({"bpp": [1], "psnr": [1e308]}, "has psnr-rgb out of range at point 1, expected -100 to 200"),
        ({"bpp": [1], "psnr": [-(10**400)]}, "has psnr-rgb out of range at point 1, expected -100 to 200"),
        ({"bpp": [1], "ms-ssim": [-0.1]}, "has ms-ssim-rgb out of range at point 1, expected 0 to 200"),
        ({"bpp": [1, 2], "ms-ssim": [0.9, 12]}, "has MS-SSIM from 0.9 to 12, expected all 0..1 or all in dB"),
        ({"bpp": [], "psnr": []}, "has no point, expected numbers in bpp and in a metric"),
        ({"bpp": [None], "psnr": [30]}, "has no point, expected numbers in bpp and in a metric"),
        ({"bpp": [1], "psnr": [None]}, "has no point, expected numbers in bpp and in a metric"),
        ({"bpp": [1, None], "psnr": [None, 1]}, "has no point, expected numbers in bpp and in a metric"),
    ],
)
def test_curves_that_cannot_be_used(curve: JsonObject, message: str, tmp_path: Path) -> None:
    file = save(tmp_path, {"good": CURVE, "bad": curve})
    assert refusal(file) == f"{file}: curve bad {message}"
    assert len(read_overlay(f"{file}#good")) == 1


@pytest.mark.parametrize("content", ["{}", "[]", "3", '"bpp"', '{"bpp": [1]}', '{"bpp": 1, "psnr": 30}', "null"])
def test_files_without_a_curve(content: str, tmp_path: Path) -> None:
    file = save(tmp_path, content)
    assert refusal(file) == f"{file}: no curve in it, expected lists bpp and psnr-rgb or ms-ssim-rgb side by side"


@pytest.mark.parametrize("content", ["", "{", "bpp,psnr\n1,30\n", '{"bpp": [' + "1" * 5000 + "]}", "\0"])
def test_files_that_are_no_json(content: str, tmp_path: Path) -> None:
    file = save(tmp_path, content)
    assert refusal(file).startswith(f"{file}: not JSON: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"name": "\xff\xfe\xfd"}')
    assert refusal(str(path)).startswith(f"{path}: not JSON: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/none.json#a") == f"{tmp_path}/none.json: cannot be read: No such file or directory"
    assert refusal(str(tmp_path)) == f"{tmp_path}: not a regular file, expected one of curves"
    assert refusal("a\0b") == "'a\\x00b': not a file's name"
    assert refusal("") == ": cannot be read: No such file or directory"


def test_the_largest_file(tmp_path: Path) -> None:
    text = json.dumps(CURVE)
    file = save(tmp_path, text + " " * (MAX_FILE_BYTES - len(text)))
    assert len(read_overlay(file)) == 1
    with open(file, "a") as stream:
        stream.write(" ")
    assert refusal(file) == f"{file}: more than 16,777,216 bytes, expected a file of curves"


def test_a_pipe_and_an_enormous_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(str(tmp_path / "pipe")).endswith("pipe: not a regular file, expected one of curves")
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(2**40)
    assert "hole: more than 16,777,216 bytes" in refusal(str(tmp_path / "hole"))


@pytest.mark.parametrize("depth", [20, 900, 200_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_deep_nesting(depth: int, brackets: tuple[str, str], tmp_path: Path) -> None:
    start, end = brackets
    message = refusal(save(tmp_path, start * depth + json.dumps(CURVE) + end * depth))
    assert "no curve in it" in message or "nested too deeply" in message
    curve = '{"bpp": [1], "psnr": [' + start * depth + "1" + end * depth + "]}"
    assert "expected a number" in (message := refusal(save(tmp_path, curve))) or "nested too deeply" in message


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.floats(0.01, 60) | st.text(max_size=3)
keys = st.text(max_size=4) | st.sampled_from(
    ["bpp", "psnr", "psnr-rgb", "ms-ssim", "ms-ssim-rgb-db", "ssimulacra2", "results", "name", "description", "codecs"]
)
anything = st.recursive(
    numbers | st.lists(st.floats(0.01, 60), max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=30,
)
METRIC_KEYS = ("psnr", "ms-ssim", "ms-ssim-db", "ssimulacra2")


def curves_of(values: st.SearchStrategy[Any], least: int) -> st.SearchStrategy[JsonObject]:
    """Curves of lists that have ``least`` to 3 points."""
    column = st.lists(values, min_size=least, max_size=3)
    return st.fixed_dictionaries({"bpp": column}, optional=dict.fromkeys(METRIC_KEYS, column))


likely = curves_of(numbers, 0) | curves_of(st.none() | st.floats(0.01, 60), 3) | curves_of(st.floats(1.5, 60), 3)


@given(anything | likely | st.dictionaries(keys, likely, max_size=3), st.none() | keys)
def test_any_json_gives_curves_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: Any, choice: str | None
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    file = save(folder, content)
    try:
        curves = read_overlay(file if choice is None else f"{file}#{choice}")
    except ReportError as error:
        curves, message = [], str(error)
    if not curves:
        assert message.isprintable()
    for curve in curves:
        assert list(curve.to_json()) == ["name", "label", "description", "dataset", "file", "results"]
        columns = curve.results
        assert "bpp" in columns
        assert len(columns) >= 2
        assert len({len(column) for column in columns.values()}) == 1
        assert list(columns["bpp"]) == sorted(columns["bpp"])
        assert columns["bpp"][0] > 0
        assert all(type(number) is float and math.isfinite(number) for column in columns.values() for number in column)
        json.dumps(curve.to_json(), allow_nan=False)
