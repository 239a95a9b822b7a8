"""A report as one HTML page that needs nothing else: curves to explore, pictures to compare, tables.

::

    result, rows ──JSON─────┐
    pictures ────base64─────┼─ page.html ──▶ text of index.html
    stored (a sentence) ────┘

Names of images are names of files, which anyone may have chosen: the page gets them only as JSON without a ``<`` and
shows them only as text. A picture's base64 lies in a script element of a type that browsers do not run, so that opening
a page of 40 MB costs little more than reading it; a picture is decoded when it is first looked at.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from vqcodec.jsonfile import finite
from vqcodec.rd.result import Result, Row

__all__ = ["Picture", "render"]

_DATA, _PICTURES = "<!-- data -->", "<!-- pictures -->"  # where page.html has them put


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
    template = resources.files("vqcodec.rd").joinpath("page.html").read_text(encoding="utf-8")
    before, rest = template.split(_DATA)
    between, after = rest.split(_PICTURES)
    elements = (_element(f"picture-{i}", "text/plain", _base64(one.data)) for i, one in enumerate(pictures))
    return "".join((before, _element("data", "application/json", _json(content)), between, *elements, after))


def _element(name: str, kind: str, text: str) -> str:
    return f'<script id="{name}" type="{kind}">{text}</script>\n'


def _json(content: object) -> str:
    # Without "<" no string can end the script element or open a comment in it.
    text = json.dumps(finite(content), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
