"""A report as one HTML page that needs nothing else: curves to explore, pictures to compare, tables.

::

    result, rows, stored ──JSON──┐
    pictures ────────────base64──┼─ assets/page.html ──▶ text of index.html
    assets/page.css, *.js ───────┘

Anyone may have chosen the names of images, which are those of their files: the page gets them only as JSON without a
``<``, and shows them only as text. A picture's base64 is the text of a script element that browsers do not run, so that
they open a page of 40 MB nearly as fast as they read it; a picture is decoded when it is first shown.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from vqcodec.jsonfile import finite
from vqcodec.rd.result import Result, Row

__all__ = ["Picture", "render"]

_MARK = re.compile(r"<!-- (style|data|script|pictures) -->\n")

# The page's scripts share one scope, so each may use what those before it define.
_SCRIPTS = (
    "content",
    "elements",
    "header",
    "curves",
    "chart",
    "chart-controls",
    "storage",
    "compare",
    "stage",
    "controls",
    "tables",
    "about",
    "start",
)


@dataclass(frozen=True)
class Picture:
    """A picture that the page can show.

    Attributes:
        image: name of the image that it shows, as in ``result.images``.
        codec: ``"vqcodec"``, the name of an anchor, or ``"original"``.
        setting: index into that codec's settings; 0 for the original.
        mime: type of ``data``, such as ``"image/webp"``.
        data: bytes of a file that browsers can show.
    """

    image: str
    codec: str
    setting: int
    mime: str
    data: bytes


def render(result: Result, rows: Sequence[Row], pictures: Sequence[Picture], *, stored: str) -> str:
    """The page's text.

    Args:
        result: the figures.
        rows: the values of each image, codec and setting.
        pictures: to compare; without any, the page has no such part.
        stored: a sentence that says in which form the pictures are stored.
    """
    listed = [{"image": one.image, "codec": one.codec, "setting": one.setting, "mime": one.mime} for one in pictures]
    content = {
        "result": result.to_json(),
        "rows": [row.to_json() for row in rows],
        "pictures": listed,
        "stored": stored,
    }
    parts = {
        "style": [f"<style>\n{_asset('page.css')}</style>\n"],
        "data": [_element("data", "application/json", _json(content))],
        "script": ['<script>\n"use strict";\n\n', "\n".join(_asset(f"{name}.js") for name in _SCRIPTS), "</script>\n"],
        "pictures": [_element(f"picture-{i}", "text/plain", _base64(one.data)) for i, one in enumerate(pictures)],
    }
    page: list[str] = []
    for line in _asset("page.html").splitlines(keepends=True):
        mark = _MARK.fullmatch(line)  # parts may hold anything, so they are put in line by line and never searched
        page += parts[mark[1]] if mark else [line]
    return "".join(page)


def _asset(name: str) -> str:
    return resources.files("vqcodec.rd").joinpath("assets", name).read_text(encoding="utf-8")


def _element(name: str, kind: str, text: str) -> str:
    return f'<script id="{name}" type="{kind}">{text}</script>\n'


def _json(content: object) -> str:
    # Without "<" no string can end the script element or open a comment in it.
    text = json.dumps(finite(content), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
