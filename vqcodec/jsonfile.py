"""JSON as vqcodec writes it: numbers that JSON knows, and files that can be compared by eye.

::

    dicts and lists ──finite──▶ without NaN and infinity ──json.dumps──▶ a log, a page
                    ──write_json──────────────────────────────────────▶ a file, one line for each list of numbers
"""

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from vqcodec.files.atomic import write_atomic

__all__ = ["JsonObject", "finite", "write_json"]

JsonObject = dict[str, Any]
"""A JSON object: what is about to be written, or has just been read."""


def finite(value: object) -> object:
    """``value`` with None in place of every NaN and infinity in its dicts, lists and tuples, since JSON has neither."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], content: Mapping[str, object]) -> None:
    """Write ``content`` to ``path``, indented, with each list of numbers on a line of its own.

    Raises ValueError for NaN and infinity, and ImageError if the file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\n([-+.\deE,\s]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    write_atomic(path, f"{text}\n".encode())
