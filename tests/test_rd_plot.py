"""The pictures of a result: what is in them, in which colours and limits, and that they are the same each time."""

import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.rd_example import example
from vqcodec.errors import ImageError, MissingPackageError, ReportError
from vqcodec.metrics import METRICS
from vqcodec.rd import plot as module
from vqcodec.rd.anchors import ANCHORS
from vqcodec.rd.plot import STYLES, plot
from vqcodec.rd.provenance import ImageFacts
from vqcodec.rd.result import Columns, MeasuredCurve, PublishedCurve, Result

NAMES = ["rd.png", "rd-dark.png", "rd.svg"]
LIGHT, DARK = module._LIGHT, module._DARK


def curve(bpp: list[float], psnr: list[float]) -> dict[str, list[float]]:
    """A curve of every metric, the others invented from PSNR."""
    similarity = [1 - 10 ** (-(value - 15) / 10) for value in psnr]
    decibels = [value - 15 for value in psnr]
    scores = [5 * value - 110 for value in psnr]
    return {
        "bpp": bpp,
        "psnr-rgb": psnr,
        "ms-ssim-rgb": similarity,
        "ms-ssim-rgb-db": decibels,
        "ssimulacra2": scores,
    }


@pytest.fixture
def result() -> Result:
    """A result with everything that a plot shows."""
    whole = Result.from_json(example())
    anchors = [
        anchored(anchor.name, anchor.label, curve([0.2, 0.6, 2.5], [24.0 + i, 28.0 + i, 40.0 + i]))
        for i, anchor in enumerate(ANCHORS.values())
    ]
    overlays = [
        published("mbt2018", {"bpp": [0.05, 0.3, 3], "psnr-rgb": [27, 33, 47]}),
        published("lone", {"bpp": [0.3], "psnr-rgb": [29], "ms-ssim-rgb-db": [14]}),
    ]
    own = replace(whole.own, results=curve([0.1, 0.3, 0.9], [26.0, 29.5, 33.0]))
    images = [ImageFacts(f"{i}.png", 96, 64, "ab") for i in range(24)]
    return replace(whole, own=own, anchors=anchors, overlays=overlays, images=images)


def anchored(name: str, label: str, results: Columns) -> MeasuredCurve:
    """The curve of an anchor, without settings, which no plot shows."""
    return MeasuredCurve(name, label, "", results, [])


def published(name: str, results: Columns) -> PublishedCurve:
    return PublishedCurve(name, name, "", results, dataset="", file="f.json")


def without(result: Result, *keys: str) -> Result:
    """``result`` where these metrics were not measured."""

    def rest(results: Columns) -> Columns:
        return {key: values for key, values in results.items() if key not in keys}

    return replace(
        result,
        own=replace(result.own, results=rest(result.own.results)),
        anchors=[replace(one, results=rest(one.results)) for one in result.anchors],
        overlays=[replace(one, results=rest(one.results)) for one in result.overlays],
    )


def with_results(result: Result, results: Mapping[str, Sequence[float | None]]) -> Result:
    """``result`` where vqcodec's points are ``results``, in which JSON may have had a null."""
    return replace(result, own=replace(result.own, results=cast(Columns, results)))


def bare(result: Result) -> Result:
    """One setting, one image, PSNR alone, and nothing to compare with."""
    result = without(result, "ms-ssim-rgb", "ms-ssim-rgb-db", "ssimulacra2")
    results = {key: values[:1] for key, values in result.own.results.items()}
    return replace(with_results(result, results), anchors=[], overlays=[], images=result.images[:1])


def texts(folder: Path) -> list[str]:
    """All text of the SVG that is in ``folder``."""
    root = ElementTree.parse(folder / "rd.svg").getroot()
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def figure(result: Result, *, log_rate: bool = False) -> Any:
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        return module._figure(result, LIGHT, log_rate)


def test_public_names() -> None:
    assert module.__all__ == ["PLOTS", "STYLES", "Style", "plot"]


@pytest.mark.parametrize("log_rate", [False, True])
def test_everything(result: Result, log_rate: bool, folder: Path) -> None:
    before = json.dumps(result.to_json())
    assert plot(result, folder, log_rate=log_rate) == [folder / name for name in NAMES]
    assert json.dumps(result.to_json()) == before
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    found = texts(folder)
    for text in (
        *("vqcodec", "JPEG", "WebP", "AVIF", "JPEG 2000", "published, not measured here:", "mbt2018", "lone"),
        *("PSNR-RGB, dB", "MS-SSIM, dB", "SSIMULACRA2"),
        *("bits per pixel of whole files, mean of 24 images", "bits per pixel"),
    ):
        assert found.count(text) == 1, text
    for tick in ("0.1", "0.2", "0.5", "1") if log_rate else ("0", "0.2", "0.4", "0.6", "0.8", "1"):
        assert found.count(tick) >= 3


def settings() -> dict[str, Any]:
    # To look up the backend would choose one.
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


def test_equal_results_give_equal_bytes(result: Result, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.hashsalt": name}):
            mine = settings()
            written.append([path.read_bytes() for path in plot(result, tmp_path / name)])
            assert settings() == mine  # a reader's own settings neither count nor change
    assert written[0] == written[1]
    for data in written[0]:
        assert not re.search(rb"matplotlib v|\d{4}-\d\d-\d\d", data, re.IGNORECASE)


def with_distances(result: Result, *keys: str) -> Result:
    """``result`` where LPIPS, DISTS or both were measured, too."""

    def more(results: Columns) -> Columns:
        return {**results, **{key: [value / 4 for value in results["psnr-rgb"]] for key in keys}}

    anchors = [replace(one, results=more(one.results)) for one in result.anchors]
    return replace(with_results(result, more(result.own.results)), anchors=anchors)


@pytest.mark.parametrize(("keys", "panels"), [(["lpips-db"], 4), (["lpips-db", "dists-db"], 5)])
def test_panels_of_distances(result: Result, keys: list[str], panels: int, folder: Path) -> None:
    result = with_distances(result, *keys)
    drawn = figure(result)
    assert [axes.get_title(loc="left") for axes in drawn.axes][3:] == ["LPIPS, dB", "DISTS, dB"][: len(keys)]
    check_places(drawn, panels)
    plot(result, folder)
    assert texts(folder).count("bits per pixel of whole files, mean of 24 images") == 1


@pytest.mark.parametrize(
    ("absent", "panels"),
    [
        ([], 3),
        (["ssimulacra2"], 2),
        (["ms-ssim-rgb", "ms-ssim-rgb-db"], 2),
        (["ms-ssim-rgb", "ms-ssim-rgb-db", "ssimulacra2"], 1),
    ],
)
def test_panels(result: Result, absent: list[str], panels: int) -> None:
    check_places(figure(without(result, *absent)), panels)


def check_places(drawn: Any, panels: int) -> None:
    """The first of so many panels is the largest, nothing overlaps, and nothing is cut off."""
    boxes = [axes.get_tightbbox() for axes in drawn.axes]
    assert len(boxes) == panels
    areas = [axes.bbox.width * axes.bbox.height for axes in drawn.axes]
    assert areas[0] == max(areas)
    boxes += [text.get_window_extent() for text in drawn.texts]
    for box, other in itertools.combinations(boxes, 2):
        assert not box.overlaps(other)
    for box in boxes:
        assert drawn.bbox.x0 <= box.x0 < box.x1 <= drawn.bbox.x1
        assert drawn.bbox.y0 <= box.y0 < box.y1 <= drawn.bbox.y1


@pytest.mark.parametrize("log_rate", [False, True])
def test_one_point(result: Result, log_rate: bool, folder: Path) -> None:
    result = bare(result)
    plot(result, folder, log_rate=log_rate)
    found = texts(folder)
    assert "bits per pixel of whole files, one image" in found
    assert "published, not measured here:" not in found
    (axes,) = figure(result, log_rate=log_rate).axes
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < 0.1 < right
    assert (bottom, top) == (25.5, 26.5)
    assert len(axes.get_xticks()) >= 3
    with Image.open(folder / "rd.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    blue = [int(STYLES["vqcodec"].light[i : i + 2], 16) for i in (1, 3, 5)]
    assert (pixels == blue).all(2).sum() > 100


@pytest.mark.parametrize("log_rate", [False, True])
def test_limits_are_where_vqcodec_is(result: Result, log_rate: bool) -> None:
    far = published("far", {"bpp": [0.1, 1], "psnr-rgb": [-90, 190]})
    first, *others = result.anchors
    first = replace(first, results={**first.results, "ssimulacra2": [-900, -100, 50]})
    result = replace(result, anchors=[first, *others], overlays=[*result.overlays, far])
    for axes, metric in zip(figure(result, log_rate=log_rate).axes, METRICS[:3], strict=True):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        values = result.own.results[metric.key]
        assert left == (pytest.approx(0.1 / 1.15) if log_rate else 0)
        assert right == pytest.approx(0.9 * 1.15)
        assert bottom < min(values) < max(values) < top
        assert top - bottom < 2.71 * max(max(values) - min(values), 8 if metric.unit else 40)


def test_what_lies_between_points_counts_for_the_limits(result: Result) -> None:
    result = without(result, "ms-ssim-rgb", "ms-ssim-rgb-db", "ssimulacra2")
    jpeg = anchored("jpeg", "JPEG", {"bpp": [0.9, 1.3], "psnr-rgb": [33, 37]})
    result = replace(result, anchors=[jpeg], overlays=[])
    (axes,) = figure(result).axes
    # Its line leaves at 1.035 bpp, 34.35 dB, where the next point is not.
    assert axes.get_ylim() == pytest.approx((26 - 0.5, 34.35 + 0.5))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.09, 1.04, [0.1, 0.2, 0.5, 1]),
        (0.02, 0.11, [0.02, 0.05, 0.1]),
        (0.2, 0.7, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (0.11, 0.14, [0.11, 0.12, 0.13, 0.14]),
        (0.9, 12, [1, 2, 5, 10]),
    ],
)
def test_log_ticks(start: float, end: float, expected: list[float]) -> None:
    ticks = module._log_ticks(start, end)
    assert set(expected) <= {round(tick, 9) for tick in ticks}
    assert ticks == sorted(set(ticks))
    assert start - 1e-12 <= ticks[0] <= ticks[-1] <= end + 1e-12


def test_styles_of_curves(result: Result) -> None:
    result = replace(result, anchors=[*result.anchors, anchored("new", "New", curve([0.2, 0.4], [27, 29]))])
    for theme, shade in ((LIGHT, "light"), (DARK, "dark")):
        lines = module._figure(result, theme, False).axes[0].get_lines()
        own, *anchors = [line for line in reversed(lines) if line.get_linestyle() == "-"]
        names = ["vqcodec", *ANCHORS]
        for name, line in zip(names, (own, *anchors), strict=False):
            assert line.get_color() == getattr(STYLES[name], shade)
            assert line.get_marker() == STYLES[name].marker
        assert len(anchors) == len(names)  # and one that has no style of its own
        assert all(own.get_linewidth() > line.get_linewidth() for line in anchors)
        assert all(own.get_zorder() > line.get_zorder() for line in lines if line is not own)
        published = [line for line in lines if line.get_linestyle() == "--"]
        assert [line.get_color() for line in published] == [theme.greys[0]] * 2
        assert all(line.get_linewidth() < 1.5 for line in published)


def test_styles_can_be_told_apart() -> None:
    assert next(iter(STYLES)) == "vqcodec"
    assert set(STYLES) == {"vqcodec", *ANCHORS}
    assert len({style.marker for style in (*STYLES.values(), module._OTHER)}) == len(STYLES) + 1
    for shade in ("light", "dark"):
        assert len({getattr(style, shade) for style in (*STYLES.values(), module._OTHER)}) == len(STYLES) + 1
    looks = [module._published_look(i, LIGHT) for i in range(12)]
    assert len(set(looks)) == 12

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for style in (*STYLES.values(), module._OTHER):
        assert contrast(style.dark, DARK.background) >= 4.5
    for theme in (LIGHT, DARK):
        assert min(contrast(colour, theme.background) for colour in (theme.text, theme.quiet)) >= 4.5
        assert min(contrast(grey, theme.background) for grey in theme.greys) >= 3


def test_the_svg_turns_dark(result: Result, folder: Path) -> None:
    plot(result, folder)
    drawing = (folder / "rd.svg").read_text()
    head, body = drawing.split("</style>", 1)
    assert "@media(prefers-color-scheme:dark){" in head
    used = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", body))
    assert ("stroke", STYLES["vqcodec"].light) in used
    for what, colour in used:  # there is a rule for all that is drawn
        assert f'[style*="{what}: {colour}"]{{{what}:#' in head
    assert "#000" not in body
    assert 'style="font-size: 9px' in body  # text is text
    root = ElementTree.fromstring(drawing)
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "Distortion against rate"
    assert not [url for url in re.findall(r'(?:href|src)="([^"]*)', body) if not url.startswith("#")]


def test_the_pngs_are_light_and_dark(result: Result, folder: Path) -> None:
    plot(result, folder)
    for name, theme in (("rd.png", LIGHT), ("rd-dark.png", DARK)):
        with Image.open(folder / name) as image:
            assert image.width == 1660
            corner = np.asarray(image.convert("RGB"))[0, 0]
        assert "#{:02x}{:02x}{:02x}".format(*corner) == theme.background


def test_labels_of_others_are_only_text(result: Result, folder: Path) -> None:
    labels = ["$\\frac{1", "</text><script>alert(1)</script>", "_hidden", "漢字", "a" * 80]
    overlays = [published(label, {"bpp": [0.2, 0.4], "psnr-rgb": [27, 28]}) for label in labels]
    result = replace(result, overlays=overlays)
    plot(result, folder)
    assert set(labels) <= set(texts(folder))
    assert b"<script" not in (folder / "rd.svg").read_bytes()


def test_points_that_have_no_value_are_left_out(result: Result, folder: Path) -> None:
    first, *others = result.anchors
    first = replace(first, results={**first.results, "psnr-rgb": [24.0, cast(float, None), 40.0]})
    result = replace(result, anchors=[first, *others])
    result = with_results(result, {**result.own.results, "ssimulacra2": [None, float("inf"), 50.0]})
    plot(result, folder)
    axes = figure(result).axes
    assert [len(line.get_xdata()) for line in axes[0].get_lines()][-2:] == [2, 3]
    assert len(axes[2].get_lines()[-1].get_xdata()) == 1


def test_no_point_at_all(result: Result, folder: Path) -> None:
    result = with_results(result, {"bpp": [0.2], "psnr-rgb": [float("inf")]})
    with pytest.raises(ReportError, match=r"^no plot: vqcodec has no point with a rate and a metric$"):
        plot(result, folder)
    assert not list(folder.iterdir())


def test_a_folder_that_is_not_there(result: Result, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"rd\.png: cannot be written: "):
        plot(result, tmp_path / "none")


def test_matplotlib_is_missing(result: Result, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError) as caught:
        plot(result, folder)
    assert str(caught.value) == 'the plot needs the package matplotlib: pip install ".[bench]" in a checkout'
