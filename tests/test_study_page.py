"""The page: complete, escaped, and no wider than a phone."""

import base64
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vqcodec.study.page import Block, Figure, Gallery, Note, Plot, Plots, Section, Table, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<script>alert(1)</script>\"'&"
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 640, 3), np.uint8)


def _page() -> str:
    plot = Plot(HOSTILE, np.array([[0.0, 0], [1, -2]]), np.zeros((2, 3), np.uint8), [0.5, 1.0], [HOSTILE, "b"])
    blocks: list[Block] = [
        Note(HOSTILE, HOSTILE),
        Gallery([Figure(HOSTILE, PICTURE), Figure("coarse", PICTURE[:3, :4], coarse=True)] * 3, 210),
        Plots([plot] * 5),
        Table(HOSTILE, [HOSTILE, *"abcdefgh"], [[HOSTILE, *(["123,456.789"] * 8)]]),
        Table("folded", ["", "a"], [["row", "1"]], folded=True),
    ]
    return render(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)], [Section(HOSTILE, blocks)])


def test_it_asks_for_nothing_and_texts_stay_texts() -> None:
    page = _page()
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    assert "<script" not in page
    assert not re.search(r"https?://|@import|<iframe|<(?:img|link)[^>]* (?:src|href)=\"(?!data:)", page)
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert found
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1])))), PICTURE)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: "Browser", tmp_path: Path, width: int, scheme: str) -> None:
    path = tmp_path / "index.html"
    path.write_text(_page(), encoding="utf-8")
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("details table").is_hidden()
    page.locator("summary").click()
    assert page.locator("details table").is_visible()
    assert complaints == []
    context.close()
