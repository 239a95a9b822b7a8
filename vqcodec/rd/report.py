"""A report: measure, analyse, draw, write.

::

    images ──gather──▶ sweep ──▶ measurements ──analyse──▶ Result ─┬─▶ rd.json, per_image.csv
               vqcodec and Pillow's codecs,         ▲              ├─▶ compressai/*.json, a curve each
               in worker processes            published curves     ├─▶ rd.png, rd-dark.png, rd.svg
                                                                   └─▶ index.html with pictures

Rates are those of whole files, distortions those of decoded 8-bit pixels, means are of per-image values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vqcodec.codec import Codec, pick_device
from vqcodec.config import DEFAULT_EFFORT
from vqcodec.errors import MissingPackageError, ReportError
from vqcodec.files.atomic import write_atomic
from vqcodec.jsonfile import write_json
from vqcodec.machine import cores
from vqcodec.metrics import METRICS, available
from vqcodec.rd.analysis import Measured, analyse, rows_of
from vqcodec.rd.anchors import ANCHORS, OWN, Setting, installed_anchors, require_anchors
from vqcodec.rd.compressai import FOLDER, write_curves
from vqcodec.rd.curves import MIN_POINTS
from vqcodec.rd.overlay import read_overlay
from vqcodec.rd.page import render
from vqcodec.rd.pictures import choose_settings, gallery
from vqcodec.rd.plot import PLOTS, plot
from vqcodec.rd.provenance import Provenance
from vqcodec.rd.result import Result, RunProvenance, csv_text
from vqcodec.rd.sources import gather
from vqcodec.rd.store import Measurement
from vqcodec.rd.sweep import PARTS, Plan, sweep
from vqcodec.weights import encoder_fingerprint, find_weights

__all__ = ["DEFAULT_QUALITIES", "Options", "make_report"]

DEFAULT_QUALITIES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
PAGE_BYTES = 29_000_000  # of pictures; in base64, with the tables, the page stays under 40 MB


@dataclass(frozen=True)
class Options:
    """What a report measures, and how.

    Attributes:
        qualities: of vqcodec, rising.
        effort: of vqcodec's search, 0..9.
        anchors: names of codecs to measure beside vqcodec, as in :data:`vqcodec.rd.anchors.ANCHORS`.
        overlays: files of published curves, as :func:`vqcodec.rd.overlay.read_overlay` takes them.
        metrics: names of distortions; None for all whose packages are installed.
        weights: the file of the model's decoder side; None for the shipped model.
        device: where vqcodec computes: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        jobs: worker processes.
        threads: of each worker; None to divide the cores among them.
        log_rate: draw the pictures over the logarithm of the rate.
    """

    qualities: Sequence[int] = DEFAULT_QUALITIES
    effort: int = DEFAULT_EFFORT
    anchors: Sequence[str] = field(default_factory=installed_anchors)
    overlays: Sequence[str] = ()
    metrics: Sequence[str] | None = None
    weights: Path | None = None
    device: str = "auto"
    jobs: int = 1
    threads: int | None = None
    log_rate: bool = False

    def warning(self) -> str | None:
        """Why the report will have no BD-rates, although there are curves to compare with; None if it can have them."""
        count = len(self.qualities)
        if count >= MIN_POINTS or not (self.anchors or self.overlays):
            return None
        given = "1 quality gives" if count == 1 else f"{count} qualities give"
        return f"{given} no BD-rates, which need at least {MIN_POINTS} points of each curve"


def make_report(
    sources: Sequence[Path], output: Path, options: Options | None = None, *, quiet: bool = False
) -> Result:
    """Measure ``sources``, images or folders of images, and write a report to the folder ``output``.

    The folder is made if need be; a report that was begun there is continued. ``quiet`` shows no progress bars.

    Returns the figures, as ``rd.json`` holds them; ``skipped`` lists images that could not be measured.

    Raises VqcodecError if nothing can be measured or written. Everything that was measured until then is kept.
    """
    options = options or Options()
    published = [curve for file in options.overlays for curve in read_overlay(file)]
    require_anchors(options.anchors)
    metrics, notes = _metrics(options.metrics)
    _check_folder(output)
    images, unreadable, warnings = gather(sources, beside=output)
    device = pick_device(options.device).type
    weights = options.weights or find_weights()
    codec = Codec.load(weights, device=device)
    threads = options.threads or max(1, cores() // options.jobs)
    own = [Setting({"quality": quality, "effort": options.effort}) for quality in options.qualities]
    settings: dict[str, Sequence[Setting]] = {OWN: own}
    settings |= {name: ANCHORS[name].settings for name in options.anchors}
    identity = f"{codec.fingerprint.hex()} {encoder_fingerprint(weights).hex()}"
    plan = Plan(images, settings, metrics, weights, identity, device, threads)
    parts, failed = sweep(plan, output, jobs=options.jobs, quiet=quiet)
    names = {one.name for one in failed}
    images = [image for image in images if image.name not in names]
    if not images:
        raise ReportError(f"{failed[0].name}: {failed[0].reason}; there is no other image to measure")
    measured = Measured(images, settings, parts, codec.model.levels, _name(sources))
    facts = vars(Provenance.of(codec, weights, threads=threads))
    provenance = RunProvenance(**facts, jobs=options.jobs, metrics=metrics)
    result = analyse(measured, provenance, overlays=published, notes=notes, skipped=[*unreadable, *failed])
    result = replace(result, notes=[*result.notes, *_thread_notes(parts.values()), *warnings])
    return _write(result, measured, codec, output, log_rate=options.log_rate, quiet=quiet)


def _write(result: Result, measured: Measured, codec: Codec, output: Path, *, log_rate: bool, quiet: bool) -> Result:
    """Write every file of the report; returns the result, with a note if there are no plots."""
    rows = rows_of(measured)
    write_json(output / "rd.json", result.to_json())
    write_atomic(output / "per_image.csv", csv_text(rows).encode())
    write_curves(output / FOLDER, [result.own, *result.anchors])
    try:
        plot(result, output, log_rate=log_rate)
    except MissingPackageError as error:
        for name in PLOTS:  # those of an earlier run would contradict the new figures
            (output / name).unlink(missing_ok=True)
        result = replace(result, notes=[*result.notes, str(error)])
        write_json(output / "rd.json", result.to_json())
    chosen = choose_settings({curve.name: curve.results["bpp"] for curve in (result.own, *result.anchors)})
    shown = gallery(
        measured.images, chosen, measured.parts, codec, output / PARTS / "pictures", budget=PAGE_BYTES, quiet=quiet
    )
    write_atomic(output / "index.html", render(result, rows, shown.pictures, stored=shown.stored).encode())
    return result


def _thread_notes(parts: Iterable[Measurement]) -> list[str]:
    """A note if times of several runs with different threads come together."""
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

    Raises MissingPackageError if ``names`` has a metric that is not installed.
    """
    if names is None:
        missing = [metric for metric in METRICS if not available(metric.name)]
        notes = [f"{metric.label} was not measured: {metric.install} for it" for metric in missing]
        return [metric.name for metric in METRICS if metric not in missing], notes
    for metric in METRICS:
        if metric.name in names and not available(metric.name):
            raise MissingPackageError(f"{metric.label} is not installed: {metric.install}")
    return [metric.name for metric in METRICS if metric.name in names or not metric.modules], []


def _name(sources: Sequence[Path]) -> str:
    """The name of the first source, without the folders that lead to it, and the number of the others."""
    names = [source.resolve().name for source in sources]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
