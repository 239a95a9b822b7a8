"""What docs/reliability.md says is what was measured; the script that measures it, run on a little."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import damage, reliability

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text())
    return result


def test_the_document_has_the_stored_tables(stored: dict[str, Any]) -> None:
    assert reliability.damage_table(stored["damage"]) in DOCUMENT
    assert reliability.memory_table(stored["memory"]) in DOCUMENT


def test_the_stored_result_is_of_every_class_and_passed(stored: dict[str, Any]) -> None:
    assert [row["class"] for row in stored["damage"]] == [own.name for own in damage.CLASSES]
    assert stored["passed"]
    by_chance = [row["inputs"] for row in stored["damage"] if row["class"].startswith("random")]
    assert min(by_chance) >= 9_900  # of 10 000, of which some change nothing


def test_the_document_has_the_stored_fuzzing() -> None:
    runs = json.loads((ROOT / "benchmarks" / "results" / "fuzz.json").read_text())["runs"]
    assert sum(run["minutes"] for run in runs) >= 60
    assert f"{sum(run['inputs'] for run in runs):,} inputs" in DOCUMENT
    assert f"{max(run['edges'] for run in runs)} edges" in DOCUMENT


@pytest.mark.slow
def test_the_script(tmp_path: Path, tiny_weights: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "reliability.json"
    monkeypatch.chdir(root)
    arguments = [str(root / "examples" / "chelsea.png"), "-o", str(output), "--weights", str(tiny_weights)]
    result = CliRunner().invoke(reliability.main, [*arguments, "--mutations", "20", "--sizes", "16x16,60x40"])
    assert result.exit_code == 0, result.output
    stored = json.loads(output.read_text())
    assert [row["inputs"] for row in stored["damage"] if row["class"].startswith("random")] == [20, 20]
    assert [(row["height"], row["width"]) for row in stored["memory"]] == [(16, 16), (40, 60)]
    assert reliability.damage_table(stored["damage"]) in result.stdout
    assert reliability.memory_table(stored["memory"]) in result.stdout
