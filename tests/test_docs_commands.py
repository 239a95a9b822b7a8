"""The shell commands and the Python code of README and the tutorial run as they are written.

Blocks of ``sh`` are run by bash. A comment ``<!-- not run by the tests: REASON -->`` before a block leaves it out, and
lines that begin with ``pip`` are left out, since the environment of the tests is what they make.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import vqcodec
from vqcodec.files.container import MAGIC

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = r"(?P<reason><!-- not run by (?:the|these) tests: [^>]+ -->\n)?"


def blocks(document: str, language: str) -> list[str]:
    """The blocks of ``language`` that are not left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(LEFT_OUT + rf"^```{language}\n(?P<code>.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [match["code"] for match in found if not match["reason"]]


def commands(block: str) -> list[str]:
    """The lines of a block of shell, without installation."""
    return [line for line in block.splitlines() if line and not line.startswith(("pip ", "#"))]


def execute(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` by bash, which stops at the first error."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(vqcodec.__file__).parents[1]),
        "COLUMNS": "100",
    }
    command = ["bash", "-euo", "pipefail", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def python(lines: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return execute("python -W ignore - <<'END'\n" + "\n".join(lines) + "\nEND", folder)


def contents(folder: Path) -> dict[Path, int]:
    """Every file and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def crop(name: str, left: int, top: int, width: int, height: int) -> Image.Image:
    with Image.open(ROOT / "examples" / name) as image:
        return image.convert("RGB").crop((left, top, left + width, top + height))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures that the documents name."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "PHOTOS").mkdir()
    crop("chelsea.png", 120, 60, 192, 176).save(folder / "photo.png")
    crop("coffee.png", 100, 80, 64, 48).save(folder / "more.png")
    crop("coffee.png", 200, 90, 96, 64).save(folder / "a.png")
    crop("coffee.png", 240, 120, 96, 64).save(folder / "b.png")
    crop("chelsea.png", 100, 50, 64, 96).save(folder / "PHOTOS" / "cat.png")
    crop("coffee.png", 150, 100, 96, 64).save(folder / "PHOTOS" / "cup.jpg")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture(scope="module")
def coded(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with the ``.vq`` files that the documents name."""
    folder = tmp_path_factory.mktemp("coded") / "files"
    shutil.copytree(pictures, folder)
    made = execute(
        "vqcodec encode photo.png --effort 0; vqcodec encode a.png --effort 0;"
        "vqcodec encode PHOTOS -o small/ --effort 0; head -c 1000 photo.vq > damaged.vq",
        folder,
    )
    assert made.returncode == 0, made.stderr
    return folder


PYTHON = [(document, code) for document in ("README.md", "docs/tutorial.md") for code in blocks(document, "python")]
FIRST_IMPORT = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)
COMPANY = {FIRST_IMPORT.findall(block)[0]: block for block in blocks("docs/company.md", "python")}
README = [line for block in blocks("README.md", "sh") for line in commands(block)]


def test_the_commands_are_found() -> None:
    assert len(README) >= 20
    assert len(blocks("docs/tutorial.md", "sh")) >= 6
    assert list(COMPANY) == ["PIL", "imageio", "torchvision", "datasets"]
    assert {document for document, _ in PYTHON} == {"README.md", "docs/tutorial.md"}


@pytest.mark.slow
@pytest.mark.parametrize("line", README)
def test_a_command_of_readme_works(line: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Each line starts with the pictures, and lines that do not make ``.vq`` files also with those."""
    folder = tmp_path / "files"
    fixture = "pictures" if line.startswith("vqcodec encode") else "coded"
    shutil.copytree(request.getfixturevalue(fixture), folder)
    before = contents(folder)
    result = execute(line, folder)
    assert result.returncode == (1 if "--salvage" in line else 0), result.stderr
    assert result.stdout or contents(folder) != before, "nothing was printed, nothing written"


@pytest.mark.slow
def test_the_commands_of_the_tutorial_work(pictures: Path, tmp_path: Path) -> None:
    """All blocks in one folder, one after another."""
    folder = tmp_path / "files"
    shutil.copytree(pictures, folder)
    for block in blocks("docs/tutorial.md", "sh"):
        result = execute("\n".join(commands(block)), folder)
        assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"
    made = ["decoded.png", "two.vq", "coded/cat.vq", "again/cup.webp", "preview.png", "saved.png", "report/index.html"]
    made += ["report/compressai/jpeg.json", "inside/index.html", "drawn.png", "between.png"]
    assert [name for name in made if not (folder / name).is_file()] == []
    assert (folder / "two.vq").stat().st_size <= 2000
    with Image.open(folder / "saved.png") as saved:
        assert saved.size == (192, 176)


@pytest.mark.slow
@pytest.mark.parametrize(("document", "code"), PYTHON)
def test_the_python_of_the_documents_works(document: str, code: str, coded: Path, tmp_path: Path) -> None:
    shutil.copytree(coded, tmp_path / "files")
    result = python([code], tmp_path / "files")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", list(COMPANY))
def test_vqcodec_in_company(package: str, pictures: Path, tmp_path: Path) -> None:
    code = COMPANY[package]
    others = [line for line in code.splitlines() if line.startswith(("import ", "from ")) and "vqcodec" not in line]
    if why_not := python(others, tmp_path).stderr:
        pytest.skip(f"needs what the block imports: {why_not.splitlines()[-1]}")
    shutil.copy(pictures / "photo.png", tmp_path)
    result = python([code], tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "photo.vq").read_bytes().startswith(MAGIC)
