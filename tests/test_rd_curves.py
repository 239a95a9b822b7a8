"""BD figures worked out by hand, and where there is none."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.errors import MissingPackageError
from vqcodec.rd.curves import Point, bd, steps_that_fall

CURVE: list[Point] = [(0.1, 25.0), (0.2, 27.5), (0.4, 30.0), (0.8, 33.0), (1.6, 37.0)]


def _scaled(points: list[Point], factor: float) -> list[Point]:
    return [(factor * bpp, decibels) for bpp, decibels in points]


def _line(lowest: float, highest: float) -> list[Point]:
    """Four points from one quality to another."""
    return [(1.0 + i, lowest + (highest - lowest) * i / 3) for i in range(4)]


@given(st.floats(0.1, 10))
def test_bd_rate_of_a_curve_with_scaled_rate(factor: float) -> None:
    found = bd(CURVE, _scaled(CURVE, factor), least=2)
    assert found.rate == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (found.common, found.note) == ((25.0, 37.0), "")


@pytest.mark.parametrize(("factor", "percent"), [(1.0, 0.0), (0.5, -50.0), (2.0, 100.0)])
def test_bd_rate_has_the_sign_of_the_tested_codec(factor: float, percent: float) -> None:
    assert bd(CURVE, _scaled(CURVE, factor), least=2).rate == pytest.approx(percent, abs=1e-9)


@given(st.floats(-5, 5))
def test_bd_metric_of_a_curve_that_is_better_throughout(gain: float) -> None:
    better = [(bpp, decibels + gain) for bpp, decibels in CURVE]
    assert bd(CURVE, better, least=2).metric == pytest.approx(gain, abs=1e-9)


def test_bd_metric_needs_an_octave_of_rate() -> None:
    # The same range of the metric, at rates that meet from 1 to 1.6 bpp alone.
    test = [(10 * bpp, decibels) for bpp, decibels in CURVE]
    found = bd(CURVE, test, least=2)
    assert found.rate == pytest.approx(900)
    assert found.metric is None


def test_bd_rate_is_taken_over_the_common_range_alone() -> None:
    # Half the rate where the curves meet; ten times above, which must not count.
    test = [*_scaled(CURVE[1:4], 0.5), (30.0, 60.0)]
    found = bd(CURVE[:4], test, least=2)
    assert found.common == (27.5, 33.0)
    assert found.rate == pytest.approx(-50, abs=3)  # PCHIP bends a little towards points outside the range


def test_bd_rate_needs_no_equal_number_of_points() -> None:
    straight: list[Point] = [(10 ** (decibels / 10), decibels) for decibels in (20.0, 25.0, 27.0, 40.0)]
    more = sorted([*straight, (10**2.3, 23.0)])
    assert bd(straight, more, least=2).rate == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("anchor", "test", "common", "note"),
    [
        (CURVE, CURVE[:3], None, "tested curve has fewer than 4 points"),
        ([], CURVE, None, "anchor curve has fewer than 4 points"),
        (CURVE, _line(40, 45), None, "no quality in common"),
        (CURVE, _line(37, 45), None, "no quality in common"),
        (CURVE, _line(30, 31.8), (30.0, 31.8), "only 1.8 of the metric in common"),
        (CURVE, _line(34, 48), (34.0, 37.0), "only 3 of the metric in common"),  # a quarter
        (CURVE, [(1.0, 30.0), (2.0, 29.0), (3.0, 36.0), (4.0, 37.0)], None, "tested curve does not rise at point 1"),
        ([(1.0, 30.0), (2.0, 31.0), (1.9, 36.0), (3.0, 37.0)], CURVE, None, "anchor curve does not rise at point 2"),
    ],
)
def test_no_bd_rate_where_it_would_mean_nothing(
    anchor: list[Point], test: list[Point], common: Point | None, note: str
) -> None:
    found = bd(anchor, test, least=2)
    assert found.rate is None
    assert found.common == (None if common is None else pytest.approx(common))
    assert note in found.note


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(MissingPackageError, match=r'bjontegaard: pip install "\.\[bench\]" in a checkout$'):
        bd(CURVE, CURVE, least=2)


@pytest.mark.parametrize(
    ("points", "falls"),
    [
        (CURVE, []),
        (CURVE[:1], []),
        ([(1.0, 30.0), (1.0, 31.0)], [0]),  # as many bits
        ([(1.0, 30.0), (1.1, 30.0)], [0]),  # as good
        ([(1.0, 30.0), (1.1, 31.0), (1.05, 32.0), (1.2, 31.5)], [1, 2]),
    ],
)
def test_steps_that_fall(points: list[Point], falls: list[int]) -> None:
    assert steps_that_fall(points) == falls
