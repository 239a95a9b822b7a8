"""JSON files: exact numbers, compact lists, and only values that JSON allows."""

import json
import math
from pathlib import Path

import pytest

from vqcodec.jsonfile import JsonObject, finite, write_json


def test_json_is_exact_and_compact(folder: Path) -> None:
    contents: JsonObject = {"a": [1.5, -2e-7, 0.1], "b": [[1, 2], [3]], "c": ["1", "[\n1]"], "d": [], "é": None}
    write_json(folder / "r.json", contents)
    text = (folder / "r.json").read_text(encoding="utf-8")
    assert json.loads(text) == contents
    assert ' "a": [1.5, -2e-07, 0.1],\n' in text
    assert "é" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(folder / "r.json", {"psnr": math.inf})


def test_what_json_cannot_say_is_null() -> None:
    value = {"a": [1.5, math.nan, (math.inf, "x")], "b": {"c": -math.inf}, "d": True}
    assert finite(value) == {"a": [1.5, None, [None, "x"]], "b": {"c": None}, "d": True}
