"""What people look at: the Markdown tables and the plot of a stored rate–distortion result.

::

    result.json ─┬─ markdown ─▶ tables for README and terminal
                 └─ plot ─────▶ PSNR against bpp
"""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vqcodec.images import write_atomic

__all__ = ["markdown", "plot"]

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = {"vqcodec": "#0072B2", "avif": "#CC79A7", "webp": "#009E73", "jpeg": "#D55E00"}
_MARKERS = {"vqcodec": "o", "avif": "s", "webp": "^", "jpeg": "D"}


def markdown(result: dict[str, Any]) -> str:
    """The tables of a result: curve, BD-rates, codebooks, checks."""
    own = result["codecs"][0]
    totals, levels = own["results"]["bpp"], own["level_bpp"]
    qualities = [setting["quality"] for setting in own["settings"]]
    curve = [
        [
            f"{quality}",
            f"{bpp:.3f}",
            f"{psnr:.2f}",
            *(f"{100 * level[i] / bpp:.1f} %" for level in levels),
            f"{100 * (1 - sum(level[i] for level in levels) / bpp):.1f} %",
        ]
        for i, (quality, bpp, psnr) in enumerate(zip(qualities, totals, own["results"]["psnr-rgb"], strict=True))
    ]
    heads = ["quality", "bpp", "PSNR, dB", *(f"level {i}" for i in range(len(levels))), "framing"]
    blocks = [_table(heads, curve)]
    if result["bd_rate"]:
        blocks.append(_table(["against", "BD-rate", "over"], map(_bd_row, result["bd_rate"])))
    blocks.append(
        _table(
            ["level", "stride", "codebooks", "codewords in use", "perplexity"],
            map(_usage_row, enumerate(result["usage"])),
        )
    )
    weights = result["provenance"]["weights"]
    title = (
        f"{len(result['images'])} images, mean of each; weights {weights['name']} {weights['fingerprint']}; "
        "a level's column is its share of the bytes."
    )
    return "\n\n".join([title, *blocks, "\n".join(_checks(result))])


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw PSNR against bpp to ``path``, a PNG to be read at the width of a README."""
    own = result["codecs"][0]
    figure = Figure(figsize=(8, 5), facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    for codec in reversed(result["codecs"]):
        ours = codec is own
        axes.plot(
            codec["results"]["bpp"],
            codec["results"]["psnr-rgb"],
            color=_COLOURS[codec["name"]],
            marker=_MARKERS[codec["name"]],
            linewidth=3 if ours else 2,
            markersize=8 if ours else 6,
            label=codec["label"],
        )
    # The anchors go on to rates where vqcodec has nothing to show.
    right = 1.15 * own["results"]["bpp"][-1]
    shown = [
        psnr
        for codec in result["codecs"]
        for bpp, psnr in zip(codec["results"]["bpp"], codec["results"]["psnr-rgb"], strict=True)
        if bpp <= right
    ]
    axes.set_xlim(0, right)
    axes.set_ylim(math.floor(min(shown)) - 0.5, math.ceil(max(shown)) + 0.5)
    axes.set_xlabel(f"bits per pixel of whole files, mean of {len(result['images'])} images", fontsize=15)
    axes.set_ylabel("PSNR-RGB, dB", fontsize=15)
    axes.tick_params(labelsize=13)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=-(-len(labels) // 2), fontsize=13, frameon=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned to the right."""
    lines = [heads, ["---:"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bd_row(bd: dict[str, Any]) -> list[str]:
    figure = bd["note"] if bd["percent"] is None else _percent(bd["percent"] / 100, 1)
    common = "–" if bd["common_psnr"] is None else "{:.1f}–{:.1f} dB".format(*bd["common_psnr"])
    return [bd["label"], figure, common]


def _usage_row(numbered: tuple[int, dict[str, Any]]) -> list[str]:
    index, level = numbered
    groups, size = level["groups"], level["codebook_size"]
    perplexity = level["perplexity"]
    return [
        f"{index}",
        f"{level['stride']}",
        f"{groups} × {size}",
        f"{100 * (1 - level['dead'] / (groups * size)):.1f} %",
        f"{sum(perplexity) / groups:.1f} ({min(perplexity):.1f}–{max(perplexity):.1f})",
    ]


def _checks(result: dict[str, Any]) -> list[str]:
    coding, rising = result["checks"]["coding"], result["checks"]["monotone"]
    falls = ", ".join(f"{a} to {b}" for a, b in rising["falls"])
    return [
        f"- Payload beyond cross-entropy: {_percent(coding['total_relative_excess'])} over {coding['files']} files, "
        f"at most {_percent(coding['largest_relative_excess'])} and {coding['largest_excess_bytes']:.1f} bytes in one; "
        f"each within {100 * coding['limit_relative']:g} % + {coding['limit_bytes']} bytes: "
        f"{_verdict(coding['passed'])}",
        f"- On the mean, more quality gives more bits and more PSNR at each step: {_verdict(rising['passed'])}"
        + (f" (not from quality {falls})" if falls else ""),
    ]


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:+.{digits}f} %".replace("-", "−")


def _verdict(passed: bool) -> str:
    return "yes" if passed else "**no**"
