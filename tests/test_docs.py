"""The names and paths of the source tree in the documents exist."""

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")

# `networks/quantize.py:VectorQuantizer.forward`
NAMED = sorted(set(re.findall(r"`((?:\w+/)*\w+\.py):([\w.]+)`", DESIGN)))


def test_the_design_names_places() -> None:
    assert len(NAMED) >= 25


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_name_of_the_design_exists(path: str, name: str) -> None:
    module = importlib.import_module(f"vqcodec.{path.removesuffix('.py').replace('/', '.')}")
    assert callable(reduce(getattr, name.split("."), module))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:vqcodec|tests|docs)/[\w/]*(?:\.\w+)?)`", DESIGN))))
def test_a_path_of_the_design_exists(name: str) -> None:
    assert (ROOT / name).exists()
