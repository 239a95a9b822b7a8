"""Rate–distortion curves: BD-rate between two, and whether one rises as it should.

::

    points of an anchor ─┐
                         ├─ PCHIP of log rate over the common range of PSNR ─▶ mean difference, in %
    points of a codec ───┘
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bjontegaard import bd_rate as bjontegaard_bd_rate

__all__ = ["MIN_COMMON_DB", "MIN_COMMON_SHARE", "BDRate", "Point", "bd_rate", "steps_that_fall"]

Point = tuple[float, float]  # bpp, PSNR in dB

# A mean over less than this says more about the interpolation than about the codecs.
MIN_COMMON_DB = 2.0
MIN_COMMON_SHARE = 0.5  # of the shorter curve's range


@dataclass(frozen=True)
class BDRate:
    """A BD-rate and what it was taken over.

    Attributes:
        percent: mean difference of rate at equal PSNR, negative where fewer bits do; None where there is no figure.
        common: lowest and highest PSNR in dB that both curves reach; None where they do not meet.
        note: why there is no figure; empty if there is one.
    """

    percent: float | None
    common: Point | None
    note: str = ""


def bd_rate(anchor: Sequence[Point], test: Sequence[Point]) -> BDRate:
    """Rate of ``test`` relative to ``anchor``; both are points at rising quality."""
    for name, points in (("anchor", anchor), ("tested", test)):
        if len(points) < 2:
            return BDRate(None, None, f"the {name} curve has fewer than two points")
        if falls := steps_that_fall(points):
            return BDRate(None, None, f"the {name} curve does not rise at point {falls[0] + 1}")
    lowest, highest = max(anchor[0][1], test[0][1]), min(anchor[-1][1], test[-1][1])
    if lowest >= highest:
        return BDRate(None, None, "the curves have no PSNR in common")
    shorter = min(points[-1][1] - points[0][1] for points in (anchor, test))
    common, length = (lowest, highest), highest - lowest
    if length < max(MIN_COMMON_DB, MIN_COMMON_SHARE * shorter):
        return BDRate(None, common, f"the curves have only {length:.1f} dB in common")
    # min_overlap=0: the common range has been judged here, where the package would only warn.
    percent = bjontegaard_bd_rate(
        *zip(*anchor, strict=True), *zip(*test, strict=True), "pchip", require_matching_points=False, min_overlap=0
    )
    return BDRate(float(percent), common)


def steps_that_fall(points: Sequence[Point]) -> list[int]:
    """Index of every point from which the next one does not have both more bits and more PSNR."""
    return [i for i, (a, b) in enumerate(itertools.pairwise(points)) if not (a[0] < b[0] and a[1] < b[1])]
