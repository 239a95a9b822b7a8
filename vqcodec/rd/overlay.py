"""Published curves to draw beside measured ones, read from JSON files that others wrote.

::

    {"name", "results": {"bpp": […], "psnr-rgb": […]}}        ─┐                       one PublishedCurve each,
    {"codecs": {"vtm": {"bpp": […], "psnr-rgb": […]}, …}}      ├─ read_overlay ──────▶ points at rising bpp,
    {"datasets": {"kodak": {"vtm": {"bpp": […], …}, …}, …}}   ─┘   FILE or FILE#name   metrics under our keys

A curve is any JSON object that holds a list ``bpp`` and a list of PSNR, MS-SSIM, SSIMULACRA2, LPIPS or DISTS for the
same points.
The lists are in the object itself, which is then named by its key, or under ``results``, as in CompressAI's files and
in our ``rd.json``.
"""

import json
import math
import os
import re
import reprlib
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vqcodec.errors import ReportError, one_line
from vqcodec.metrics import decibels, distance_decibels
from vqcodec.rd.result import PublishedCurve

__all__ = ["MAX_CURVES", "MAX_FILE_BYTES", "read_overlay"]

MAX_CURVES = 12
"""The most curves that a file may hold if the caller does not choose some of them."""

MAX_FILE_BYTES = 16 * 2**20
"""The largest file that is read."""

_MAX_DEPTH = 12  # of JSON around a curve; files that people publish need 3
_MAX_NAME = 80  # characters
_MAX_LISTED = 100  # names in a message

# The words of a metric's name in files, such as msssim_rgb, ms-ssim-db-rgb or psnr, in any order and without "rgb".
_KEYS = {
    frozenset({"psnr"}): "psnr-rgb",
    frozenset({"ms", "ssim"}): "ms-ssim-rgb",
    frozenset({"ms", "ssim", "db"}): "ms-ssim-rgb-db",
    frozenset({"ssimulacra2"}): "ssimulacra2",
    frozenset({"lpips"}): "lpips",
    frozenset({"lpips", "db"}): "lpips-db",
    frozenset({"dists"}): "dists",
    frozenset({"dists", "db"}): "dists-db",
}

_COMPRESSAI = re.compile(r"^compressai-(?=.)|(?<=.)(_ans)?_(cpu|cuda)$")

# No curve of a codec leaves these ranges: a value outside is damaged, or another quantity.
_RANGES = {
    "bpp": (0.0, 1000.0),
    "psnr-rgb": (-100.0, 200.0),
    "ms-ssim-rgb": (0.0, 200.0),
    "ms-ssim-rgb-db": (0.0, 200.0),
    "ssimulacra2": (-10_000.0, 100.0),
    "lpips": (0.0, 100.0),
    "lpips-db": (-20.0, 200.0),
    "dists": (0.0, 100.0),
    "dists-db": (-20.0, 200.0),
}


@dataclass(frozen=True)
class _Curve:
    path: tuple[str, ...]  # keys from the top of the file; empty for the top itself
    name: str  # its own
    description: str
    dataset: str  # that it was measured on; empty where the file does not say
    lists: dict[str, list[object]]  # by our keys, not yet checked


def read_overlay(source: str | os.PathLike[str]) -> list[PublishedCurve]:
    """The published curves in a JSON file.

    ``source`` is a file, or ``FILE#name`` or ``FILE#name,name`` to choose curves of a collection, in that order. A name
    is the curve's key or, where that is not unique, any end of the path to it, such as ``kodak/vtm18.0``. Without a
    choice, a file that is itself a curve gives this curve; a collection gives all of its curves, at most
    :data:`MAX_CURVES`.

    The results of a curve are ``bpp`` in bits per pixel, rising, and what the file has of ``psnr-rgb`` (dB),
    ``ms-ssim-rgb`` (0..1), ``ms-ssim-rgb-db`` (dB), ``ssimulacra2``, ``lpips``, ``lpips-db`` (dB), ``dists`` and
    ``dists-db`` (dB): lists of one length, with at least one point. MS-SSIM of 0..1, LPIPS and DISTS give both of
    their keys, in dB only that one. Points that lack a number (null, NaN, infinite)
    are left out. Nothing else of the file is used.

    Raises ReportError, which names the file, if it cannot be read, is larger than :data:`MAX_FILE_BYTES`, is not JSON,
    or does not hold the chosen curve, any curve, or at most the allowed number; also if a curve's lists differ in
    length, or hold something that is not a number or is out of range.
    """
    file, choice = _split(os.fspath(source))
    contents = _load(file)
    dataset = contents.get("dataset") if isinstance(contents, dict) else None
    found = list(_curves(contents, (), Path(file).stem, _plain(dataset) if isinstance(dataset, str) else ""))
    if not found:
        raise ReportError(f"{file}: no curve in it, expected lists bpp and psnr-rgb or ms-ssim-rgb side by side")
    names = _names(found)
    if choice is not None:
        chosen = _choose(file, names, found, choice)
    elif not found[0].path:
        chosen = [0]
    elif len(found) <= MAX_CURVES:
        chosen = list(range(len(found)))
    else:
        raise ReportError(
            f"{file}: {len(found)} curves, expected at most {MAX_CURVES}: choose with {file}#NAME,NAME from "
            f"{_listed(names)}"
        )
    overlays = [_overlay(file, names[i], found[i]) for i in chosen]
    labels = Counter(overlay.label for overlay in overlays)
    return [replace(overlay, label=overlay.name) if labels[overlay.label] > 1 else overlay for overlay in overlays]


def _split(source: str) -> tuple[str, str | None]:
    """The file, and the choice of its curves. A # in the name of an existing file begins no choice."""
    file, mark, choice = source.rpartition("#")
    return (source, None) if not mark or os.path.exists(source) else (file, choice)


def _load(file: str) -> object:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise ReportError(f"{file}: not a regular file, expected one of curves")
        with open(file, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ReportError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null character in the name
        raise ReportError(f"{file!r}: not a file's name") from error
    if len(data) > MAX_FILE_BYTES:
        raise ReportError(f"{file}: more than {MAX_FILE_BYTES:,} bytes, expected a file of curves")
    try:
        content: object = json.loads(data)
    except RecursionError as error:
        raise ReportError(f"{file}: nested too deeply, expected at most {_MAX_DEPTH} levels") from error
    except ValueError as error:
        raise ReportError(f"{file}: not JSON: {_plain(error)}") from error
    return content


def _curves(node: object, path: tuple[str, ...], name: str, dataset: str) -> Iterator[_Curve]:
    """Every curve at and below ``node``, in the file's order."""
    if len(path) > _MAX_DEPTH:
        return
    if isinstance(node, dict):
        if not path and isinstance(node.get("name"), str):
            name = _plain(node["name"]) or name
        description = node.get("description")
        for place in (node, node.get("results")):
            if lists := _lists(place):
                yield _Curve(path, name, _plain(description) if isinstance(description, str) else "", dataset, lists)
                break
        children = [(key, child) for key, child in node.items() if key != "results" or not _lists(child)]
    elif isinstance(node, list):
        children = [
            (child["name"] if isinstance(child, dict) and isinstance(child.get("name"), str) else str(i), child)
            for i, child in enumerate(node)
        ]
    else:
        return
    for key, child in children:
        if isinstance(child, dict | list):
            plain = _plain(key)
            yield from _curves(child, (*path, plain), plain, plain if path[-1:] == ("datasets",) else dataset)


def _lists(node: object) -> dict[str, list[object]]:
    """The lists of a curve by our keys, ``bpp`` first; empty if ``node`` is no curve."""
    if not isinstance(node, dict) or not isinstance(node.get("bpp"), list):
        return {}
    lists = {}
    for key, values in node.items():
        words = key.lower().replace("_", "-").replace("msssim", "ms-ssim").split("-")
        ours = _KEYS.get(frozenset(words) - {"rgb"})
        if ours and isinstance(values, list) and (ours not in lists or key == ours):
            lists[ours] = values
    return {"bpp": node["bpp"], **lists} if lists else {}


def _names(curves: list[_Curve]) -> list[str]:
    """The name of each curve: the shortest end of its path that no other curve's path ends with."""
    ends = Counter("/".join(curve.path[i:]) for curve in curves for i in range(len(curve.path)))
    names = []
    for curve in curves:
        candidates = ["/".join(curve.path[i:]) for i in reversed(range(len(curve.path)))]
        unique = (name for name in candidates if ends[name] == 1)
        names.append(next(unique, candidates[-1] if candidates else curve.name))
    return names


def _choose(file: str, names: list[str], curves: list[_Curve], choice: str) -> list[int]:
    """Indices of the curves that ``choice`` names, in its order."""

    def matches(wanted: str) -> list[int]:
        exact = [i for i, name in enumerate(names) if name == wanted]
        return exact or [i for i, curve in enumerate(curves) if f"/{'/'.join(curve.path)}".endswith(f"/{wanted}")]

    chosen = []
    for wanted in [choice] if matches(choice) else choice.split(","):  # a name may have a comma
        wanted = wanted.strip()
        indices = matches(wanted) if wanted else []
        if len(indices) != 1:
            count = "no curve" if not indices else f"{len(indices)} curves"
            raise ReportError(f"{file}: {count} {wanted!r} in it, expected one of {_listed(names)}")
        chosen += indices
    return chosen


def _overlay(file: str, name: str, curve: _Curve) -> PublishedCurve:
    columns = {key: _numbers(f"{file}: curve {name}", key, values) for key, values in curve.lists.items()}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise ReportError(f"{file}: curve {name} has lists of {found} points, expected as many in each")
    # A metric without any value was not measured; its lack must not remove the points of the others.
    columns = {key: values for key, values in columns.items() if any(map(math.isfinite, values))}
    if similarities := columns.pop("ms-ssim-rgb", None):
        columns = {**columns, **_ms_ssim(f"{file}: curve {name}", similarities, columns.get("ms-ssim-rgb-db"))}
    for key in ("lpips", "dists"):
        if distances := columns.get(key):
            own = [distance_decibels(value) if math.isfinite(value) else math.nan for value in distances]
            columns.setdefault(f"{key}-db", own)
    points = sorted(
        (point for point in zip(*columns.values(), strict=True) if all(map(math.isfinite, point))),
        key=lambda point: point[0],
    )
    if not points or len(columns) < 2 or "bpp" not in columns:
        raise ReportError(f"{file}: curve {name} has no point, expected numbers in bpp and in a metric")
    return PublishedCurve(
        name=name,
        # A name such as 5.0 means nothing without its file; CompressAI's names have parts that no reader needs.
        label=_COMPRESSAI.sub("", name) if any(map(str.isalpha, name)) else _plain(f"{Path(file).stem} {name}"),
        description=curve.description,
        results=dict(zip(columns, map(list, zip(*points, strict=True)), strict=True)),
        dataset=curve.dataset,
        file=_plain(Path(file).name),
    )


def _numbers(where: str, key: str, values: list[object]) -> list[float]:
    """The values as floats, once they are checked; NaN for null."""
    lowest, highest = _RANGES[key]
    numbers = []
    for i, value in enumerate(values):
        if value is None:
            number = math.nan
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ReportError(f"{where} has {_plain(reprlib.repr(value))} at point {i + 1} of {key}, expected a number")
        elif isinstance(value, int) and abs(value) > highest - lowest:  # float() may overflow
            number = highest + 1
        else:
            number = float(value)
        if math.isfinite(number) and not (lowest <= number <= highest and (key != "bpp" or number > 0)):
            raise ReportError(
                f"{where} has {key} out of range at point {i + 1}, expected {lowest:g} to {highest:g}"
                + (", not 0" if key == "bpp" else "")
            )
        numbers.append(number)
    return numbers


def _ms_ssim(where: str, values: list[float], given: list[float] | None) -> dict[str, list[float]]:
    """The columns for a list that is named MS-SSIM: under this name, files have 0..1 or dB."""
    finite = [value for value in values if math.isfinite(value)]
    if max(finite) <= 1:
        # Exactly 1 is infinite in dB; the point is left out later.
        own = [decibels(value) if math.isfinite(value) else math.nan for value in values]
        return {"ms-ssim-rgb": values, "ms-ssim-rgb-db": given or own}
    if min(finite) <= 1:
        raise ReportError(
            f"{where} has MS-SSIM from {min(finite):g} to {max(finite):g}, expected all 0..1 or all in dB"
        )
    return {"ms-ssim-rgb-db": given or values}


def _plain(text: object) -> str:
    """One short line of characters that can be printed."""
    return one_line(text, _MAX_NAME)


def _listed(names: list[str]) -> str:
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more:,} more" if more > 0 else "")
