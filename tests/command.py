"""Ways to call the command line, for several test modules."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import vqcodec
from vqcodec.cli.main import main

FINGERPRINT = bytes.fromhex("c0dec001")
"""The fingerprint in the files of the fixture ``packed``; no weights have it."""


def vq(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin, prog_name="vqcodec")


def fails(result: Result, *parts: str, code: int = 1) -> None:
    """Check that stderr is one line that contains ``parts``, the first part only once, and that stdout is empty."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("vqcodec: error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.count(parts[0]) == 1
    for part in parts:
        assert part in result.stderr


def run_module(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(vqcodec.__file__).parents[1]), **options.pop("env", {})}
    command = [sys.executable, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=False, **options)
