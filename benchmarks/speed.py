"""Time, memory and arithmetic of vqcodec and other codecs for one image, and the parts that take the time.

::

    IMAGE ──┬─ every codec: encode, decode, in turn ──▶ medians, ratios to vqcodec   compress   = codes + encode
            ├─ the halves of vqcodec, in the same turns ──────────────────────────▶  decompress = decode + reconstruct
            ├─ every codec in processes of its own ──▶ peak memory
            ├─ 256 × 256 pixels of it ──▶ multiply–adds a pixel, counted
            ├─ cut or mirrored to more sizes ──▶ time against pixels, its slope, a picture; what takes the time
            └─ 64 × 48 pixels of it ──▶ whole processes, against `import torch`

Each part is stored as soon as it is done. Times are wall-clock times, measured after models are loaded and warm.
"""

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import options, speed_memory, speed_profile
from benchmarks.speed_codecs import AGAINST, COMPRESSAI, Coder, Settings, VqcodecCoder, open_coder, why_no_compressai
from benchmarks.speed_plot import plot
from benchmarks.speed_tables import DIRECTIONS, markdown
from vqcodec.config import DEFAULT_QUALITY, QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import VqcodecError
from vqcodec.exact.wavefront import Wavefront
from vqcodec.files.container import MAX_PIXELS
from vqcodec.files.images import read_image, write_image
from vqcodec.jsonfile import write_json
from vqcodec.metrics import bpp
from vqcodec.rd.provenance import image_facts, package_version, provenance
from vqcodec.weights import find_weights

__all__ = ["alternate", "main", "sized", "slope"]

COUNTED = 256  # pixels a side of the square for which multiply–adds are counted; no codec pads it
TINY = (48, 64)  # height and width of the image for measuring start-up

Pixels = NDArray[np.uint8]
Key = TypeVar("Key", bound=Hashable)


def alternate(calls: Mapping[Key, Callable[[], object]], repeats: int, budget: float) -> dict[Key, dict[str, Any]]:
    """Wall-clock and processor seconds of each call, which runs up to ``repeats`` times, in turn with the others.

    Processor seconds include all threads and child processes. The first run of a call is a warm-up and does not count.
    If it takes ``budget`` seconds or more, it is the only run, counts, and ``warm`` is false. A call is not repeated
    when its runs have taken ``budget`` seconds in total.
    """
    first = {key: _measure(call) for key, call in calls.items()}
    taken = {key: [both] if both[0] >= budget else [] for key, both in first.items()}
    # The calls take turns, so that other work on the machine slows all of them equally.
    for _ in range(repeats):
        for key, call in calls.items():
            if first[key][0] + sum(wall for wall, _ in taken[key]) < budget:
                taken[key].append(_measure(call))
    results: dict[Key, dict[str, Any]] = {}
    for key, pairs in taken.items():
        wall, processor = (list(times) for times in zip(*pairs, strict=True))
        warm = first[key][0] < budget
        results[key] = {"median": statistics.median(wall), "warm": warm, "seconds": wall, "processor": processor}
    return results


def sized(pixels: Pixels, height: int, width: int) -> Pixels:
    """``height`` × ``width`` pixels of an image: its centre, extended by reflection if the image is smaller."""
    top, left = max(0, pixels.shape[0] - height) // 2, max(0, pixels.shape[1] - width) // 2
    pixels = pixels[top : top + height, left : left + width]
    more = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.ascontiguousarray(np.pad(pixels, more, mode="symmetric"))


def slope(pixels: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent e in seconds ∝ pixels^e, fitted by least squares of logarithms."""
    return statistics.linear_regression([math.log(n) for n in pixels], [math.log(s) for s in seconds]).slope


class Subject:
    """A codec and an image; it decodes the file that it encoded last."""

    def __init__(self, coder: Coder, pixels: Pixels) -> None:
        self.coder, self.pixels = coder, pixels
        self.coded: Any = None

    def encode(self) -> None:
        self.coded = self.coder.encode(self.pixels)

    def decode(self) -> None:
        self.coder.decode(self.coded)

    def bpp(self) -> float | None:
        """Bits per pixel of the whole file; None for random weights, whose rate means nothing."""
        height, width, _ = self.pixels.shape
        return None if self.coder.untrained else bpp(len(self.coded), width, height)


def time_codecs(coders: Mapping[str, Coder], pixels: Pixels, repeats: int, budget: float) -> dict[str, Any]:
    """Seconds of every codec, and of the halves of vqcodec."""
    ours = coders["vqcodec"]
    assert isinstance(ours, VqcodecCoder)
    codec, quality = ours.codec, ours.quality
    height, width, channels = pixels.shape
    subjects = {name: Subject(coder, pixels) for name, coder in coders.items()}
    codes = codec.encode(pixels, quality)
    halves: dict[str, Callable[[], object]] = {
        "encode: codes (float)": lambda: codec.encode(pixels, quality),
        "encode: prior, coder": lambda: codec.cross_entropy(codes, quality),
        "decode: prior, coder": lambda: codec.read(subjects["vqcodec"].coded),
        "decode: reconstruct (float)": lambda: codec.decode(codes, quality, height, width, grey=channels == 1),
    }
    calls = _calls(subjects) | {("vqcodec", half): call for half, call in halves.items()}
    times = alternate(calls, repeats, budget)
    rows: dict[str, Any] = {}
    for name, coder in coders.items():
        rows[name] = {
            "label": coder.label,
            "about": coder.about,
            "untrained": coder.untrained,
            "bpp": subjects[name].bpp(),
        }
        for direction in DIRECTIONS:
            measured = times[name, direction]
            ratio = measured["median"] / times["vqcodec", direction]["median"]
            rows[name][direction] = measured | {"ratio": ratio}
    levels = [
        {"groups": groups, "height": h, "width": w, "steps": len(Wavefront(h, w).spans)}
        for groups, h, w in (grid.shape for grid in codes)
    ]
    return {
        "codecs": rows,
        "parts": {half: times["vqcodec", half] for half in halves},
        "levels": levels,
        "steps": sum(level["steps"] for level in levels),
    }


def count_macs(coders: Mapping[str, Coder], pixels: Pixels) -> dict[str, Any]:
    """Multiply–adds per pixel of the networks of learned codecs."""
    square = sized(pixels, COUNTED, COUNTED)
    counts = {name: coder.macs(square) for name, coder in coders.items()}
    return {
        "macs_per_pixel": {
            name: {part: count / COUNTED**2 for part, count in parts.items()}
            for name, parts in counts.items()
            if parts is not None
        }
    }


def measure_memory(names: Sequence[str], settings: Settings, pixels: Pixels) -> dict[str, Any]:
    """Peak memory of each codec."""
    return {"memory": {name: speed_memory.measure(name, settings, pixels) for name in names}}


def sweep(
    ours: Coder, settings: Settings, pixels: Pixels, megapixels: Sequence[float], repeats: int, budget: float
) -> dict[str, Any]:
    """Times of vqcodec at several sizes with the image's aspect ratio, and peak memory at the largest size."""
    aspect = pixels.shape[1] / pixels.shape[0]
    subjects: dict[float, Subject] = {}
    for size in megapixels:
        height = max(1, round(math.sqrt(1e6 * size / aspect)))
        subjects[size] = Subject(ours, sized(pixels, height, max(1, round(1e6 * size / height))))
    times = alternate(_calls(subjects), repeats, budget)
    points: list[dict[str, Any]] = [
        {
            "width": subject.pixels.shape[1],
            "height": subject.pixels.shape[0],
            "bpp": subject.bpp(),
            **{direction: times[size, direction] for direction in DIRECTIONS},
        }
        for size, subject in subjects.items()
    ]
    counts = [point["width"] * point["height"] for point in points]
    slopes = {direction: slope(counts, [point[direction]["median"] for point in points]) for direction in DIRECTIONS}
    memory = speed_memory.measure("vqcodec", settings, subjects[megapixels[-1]].pixels)
    return {"sweep": {"points": points, "slope": slopes, "memory": memory}}


def start_up(settings: Settings, pixels: Pixels, repeats: int, budget: float) -> dict[str, Any]:
    """Seconds of processes that encode or decode a tiny image, and of one that only imports torch."""
    # Keep compiled modules, as for a user, even if this process does not.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def process(*arguments: object) -> Callable[[], object]:
        command = [sys.executable, *map(str, arguments)]
        return lambda: subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as folder:
        image, file, decoded = (Path(folder) / name for name in ("tiny.png", "tiny.vq", "decoded.png"))
        write_image(image, sized(pixels, *TINY))
        common = ["--weights", settings.weights, "--device", settings.device, "--threads", settings.threads]
        common += ["--force", "--quiet"]
        calls = {
            "import torch": process("-c", "import torch"),
            "vqcodec encode": process("-m", "vqcodec", "encode", image, "-o", file, "-q", settings.quality, *common),
            "vqcodec decode": process("-m", "vqcodec", "decode", file, "-o", decoded, *common),
        }
        times = alternate(calls, repeats, budget)
    for measured in times.values():
        measured["ratio"] = measured["median"] / times["import torch"]["median"]
    return {"start_up": {"width": TINY[1], "height": TINY[0], "processes": times}}


def _calls(subjects: Mapping[Key, Subject]) -> dict[tuple[Key, str], Callable[[], object]]:
    """Both directions of each, encoding first."""
    calls: dict[tuple[Key, str], Callable[[], object]] = {}
    for key, subject in subjects.items():
        calls[key, "encode"] = subject.encode
        calls[key, "decode"] = subject.decode
    return calls


def _measure(call: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock seconds, and processor seconds of this process and its children."""
    start, processor = time.perf_counter(), _processor()
    call()
    return time.perf_counter() - start, _processor() - processor


def _processor() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _names(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """Callback: the named codecs in the order of AGAINST."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := names - set(AGAINST):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: expected some of {', '.join(AGAINST)}")
    return [name for name in AGAINST if name in names]


def _megapixels(context: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    """Callback: no sizes, or two or more different ones, in rising order."""
    try:
        sizes = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected numbers such as 0.1,0.4,1.5") from None
    most = MAX_PIXELS / 1e6
    if len(sizes) == 1 or not all(1e-4 <= size <= most for size in sizes):
        raise click.BadParameter(f"{text!r}: expected two or more sizes from 0.0001 to {most:.0f}, or none")
    return sizes


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("image", type=options.STORED)
@options.output
@click.option(
    "-q", "--quality", type=click.IntRange(QUALITY_MIN, QUALITY_MAX), default=DEFAULT_QUALITY, show_default=True
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: torch's own choice]")
@click.option("--repeats", type=click.IntRange(min=1), default=9, show_default=True)
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds in total after which a call is not repeated.",
)
@click.option(
    "--against",
    callback=_names,
    default=",".join(AGAINST),
    show_default=True,
    metavar="NAMES",
    help="The codecs besides vqcodec.",
)
@click.option("--compressai-quality", type=click.IntRange(1, 6), default=3, show_default=True)
@click.option(
    "--megapixels",
    callback=_megapixels,
    default="0.1,0.4,1.5,6,12",
    show_default=True,
    metavar="NUMBERS",
    help="Sizes of the sweep in Mpixel; '' for none.",
)
@click.option(
    "--profile",
    callback=options.sizes,
    default="768x512,1920x1080,4000x3000",
    show_default=True,
    metavar="SIZES",
    help="Sizes to profile on a CPU; '' for none.",
)
@options.weights
@options.device
def main(
    image: Path,
    output: Path,
    quality: int,
    threads: int | None,
    repeats: int,
    budget: float,
    against: list[str],
    compressai_quality: int,
    megapixels: list[float],
    profile: list[tuple[int, int]],
    weights: Path | None,
    device: str,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        pixels, _ = read_image(image)
        settings = Settings(weights or find_weights(), device, quality, compressai_quality, torch.get_num_threads())
        left_out = why_no_compressai() if set(against) & set(COMPRESSAI) else None
        names = ["vqcodec", *(name for name in against if not (left_out and name in COMPRESSAI))]
        start = time.perf_counter()
        ours = VqcodecCoder(settings)
        load_seconds = time.perf_counter() - start
        coders = {"vqcodec": ours} | {name: open_coder(name, settings) for name in names[1:]}
        facts = provenance(ours.codec, settings.weights, threads=settings.threads)
        facts["versions"]["compressai"] = package_version("compressai")
        result: dict[str, Any] = {
            "provenance": facts,
            "image": image_facts(image, pixels.shape[1], pixels.shape[0]),
            "quality": quality,
            "repeats": repeats,
            "budget_seconds": budget,
            "left_out": left_out,
            "load_seconds": load_seconds,
            "sweep": None,
            "profile": None,
        }
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            f"time: {', '.join(names)}": lambda: time_codecs(coders, pixels, repeats, budget),
            "multiply–adds": lambda: count_macs(coders, pixels),
            "memory": lambda: measure_memory(names, settings, pixels),
            "start-up": lambda: start_up(settings, pixels, repeats, budget),
        }
        if megapixels:
            parts[f"time against pixels, up to {megapixels[-1]:g} Mpixel"] = lambda: sweep(
                ours, settings, pixels, megapixels, repeats, budget
            )
        if profile and ours.codec.device.type == "cpu":
            images = [sized(pixels, height, width) for width, height in profile]
            parts["what takes the time"] = lambda: speed_profile.profile(ours, images, repeats, budget)
        for name, part in parts.items():
            click.echo(f"{name} …", err=True)
            result |= part()
            write_json(output, result)
        if megapixels:
            plot(result, output.with_suffix(".png"))
    except VqcodecError as error:
        raise click.ClickException(str(error)) from None
    click.echo(markdown(result))


if __name__ == "__main__":
    main()
