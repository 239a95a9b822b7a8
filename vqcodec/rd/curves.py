"""Rate–distortion curves: BD-rate and BD-metric between two, and whether one rises as it should.

::

    points of an anchor ─┐  PCHIP over the common range of metric ─▶ mean difference of rate, in %
                         ├─
    points of a codec ───┘  PCHIP over the common range of rate ──▶ mean difference of metric, in its unit

Bjøntegaard, "Calculation of average PSNR differences between RD curves", VCEG-M33, 2001, with piecewise cubic
Hermite interpolation in place of his cubics, as standardisation has used since.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vqcodec.errors import MissingPackageError

__all__ = ["MIN_COMMON_SHARE", "MIN_OCTAVES", "MIN_POINTS", "BDResult", "Point", "bd", "steps_that_fall"]

Point = tuple[float, float]  # bpp, and a metric that is better when larger

# A mean over less than this says more about the interpolation than about the codecs.
MIN_COMMON_SHARE = 0.5  # of the shorter curve's range
MIN_OCTAVES = 1.0  # of rate
MIN_POINTS = 4  # of a curve, as in Bjøntegaard's definition


@dataclass(frozen=True)
class BDResult:
    """How a codec compares with an anchor, and over what.

    Attributes:
        rate: mean difference of rate at equal metric in %, negative where fewer bits do; None where there is no figure.
        metric: mean difference of the metric at equal rate, positive where the codec is better; None likewise.
        common: lowest and highest metric that both curves reach; None where they do not meet.
        note: why there is no figure of rate; empty if there is one.
    """

    rate: float | None
    metric: float | None
    common: Point | None
    note: str = ""


def bd(anchor: Sequence[Point], test: Sequence[Point], *, least: float) -> BDResult:
    """``test`` relative to ``anchor``, both points at rising quality, if they share ``least`` of the metric or more.

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
        metric = _bjontegaard("bd_psnr", anchor, test)  # its name, whatever the metric
    return BDResult(rate, metric, common, note)


def steps_that_fall(points: Sequence[Point]) -> list[int]:
    """Index of every point from which the next one does not have both more bits and more of the metric."""
    return [i for i, (a, b) in enumerate(itertools.pairwise(points)) if not (a[0] < b[0] and a[1] < b[1])]


def _overlap(a: Sequence[float], b: Sequence[float]) -> Point | None:
    lowest, highest = max(a[0], b[0]), min(a[-1], b[-1])
    return (lowest, highest) if lowest < highest else None


def _bjontegaard(function: str, anchor: Sequence[Point], test: Sequence[Point]) -> float:
    try:
        import bjontegaard
    except ImportError:
        raise MissingPackageError('BD-rates need the package bjontegaard: pip install "vqcodec[bench]"') from None
    # min_overlap=0: the common range has been judged above, where the package would only warn.
    columns = (*zip(*anchor, strict=True), *zip(*test, strict=True))
    difference = getattr(bjontegaard, function)(*columns, "pchip", require_matching_points=False, min_overlap=0)
    return float(difference)
