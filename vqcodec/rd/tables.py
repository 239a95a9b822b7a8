"""A result as Markdown: the short table of the terminal, and the long ones of a README.

::

    rd.json ─┬─ summary ──▶ the curve, BD figures, notes
             └─ markdown ─▶ the same with rates, levels, codebooks and checks
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vqcodec.metrics import METRICS

__all__ = ["markdown", "summary"]


def summary(result: dict[str, Any]) -> str:
    """The curve of vqcodec, its BD figures, and the notes."""
    results = result["results"]
    shown = _metrics(results)
    heads = ["quality", "bpp", *(head for head, _, _ in shown), "median encode, s", "median decode, s"]
    times = [results["encoding_time"], results["decoding_time"]]
    rows = [
        [
            *_start(result, i),
            *(form(results[key][i]) for _, key, form in shown),
            *(f"{seconds[i]:.2f}" for seconds in times),
        ]
        for i in range(len(result["settings"]))
    ]
    blocks = [_table(heads, rows), *_bd_table(result["bd"])]
    if result["notes"]:
        blocks.append("\n".join(f"- {note}" for note in result["notes"]))
    return "\n\n".join(blocks)


def markdown(result: dict[str, Any]) -> str:
    """The tables of a result: curve, BD figures, codebooks, checks."""
    results, levels = result["results"], result["rates"]["level_bpp"]
    uniform, static = result["rates"]["uniform_bpp"], result["rates"]["static_bpp"]
    shown = _metrics(results)
    curve = [
        [
            *_start(result, i),
            *(form(results[key][i]) for _, key, form in shown),
            f"{uniform[i]:.2f}",
            f"{static[i]:.3f}",
            *(f"{100 * level[i] / bpp:.1f} %" for level in levels),
            f"{100 * (1 - sum(level[i] for level in levels) / bpp):.1f} %",
        ]
        for i, bpp in enumerate(results["bpp"])
    ]
    heads = [head for head, _, _ in shown]
    heads = ["quality", "bpp", *heads, "uniform", "static", *(f"level {i}" for i in range(len(levels))), "framing"]
    usage = _table(
        ["level", "stride", "codebooks", "codewords in use", "perplexity"],
        map(_usage_row, enumerate(result["usage"])),
    )
    weights = result["provenance"]["weights"]
    title = (
        f"{len(result['images'])} images, mean of each; weights {weights['name']} {weights['fingerprint']}. “Uniform” "
        "and “static” are the bpp of the same codes at log2 K bits each and at the entropy of their frequencies; a "
        "level's column is its share of the file."
    )
    return "\n\n".join([title, _table(heads, curve), *_bd_table(result["bd"]), usage, "\n".join(_checks(result))])


def _start(result: dict[str, Any], index: int) -> list[str]:
    return [f"{result['settings'][index]['quality']}", f"{result['results']['bpp'][index]:.3f}"]


def _metrics(results: dict[str, Any]) -> list[tuple[str, str, Callable[[float], str]]]:
    """Heading, key and format of each metric that was measured."""
    return [
        (f"{metric.label}, {metric.unit}" if metric.unit else metric.label, metric.key, _figure)
        for metric in METRICS
        if metric.key in results
    ]


def _figure(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned to the right."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(4, *(len(line[i]) for line in lines)) for i in range(len(heads))]
    lines.insert(1, [f"{'-' * (width - 1)}:" for width in widths])
    return "\n".join(
        f"| {' | '.join(f'{cell:>{w}}' for cell, w in zip(line, widths, strict=True))} |" for line in lines
    )


def _bd_table(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """A row for each curve that ours is compared with: BD-rates in each metric, then BD-PSNR and the range of PSNR."""
    if not comparisons:
        return []
    shown = [metric for metric in METRICS if any(bd["metric"] == metric.key for bd in comparisons)]
    curves: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for bd in comparisons:
        curves.setdefault((bd["label"], bd["anchor"]), {})[bd["metric"]] = bd
    rows = [_bd_row(label, by_metric, [metric.key for metric in shown]) for (label, _), by_metric in curves.items()]
    heads = ["against", *(f"BD-rate, {metric.label}" for metric in shown), "BD-PSNR", "common PSNR"]
    return [_table(heads, rows)]


def _bd_row(label: str, by_metric: dict[str, dict[str, Any]], keys: Sequence[str]) -> list[str]:
    first = next(iter(by_metric.values()))
    psnr = by_metric.get("psnr-rgb", {"bd_metric": None, "common": None, "note": ""})
    found = [by_metric.get(key) for key in keys]
    gain, common = psnr["bd_metric"], psnr["common"]
    return [
        f"{label} (published)" if first["published"] else label,
        *("–" if bd is None or bd["bd_rate"] is None else _signed(bd["bd_rate"], " %", 1) for bd in found),
        "–" if gain is None else _signed(gain, " dB"),
        psnr["note"] or ("–" if common is None else "{:.1f} to {:.1f} dB".format(*common)),
    ]


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
        f"- Payload beyond cross-entropy: {_signed(100 * coding['total_relative_excess'], ' %')} over "
        f"{coding['files']} files, at most {_signed(100 * coding['largest_relative_excess'], ' %')} and "
        f"{coding['largest_excess_bytes']:.1f} bytes in one; each within {100 * coding['limit_relative']:g} % + "
        f"{coding['limit_bytes']} bytes: {_verdict(coding['passed'])}",
        f"- On the mean, more quality gives more bits and more PSNR at each step: {_verdict(rising['passed'])}"
        + (f" (not from quality {falls})" if falls else ""),
        *(f"- {note}" for note in result["notes"]),
    ]


def _signed(value: float, unit: str, digits: int = 2) -> str:
    return f"{value:+.{digits}f}{unit}".replace("-", "−")


def _verdict(passed: bool) -> str:
    return "yes" if passed else "**no**"
