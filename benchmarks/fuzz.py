"""Coverage-guided fuzzing of the container and the decoder, with atheris (libFuzzer).

::

    corpus ──▶ mutate: bytes anyhow │ then checksums made right │ one level's bitstream only ──▶ examine
      ▲                                                                                            │
      └───────────────────── kept if it reaches new code ◀─────────────────────────────────────────┘

Needs ``pip install atheris``. A crash, a hang or too much memory ends the run with the input in a file; the result
that is stored says how many inputs were tried and how much code they reached.
"""

import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import click

from benchmarks import options
from vqcodec.codec import Codec
from vqcodec.files.atomic import write_atomic
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["main"]

MAX_PIXELS = 2**13  # of inputs that are decoded: the fuzzer needs many of them
MAX_BYTES = 2048  # of inputs
HANG = 10  # seconds of processor time
STARVED = 120  # seconds, whatever else the machine does
MEMORY = 2048  # MiB, torch and the model included


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("corpus", type=options.STORED)
@options.output
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True)
@options.weights
def main(corpus: Path, output: Path, minutes: float, seed: int, weights: Path | None) -> None:
    """Fuzz from the files in the archive CORPUS, and add to it what reaches new code.

    The run is added to those that the output file has already.
    """
    weights = weights or find_weights()
    with tempfile.TemporaryDirectory() as folder:
        known, found = Path(folder, "known"), Path(folder, "found")
        found.mkdir()
        with zipfile.ZipFile(corpus) as archive:
            archive.extractall(known)
        log = _fuzzer(
            weights,
            [
                *(f"-max_total_time={round(60 * minutes)}", f"-seed={seed}", f"-artifact_prefix={output.parent}/"),
                *(f"-timeout={STARVED}", f"-rss_limit_mb={MEMORY}", f"-max_len={MAX_BYTES}", "-print_final_stats=1"),
                *(str(found), str(known)),
            ],
        )
        files = sorted([*known.iterdir(), *found.iterdir()], key=lambda path: path.name)
        archived = io.BytesIO()
        with zipfile.ZipFile(archived, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
        write_atomic(corpus, archived.getvalue())
    run = {
        "provenance": provenance(Codec.load(weights, device="cpu"), weights, threads=1),
        "limits": {"pixels": MAX_PIXELS, "bytes": MAX_BYTES, "seconds": HANG, "mebibytes": MEMORY},
        "minutes": minutes,
        "seed": seed,
        **_statistics(log),
        "corpus": len(files),
    }
    earlier = json.loads(output.read_text(encoding="utf-8"))["runs"] if output.exists() else []
    write_json(output, {"runs": [*earlier, run]})
    click.echo(f"{run['inputs']} inputs, {run['edges']} edges, {run['corpus']} files in the corpus")


def _fuzzer(weights: Path, arguments: list[str]) -> str:
    """Run libFuzzer in a process that imports vqcodec afresh, to watch which of its code runs; returns its log."""
    command = [sys.executable, "-m", "benchmarks.fuzz_target", str(MAX_PIXELS), str(HANG), str(weights), *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if run.returncode:
        raise click.ClickException(f"the fuzzer found something:\n{run.stdout[-3000:]}")
    return run.stdout


def _statistics(log: str) -> dict[str, Any]:
    """What libFuzzer says in the end: inputs tried, features and edges of the code reached, memory in MiB."""
    reached = re.findall(r"#\d+\s.*cov: (\d+) ft: (\d+)", log)[-1]
    inputs, slowest, memory = (
        int(re.findall(rf"stat::{name}:\s+(\d+)", log)[-1])
        for name in ("number_of_executed_units", "slowest_unit_time_sec", "peak_rss_mb")
    )
    return {
        "inputs": inputs,
        "edges": int(reached[0]),
        "features": int(reached[1]),
        "slowest_seconds": slowest,
        "peak_mebibytes": memory,
    }


if __name__ == "__main__":
    main()
