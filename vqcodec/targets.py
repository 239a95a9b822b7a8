r"""Files of exactly the size, or the distortion, that was asked for.

::

    target ──▶ quality, by encodings at effort 0 ──▶ quality at the asked effort ──▶ λ of the search ──▶ bytes
               (bracketed, about 5)                  (bracketed again, 1 to 3)       (up to 3)

Neighbouring qualities are 2 to 4 % of the size apart, or 0.05 to 0.2 dB. In between, the search spends more or fewer
bits at the same quality: its λ is the quality's times a factor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vqcodec import metrics
from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_EFFORT, QUALITY_MAX, QUALITY_MIN
from vqcodec.errors import TargetError

__all__ = ["TARGETS", "Target", "Targeted", "compress_to"]

SLACK = {"size": 0.03, "bpp": 0.03, "psnr": 0.1, "ssimulacra2": 0.5}  # of the result, on the side that is allowed
PACE = {"size": 0.03, "bpp": 0.03, "psnr": 0.125, "ssimulacra2": 0.6}  # about what one step of quality changes
BEND = {"size": 0.4, "bpp": 0.4, "psnr": 0.7, "ssimulacra2": 3.0}  # about what a factor e of λ changes at one quality
PROBES = 8  # encodings at effort 0
REFINEMENTS = 3  # encodings with another λ
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

    def excess(self, codec: Codec, pixels: _Pixels, data: bytes) -> float:
        """By how much a file is beyond the target: the logarithm of a ratio of sizes, dB, or points."""
        if self.is_rate:
            return math.log(self.measured(codec, pixels, data) / self.value)
        return self.measured(codec, pixels, data) - self.value

    def allows(self, excess: float) -> bool:
        """Whether a file with this excess is on the allowed side."""
        return excess <= 0 if self.is_rate else excess >= 0

    def measured(self, codec: Codec, pixels: _Pixels, data: bytes) -> float:
        """What the file has: bytes, bits per pixel, dB or points."""
        if self.kind == "size":
            return float(len(data))
        if self.kind == "bpp":
            return metrics.bpp(len(data), pixels.shape[1], pixels.shape[0])
        seen = codec.decompress(data)
        return metrics.psnr(pixels, seen) if self.kind == "psnr" else metrics.ssimulacra2(pixels, seen)


@dataclass(frozen=True)
class Targeted:
    """A file that meets its target.

    Attributes:
        data: the bytes.
        encodings: how many were made at effort 0, and how many at the asked effort.
    """

    data: bytes
    encodings: tuple[int, int]


def compress_to(
    codec: Codec,
    pixels: _Pixels,
    target: Target,
    *,
    effort: int = DEFAULT_EFFORT,
    check: bool = False,
    max_pixels: int | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Targeted:
    """The file of ``pixels`` that comes closest to ``target`` on its allowed side; arguments as :meth:`Codec.compress`.

    If qualities 1 and 100 enclose the target and ``effort`` is at least 1, a size is met within 3 % and a PSNR within
    0.1 dB. With effort 0 only qualities are chosen, and the next one may be further away.

    Raises TargetError, with what can be reached, if no quality meets the target, MissingPackageError if the metric is
    not installed, and what :meth:`Codec.compress` raises.
    """
    compress = partial(codec.compress, pixels, max_pixels=max_pixels, cancelled=cancelled)
    metrics_of = partial(target.excess, codec, pixels)
    quick = _Curve(lambda quality: compress(quality, effort=0, check=check and effort == 0), metrics_of, target)
    start = _met(quick, quick.crossing(50, PROBES))
    if effort == 0:
        return Targeted(quick.files[start], (quick.encodings, 0))
    full = _Curve(lambda quality: compress(quality, effort=effort, check=check), metrics_of, target)
    crossing = full.crossing(start, PROBES)
    quality = _met(full, crossing)
    if None in crossing:  # all qualities are on the allowed side
        return Targeted(full.files[quality], (quick.encodings, full.encodings))
    best = _refine(full, quality, lambda scale: compress(quality, effort=effort, lambda_scale=scale, check=check))
    return Targeted(best, (quick.encodings, full.encodings))


class _Curve:
    """The files of one picture by quality, and by how much each is beyond the target."""

    def __init__(self, compress: Callable[[int], bytes], excess: Callable[[bytes], float], target: Target) -> None:
        self._compress, self._excess, self.target = compress, excess, target
        self.files: dict[int, bytes] = {}
        self.excesses: dict[int, float] = {}
        self.encodings = 0

    def measure(self, data: bytes) -> float:
        self.encodings += 1
        return self._excess(data)

    def at(self, quality: int) -> float:
        """The excess at a quality, which is encoded at the first call."""
        if quality not in self.excesses:
            self.files[quality] = self._compress(quality)
            self.excesses[quality] = self.measure(self.files[quality])
        return self.excesses[quality]

    def crossing(self, quality: int, probes: int) -> tuple[int | None, int | None]:
        """The neighbours (last quality below the target, first one beyond it); None outside 1..100.

        A quality that meets the target exactly is on the allowed side. After ``probes`` encodings the neighbours may be
        further apart.
        """
        pace = PACE[self.target.kind]
        below: int | None = None
        beyond: int | None = None
        for _ in range(probes):
            excess = self.at(quality)
            is_below = self.target.allows(excess) == self.target.is_rate
            if is_below:
                below = quality
            else:
                beyond = quality
            low = QUALITY_MIN if below is None else below + 1
            high = QUALITY_MAX if beyond is None else beyond - 1
            if low > high:
                break
            if below is not None and beyond is not None:
                pace = max(1e-6, (self.at(beyond) - self.at(below)) / (beyond - below))
            # Nearly there, the step is at least one, so that the target is enclosed.
            step = max(1, math.ceil(abs(excess) / pace))
            quality = min(max(quality + (step if is_below else -step), low), high)
        return below, beyond


def _met(curve: _Curve, crossing: tuple[int | None, int | None]) -> int:
    """The quality on the allowed side of the crossing; raises TargetError if there is none."""
    below, beyond = crossing
    quality = below if curve.target.is_rate else beyond
    if quality is not None:
        return quality
    target = curve.target
    if target.is_rate:
        reached = f"quality {QUALITY_MIN} takes {target.value * math.exp(curve.at(QUALITY_MIN)):,.4g}"
        unit = "bytes" if target.kind == "size" else "bits per pixel"
        raise TargetError(f"{target.value:,.4g} {unit} are too few: {reached}")
    reached = f"quality {QUALITY_MAX} has {target.value + curve.at(QUALITY_MAX):.2f}"
    raise TargetError(f"a {target.kind} of {target.value:g} is out of reach: {reached}")


def _refine(curve: _Curve, quality: int, compress: Callable[[float], bytes]) -> bytes:
    """The file of this quality, or of another λ, that comes closest to the target on the allowed side."""
    kind = curve.target.kind
    best, nearest = curve.files[quality], curve.at(quality)
    log_scale, excess, slope = 0.0, nearest, BEND[kind]
    for _ in range(REFINEMENTS):
        if abs(nearest) <= SLACK[kind] * (2 / 3):
            break
        # A third of the slack inside, so that a slope that is a little off still lands on the allowed side.
        aim = -SLACK[kind] / 3 if curve.target.is_rate else SLACK[kind] / 3
        before = log_scale, excess
        log_scale = min(max(log_scale + (aim - excess) / slope, -1.0), 1.0)
        data = compress(math.exp(log_scale))
        excess = curve.measure(data)
        if curve.target.allows(excess) and abs(excess) < abs(nearest):
            best, nearest = data, excess
        if log_scale != before[0]:
            slope = max(slope / 4, (excess - before[1]) / (log_scale - before[0]))
    return best
