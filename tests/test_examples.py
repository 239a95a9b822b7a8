"""The programs in ``examples/`` run, and mypy's strict mode finds vqcodec's types in them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import run_module

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROGRAMS = ("first_steps", "code_grids", "with_pillow")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("first_steps", ["decoded: RGB, 600×400", "from a tensor [3, 64, 96]: ", "cut short: truncated: "]),
        ("code_grids", ["level 0: [", "the file of quality 60 has the same codes: True"]),
        ("with_pillow", ["VQ: RGB, 600×400, by Rachel Michetti", "thumbnail: 128×85"]),
    ],
)
def test_a_program(program: str, said: list[str], tmp_path: Path) -> None:
    done = run_module(str(EXAMPLES / f"{program}.py"), stdout=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for words in said:
        assert words in done.stdout


@pytest.mark.slow
def test_types_are_found_by_a_user_who_checks_strictly(tmp_path: Path) -> None:
    wrong = "import vqcodec\n\nvqcodec.decompress(vqcodec.compress(3, quality='75'))\n"
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    for program in PROGRAMS:
        shutil.copy(EXAMPLES / f"{program}.py", tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-incremental", "."]
    environment = {"MYPYPATH": str(EXAMPLES.parent), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1] if "error:" in line] == ["wrong.py", "wrong.py"], done.stdout
    assert lines[-1].startswith("Found 2 errors in 1 file")
