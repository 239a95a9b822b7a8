"""A result as Markdown: the short table of the terminal, the long ones of a stored report, one sentence of a README.

::

    Result ──┬─ summary ──▶ the curve, BD figures, notes
             ├─ markdown ─▶ the same with rates, levels, codebooks and checks
             └─ headline ─▶ bits against each anchor, in words
"""

from collections.abc import Iterable, Mapping, Sequence

from vqcodec.metrics import METRICS, Metric
from vqcodec.rd.result import Comparison, LevelUsage, Result

__all__ = ["headline", "markdown", "summary"]


def summary(result: Result) -> str:
    """The curve of vqcodec, its BD figures, and the notes."""
    results = result.own.results
    metrics = _measured(result)
    heads = ["quality", "bpp", *map(_head, metrics), "median encode, s", "median decode, s"]
    times = [results["encoding_time"], results["decoding_time"]]
    rows = [
        [*_start(result, metrics, i), *(f"{seconds[i]:.2f}" for seconds in times)]
        for i in range(len(result.own.settings))
    ]
    blocks = [_table(heads, rows), *_bd_table(result.bd)]
    if result.notes:
        blocks.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join(blocks)


def markdown(result: Result) -> str:
    """The tables of a result: curve, BD figures, codebooks, checks."""
    rates, levels = result.rates, result.rates.level_bpp
    metrics = _measured(result)
    curve = [
        [
            *_start(result, metrics, i),
            f"{rates.uniform_bpp[i]:.2f}",
            f"{rates.static_bpp[i]:.3f}",
            *(f"{100 * level[i] / bpp:.1f} %" for level in levels),
            f"{100 * (1 - sum(level[i] for level in levels) / bpp):.1f} %",
        ]
        for i, bpp in enumerate(result.own.results["bpp"])
    ]
    heads = ["quality", "bpp", *map(_head, metrics), "uniform", "static"]
    heads += [*(f"level {i}" for i in range(len(levels))), "framing"]
    usage = _table(
        ["level", "stride", "codebooks", "codewords in use", "perplexity"],
        (_usage_row(i, level) for i, level in enumerate(result.usage)),
    )
    weights = result.provenance.weights
    title = (
        f"{len(result.images)} images, mean of each; weights {weights.name} {weights.fingerprint}. “Uniform” "
        "and “static” are the bpp of the same codes at log2 K bits each and at the entropy of their frequencies; a "
        "level's column is its share of the file."
    )
    parts = [title, _table(heads, curve), *_level_rates(result), *_bd_table(result.bd), usage]
    return "\n\n".join([*parts, "\n".join(_checks(result))])


def headline(result: Result, anchors: Sequence[str]) -> str:
    """How many bits vqcodec needs against each of ``anchors``, named as on the command line, at equal quality.

    One sentence with the BD-rates in every metric, such as "At equal PSNR-RGB, vqcodec needs 53 % fewer bits than JPEG
    and 4 % more than AVIF; at equal MS-SSIM, 48 % fewer and 20 % more (…)." A metric or an anchor without a figure is
    left out.

    Raises ValueError if there is no figure at all.
    """
    found = {(bd.metric, bd.anchor): bd for bd in result.bd if bd.bd_rate is not None and not bd.published}
    clauses: list[str] = []
    before: list[str] = []
    for metric in METRICS:
        figures = [found[metric.key, anchor] for anchor in anchors if (metric.key, anchor) in found]
        if not figures:
            continue
        labels = [bd.label for bd in figures]
        parts = [_amount(bd) for bd in figures]
        if labels != before:  # otherwise they are those of the clause before, in the same order
            nouns = [" bits", *[""] * (len(parts) - 1)]
            parts = [f"{part}{noun} than {label}" for part, noun, label in zip(parts, nouns, labels, strict=True)]
        verb = "" if clauses else "vqcodec needs "
        clauses.append(f"at equal {metric.label}, {verb}{_listed(parts)}")
        before = labels
    if not clauses:
        raise ValueError(f"no BD-rate against any of {', '.join(anchors)}")
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]} (BD-rates of the means over {len(result.images)} images)."


def _level_rates(result: Result) -> list[str]:
    """The rate of each level three ways, in bpp; nothing for a result from before this was kept."""
    rates = result.rates
    kinds = [rates.uniform_level_bpp, rates.static_level_bpp, rates.level_bpp]
    if not rates.uniform_level_bpp:
        return []
    heads = ["quality", *(f"level {i} {kind}" for i in range(len(kinds[0])) for kind in ("uniform", "static", "real"))]
    rows = [
        [f"{setting.quality}", *(f"{kind[level][i]:.4f}" for level in range(len(kinds[0])) for kind in kinds)]
        for i, setting in enumerate(result.own.settings)
    ]
    return [_table(heads, rows)]


def _amount(bd: Comparison) -> str:
    """Such as ``53 % fewer``."""
    assert bd.bd_rate is not None
    return f"{abs(bd.bd_rate):.0f} % {'fewer' if bd.bd_rate < 0 else 'more'}"


def _listed(parts: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _start(result: Result, metrics: Sequence[Metric], index: int) -> list[str]:
    """Quality, bpp and metrics of a point of vqcodec's curve."""
    results = result.own.results
    start = [f"{result.own.settings[index].quality}", f"{results['bpp'][index]:.3f}"]
    return start + [_figure(results[metric.key][index]) for metric in metrics]


def _measured(result: Result) -> list[Metric]:
    return [metric for metric in METRICS if metric.key in result.own.results]


def _head(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


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


def _bd_table(comparisons: Sequence[Comparison]) -> list[str]:
    """For each other curve a row: BD-rate in each metric, then BD-PSNR and the range of PSNR that both curves reach."""
    if not comparisons:
        return []
    shown = [metric for metric in METRICS if any(bd.metric == metric.key for bd in comparisons)]
    curves: dict[tuple[str, str], dict[str, Comparison]] = {}
    for bd in comparisons:
        curves.setdefault((bd.label, bd.anchor), {})[bd.metric] = bd
    rows = [_bd_row(label, by_metric, [metric.key for metric in shown]) for (label, _), by_metric in curves.items()]
    heads = ["against", *(f"BD-rate, {metric.label}" for metric in shown), "BD-PSNR", "common PSNR"]
    return [_table(heads, rows)]


def _bd_row(label: str, by_metric: Mapping[str, Comparison], keys: Sequence[str]) -> list[str]:
    first, psnr = next(iter(by_metric.values())), by_metric.get("psnr-rgb")
    rates = [by_metric[key].bd_rate if key in by_metric else None for key in keys]
    gain, common, note = (psnr.bd_metric, psnr.common, psnr.note) if psnr else (None, None, "")
    return [
        f"{label} (published)" if first.published else label,
        *("–" if rate is None else _signed(rate, " %", 1) for rate in rates),
        "–" if gain is None else _signed(gain, " dB"),
        note or ("–" if common is None else f"{common[0]:.1f} to {common[1]:.1f} dB"),
    ]


def _usage_row(index: int, level: LevelUsage) -> list[str]:
    groups, size, perplexity = level.groups, level.codebook_size, level.perplexity
    return [
        f"{index}",
        f"{level.stride}",
        f"{groups} × {size}",
        f"{100 * (1 - level.dead / (groups * size)):.1f} %",
        f"{sum(perplexity) / groups:.1f} ({min(perplexity):.1f}–{max(perplexity):.1f})",
    ]


def _checks(result: Result) -> list[str]:
    coding, monotone = result.checks.coding, result.checks.monotone
    falls = ", ".join(f"{a} to {b}" for a, b in monotone.falls)
    return [
        f"- Payload beyond cross-entropy: {_signed(100 * coding.total_relative_excess, ' %')} over "
        f"{coding.files} files, at most {_signed(100 * coding.largest_relative_excess, ' %')} and "
        f"{coding.largest_excess_bytes:.1f} bytes in one; each within {100 * coding.limit_relative:g} % + "
        f"{coding.limit_bytes} bytes: {_verdict(coding.passed)}",
        f"- On the mean, more quality gives more bits and more PSNR at each step: {_verdict(monotone.passed)}"
        + (f" (not from quality {falls})" if falls else ""),
        *(f"- {note}" for note in result.notes),
    ]


def _signed(value: float, unit: str, digits: int = 2) -> str:
    return f"{value:+.{digits}f}{unit}".replace("-", "−")


def _verdict(passed: bool) -> str:
    return "yes" if passed else "**no**"
