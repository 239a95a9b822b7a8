"""Plot time against pixels on logarithmic axes.

::

    result["sweep"] ──▶ a line each for encode and decode, a guide of slope 1 ──▶ PNG for light pages
"""

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from vqcodec.files.atomic import write_atomic
from vqcodec.rd.plot import STYLES

__all__ = ["plot"]

_LINES = {"encode": ("-", "o"), "decode": ("--", "s")}
_TEXT, _QUIET, _GRID = "#1f2328", "#59636e", "#e4e7eb"
_WIDTH, _HEIGHT = 6.2, 3.9  # inches


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw the sweep of ``result`` to ``file``; equal results give equal bytes with one version of matplotlib."""
    sweep = result["sweep"]
    megapixels = [point["width"] * point["height"] / 1e6 for point in sweep["points"]]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's own settings
        matplotlib.rcParams["font.size"] = 9
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        for direction, (dash, marker) in _LINES.items():
            seconds = [point[direction]["median"] for point in sweep["points"]]
            axes.plot(
                megapixels,
                seconds,
                dash,
                color=STYLES["vqcodec"].light,
                marker=marker,
                markersize=6,
                markeredgecolor="white",
                label=f"{direction}, slope {sweep['slope'][direction]:.2f}",
            )
        end = sweep["points"][-1]["decode"]["median"]
        guide = [end * pixels / megapixels[-1] for pixels in megapixels]
        axes.plot(megapixels, guide, ":", color=_QUIET, linewidth=1, label="in proportion to pixels")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(megapixels, [f"{round(pixels, 1):g}" for pixels in megapixels])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("megapixels", color=_TEXT)
        threads = result["provenance"]["threads"]
        axes.set_title(
            f"seconds, vqcodec, {threads} {'thread' if threads == 1 else 'threads'}, {result['provenance']['device']}",
            loc="left",
            color=_TEXT,
            fontweight="bold",
        )
        axes.grid(color=_GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_QUIET)
        axes.tick_params(which="both", color=_QUIET, labelcolor=_QUIET)
        axes.legend(frameon=False, labelcolor=_TEXT)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    write_atomic(file, buffer.getvalue())
