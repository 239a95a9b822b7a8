"""A result as pictures: a panel for each metric against bits per pixel, for light pages and for dark ones.

::

    Result ───┬─ light ─┬─▶ rd.png
              │         └─▶ rd.svg, which turns dark on a dark page
              └─ dark ────▶ rd-dark.png

Lengths are points, 1/72 inch. The figure's width is fixed, so that text is as large as the text of a README around it.
"""

import io
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vqcodec.errors import MissingPackageError, ReportError
from vqcodec.files.atomic import write_atomic
from vqcodec.metrics import METRICS, Metric
from vqcodec.rd.anchors import OWN
from vqcodec.rd.curves import Point
from vqcodec.rd.result import Columns, Curve, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "STYLES", "Style", "plot"]

PLOTS = ("rd.png", "rd-dark.png", "rd.svg")


@dataclass(frozen=True)
class Style:
    """How a codec's curve looks.

    Attributes:
        light: colour on white, ``#rrggbb``.
        dark: colour on near-black, of the same hue and a contrast of at least 4.5.
        marker: at each setting, by matplotlib's name.
    """

    light: str
    dark: str
    marker: str


# Okabe and Ito's colours, which people with any colour vision can tell apart, then a dark red and a brown as far from
# them; and lighter colours of the same hues.
STYLES = {
    "vqcodec": Style("#0072b2", "#4aa8ff", "o"),
    "jpeg": Style("#d55e00", "#ff8a4c", "D"),
    "webp": Style("#009e73", "#2bc896", "^"),
    "avif": Style("#cc79a7", "#e79fc6", "s"),
    "jpeg2000": Style("#e69f00", "#f7c04a", "v"),
    "jpegxl": Style("#8b1a1a", "#e06666", "X"),
    "heif": Style("#8c6239", "#c98f5a", ">"),
}
"""By the name of vqcodec or of an anchor."""

_OTHER = Style("#5b4a8a", "#b3a1e6", "P")  # an anchor that STYLES does not know


@dataclass(frozen=True)
class _Theme:
    background: str
    text: str
    quiet: str  # tick labels, axes
    grid: str
    greys: tuple[str, str]  # of overlays


_LIGHT = _Theme("#ffffff", "#1f2328", "#59636e", "#e4e7eb", ("#6e7781", "#8c959f"))
_DARK = _Theme("#0d1117", "#e6edf3", "#9198a1", "#262c36", ("#a3abb5", "#767e89"))

# With two greys, enough looks for as many overlays as one file may give; more begin again.
_DASHES = ((5, 2), (1.2, 1.6), (6, 1.6, 1.2, 1.6), (9, 3), (5, 1.4, 1.2, 1.4, 1.2, 1.4), (2.5, 2.5))

_WIDTH = 597.6  # 830 pixels of a README's column when a screen shows it there
_EDGE = 8.0
_LEFT = 28.0  # tick labels of a panel
_BELOW = 32.0  # tick labels and the name of the axis
_TICKS = 18.0  # tick labels alone
_HEADING = 22.0
_LINE = 16.0  # of the legend
_SAMPLE = 30.0  # of a line, in the legend
_FONT = 9.0
_NEAR = {"dB": 8.0, "": 40.0}  # by unit: how far above a short curve of vqcodec others show; half as far below
_TICK_SPACE = 26.0  # at least, between labels of a metric
_GAP = 14.0  # between entries of the legend, and between panels
_BODY = (330.0, 300.0, 370.0, 560.0, 560.0)  # height without the legend, of one panel to five
_FIRST = (0.55, 0.62)  # of the width is the first panel's, of two or three
_DPI = 200  # of the PNGs: two pixels to one of a README's

_FONTS = 'system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif'
_PUBLISHED = "published, not measured here:"


@dataclass(frozen=True)
class _Look:
    """Properties of matplotlib's Line2D, by its names."""

    color: str
    linewidth: float
    linestyle: str | tuple[int, tuple[float, ...]] = "-"
    marker: str = "None"
    markersize: float = 6.0
    markeredgecolor: str = "auto"
    markeredgewidth: float = 1.0


@dataclass(frozen=True)
class _Line:
    label: str
    results: Columns
    look: _Look


@dataclass(frozen=True)
class _Entry:
    x: float
    row: int
    text: str
    line: _Line | None  # None for a heading


def plot(result: Result, folder: Path, *, log_rate: bool = False) -> list[Path]:
    """Draw ``result`` to ``rd.png``, ``rd-dark.png`` and ``rd.svg`` in ``folder``; returns their paths in this order.

    Each of :data:`vqcodec.metrics.METRICS` that vqcodec was measured by has a panel; that of PSNR is the largest. The
    rate axis goes from zero to a little beyond vqcodec's points; with ``log_rate`` it is logarithmic and covers these
    points alone. Anchors have the colours and markers of :data:`STYLES`; overlays are grey and dashed. The SVG follows
    ``prefers-color-scheme``, also in an ``<img>``; its text is stored as text. With one version of matplotlib, equal
    results give equal bytes.

    Raises ReportError if vqcodec has no point, ImageError if a file cannot be written, and MissingPackageError without
    matplotlib.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingPackageError(
            'the plot needs the package matplotlib: pip install ".[bench]" in a checkout'
        ) from error

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # an overlay may have any name
        matplotlib.rcdefaults()  # the user's own settings must not change the files
        matplotlib.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # part of matplotlib, and wider than the fonts that show the SVG
                "font.size": _FONT,
                "svg.fonttype": "none",
                "svg.hashsalt": "vqcodec",
            }
        )
        light, dark = (_figure(result, theme, log_rate) for theme in (_LIGHT, _DARK))
        files = dict(zip(PLOTS, (_png(light), _png(dark), _svg(light)), strict=True))
    for name, data in files.items():
        write_atomic(folder / name, data)
    return [folder / name for name in files]


def _figure(result: Result, theme: _Theme, log_rate: bool) -> "Figure":
    from matplotlib.figure import Figure

    metrics = [metric for metric in METRICS if _points(result.own.results, metric)]
    if not metrics:
        raise ReportError("no plot: vqcodec has no point with a rate and a metric")
    measured = [_line(curve, _measured_look(curve.name, theme)) for curve in (result.own, *result.anchors)]
    published = [_line(curve, _published_look(i, theme)) for i, curve in enumerate(result.overlays)]
    entries = _legend(measured, published)
    body = _BODY[len(metrics) - 1]
    height = 2 * _EDGE + _LINE * (1 + entries[-1].row) + body
    figure = Figure(figsize=(_WIDTH / 72, height / 72), facecolor=theme.background)
    _draw_legend(figure, entries, theme, height)
    count = len(result.images)
    rates = "bits per pixel of whole files, " + ("one image" if count == 1 else f"mean of {count} images")
    places = _places(len(metrics), body)
    for metric, (left, bottom, width, tall) in zip(metrics, places, strict=True):
        lowest = not any(place[0] == left and place[1] < bottom for place in places)
        axes = figure.add_axes((left / _WIDTH, (_EDGE + bottom) / height, width / _WIDTH, tall / height))
        _dress(axes, metric, theme)
        for order, line in enumerate(reversed((*measured, *published))):  # vqcodec on top
            if points := _points(line.results, metric):
                look = line.look
                if len(points) == 1 and look.marker == "None":  # without a marker, one point would be invisible
                    look = replace(look, marker="x", markersize=5)
                axes.plot(*zip(*points, strict=True), **asdict(look), zorder=3 + order)
        _limit(axes, [_points(line.results, metric) for line in (*measured, *published)], metric.unit, log_rate)
        if lowest:  # of its column
            axes.set_xlabel(rates if left == places[0][0] else "bits per pixel", color=theme.text)
    return figure


def _line(curve: Curve, look: _Look) -> _Line:
    return _Line(curve.label, curve.results, look)


def _measured_look(name: str, theme: _Theme) -> _Look:
    style = STYLES.get(name, _OTHER)
    ours = name == OWN
    return _Look(
        color=style.light if theme is _LIGHT else style.dark,
        linewidth=2.6 if ours else 1.5,
        marker=style.marker,
        markersize=7.5 if ours else 5.5,
        markeredgecolor=theme.background,  # keeps markers apart where they meet
        markeredgewidth=0.7,
    )


def _published_look(index: int, theme: _Theme) -> _Look:
    grey = theme.greys[index // len(_DASHES) % len(theme.greys)]
    return _Look(color=grey, linewidth=1.1, linestyle=(0, _DASHES[index % len(_DASHES)]))


def _points(results: Columns, metric: Metric) -> list[Point]:
    """(bpp, metric) of each setting that can be drawn; none where the metric was not measured."""
    pairs = zip(results["bpp"], results.get(metric.key, []), strict=False)
    return [(bpp, value) for bpp, value in pairs if _drawable(bpp) and _drawable(value)]


def _drawable(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _legend(measured: Sequence[_Line], published: Sequence[_Line]) -> list[_Entry]:
    """Measured curves first, then published ones on rows of their own; no row is wider than the figure."""
    entries: list[_Entry] = []
    row = 0
    for heading, lines in (("", measured), (_PUBLISHED, published)):
        x = _EDGE
        if heading and lines:
            entries.append(_Entry(x, row, heading, None))
            x += _text_width(heading) + _GAP
        for line in lines:
            width = _SAMPLE + _text_width(line.label)
            if x > _EDGE and x + width > _WIDTH - _EDGE:
                x, row = _EDGE, row + 1
            entries.append(_Entry(x, row, line.label, line))
            x += width + _GAP
        row += 1
    return entries


def _text_width(text: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=_FONT), ismath=False)[0])


def _draw_legend(figure: "Figure", entries: Sequence[_Entry], theme: _Theme, height: float) -> None:
    from matplotlib.lines import Line2D

    for entry in entries:
        x, y = entry.x / 72, (height - _EDGE - _LINE * (entry.row + 0.5)) / 72
        if entry.line:
            ends = x, x + (_SAMPLE - 6) / 72
            line = Line2D([ends[0], sum(ends) / 2, ends[1]], [y] * 3, **asdict(entry.line.look), markevery=[1])
            line.set_transform(figure.dpi_scale_trans)
            figure.add_artist(line)
            x += _SAMPLE / 72
        colour = theme.text if entry.line else theme.quiet
        figure.text(
            x, y - 0.35 * _FONT / 72, entry.text, color=colour, transform=figure.dpi_scale_trans, parse_math=False
        )


def _places(count: int, body: float) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width and height of the axes of one to five panels, the first the largest."""
    if count > 3:
        lower = body - _BODY[2]
        above = [(left, bottom + lower, width, tall) for left, bottom, width, tall in _places(3, _BODY[2])]
        below = [(left, _BELOW, width, lower - _BELOW - _HEADING) for left, _, width, _ in above[:2]]
        return [*above, *below[: count - 3]]
    left, right, bottom = _EDGE + _LEFT, _WIDTH - _EDGE, _BELOW
    tall = body - _BELOW - _HEADING
    if count == 1:
        return [(left, bottom, right - left, tall)]
    between = _GAP + _LEFT
    width = _FIRST[count - 2] * (right - left - between)
    second = left + width + between
    if count == 2:
        return [(left, bottom, width, tall), (second, bottom, right - second, tall)]
    half = (tall - _TICKS - _HEADING) / 2
    upper = bottom + half + _HEADING + _TICKS
    return [
        (left, bottom, width, tall),
        (second, upper, right - second, half),
        (second, bottom, right - second, half),
    ]


def _dress(axes: "Axes", metric: Metric, theme: _Theme) -> None:
    axes.set_facecolor(theme.background)
    heading = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    axes.set_title(heading, loc="left", color=theme.text, fontsize=_FONT + 1, fontweight="bold", pad=6)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.quiet)
    axes.tick_params(which="both", color=theme.quiet, labelcolor=theme.quiet, labelsize=_FONT - 0.5)


def _limit(axes: "Axes", curves: Sequence[Sequence[Point]], unit: str, log_rate: bool) -> None:
    """Show where the first of ``curves`` is, and of the others what is near it."""
    rates, values = zip(*curves[0], strict=True)
    lowest, highest = min(rates), max(rates)
    beyond = 1.15 if lowest < highest else 2.0
    left, right = (lowest / beyond if log_rate else 0.0), highest * beyond
    if log_rate:
        axes.set_xscale("log")
    axes.set_xlim(left, right)
    shown = [value for curve in curves for value in _within(curve, left, right)]
    # Curves that are far off or steep must not press the first one flat.
    spread = max(max(values) - min(values), _NEAR[unit])
    bottom, top = max(min(shown), min(values) - spread / 2), min(max(shown), max(values) + spread)
    margin = max(0.04 * (top - bottom), 0.5)
    bottom, top = bottom - margin, top + margin
    axes.set_ylim(bottom, top)
    rate_ticks = _log_ticks(left, right) if log_rate else _ticks(left, right, 6)
    value_ticks = _ticks(bottom, top, round(72 * axes.bbox.height / axes.figure.dpi / _TICK_SPACE))
    axes.set_xticks(rate_ticks, [f"{rate:.4g}" for rate in rate_ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(value_ticks, [f"{value:.4g}".replace("-", "−") for value in value_ticks])


def _within(curve: Sequence[Point], left: float, right: float) -> Iterator[float]:
    """The metric where the curve's line is between two rates: at its points, and where it comes in or goes out."""
    yield from (value for rate, value in curve if left <= rate <= right)
    for (a, low), (b, high) in itertools.pairwise(curve):
        yield from (low + (high - low) * (edge - a) / (b - a) for edge in (left, right) if a < edge < b)


def _ticks(start: float, end: float, most: int) -> list[float]:
    """Up to ``most`` steps of 1, 2, 5, 10 …"""
    from matplotlib.ticker import MaxNLocator

    return [tick for tick in MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(start, end) if start <= tick <= end]


def _log_ticks(start: float, end: float) -> list[float]:
    """1, 2, 5 of each decade, or steps as on a linear axis where these would be fewer than three."""
    decades = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if start <= tick <= end]
    return ticks if len(ticks) >= 3 else _ticks(start, end, 6)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: "Figure") -> bytes:
    """The light figure, with the rules that make it dark."""
    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata | {"Title": "Distortion against rate"})
    pairs = {style.light: style.dark for style in (*STYLES.values(), _OTHER)}
    pairs |= {_LIGHT.background: _DARK.background, _LIGHT.text: _DARK.text, _LIGHT.quiet: _DARK.quiet}
    pairs |= {_LIGHT.grid: _DARK.grid, **dict(zip(_LIGHT.greys, _DARK.greys, strict=True))}
    # matplotlib writes a colour into each element; a program that knows no rules shows the light figure.
    dark = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in pairs.items()
        for what in ("fill", "stroke")
    )
    rules = f"text{{font-family:{_FONTS}!important}}@media(prefers-color-scheme:dark){{{dark}}}"
    drawing = buffer.getvalue().decode()
    return drawing.replace("<defs>", f"<style>{rules}</style>\n <defs>", 1).encode()
