"""The result of :mod:`benchmarks.speed` as Markdown.

::

    results/speed.json ──▶ codecs, parts of vqcodec, memory and arithmetic, start-up, what takes the time, sizes
"""

from collections.abc import Mapping
from typing import Any

from benchmarks import speed_profile

__all__ = ["DIRECTIONS", "markdown"]

DIRECTIONS = ("encode", "decode")


def markdown(result: dict[str, Any]) -> str:
    """All tables of ``result``, the content of a whole run's JSON file."""
    image, facts, rows = result["image"], result["provenance"], result["codecs"]
    lines = [
        f"{image['name']}, {image['width']}×{image['height']}; {facts['device']}, {facts['machine']['cpu']}, threads: "
        f"{facts['threads']}; vqcodec: {result['steps']} wavefront steps.",
        f"Medians of up to {result['repeats']} calls, fewer where they took {result['budget_seconds']:g} s together; "
        "“cold”: the first call, which took as long alone. "
        f"Processors at work during the calls: {_busy(rows):.2f}.",
    ]
    if any(row["untrained"] for row in rows.values()):
        lines.append("Untrained codecs have random weights: time, memory and arithmetic are measured, rates are not.")
    if result["left_out"]:
        lines.append(result["left_out"])
    tables = [_time_table(rows), _parts_table(rows["vqcodec"], result["parts"]), _cost_table(result)]
    tables.append(_start_up_table(result["start_up"]))
    if result["profile"]:
        tables.append(speed_profile.table(result["profile"]))
    if result["sweep"]:
        tables.append(_sweep_table(result["sweep"]))
    return "\n".join(["\n".join(lines), *("\n".join(["", *table]) for table in tables)])


def _busy(rows: Mapping[str, dict[str, Any]]) -> float:
    """Processor seconds per second; with one thread, a busy machine gives clearly less than 1."""
    times = [row[direction] for row in rows.values() for direction in DIRECTIONS]
    return sum(sum(t["processor"]) for t in times) / sum(sum(t["seconds"]) for t in times)


def _time_table(rows: Mapping[str, dict[str, Any]]) -> list[str]:
    lines = ["| codec | setting | bpp | encode, s | × vqcodec | decode, s | × vqcodec | calls |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for row in rows.values():
        rate = "–" if row["bpp"] is None else f"{row['bpp']:.3f}"
        times = " | ".join(f"{row[d]['median']:.3f} | {row[d]['ratio']:.3g}" for d in DIRECTIONS)
        lines.append(f"| {row['label']} | {row['about']} | {rate} | {times} | {_counts(row)} |")
    return lines


def _parts_table(ours: Mapping[str, Any], parts: Mapping[str, dict[str, Any]]) -> list[str]:
    lines = ["| part of vqcodec | median, s | fastest–slowest |", "|---|---:|---:|"]
    for name, times in ({direction: ours[direction] for direction in DIRECTIONS} | dict(parts)).items():
        seconds = times["seconds"]
        lines.append(f"| {name} | {times['median']:.3f} | {min(seconds):.3f}–{max(seconds):.3f} |")
    return lines


def _cost_table(result: Mapping[str, Any]) -> list[str]:
    lines = ["| codec | peak memory, encode | decode | loaded | kMAC/pixel, encoder | prior | decoder |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, row in result["codecs"].items():
        memory, macs = result["memory"][name], result["macs_per_pixel"].get(name)
        peaks = [memory["encode"]["peak"], memory["decode"]["peak"], memory["decode"]["opened"]]
        counts = ["–"] * 3 if macs is None else [f"{macs[part] / 1e3:.1f}" for part in ("encoder", "prior", "decoder")]
        lines.append(f"| {row['label']} | {' | '.join([f'{peak / 1e6:.0f} MB' for peak in peaks] + counts)} |")
    return lines


def _start_up_table(measured: Mapping[str, Any]) -> list[str]:
    size = f"{measured['width']}×{measured['height']}"
    lines = [f"| process, {size} pixels | median, s | × import torch |", "|---|---:|---:|"]
    for name, times in measured["processes"].items():
        lines.append(f"| {name} | {times['median']:.3f} | {times['ratio']:.2f} |")
    return lines


def _sweep_table(measured: Mapping[str, Any]) -> list[str]:
    lines = ["| pixels | Mpixel | bpp | encode, s | decode, s | calls |", "|---|---:|---:|---:|---:|---:|"]
    for point in measured["points"]:
        width, height = point["width"], point["height"]
        times = " | ".join(f"{point[d]['median']:.3f}" for d in DIRECTIONS)
        size = f"{width}×{height} | {width * height / 1e6:.2f}"
        lines.append(f"| {size} | {point['bpp']:.3f} | {times} | {_counts(point)} |")
    stated = ", ".join(f"{direction} {measured['slope'][direction]:.2f}" for direction in DIRECTIONS)
    peaks = ", ".join(f"{direction} {measured['memory'][direction]['peak'] / 1e9:.2f} GB" for direction in DIRECTIONS)
    return [*lines, "", f"Slope of log time against log pixels: {stated}. Peak memory of the largest: {peaks}."]


def _counts(row: Mapping[str, Any]) -> str:
    """The number of calls behind each direction's median."""
    return " + ".join(f"{len(row[d]['seconds'])}{'' if row[d]['warm'] else ' cold'}" for d in DIRECTIONS)
