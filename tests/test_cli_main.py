"""The command as a whole: usage, exit codes, and how it starts and ends as a process."""

import os
import subprocess
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import vqcodec
from tests.command import run_module, vq
from vqcodec.cli.main import main
from vqcodec.config import DEFAULT_QUALITY


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["encode", "x", "-q", "0"],
        ["encode", "x", "-q", "101"],
        ["encode", "x", "-q", "7.5"],
        ["encode", "x", "-j", "0"],
        ["encode", "-", "x"],
        ["encode", "-", "-o", "out/"],
        ["encode", "x", "y", "-o", "-"],
        ["decode"],
        ["decode", "x", "--threads", "0"],
        ["decode", "x", "--device", "tpu"],
        ["decode", "x", "--levels", "0"],
        ["decode", "x", "--max-pixels", "0"],
        ["decode", "x", "--levels", "2", "--preview"],
        ["decode", "x", "--salvage", "--preview"],
        ["train", "x"],
        ["verify"],
        ["explode"],
        ["info"],
        ["compare", "x"],
        ["encode", "x", "--strip", "pixels"],
        ["encode", "x", "--target-bpp", "nan"],
        ["encode", "x", "--target-psnr", "inf"],
        ["encode", "x", "--target-ssimulacra2", "nan"],
        ["encode", "x", "--target-ssimulacra2", "-inf"],
        ["decode", "x", "--format", "exe"],
    ],
)
def test_wrong_usage_exits_with_2(folder: Path, arguments: list[str]) -> None:
    result = vq(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: vqcodec")


def test_both_entry_points_have_the_same_default_quality(picture: NDArray[np.uint8]) -> None:
    assert f"[default: {DEFAULT_QUALITY};" in " ".join(vq("encode", "--help").stdout.split())


def test_the_completion_of_strip() -> None:
    complete = main.commands["encode"].params
    strip = next(option for option in complete if option.name == "strip")
    context = click.Context(main.commands["encode"])
    assert [item.value for item in strip.shell_complete(context, "exif,g")] == ["exif,gps"]
    assert [item.value for item in strip.shell_complete(context, "a")] == ["all", "alpha"]


def test_version() -> None:
    assert vq("--version").stdout == f"vqcodec {vqcodec.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["encode", "--help"], ["info", "photo.vq"], ["verify", "photo.vq"]]
)
def test_quick_commands_never_import_torch_or_numpy(packed: bytes, arguments: list[str]) -> None:
    result = run_module("-X", "importtime", "-m", "vqcodec", *arguments, stdout=subprocess.DEVNULL)
    modules = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert result.returncode == 0
    assert "click" in modules
    assert not modules & {"torch", "numpy", "PIL", "constriction", "safetensors"}


def test_a_reader_that_went_away_is_no_error(packed: bytes) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = run_module("-m", "vqcodec", "info", "photo.vq", stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
@pytest.mark.parametrize("arguments", [["--help"], ["encode", "--help"], ["--version"], ["info", "photo.vq"]])
def test_an_output_that_is_full_is_one_line(packed: bytes, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = run_module("-m", "vqcodec", *arguments, stdout=full)
    said = "vqcodec: error: standard output: cannot be written: No space left on device\n"
    assert (result.returncode, result.stderr) == (1, said)


@pytest.mark.parametrize("module", ["click", "vqcodec.cli.study"])
def test_an_interrupt_during_the_first_imports_is_quiet(module: str) -> None:
    early = f"""if True:
        import sys

        class Finder:
            def find_spec(self, name, *_):
                if name == {module!r}:
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, Finder())
        from vqcodec.__main__ import main
        main()"""
    result = run_module("-c", early, stdout=subprocess.PIPE)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_an_interrupt_after_the_work_is_quiet(packed: bytes) -> None:
    late = "import atexit, os; atexit.register(os.kill, os.getpid(), 2); from vqcodec.cli.main import main; main()"
    result = run_module("-c", late, "info", "photo.vq", stdout=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (-2, "")
    assert result.stdout.startswith("photo.vq: ")


def test_names_that_are_not_text(packed: bytes) -> None:
    os.rename("photo.vq", b"\xff.vq")
    result = run_module("-m", "vqcodec", "info", os.fsdecode(b"\xff.vq"), stdout=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, "")
    assert ".vq: 12×8" in result.stdout


@pytest.mark.parametrize("width", [80, 120])
def test_help_fits_the_terminal_and_is_complete(width: int) -> None:
    for name in ("", *main.commands):
        command = main.commands[name] if name else main
        shown = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=width).stdout
        assert max(map(len, shown.splitlines())) <= width
        assert "..." not in shown.partition("\n")[2], f"{name}: a text is cut"
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{name} {option.name}"
