"""The report's page: what is in it, and what it does in a browser."""

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import OpenedPage, no_browser
from tests.rd_example import HOSTILE, example
from vqcodec.rd.page import Picture, render
from vqcodec.rd.result import Rates, Result, Row

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STORED = "Stored as they are."


@pytest.fixture(scope="module")
def result() -> Result:
    """Two images, vqcodec and JPEG at three settings each, and one published curve."""
    return Result.from_json(example())


def _rows(result: Result) -> list[Row]:
    return [
        Row(
            image=image.name,
            codec=codec.name,
            setting=i,
            setting_label=setting.label,
            bytes=100 * (i + 1),
            bpp=codec.results["bpp"][i],
            metrics={
                "psnr-rgb": codec.results["psnr-rgb"][i],
                "ms-ssim-rgb": None,
                "ms-ssim-rgb-db": None,
                "ssimulacra2": 50.0 + i,
            },
            encode_seconds=0.5,
            decode_seconds=0.4,
        )
        for image in result.images
        for codec in (result.own, *result.anchors)
        for i, setting in enumerate(codec.settings)
    ]


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _pictures(result: Result) -> list[Picture]:
    found: list[Picture] = []
    for number, image in enumerate(result.images):
        found.append(Picture(image.name, "original", 0, "image/png", _png(100 * number)))
        for offset, codec in enumerate([result.own, *result.anchors]):
            for i in range(len(codec.settings)):
                data = _png(100 * number + 10 * offset + i + 1)
                found.append(Picture(image.name, codec.name, i, "image/png", data))
    return found


def _content(page: str) -> Any:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


# --- text -------------------------------------------------------------------------------------------------------


def test_the_page_holds_everything_and_asks_for_nothing(result: Result) -> None:
    rows, pictures = _rows(result), _pictures(result)
    page = render(result, rows, pictures, stored=STORED)
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    content = _content(page)
    assert content["result"] == example()
    assert (content["rows"], content["stored"]) == ([row.to_json() for row in rows], STORED)
    assert not re.search(
        r"https?://(?!www\.w3\.org)|@import|<iframe|<(?:img|script|link)[^>]* (?:src|href)=\"(?!data:)", page
    )
    for i, picture in enumerate(pictures):
        found = re.search(rf'<script id="picture-{i}" type="[^"]*">([^<]*)</script>', page)
        assert found
        assert base64.b64decode(found[1]) == picture.data
    assert page == render(result, rows, pictures, stored=STORED)


def test_names_cannot_end_the_script(result: Result) -> None:
    page = render(result, _rows(result), [], stored=STORED)
    assert HOSTILE not in page
    assert "<img" not in page
    assert _content(page)["result"]["images"][1]["name"] == HOSTILE


def test_what_json_cannot_say_is_null(result: Result) -> None:
    results = {**result.own.results, "psnr-rgb": [math.inf, 30.0, 33.0]}
    changed = replace(result, own=replace(result.own, results=results))
    assert _content(render(changed, [], [], stored=""))["result"]["results"]["psnr-rgb"][0] is None


# --- in a browser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [pytest.skip.Exception, pytest.fail.Exception])
def test_without_a_browser_ci_fails(outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true" if outcome is pytest.fail.Exception else "")
    with pytest.raises(outcome, match=r"^no browser"):
        no_browser("no browser")


class _Opened(OpenedPage):
    """The report."""

    def __init__(self, browser: "Browser", path: Path, **options: Any) -> None:
        super().__init__(browser, path, seconds=10, **options)

    def load(self) -> None:
        super().load()
        self.page.wait_for_selector("#chart svg path", state="attached")


@pytest.fixture(scope="module")
def report(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render(result, _rows(result), _pictures(result), stored=STORED), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shared(browser: "Browser", report: Path) -> Iterator[_Opened]:
    page = _Opened(browser, report)
    yield page
    page.context.close()


@pytest.fixture
def opened(shared: _Opened) -> Iterator[_Opened]:
    """The report, loaded anew in the window that most tests share."""
    shared.page.set_viewport_size({"width": 1280, "height": 900})
    shared.page.mouse.move(0, 0)
    shared.load()
    yield shared
    assert shared.complaints == []


def _canvas(page: "Page", name: str) -> str:
    shown: str = page.locator(name).evaluate("canvas => canvas.toDataURL()")
    return shown


def _settled(page: "Page") -> None:
    page.wait_for_selector('#stage:not([aria-busy="true"])')


@pytest.mark.slow
def test_it_opens_with_curves_pictures_and_tables(opened: _Opened) -> None:
    page = opened.page
    _settled(page)
    text = page.inner_text("body")
    for expected in ("−45.3 %", "compact", "01020304", "broken.png", "something was left out", STORED, "JPEG", "VTM"):
        assert expected in text
    assert page.locator("table").count() >= 3
    # The hostile name is text, in the list of images.
    assert HOSTILE in page.locator("#picture-controls select option").all_inner_texts()


@pytest.mark.slow
def test_the_slider_moves_by_mouse_and_by_keys(opened: _Opened) -> None:
    page = opened.page
    _settled(page)
    handle, layer = page.locator("#handle"), page.locator("#left-layer")
    page.locator("#stage").scroll_into_view_if_needed()
    before = layer.evaluate("e => getComputedStyle(e).clipPath")
    box = page.locator("#stage").bounding_box()
    grip = handle.bounding_box()
    assert box
    assert grip
    y = grip["y"] + grip["height"] / 2
    page.mouse.move(grip["x"] + grip["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, y, steps=5)
    page.mouse.up()
    dragged = layer.evaluate("e => getComputedStyle(e).clipPath")
    assert dragged != before
    assert int(handle.get_attribute("aria-valuenow") or -1) == pytest.approx(25, abs=2)
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert int(handle.get_attribute("aria-valuenow") or -1) > 25
    assert layer.evaluate("e => getComputedStyle(e).clipPath") != dragged


@pytest.mark.slow
def test_pointing_at_the_chart_shows_figures(opened: _Opened) -> None:
    page = opened.page
    chart = page.locator("#chart svg")
    box = chart.bounding_box()
    assert box
    seen = set()
    for i in range(1, 12):
        page.mouse.move(box["x"] + box["width"] * i / 12, box["y"] + box["height"] / 2)
        tip = page.locator("#chart .tip")
        if tip.is_visible():
            seen.add(tip.inner_text())
    assert len(seen) >= 2
    text = "\n".join(seen)
    assert re.search(r"quality \d+", text)
    assert "bpp" in text
    assert re.search(r"\d+\.\d+ dB", text)


@pytest.mark.slow
def test_keys_walk_along_the_curves_and_enter_shows_the_picture(opened: _Opened) -> None:
    page = opened.page
    _settled(page)
    page.locator("#chart .point[tabindex='0']").focus()
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
        seen.append(page.locator("#chart .tip strong").inner_text() + page.locator("#chart .tip dl").inner_text())
    assert len(set(seen)) == 3
    page.locator("#chart [data-curve='jpeg'] .point").first.focus()
    page.keyboard.press("Enter")
    _settled(page)
    assert page.locator("#right-caption").inner_text().startswith("JPEG\nquality 5")
    assert page.evaluate("document.activeElement.id") == "handle"


@pytest.mark.slow
def test_zoomed_pictures_are_dragged(opened: _Opened) -> None:
    page = opened.page
    _settled(page)
    canvas = page.locator("#left-picture")
    page.locator("#panel label", has_text=re.compile("^4×$")).click()
    # The test pictures are so small that only a narrow stage cannot hold them at 4×.
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_selector("#stage.pans")
    assert canvas.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    before = canvas.evaluate("e => e.style.transform")
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    assert canvas.evaluate("e => e.style.transform") != before


@pytest.mark.slow
def test_metric_and_axis_redraw_the_chart(opened: _Opened) -> None:
    page = opened.page

    def drawn() -> str:
        return page.locator("#chart svg").inner_html()

    versions = [drawn()]
    for label in ("MS-SSIM", "log", "whole"):
        page.locator("#chart-controls label", has_text=re.compile(f"^{label}$")).click()
        versions.append(drawn())
    assert len(set(versions)) == 4


@pytest.mark.slow
def test_pictures_follow_the_controls(opened: _Opened) -> None:
    page = opened.page
    _settled(page)
    shown = [_canvas(page, "#left-picture")]
    page.locator("#panel input[type=checkbox]").check()
    page.wait_for_timeout(200)
    _settled(page)
    shown.append(_canvas(page, "#left-picture"))  # the error map
    page.locator("#panel input[type=checkbox]").uncheck()
    page.locator("#picture-controls select").select_option(label=HOSTILE)
    page.wait_for_timeout(200)
    _settled(page)
    shown.append(_canvas(page, "#left-picture"))
    assert len(set(shown)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_is_wider_than_the_screen(opened: _Opened, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 800})
    opened.load()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_nearest_rates_are_both_shown_and_a_large_difference_is_said(opened: _Opened) -> None:
    page = opened.page
    _settled(page)
    verdict, rates = page.locator("#verdict"), page.locator("#rate-now")
    assert page.locator("#panel label", has=page.locator("input[name=mode]:checked")).inner_text() == "nearest bpp"
    assert rates.inner_text() == "0.200 and 0.250 bpp"
    caution = "These are the nearest rates there are, but the right one is 25 % larger."
    assert verdict.inner_text().endswith(f". {caution}")
    for name in ("left", "right"):
        assert page.locator(f"#{name}-caption").inner_text().count(" bpp") == 1
    page.locator("#panel label", has_text="free settings").click()
    assert caution not in verdict.inner_text()
    page.locator("#panel label", has_text="nearest bpp").click()
    page.locator("#right-codec").select_option(label="vqcodec")
    assert rates.inner_text() == "0.200 and 0.200 bpp"
    assert "nearest rates" not in verdict.inner_text()
    page.locator("#right-codec").select_option(label="original")
    assert rates.inner_text() == "0.200 bpp"


@pytest.mark.slow
def test_cells_of_a_row_begin_at_one_height_on_a_phone(browser: "Browser", result: Result, tmp_path: Path) -> None:
    note = "the tested curve has fewer than 4 points, of which there are too few for the sentence to fit on one line"
    missing = replace(result.bd[0], anchor="v", label="a_curve_with_a_very_long_name", published=True, bd_rate=None)
    changed = replace(result, bd=[*result.bd, replace(missing, note=note)])
    path = tmp_path / "phone.html"
    path.write_text(render(changed, _rows(changed), [], stored=STORED), encoding="utf-8")
    opened = _Opened(browser, path, viewport={"width": 390, "height": 800})
    table = opened.page.locator("[aria-label='Bjøntegaard deltas'] table")
    assert "note" not in table.locator("thead").inner_text()
    tops = table.locator("tbody tr").evaluate_all(
        """rows => rows.map(row => [...row.cells].map(cell => {
            const text = document.createRange();
            text.selectNodeContents(cell);
            return Math.round(text.getClientRects()[0].top);
        }))"""
    )
    assert [len(set(row)) for row in tops] == [1, 1]
    notes = opened.page.locator(".listing.notes")
    assert notes.inner_text() == f"a_curve_with_a_very_long_name in PSNR: {note}."
    box = notes.bounding_box()
    assert box
    assert 0 <= box["x"] < box["x"] + box["width"] <= 390
    assert opened.complaints == []
    opened.context.close()


@pytest.mark.slow
def test_the_theme_follows_the_system_and_the_button(browser: "Browser", report: Path) -> None:
    def background(opened: _Opened) -> str:
        found: str = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return found

    light, dark = (_Opened(browser, report, color_scheme=scheme) for scheme in ("light", "dark"))
    night = background(dark)
    assert background(light) != night
    light.page.click("#theme")
    assert background(light) == night
    light.context.close()
    dark.context.close()


@pytest.mark.slow
def test_one_image_one_setting_no_anchors(browser: "Browser", result: Result, tmp_path: Path) -> None:
    kept = ("bpp", "psnr-rgb", "encoding_time", "decoding_time")
    own = replace(
        result.own,
        settings=result.own.settings[:1],
        results={key: result.own.results[key][:1] for key in kept},
    )
    rates = Rates(uniform_bpp=[2.8], static_bpp=[0.3], level_bpp=[[0.05], [0.14]])
    small = replace(result, own=own, rates=rates, anchors=[], overlays=[], bd=[], notes=[], skipped=[])
    small = replace(small, images=small.images[:1], usage_by_quality=small.usage_by_quality[:1])
    for pictures in ([], _pictures(small)):
        path = tmp_path / f"{len(pictures)}.html"
        path.write_text(render(small, _rows(small), pictures, stored=STORED), encoding="utf-8")
        opened = _Opened(browser, path)
        assert opened.page.locator("#pictures").is_visible() == bool(pictures)
        if pictures:
            _settled(opened.page)
        assert opened.complaints == []
        opened.context.close()
