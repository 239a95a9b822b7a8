"""The report of ``inspect``: its files, and figures that agree with the codec."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vqcodec.codec import Codec
from vqcodec.errors import ReportError
from vqcodec.files.images import read_image, write_image
from vqcodec.study.report import inspect, rate_table, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def images(folder: Path, photograph: NDArray[np.uint8]) -> list[Path]:
    """A colour picture, a grey upright one, and one of a single pixel."""
    write_image("a.png", photograph)
    write_image("b.png", np.ascontiguousarray(photograph[:100, :70, :1]))
    write_image("c.png", photograph[:1, :1])
    return [folder / name for name in ("a.png", "b.png", "c.png")]


def test_files_and_figures(tiny_codec: Codec, images: list[Path], folder: Path) -> None:
    found = inspect(tiny_codec, images, 60)
    write_report(tiny_codec, found, folder / "out")
    names = {path.name for path in (folder / "out").iterdir()}
    assert {"index.html", "inspect.json", "bits.png", "level-0-bits.png", "decoded-levels-3.png"} <= names
    assert {"level-1-codes.png", "level-1-groups.png"} <= names
    assert any("symbols" in name for name in names)
    stored = json.loads((folder / "out" / "inspect.json").read_text(encoding="utf-8"))
    pixels = [read_image(path)[0] for path in images]
    assert [file["bytes"] for file in stored["files"]] == [len(tiny_codec.compress(one, 60)) for one in pixels]
    total = sum(one.shape[0] * one.shape[1] for one in pixels)
    assert stored["bpp"] == pytest.approx(8 * sum(file["bytes"] for file in stored["files"]) / total)
    whole = np.asarray(Image.open(folder / "out" / "decoded-levels-3.png"))
    np.testing.assert_array_equal(whole, tiny_codec.decompress(tiny_codec.compress(pixels[0], 60)))
    rows = rate_table(found)
    assert [row[0] for row in rows] == ["level 0", "level 1", "level 2", "all levels"]
    assert float(rows[3][3]) == pytest.approx(sum(level["prior"] for level in stored["levels"]), abs=1e-4)


@pytest.mark.parametrize("index", [1, 2])
def test_grey_upright_and_tiny_pictures(tiny_codec: Codec, images: list[Path], folder: Path, index: int) -> None:
    write_report(tiny_codec, inspect(tiny_codec, [images[index]], 30), folder / "out")
    height, width, _ = read_image(images[index])[0].shape
    with Image.open(folder / "out" / "decoded-levels-1.png") as picture:
        assert picture.size == (width, height)


def test_a_folder_in_use_is_refused(tiny_codec: Codec, images: list[Path], folder: Path) -> None:
    found = inspect(tiny_codec, images[2:], 60)
    with pytest.raises(ReportError, match=r"holds files, expected a new or empty folder"):
        write_report(tiny_codec, found, folder)
    with pytest.raises(ReportError, match=r"a\.png: cannot be used for the report"):
        write_report(tiny_codec, found, images[0])
    write_report(tiny_codec, found, folder, force=True)
    assert (folder / "index.html").exists()


def test_names_that_are_no_text(tiny_codec: Codec, images: list[Path], folder: Path) -> None:
    path = folder / "a\n\udcff<b>.png"
    images[2].rename(path)
    found = inspect(tiny_codec, [path], 60)
    assert found.pictures[0].name == "a\\n\\udcff<b>.png"
    write_report(tiny_codec, found, folder / "out")
    assert "&lt;b&gt;" in (folder / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(browser: "Browser", tiny_codec: Codec, images: list[Path], folder: Path, width: int) -> None:
    write_report(tiny_codec, inspect(tiny_codec, images, 60), folder / "out")
    page, complaints = browser.new_page(viewport={"width": width, "height": 800}), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((folder / "out" / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure").count() > 20
    assert complaints == []
    page.close()
