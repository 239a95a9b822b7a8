"""A page of pictures and tables as one HTML file that needs nothing else, not even JavaScript.

::

    title, facts, sections of (Gallery | Plots | Table | Note) ──render──▶ text of index.html

The style is that of the report of ``rd-curve``, whose style sheet is read from there. Names of files may hold
anything; every text is escaped.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources

from vqcodec.files.images import encode_image
from vqcodec.study.paint import Floats, Pixels

__all__ = ["Block", "Figure", "Gallery", "Note", "Plot", "Plots", "Section", "Table", "render"]

_PLOT = 150  # side of a plot in its own units
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Figure:
    """A picture ``[H, W, 3]`` and what it shows; a ``coarse`` one is enlarged without smoothing."""

    caption: str
    picture: Pixels
    coarse: bool = False

    def html(self) -> str:
        data = base64.b64encode(encode_image(self.picture)).decode("ascii")
        height, width, _ = self.picture.shape
        look = ' class="coarse"' if self.coarse else ""
        image = f'<img{look} src="data:image/png;base64,{data}" width="{width}" height="{height}"'
        return f'<figure>{image} alt="{escape(self.caption)}"><figcaption>{escape(self.caption)}</figcaption></figure>'


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, each at least ``width`` pixels wide where the screen has them."""

    figures: Sequence[Figure]
    width: int

    def html(self) -> str:
        inside = "".join(figure.html() for figure in self.figures)
        return f'<div class="gallery" style="--least:{self.width}px">{inside}</div>'


@dataclass(frozen=True)
class Table:
    """Rows of figures under heads; the first column is the row's name. A ``folded`` table opens at a click."""

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    def html(self) -> str:
        heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in self.heads)
        body = "".join(
            f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
            for row in self.rows
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        box = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(self.name)}">{table}</div>'
        return f"<details><summary>{escape(self.name)}</summary>{box}</details>" if self.folded else box


@dataclass(frozen=True)
class Plot:
    """Points around zero: ``points [n, 2]``, ``colours [n, 3]``, ``sizes [n]`` in 0..1, and a name of each."""

    caption: str
    points: Floats
    colours: Pixels
    sizes: Sequence[float]
    names: Sequence[str]

    def html(self) -> str:
        middle, largest = _PLOT / 2, max(float(abs(self.points).max()), 1e-9)
        scale = (middle - 12) / largest
        dots: list[str] = []
        for (x, y), colour, size, name in zip(self.points, self.colours, self.sizes, self.names, strict=True):
            place = f'cx="{middle + scale * x:.1f}" cy="{middle - scale * y:.1f}" r="{1.6 + 9 * size**0.5:.1f}"'
            red, green, blue = colour.tolist()
            paint = f'fill="rgb({red},{green},{blue})"'
            dots.append(f"<circle {place} {paint}><title>{escape(name)}</title></circle>")
        axes = f'<path class="axis" d="M0 {middle}H{_PLOT}M{middle} 0V{_PLOT}"/>'
        label = escape(self.caption)
        drawing = f'<svg viewBox="0 0 {_PLOT} {_PLOT}" role="img" aria-label="{label}">{axes}{"".join(dots)}</svg>'
        return f"<figure>{drawing}<figcaption>{label}</figcaption></figure>"


@dataclass(frozen=True)
class Plots:
    """Plots side by side."""

    plots: Sequence[Plot]

    def html(self) -> str:
        return f'<div class="gallery" style="--least:150px">{"".join(plot.html() for plot in self.plots)}</div>'


@dataclass(frozen=True)
class Note:
    """A paragraph; a ``title`` of its own stands above it."""

    text: str
    title: str = ""

    def html(self) -> str:
        heading = f"<h3>{escape(self.title)}</h3>" if self.title else ""
        return f"{heading}<p>{escape(self.text)}</p>"


Block = Gallery | Table | Plots | Note
"""What a section holds."""


@dataclass(frozen=True)
class Section:
    """A part of the page under a title."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)

    def html(self) -> str:
        return f"<section><h2>{escape(self.title)}</h2>{''.join(block.html() for block in self.blocks)}</section>"


def render(kicker: str, title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page's text; ``facts`` are pairs of a name and a value that stand below the title."""
    style = _asset("vqcodec.rd", "page.css") + _asset("vqcodec.study", "study.css")
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header class="top">
<p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1><dl class="facts">{pairs}</dl>
</header>
<main>
{"".join(section.html() for section in sections)}
</main>
</body>
</html>
"""


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")
