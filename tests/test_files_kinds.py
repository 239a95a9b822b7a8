"""Kinds to strip are known names; all others are refused."""

from typing import Any

import pytest

from vqcodec.files.kinds import STRIPPABLE, stripped


@pytest.mark.parametrize("kinds", ["gps,xmp", " gps , xmp ,", ["gps", "xmp"], ("xmp", "gps", "gps"), {"gps", "xmp"}])
def test_names_and_lists_of_names(kinds: Any) -> None:
    assert stripped(kinds) == {"gps", "xmp"}


def test_one_and_no_name() -> None:
    assert stripped("exif") == {"exif"}
    assert stripped("") == stripped([]) == frozenset()
    assert stripped(STRIPPABLE) == set(STRIPPABLE)


@pytest.mark.parametrize("kinds", ["GPS", ["GPS"], "gpsxmp", "gps xmp", ["gps,xmp"], [" gps"], [3], [None], b"gps"])
def test_other_names_are_refused(kinds: Any) -> None:
    with pytest.raises(ValueError, match=r"^strip has .*, expected some of all, alpha, exif, gps, icc, xmp$"):
        stripped(kinds)
