"""The comparison of looks: its rule of choice, its figures, its sheets, and the document that shows them."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from benchmarks import looks, tables
from vqcodec.files.images import write_image
from vqcodec.rd.equal import Coder

Picture = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pair() -> list[Coder]:
    """A codec that loses nothing in twice the bytes, and one without files below 0.2 bpp that is a grey level off."""

    def few(pixels: Picture, rate: float) -> bytes | None:
        return None if rate < 0.2 else bytes(round(rate * pixels[:, :, 0].size / 8))

    def many(pixels: Picture, rate: float) -> bytes:
        return bytes(2 * round(rate * pixels[:, :, 0].size / 8))

    seen = np.full((256, 320, 3), 101, np.uint8)
    return [Coder("few", few, lambda data: seen), Coder("many", many, lambda data: seen - np.uint8(1))]


def test_pictures_come_at_equal_distances() -> None:
    files = [Path(f"{i:02}.png") for i in range(37)]
    assert [int(file.stem) for file in looks.chosen(files, 10)] == [0, 3, 7, 11, 14, 18, 22, 25, 29, 33]
    assert looks.chosen(files[:3], 10) == files[:3]


def test_means_and_their_table(pair: list[Coder]) -> None:
    pixels = np.full((256, 320, 3), 99, np.uint8)
    found = [*looks.look(pixels, pair, ["psnr"]), *looks.look(pixels + np.uint8(4), pair, ["psnr"])]
    means = looks.means(found)
    assert [(one.asked, one.codec) for one in means][:3] == [(0.05, "many"), (0.1, "many"), (0.2, "few")]
    few = next(one for one in means if (one.asked, one.codec) == (0.4, "few"))
    assert (few.pictures, few.bpp) == (2, 0.4)
    assert few.metrics == {"psnr-rgb": pytest.approx(20 * np.log10(255 / 2))}
    table = looks.table([vars(one) for one in means])
    assert table[0] == "| asked, bpp | codec | pictures | bpp | PSNR-RGB, dB |"
    assert "| 0.4 | few | 2 | 0.400 | 42.11 |" in table
    assert "| 0.4 | many | 2 | 0.800 (+100 %) | 43.36 |" in table  # 1 and 3 levels off: the mean of two PSNRs


def test_a_sheet_has_the_middles(pair: list[Coder]) -> None:
    pixels = np.full((256, 320, 3), 99, np.uint8)
    pixels[128, 160] = 255
    drawn = looks.sheet(pixels, list(looks.look(pixels, pair, [])), ["few", "many"])
    side, below, gap = looks.CROP, looks.CAPTION, 4
    assert drawn.shape == (4 * (side + below), 3 * (side + gap) - gap, 3)
    for row in range(4):
        top = row * (side + below)
        middles = [drawn[top + side // 2, column * (side + gap) + side // 2, 0] for column in range(3)]
        assert middles == [255, 255 if row < 2 else 101, 100]  # white where the codec has no file so small


@pytest.mark.slow
def test_looks(tiny_weights: Path, photograph: Picture, folder: Path) -> None:
    Path("in").mkdir()
    for i in range(3):
        write_image(f"in/{i}.png", photograph[:, i : i + 160])
    command = ["in", "-n", "2", "--codecs", "webp", "--metrics", "psnr", "--sheets", "sheets", "-o", "out/looks.json"]
    done = CliRunner().invoke(looks.main, [*command, "--weights", str(tiny_weights)])
    assert done.exit_code == 0, done.output
    stored = json.loads(Path("out/looks.json").read_text(encoding="utf-8"))
    assert (stored["images"], stored["pictures"], stored["effort"]) == (["in"], 2, 0)
    assert {one["codec"] for one in stored["means"]} <= {"vqcodec", "WebP"}
    assert all(one["bpp"] <= one["asked"] for one in stored["means"] if one["codec"] == "vqcodec")
    assert all(one["bpp"] >= one["asked"] for one in stored["means"] if one["codec"] == "WebP")
    assert [path.name for path in sorted(Path("sheets").iterdir())] == ["looks-0.webp", "looks-1.webp"]
    assert done.output.splitlines()[:2] == ["0.png", "1.png"]
    assert done.output.splitlines()[2:] == looks.table(stored["means"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--codecs", "jpeg2000"], "'jpeg2000', expected some of jpeg,webp,avif,jpegxl,heif"),
        (["--metrics", "vmaf"], "'vmaf', expected some of psnr,"),
    ],
)
def test_looks_refuses(root: Path, folder: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(looks.main, [str(root / "examples"), "-o", "looks.json", *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_the_document_shows_what_is_stored() -> None:
    text = (ROOT / "docs" / "looks.md").read_text(encoding="utf-8")
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(tables.LOOKS.glob("looks-*.json"))]
    assert tables.marked(text) == tables.looks_block(stored)


def test_the_pictures_of_the_document_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("looks-*.webp"))
    assert sum(path.stat().st_size for path in pictures) <= 1.5e6
    text = (ROOT / "docs" / "looks.md").read_text(encoding="utf-8")
    for path in pictures:
        assert f"(pictures/{path.name})" in text
        with Image.open(path) as image:
            assert image.width <= 5 * (looks.CROP + 4)
