"""A report: measure, work out, draw, write.

::

    images ──gather──▶ sweep ──▶ measurements ──assemble──▶ result ─┬─▶ rd.json, per_image.csv
               vqcodec and Pillow's codecs,          ▲              ├─▶ rd.png, rd-dark.png, rd.svg
               in worker processes             published curves     └─▶ index.html with pictures

Rates are those of whole files, distortions those of decoded 8-bit pixels, means are of per-image values.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vqcodec.codec import Codec, pick_device
from vqcodec.errors import MissingPackageError, ReportError
from vqcodec.files.atomic import write_atomic
from vqcodec.metrics import METRICS, available
from vqcodec.rd.anchors import ANCHORS
from vqcodec.rd.overlay import read_overlay
from vqcodec.rd.page import render
from vqcodec.rd.pictures import choose_settings, gallery
from vqcodec.rd.plot import PLOTS, plot
from vqcodec.rd.provenance import cores, provenance, write_json
from vqcodec.rd.result import assemble, csv_text
from vqcodec.rd.sweep import OWN, PARTS, Measurement, Plan, gather, sweep
from vqcodec.weights import find_weights

__all__ = ["DEFAULT_QUALITIES", "run"]

DEFAULT_QUALITIES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
PAGE_BYTES = 29_000_000  # of pictures; in base64, with the tables, the page stays under 40 MB


def run(
    sources: Sequence[Path],
    output: Path,
    *,
    qualities: Sequence[int] = DEFAULT_QUALITIES,
    anchors: Sequence[str] = tuple(ANCHORS),
    overlays: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    weights: Path | None = None,
    device: str = "auto",
    jobs: int = 1,
    threads: int | None = None,
    log_rate: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure ``sources``, images or folders of them, and write a report to the folder ``output``.

    Args:
        sources: image files and folders.
        output: made if need be; a report that is there already is gone on with.
        qualities: of vqcodec, rising.
        anchors: names of Pillow's codecs to measure beside it.
        overlays: files of published curves, as :func:`vqcodec.rd.overlay.read_overlay` reads them.
        metrics: names of distortions; None for all whose packages are installed.
        weights: a model other than the shipped one.
        device: where vqcodec computes.
        jobs: worker processes.
        threads: of each; None to share the cores out.
        log_rate: draw the pictures over the logarithm of the rate.
        quiet: without progress bars.

    Returns what ``rd.json`` holds; ``"skipped"`` in it lists images that could not be measured.

    Raises VqcodecError when nothing can be measured or written. What was measured until then is kept.
    """
    published = [curve for file in overlays for curve in read_overlay(file)]
    chosen, notes = _metrics(metrics)
    _check_folder(output)
    images, unreadable, warnings = gather(sources, beside=output)
    place = pick_device(device)
    model = find_weights() if weights is None else weights
    codec = Codec.load(model, device=place.type)
    threads = threads or max(1, cores() // jobs)
    settings: dict[str, Sequence[dict[str, Any]]] = {OWN: [{"quality": quality} for quality in qualities]}
    settings |= {name: ANCHORS[name].settings for name in anchors}
    plan = Plan(images, settings, chosen, model, codec.fingerprint.hex(), place.type, threads)
    parts, failed = sweep(plan, output, jobs=jobs, quiet=quiet)
    skipped = [*unreadable, *failed]
    measured = [image for image in images if image.name not in dict(failed)]
    if not measured:
        raise ReportError(f"{failed[0][0]}: {failed[0][1]}; there is no other image to measure")
    figures, rows = assemble(measured, settings, parts, codec.model.levels, published, _name(sources))
    many = f"over {_name(sources)}, mean of {len(measured)} images"
    own = {key: figures.pop(key) for key in ("name", "label")}
    result = own | {
        "description": f"rate and distortion {many if len(measured) > 1 else f'of {measured[0].name}'}",
        **figures,
        "notes": [*notes, *figures["notes"], *_thread_notes(parts.values()), *warnings],
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped],
        "provenance": provenance(codec, model, threads=threads) | {"jobs": jobs, "metrics": list(chosen)},
    }
    write_json(output / "rd.json", result)
    write_atomic(output / "per_image.csv", csv_text(rows).encode())
    try:
        plot(result, output, log_rate=log_rate)
    except MissingPackageError as error:
        for name in PLOTS:  # of an earlier run, which say something else
            (output / name).unlink(missing_ok=True)
        result["notes"].append(str(error))
        write_json(output / "rd.json", result)
    curves = {OWN: result["results"]["bpp"], **{one["name"]: one["results"]["bpp"] for one in result["anchors"]}}
    shown = gallery(
        measured, choose_settings(curves), parts, codec, output / PARTS / "pictures", budget=PAGE_BYTES, quiet=quiet
    )
    write_atomic(output / "index.html", render(result, rows, shown.pictures, stored=shown.stored).encode())
    return result


def _thread_notes(parts: Iterable[Measurement]) -> list[str]:
    """What to say where the times of several runs come together."""
    counts = sorted({part.threads for part in parts})
    if len(counts) == 1:
        return []
    return [f"times are of several runs, with {', '.join(map(str, counts))} threads: they cannot be compared"]


def _check_folder(folder: Path) -> None:
    """Raise ReportError unless ``folder`` is new, empty, or a report that was begun."""
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / PARTS).is_dir():
            raise ReportError(f"{folder}: holds other files, expected a new or empty folder, or a report begun before")
    except OSError as error:
        raise ReportError(f"{folder}: cannot be used for the report: {error.strerror}") from None


def _metrics(names: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The metrics to measure, and a note on each that is not installed.

    Raises MissingPackageError if one was asked for that is not.
    """
    if names is None:
        missing = [metric for metric in METRICS if not available(metric.name)]
        notes = [f'{metric.label} was not measured: pip install "vqcodec[bench]" for it' for metric in missing]
        return [metric.name for metric in METRICS if metric not in missing], notes
    for metric in METRICS:
        if metric.name in names and not available(metric.name):
            raise MissingPackageError(f'{metric.label} is not installed: pip install "vqcodec[bench]"')
    return [metric.name for metric in METRICS if metric.name in names or metric.module is None], []


def _name(sources: Sequence[Path]) -> str:
    """What was measured, without the folders that lead there."""
    names = [source.resolve().name for source in sources]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
