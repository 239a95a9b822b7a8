"""The names and paths of the source tree in the documents exist, and what they quote is what is stored."""

import importlib
import json
import os
import re
import statistics
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

import vqcodec
from benchmarks.study.findings import BLOCK, FINDINGS, TIMES, updated

ROOT = Path(__file__).resolve().parents[1]
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
LECTURE = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "study" / "results"

# `networks/quantize.py:VectorQuantizer.forward`
NAMED = sorted(set(re.findall(r"`((?:\w+/)*\w+\.py):([\w.]+)`", DESIGN + LECTURE)))


def test_the_documents_name_places() -> None:
    assert len(NAMED) >= 50


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_name_of_the_documents_exists(path: str, name: str) -> None:
    module = path.removesuffix(".py").replace("/", ".")
    loaded = importlib.import_module(module if module.startswith("benchmarks.") else f"vqcodec.{module}")
    assert callable(reduce(getattr, name.split("."), loaded))


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`((?:vqcodec|tests|docs|benchmarks)/[\w/]*(?:\.\w+)?)`", DESIGN + LECTURE)))
)
def test_a_path_of_the_documents_exists(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_costs_of_many_pictures_are_those_measured() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    stored = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text(encoding="utf-8"))
    points = {f"{point['width']}×{point['height']}": point for point in stored["sweep"]["points"]}
    table = re.findall(r"^\| (\d+×\d+) \|(.*)\|$", text, re.MULTILINE)
    rows = [[size, *(cell.strip() for cell in cells.split("|"))] for size, cells in table]
    assert len(rows) == 4
    for size, *cells in rows:
        point = points[size]
        megapixels = point["width"] * point["height"] / 1e6
        rates = [statistics.median(point[way]["processor"]) / megapixels for way in ("encode", "decode")]
        expected = [f"{rate:.2f}" for rate in rates]
        expected += [f"{1e8 * rate * megapixels / 3600:,.0f}" for rate in rates]
        assert cells == [*expected, f"{1e8 * megapixels * 1e6 * point['bpp'] / 8 / 1e12:.1f}"]


PAGES = [
    "tutorial",
    "commands",
    "api",
    "company",
    "scale",
    "reliability",
    "performance",
    "search",
    "looks",
    "design",
    "lecture",
    "format",
    "training",
]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """As ``make docs`` builds it; what a page shows and links to is part of the site."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-c", "docs"]
    environment = os.environ | {"PYTHONPATH": str(Path(vqcodec.__file__).parents[1])}
    result = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), ".", str(site)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    pages = {name: (site / "docs" / f"{name}.html").read_text(encoding="utf-8") for name in PAGES}
    for expected in (
        "cmdoption-vqcodec-encode-effort",
        "cmdoption-vqcodec-sample-temperature",
        "cmdoption-vqcodec-rd-curve-overlay",
    ):
        assert expected in pages["commands"]
    for expected in ("decompress_many", "UnknownModelError", "compress_to"):
        assert expected in pages["api"]
    for page in [*site.rglob("*.html")]:
        for link in re.findall(r"""(?:src|srcset|href)="([^"#?:]+)["#?]""", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(site)} names {link}, which is not there"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", DESIGN + LECTURE))))
def test_a_link_of_the_documents_leads_somewhere(name: str) -> None:
    assert (ROOT / "docs" / name).exists()


def test_the_lecture_quotes_the_stored_results_and_their_pictures() -> None:
    assert updated(LECTURE, RESULTS) == LECTURE
    quoted = {match[1] for match in BLOCK.finditer(LECTURE)}
    assert quoted == FINDINGS.keys() | {TIMES}
    stored = {path.stem for path in RESULTS.glob("*.json")}
    assert stored == {path.stem for path in RESULTS.glob("*.png")} <= FINDINGS.keys()
    assert max(path.stat().st_size for path in RESULTS.iterdir()) < 120_000
