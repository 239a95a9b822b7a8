"""Man pages and completions say what the command says, and work with man and the shells."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vqcodec
from vqcodec.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
SHARE = ROOT / "share"
PAGES = sorted((SHARE / "man" / "man1").glob("*.1"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate", SHARE / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # click-man uses a name that click will drop
def test_they_are_up_to_date(generate: ModuleType, tmp_path: Path) -> None:
    """If not: python share/generate.py."""
    generate.write(tmp_path, generate.released((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    made = {path.relative_to(tmp_path): path.read_text(encoding="utf-8") for path in files}
    assert {path.name for path in PAGES} == {"vqcodec.1", *(f"vqcodec-{name}.1" for name in main.commands)}
    assert len(made) == len(PAGES) + 3
    for name, text in made.items():
        assert (SHARE / name).read_text(encoding="utf-8") == text, f"{name}: run python share/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_line_that_is_a_macro_by_chance(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        assert not line.startswith(("'", ".")) or line.split()[0] in (".TH", ".SH", ".PP", ".TP", ".B"), line


@pytest.mark.skipif(not shutil.which("man"), reason="needs man")
def test_man_shows_a_page_without_warnings() -> None:
    page = SHARE / "man" / "man1" / "vqcodec-encode.1"
    environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "Compress the image INPUT to a .vq file." in done.stdout
    assert "--quality" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    """The installed file, in a shell whose ``vqcodec`` is this one."""
    (tmp_path / "vqcodec").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vqcodec "$@"\n', encoding="utf-8")
    (tmp_path / "vqcodec").chmod(0o755)
    script = (
        f"source {SHARE}/bash-completion/completions/vqcodec\n"
        'complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _vqcodec_completion vqcodec;'
        ' echo "${COMPREPLY[*]}"; }\n'
        "complete_words vqcodec en\ncomplete_words vqcodec decode --for\ncomplete_words vqcodec decode --format w\n"
    )
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(vqcodec.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", script], env=path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["encode", "--format --force", "webp"]
