r"""Files of exactly the size, or the distortion, that was asked for.

::

    target − shift ──▶ quality, by encodings at effort 0 ──▶ λ of the search ──▶ bytes, at the asked effort
         ▲             (about 3)                                                   │
         └──────────────── shift: what the search changes ◀── missed? ─────────────┘

Neighbouring qualities are 2 to 4 % of the size apart, or 0.05 to 0.2 dB. In between, the search spends more or fewer
bits at the same quality: its λ is the quality's times a factor. What the search changes differs from picture to
picture, so that the first file at the asked effort misses about every other time; the second knows the change. Should
it miss too, λ alone is varied.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vqcodec import metrics
from vqcodec.codec import Codec, own_effort
from vqcodec.config import DEFAULT_EFFORT, QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import TargetError
from vqcodec.files.container import Chunks

__all__ = ["TARGETS", "Target", "Targeted", "compress_to"]

SLACK = {"size": 0.03, "bpp": 0.03, "psnr": 0.1, "ssimulacra2": 0.5}  # of the result, on the side that is allowed
PACE = {"size": 0.03, "bpp": 0.03, "psnr": 0.125, "ssimulacra2": 0.6}  # about what one step of quality changes
BEND = {"size": 0.1, "bpp": 0.1, "psnr": 0.5, "ssimulacra2": 2.0}  # about what a factor e of λ changes at one quality
SHIFT = {"size": 0.015, "bpp": 0.015, "psnr": 0.4, "ssimulacra2": 1.0}  # about what the search changes
PROBES = 8  # encodings at effort 0
CHOICES = 2  # of a quality, at the asked effort
REFINEMENTS = 3  # of λ at the last of them
LOG_SCALE = 1.0  # at most, of λ
START = 50  # quality of the first file
EXACT = 100.0  # dB: what equal pixels count as, since the search computes with differences
TARGETS = tuple(SLACK)

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Target:
    """What a file shall have.

    Attributes:
        kind: ``"size"`` in bytes or ``"bpp"``, of which less is allowed; ``"psnr"`` or ``"ssimulacra2"``, of which more
            is.
        value: the number.

    Raises ValueError for another kind, or a value that no file can have.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            raise ValueError(f"kind is {self.kind!r}, expected one of {', '.join(TARGETS)}")
        if not math.isfinite(self.value) or (self.kind != "ssimulacra2" and self.value <= 0):
            raise ValueError(f"{self.kind} is {self.value}, expected a number above 0")

    @property
    def is_rate(self) -> bool:
        """Whether less is allowed, not more."""
        return self.kind in ("size", "bpp")

    def excess(self, value: float) -> float:
        """By how much the ``value`` of a file is beyond the target: ln of a ratio of sizes, dB, or points."""
        return math.log(value / self.value) if self.is_rate else value - self.value

    def allows(self, excess: float) -> bool:
        """Whether a file with this excess is on the allowed side."""
        return excess <= 0 if self.is_rate else excess >= 0

    def measured(self, codec: Codec, pixels: _Pixels, data: bytes, *, max_pixels: int | None = None) -> float:
        """What the file has: bytes, bits per pixel, dB or points; TargetError if the picture is too small for that."""
        if self.kind == "size":
            return float(len(data))
        if self.kind == "bpp":
            return metrics.bpp(len(data), pixels.shape[1], pixels.shape[0])
        if self.kind == "ssimulacra2" and min(pixels.shape[:2]) < metrics.SSIMULACRA2_SMALLEST:
            size = f"{pixels.shape[1]}×{pixels.shape[0]} pixels"
            raise TargetError(f"{size} are too few for SSIMULACRA2: the least side is {metrics.SSIMULACRA2_SMALLEST}")
        seen = codec.decompress(data, max_pixels=max_pixels)
        pixels = pixels.reshape(seen.shape)  # grey may come as [H, W]
        return min(EXACT, metrics.psnr(pixels, seen)) if self.kind == "psnr" else metrics.ssimulacra2(pixels, seen)

    def worded(self, value: float) -> str:
        """A value of this kind with its unit."""
        forms = {"size": "{:,.0f} bytes", "bpp": "{:,.4g} bits per pixel", "psnr": "{:.2f} dB", "ssimulacra2": "{:.2f}"}
        return forms[self.kind].format(value)


@dataclass(frozen=True)
class Targeted:
    """A file that meets its target.

    Attributes:
        data: the bytes.
        value: what the file has of the target's kind; equal pixels count as a PSNR of 100 dB.
        encodings: how many were made at effort 0, and how many at the asked effort.
        note: one line if the highest quality is far below a size that was allowed; else None.
    """

    data: bytes
    value: float
    encodings: tuple[int, int]
    note: str | None = None


def compress_to(
    codec: Codec,
    pixels: _Pixels,
    target: Target,
    *,
    effort: int = DEFAULT_EFFORT,
    chunks: Chunks = (),
    check: bool = False,
    max_pixels: int | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Targeted:
    """The file of ``pixels`` that comes closest to ``target`` on its allowed side; arguments as :meth:`Codec.compress`.

    If qualities 1 and 100 enclose the target and ``effort`` is at least 1, a size is as a rule met within 3 % and a
    PSNR within 0.1 dB; files of a few hundred bytes may miss by more. With effort 0 only qualities are chosen, and the
    next one may be further away. A model that is not searched counts as effort 0.

    Raises TargetError, with what can be reached, if no file meets the target, MissingPackageError if the metric is
    not installed, and what :meth:`Codec.compress` raises.
    """
    effort = own_effort(codec, effort)
    compress = partial(codec.compress, pixels, chunks=chunks, check=check, max_pixels=max_pixels, cancelled=cancelled)
    measured = partial(target.measured, codec, pixels, max_pixels=max_pixels)
    quick = _Tried(target, partial(compress, effort=0), measured)
    full = _Tried(target, partial(compress, effort=effort), measured)
    if effort == 0:
        _approach(quick, 0.0, near=0.0)
    else:
        _aim(quick, full)
    for tried in (full, quick):
        if (best := tried.best()) is not None:
            value = tried.values[best]
            note = _undershoot(target, value) if best[0] == QUALITY_MAX else None
            return Targeted(tried.files[best], value, (len(quick.files), len(full.files)), note)
    raise _out_of_reach(target, [*quick.values.values(), *full.values.values()])


class _Tried:
    """The files of one picture at one effort, by quality and ln of the factor of λ, and what each has."""

    def __init__(self, target: Target, compress: Callable[..., bytes], measured: Callable[[bytes], float]) -> None:
        self.target, self._compress, self._measured = target, compress, measured
        self.files: dict[tuple[int, float], bytes] = {}
        self.values: dict[tuple[int, float], float] = {}

    def excess(self, quality: int, log_scale: float = 0.0) -> float:
        """The excess of one file, which is made at the first call."""
        key = quality, log_scale
        if key not in self.files:
            self.files[key] = self._compress(quality, lambda_scale=math.exp(log_scale))
            self.values[key] = self._measured(self.files[key])
        return self.target.excess(self.values[key])

    def excesses(self) -> dict[tuple[int, float], float]:
        """The excesses of all files so far."""
        return {key: self.target.excess(value) for key, value in self.values.items()}

    def meets(self, quality: int, log_scale: float) -> bool:
        """Whether a file is on the allowed side and close to the target."""
        excess = self.excess(quality, log_scale)
        return self.target.allows(excess) and abs(excess) <= SLACK[self.target.kind]

    def best(self) -> tuple[int, float] | None:
        """The key of the allowed file that is closest to the target; of equally close ones, the smallest."""
        allowed = {key: abs(excess) for key, excess in self.excesses().items() if self.target.allows(excess)}
        return min(allowed, key=lambda key: (allowed[key], len(self.files[key])), default=None)


def _approach(quick: _Tried, aim: float, *, near: float) -> int:
    """The quality whose excess is closest to ``aim``.

    Qualities are encoded until one is within ``near``, or two neighbours enclose the aim.
    """
    quick.excess(START)
    while True:
        found = {quality: excess for (quality, _), excess in quick.excesses().items()}
        below = max((quality for quality, excess in found.items() if excess <= aim), default=QUALITY_MIN - 1)
        beyond = min((quality for quality, excess in found.items() if excess > aim), default=QUALITY_MAX + 1)
        closest = min(found, key=lambda quality: (abs(found[quality] - aim), quality))
        missing = aim - found[closest]
        if beyond - below <= 1 or abs(missing) <= near or len(found) >= PROBES:
            return closest
        pace = PACE[quick.target.kind]
        if below in found and beyond in found:
            pace = (found[beyond] - found[below]) / (beyond - below)
        step = math.copysign(max(1, math.ceil(abs(missing) / pace)), missing)
        quick.excess(min(max(closest + int(step), below + 1), beyond - 1))


def _aim(quick: _Tried, full: _Tried) -> None:
    """Make files at the asked effort until one meets the target closely."""
    kind = full.target.kind
    aim = -SLACK[kind] / 2 if full.target.is_rate else SLACK[kind] / 2
    shift, slope = SHIFT[kind], BEND[kind]
    quality, log_scale = START, 0.0
    for _ in range(CHOICES):
        quality = _approach(quick, aim - shift, near=PACE[kind] / 2)
        log_scale = _limited((aim - shift - quick.excess(quality)) / slope)
        if full.meets(quality, log_scale):
            return
        shift = full.excess(quality, log_scale) - quick.excess(quality) - slope * log_scale
    for _ in range(REFINEMENTS):
        before = log_scale
        log_scale = _limited(before + (aim - full.excess(quality, before)) / slope)
        if log_scale == before or full.meets(quality, log_scale):
            return
        change = full.excess(quality, log_scale) - full.excess(quality, before)
        slope = max(slope / 4, change / (log_scale - before))


def _limited(log_scale: float) -> float:
    return min(max(log_scale, -LOG_SCALE), LOG_SCALE)


def _undershoot(target: Target, value: float) -> str | None:
    if not target.is_rate or target.excess(value) >= -SLACK[target.kind]:
        return None
    return f"quality {QUALITY_MAX} takes {target.worded(value)}, fewer than the {target.worded(target.value)} allowed"


def _out_of_reach(target: Target, values: Iterable[float]) -> TargetError:
    if target.is_rate:
        reached = f"quality {QUALITY_MIN} takes {target.worded(min(values))}"
        return TargetError(f"{target.worded(target.value)} are too few: {reached}")
    reached = f"quality {QUALITY_MAX} has {target.worded(max(values))}"
    return TargetError(f"a {target.kind} of {target.value:g} is out of reach: {reached}")
