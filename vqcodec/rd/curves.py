"""Rate–distortion curves: BD-rate and BD-metric between two curves, and a check that a curve rises.

::

    points of an anchor ─┐  PCHIP over the common range of metric ─▶ mean difference of rate, in %
                         ├─
    points of a codec ───┘  PCHIP over the common range of rate ──▶ mean difference of metric, in its unit

Bjøntegaard, "Calculation of average PSNR differences between RD curves", VCEG-M33, 2001, with piecewise cubic
Hermite interpolation (PCHIP) instead of the original cubic fit, as in later standardisation.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vqcodec.errors import MissingPackageError

__all__ = ["MIN_COMMON_SHARE", "MIN_OCTAVES", "MIN_POINTS", "BDResult", "Point", "bd", "steps_that_fall"]

Point = tuple[float, float]  # bpp, and a metric that is better when larger

# Below these limits, the mean depends more on the interpolation than on the codecs.
MIN_COMMON_SHARE = 0.5  # the common range of the metric, as a share of the shorter curve's range
MIN_OCTAVES = 1.0  # the common range of rate
MIN_POINTS = 4  # points of each curve, as in Bjøntegaard's definition


@dataclass(frozen=True)
class BDResult:
    """How a codec compares with an anchor.

    Attributes:
        rate: mean difference of rate at equal metric in %, negative if the codec needs fewer bits; None if unknown.
        metric: mean difference of the metric at equal rate, positive if the codec is better; None if unknown.
        common: lowest and highest value of the metric that both curves reach; None if there is none.
        note: why ``rate`` is None; empty if it is not.
    """

    rate: float | None
    metric: float | None
    common: Point | None
    note: str = ""


def bd(anchor: Sequence[Point], test: Sequence[Point], *, least: float) -> BDResult:
    """Compare ``test`` with ``anchor``, both with points in order of rising quality.

    There is a BD-rate only if the curves' common range of the metric is at least ``least`` wide.

    Raises MissingPackageError without the package ``bjontegaard``.
    """
    for name, points in (("anchor", anchor), ("tested", test)):
        if len(points) < MIN_POINTS:
            return BDResult(None, None, None, f"the {name} curve has fewer than {MIN_POINTS} points")
        if falls := steps_that_fall(points):
            return BDResult(None, None, None, f"the {name} curve does not rise at point {falls[0] + 1}")
    common = _overlap([metric for _, metric in anchor], [metric for _, metric in test])
    if common is None:
        return BDResult(None, None, None, "the curves have no quality in common")
    rates = _overlap([math.log2(bpp) for bpp, _ in anchor], [math.log2(bpp) for bpp, _ in test])
    shorter = min(points[-1][1] - points[0][1] for points in (anchor, test))
    length = common[1] - common[0]
    rate = metric = None
    note = ""
    if length >= max(least, MIN_COMMON_SHARE * shorter):
        rate = _bjontegaard("bd_rate", anchor, test)
    else:
        note = f"the curves have only {length:.2g} of the metric in common"
    if rates is not None and rates[1] - rates[0] >= MIN_OCTAVES:
        metric = _bjontegaard("bd_psnr", anchor, test)  # the function has this name for every metric
    return BDResult(rate, metric, common, note)


def steps_that_fall(points: Sequence[Point]) -> list[int]:
    """The index of each point whose successor does not have both a higher rate and a higher metric."""
    return [i for i, (a, b) in enumerate(itertools.pairwise(points)) if not (a[0] < b[0] and a[1] < b[1])]


def _overlap(a: Sequence[float], b: Sequence[float]) -> Point | None:
    lowest, highest = max(a[0], b[0]), min(a[-1], b[-1])
    return (lowest, highest) if lowest < highest else None


def _bjontegaard(function: str, anchor: Sequence[Point], test: Sequence[Point]) -> float:
    try:
        import bjontegaard
    except ImportError:
        raise MissingPackageError(
            'BD-rates need the package bjontegaard: pip install ".[bench]" in a checkout'
        ) from None
    # min_overlap=0: bd() has checked the common range already; the package would only warn.
    columns = (*zip(*anchor, strict=True), *zip(*test, strict=True))
    difference = getattr(bjontegaard, function)(*columns, "pchip", require_matching_points=False, min_overlap=0)
    return float(difference)
