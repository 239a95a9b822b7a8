"""The progress line on the terminal: it appears for long work only and never mixes with other output."""

import io
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from vqcodec.cli.progress import Progress

FAR = 3600.0  # seconds


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    def wait_for(self, text: str, since: int = 0) -> None:
        deadline = time.monotonic() + 30
        while text not in self.getvalue()[since:]:
            assert time.monotonic() < deadline, self.getvalue()
            time.sleep(0.01)

    @property
    def line(self) -> str:
        """The text of the line."""
        cells: list[str] = []
        at = 0
        for character in self.getvalue().rpartition("\n")[2]:
            if character == "\r":
                at = 0
            else:
                cells[at : at + 1] = [character]
                at += 1
        return "".join(cells).rstrip()


def replaced_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace standard error by a terminal. Not a fixture: pytest replaces standard error after fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_long_work_shows_its_task_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = replaced_stderr(monkeypatch)
    with Progress("encoding photo.png", quiet=False, delay=0.05) as progress:
        terminal.wait_for("encoding photo.png, 0 s")
        terminal.wait_for("encoding photo.png, 1 s")
        progress.describe("encoding other.png")
        terminal.wait_for("encoding other.png, ")
    assert terminal.line == ""


@pytest.mark.parametrize("columns", [0, 60])
def test_a_terminal_that_does_not_know_its_size(columns: int) -> None:
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", columns // 3, columns, 0, 0))
    work = "import time; from vqcodec.cli.progress import Progress\n"
    work += "with Progress('encoding photo.png', quiet=False, delay=0.01): time.sleep(0.7)"
    subprocess.run([sys.executable, "-c", work], stderr=theirs, check=True)
    os.close(theirs)
    assert "encoding photo.png, 0 s" in os.read(ours, 4096).decode()
    os.close(ours)


@pytest.mark.parametrize(
    ("make", "quiet", "delay"), [(Terminal, False, FAR), (Terminal, True, 0.01), (io.StringIO, False, 0.01)]
)
def test_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], io.StringIO], quiet: bool, delay: float
) -> None:
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("encoding", quiet=quiet, delay=delay) as progress:
        time.sleep(0.5)
        progress.describe("other")
    assert stream.getvalue() == ""


def test_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("encoding", quiet=False) as progress, progress.aside():
        pass


def test_the_share_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = replaced_stderr(monkeypatch)
    with Progress("encoding", quiet=False, delay=0.01) as progress:
        progress.share(0, 0)
        terminal.wait_for("encoding, 0 s")
        assert "%" not in terminal.getvalue()
        terminal.wait_for("encoding, 1 s")
        progress.share(0.4, 10**6)
        terminal.wait_for(" s, 40 %, ")
    found = re.search(r"(\d+) s, 40 %, ([.\d]+) Mpixel/s, (\d+) s left", terminal.getvalue())
    assert found
    assert 0.1 < float(found[2]) <= 2.1
    assert 1 <= int(found[3]) <= 8


def test_results_do_not_mix_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = replaced_stderr(monkeypatch)
    with Progress("encoding", quiet=False, delay=0.01) as progress:
        progress.describe("encoding 1 of 2")
        terminal.wait_for("encoding 1 of 2, ")
        progress.describe("encoding 2 of 2")
        with progress.aside():
            assert terminal.line == ""
            terminal.write("result\n")
            written = len(terminal.getvalue())
            time.sleep(0.5)
            assert len(terminal.getvalue()) == written
        terminal.wait_for("encoding 2 of 2, ", written)
    assert terminal.line == ""
    assert "result\n" in terminal.getvalue()


def test_a_terminal_that_goes_away_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = replaced_stderr(monkeypatch)

    def fail(_: str) -> int:
        raise OSError(5, "Input/output error")

    with Progress("encoding", quiet=False, delay=0.01):
        terminal.wait_for("encoding, ")
        monkeypatch.setattr(terminal, "write", fail)
        time.sleep(0.5)
