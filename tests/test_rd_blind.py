"""The blind comparison: its questions, what its page gives away, and what it does in a browser."""

import base64
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.browser import OpenedPage
from vqcodec.rd.blind import CROP, Shown, Trial, render, trials
from vqcodec.rd.equal import Coder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Picture = NDArray[np.uint8]

HOSTILE = "</script><img src=x onerror=alert(1)>.png"
RATES = (0.1, 0.4)
LABELS = ("vqcodec", "AVIF", "JPEG XL")


def plain(value: int, side: int = 8) -> Picture:
    return np.full((side, side, 3), value, np.uint8)


def questions(images: int = 2) -> list[Trial]:
    """Each pair of three codecs at two rates, on pictures of one colour, of which each is another."""
    found: list[Trial] = []
    for image in range(images):
        for i, rate in enumerate(RATES):
            seen = [Shown(label, rate, plain(20 * image + 6 * i + j + 1)) for j, label in enumerate(LABELS)]
            for a, b in ((0, 1), (0, 2), (1, 2)):
                found.append(Trial(HOSTILE if image else "a.png", rate, plain(200 + image), (seen[a], seen[b])))
    return found


def content(page: str) -> Any:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def coder(label: str, size: int | None, value: int) -> Coder:
    return Coder(label, lambda pixels, rate: None if size is None else b"x" * size, lambda data: plain(value, 16))


# --- text -------------------------------------------------------------------------------------------------------


def test_pairs_are_of_equal_bytes() -> None:
    compared = [coder("a", 16, 1), coder("b", 17, 2), coder("c", 18, 3), coder("d", None, 4)]  # .5, .53 and .56 bpp
    found = list(trials("x.png", plain(9, 16), compared, [0.5]))
    assert [[one.codec for one in trial.pair] for trial in found] == [["a", "b"]]
    assert [one.bpp for one in found[0].pair] == [0.5, 17 / 32]
    assert (found[0].image, found[0].rate, found[0].pair[1].crop[0, 0, 0]) == ("x.png", 0.5, 2)


def test_the_middle_is_shown() -> None:
    pixels = np.zeros((CROP + 10, CROP - 20, 3), np.uint8)
    pixels[5, 0] = 255
    whole = Coder("a", lambda pixels, rate: b"x", lambda data: pixels)
    (trial,) = trials("x.png", pixels, [whole, whole], [1.0])
    assert trial.original.shape == trial.pair[0].crop.shape == (CROP, CROP - 20, 3)
    assert trial.original[0, 0, 0] == 255


def test_the_page_asks_for_nothing_and_gives_nothing_away() -> None:
    page = render(questions())
    assert not re.search(r"https?://|@import|<iframe|<(?:img|script|link)[^>]* (?:src|href)=\"(?!data:)", page)
    assert HOSTILE not in page
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)  # whose colours are those of all pages
    for word in (*LABELS, "jpeg", "avif", "webp:", "a.png", "onerror"):
        assert word.lower() not in body.lower()
    data = content(page)
    assert len({len(text) for text in data["pictures"]}) == 1
    assert len(data["pictures"]) == 14  # 2 originals and 12 others, each once
    assert all(len(set(trial)) == 3 for trial in data["trials"])
    assert page == render(questions())


def test_the_key_tells_what_the_pictures_are() -> None:
    asked = questions()
    data = content(render(asked))
    key = json.loads(base64.b64decode(data["key"]))
    assert len(key) == len(asked) == len(data["trials"])
    first = 0
    for question, told, (_, *numbers) in zip(asked, key, data["trials"], strict=True):
        assert (told["image"], told["bpp"]) == (question.image, question.rate)
        by_codec = {one.codec: one.crop[0, 0].tolist() for one in question.pair}
        seen = [_colour(data["pictures"][number]) for number in numbers]
        assert [by_codec[codec] for codec in told["codecs"]] == seen
        first += told["codecs"][0] == question.pair[0].codec
    assert 0 < first < len(asked)  # neither order of a pair has a meaning


def _colour(text: str) -> list[int]:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return list(image.convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]


# --- in a browser -----------------------------------------------------------------------------------------------


class Opened(OpenedPage):
    """The page of questions."""

    def __init__(self, browser: "Browser", path: Path, **options: Any) -> None:
        super().__init__(browser, path, seconds=20, **options)

    def load(self) -> None:
        super().load()
        self.ready(1)

    def ready(self, number: int) -> None:
        """Wait until question ``number`` can be answered."""
        self.page.wait_for_selector(f"#count:text-is('{number} of {len(questions())}')")
        self.page.wait_for_selector("#question[aria-busy=false]")

    def colours(self) -> list[int]:
        """The grey of the original, the left and the right picture."""
        found: list[int] = self.page.evaluate(
            """[...document.querySelectorAll(".pictures img")].map((image) => {
                const canvas = new OffscreenCanvas(1, 1).getContext("2d");
                canvas.drawImage(image, 0, 0);
                return canvas.getImageData(0, 0, 1, 1).data[0];
            })"""
        )
        return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blind") / "blind.html"
    path.write_text(render(questions()), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: "Browser", path: Path) -> Iterator[Opened]:
    page = Opened(browser, path)
    yield page
    page.context.close()
    assert page.complaints == []


def _saved(page: "Page", folder: Path) -> Any:
    with page.expect_download() as download:
        page.click("#save")
    assert re.fullmatch(r"answers-[0-9a-f]{12}-\d+\.json", download.value.suggested_filename)
    download.value.save_as(folder / "answers.json")
    return json.loads((folder / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_answers_by_keys_are_told_at_the_end(opened: Opened, tmp_path: Path) -> None:
    """vqcodec, whose picture has the least grey of each three, is always called nearer, but for one question."""
    page, count = opened.page, len(questions())
    expected: list[str | None] = []
    for i in range(count):
        opened.ready(i + 1)
        assert page.locator("#results").is_hidden()
        text = page.evaluate("document.body.innerText")
        assert not any(label in text for label in LABELS)
        _, left, right = opened.colours()
        page.keyboard.press(" " if i == 4 else "ArrowLeft" if left < right else "ArrowRight")
        pair = sorted((left, right))
        expected.append(None if i == 4 else LABELS[(pair[0] - 1) % 20 % 6])
    page.wait_for_selector("#results:not([hidden])")
    told = _saved(page, tmp_path)
    assert re.fullmatch(r"[0-9a-f]{12}", told["study"])
    assert [answer["winner"] for answer in told["answers"]] == expected
    assert {answer["image"] for answer in told["answers"]} == {"a.png", HOSTILE}
    for answer in told["answers"]:
        assert {answer["left"], answer["right"]} == set(answer["codecs"])
        assert answer["seconds"] >= 0
    table = [row.split("\t") for row in page.locator("#results tbody tr").all_inner_texts()]
    assert [row[:2] for row in table] == sorted([pair, rate] for pair in PAIRS for rate in ("0.1", "0.4"))
    assert sum(int(row[4]) for row in table) == count
    assert sum(int(row[5]) for row in table) == 1
    for compared, _, share, interval, answers, ties in table:
        n = int(answers) - int(ties)
        wins = 0 if compared.endswith("vqcodec") else n  # AVIF is nearer than JPEG XL
        assert share == f"{100 * wins / n:.0f} %"
        assert interval == " to ".join(f"{100 * abs(end):.0f} %" for end in wilson(wins, n))


PAIRS = ("AVIF – JPEG XL", "AVIF – vqcodec", "JPEG XL – vqcodec")


def wilson(wins: int, n: int) -> list[float]:
    z, p = 1.96, wins / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round((p + z * z / (2 * n) + sign * half) / (1 + z * z / n), 12) for sign in (-1, 1)]


@pytest.mark.slow
def test_buttons_stop_and_the_answers_of_others(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    page.click("[data-choice=tie]")
    opened.ready(2)
    page.keyboard.press(" ")  # is the key of the page again, not of the button that was clicked
    opened.ready(3)
    page.locator("[data-choice=left]").focus()
    page.keyboard.press("Enter")
    opened.ready(4)
    page.click("#stop")
    assert page.evaluate("document.activeElement.id") == "done"
    assert page.inner_text("#said") == "3 answers."
    told = _saved(page, tmp_path)
    assert [answer["winner"] for answer in told["answers"]][:2] == [None, None]
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**told, "answers": told["answers"][:1]}))
    broken = tmp_path / "<b>.json"
    broken.write_text('{"study": "another"}')
    page.set_input_files("#add", [other, other, broken])
    page.wait_for_selector(".trouble-said:not(:empty)")
    assert page.inner_text("#said") == "4 answers."
    assert page.inner_text(".trouble-said") == "<b>.json: no answers to these questions"


@pytest.mark.slow
def test_order_and_sides_differ_from_person_to_person(browser: "Browser", path: Path) -> None:
    orders = set()
    for _ in range(4):
        opened = Opened(browser, path)
        orders.add(opened.page.evaluate("JSON.stringify(order.map(({ trial, swapped }) => [trial, swapped]))"))
        opened.context.close()
    assert len(orders) >= 3  # of 12!·2¹²


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_everything_fits_and_has_a_name(browser: "Browser", path: Path, width: int, scheme: Any) -> None:
    opened = Opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bottom = page.locator("#stop").bounding_box()
    assert bottom
    assert bottom["y"] + bottom["height"] <= 800  # no scrolling between two answers
    boxes = [page.locator(".pictures img").nth(i).bounding_box() for i in range(3)]
    sizes = {(round(box["width"]), round(box["height"])) for box in boxes if box}
    assert len(sizes) == 1
    assert boxes[1]
    assert boxes[2]
    assert boxes[1]["x"] < boxes[2]["x"]
    for name in ("The original", "The left picture", "The right picture"):
        assert page.get_by_role("img", name=name, exact=True).count() == 1
    for name in ("← Left", "No difference", "Right →", "Stop here"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    assert page.get_by_role("progressbar", name="Questions answered").count() == 1
    page.click("#stop")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.complaints == []
    opened.context.close()
