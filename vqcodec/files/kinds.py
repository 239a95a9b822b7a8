"""The kinds of opacity and metadata that can be left out of a file, as the command, the functions and Pillow name them.

::

    "gps,xmp" or ["gps", "xmp"] ──stripped──▶ {"gps", "xmp"}, or ValueError
"""

from collections.abc import Collection

__all__ = ["STRIPPABLE", "stripped"]

STRIPPABLE = ("all", "alpha", "exif", "gps", "icc", "xmp")


def stripped(kinds: str | Collection[str]) -> frozenset[str]:
    """The kinds to leave out, some of STRIPPABLE: their names, or one text of names with commas between them.

    Raises ValueError for another name: what was to be left out must not be kept because of a slip.
    """
    names = [name.strip() for name in kinds.split(",") if name.strip()] if isinstance(kinds, str) else list(kinds)
    for name in names:
        if name not in STRIPPABLE:
            raise ValueError(f"strip has {name!r}, expected some of {', '.join(STRIPPABLE)}")
    return frozenset(names)
