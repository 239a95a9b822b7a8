"""Coverage-guided fuzzing of the container and the decoder, with atheris (libFuzzer).

::

    corpus ──▶ mutate: any bytes │ the same, checksums corrected │ one level's bitstream ────────▶ examine
      ▲                                                                                            │
      └───────────────────── kept if it reaches new code ◀─────────────────────────────────────────┘

Needs ``pip install atheris``. If an input causes a crash, a hang or too much memory, the run stores it in a file and
ends. The stored result gives the number of inputs and how much code they reached.
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
from benchmarks.damage import renamed
from vqcodec.codec import Codec
from vqcodec.files.atomic import write_atomic
from vqcodec.jsonfile import write_json
from vqcodec.rd.provenance import provenance
from vqcodec.weights import find_weights

__all__ = ["main"]

MAX_PIXELS = 2**13  # limit of decoded inputs; small images are fast, and the fuzzer needs many inputs
MAX_BYTES = 2048  # length of an input
HANG = 10  # seconds of processor time for one input
STARVED = 120  # seconds of wall time for one input, for busy machines
MEMORY = 2048  # MiB, including torch and the model


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("corpus", type=options.STORED)
@options.output
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True)
@options.weights
def main(corpus: Path, output: Path, minutes: float, seed: int, weights: Path | None) -> None:
    """Fuzz with the files in the archive CORPUS, as files of the model, and add inputs that reach new code to it.

    The result is appended to the runs in the output file.
    """
    weights = weights or find_weights()
    with tempfile.TemporaryDirectory() as folder:
        known, found = Path(folder, "known"), Path(folder, "found")
        known.mkdir()
        found.mkdir()
        codec = Codec.load(weights, device="cpu")
        with zipfile.ZipFile(corpus) as archive:
            for name in archive.namelist():
                (known / name).write_bytes(renamed(archive.read(name), codec.fingerprint))
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
        "provenance": provenance(codec, weights, threads=1),
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
    """Run libFuzzer in a new process, which instruments vqcodec when it imports it; returns the log."""
    command = [sys.executable, "-m", "benchmarks.fuzz_target", str(MAX_PIXELS), str(HANG), str(weights), *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if run.returncode:
        raise click.ClickException(f"the fuzzer found a failing input:\n{run.stdout[-3000:]}")
    return run.stdout


def _statistics(log: str) -> dict[str, Any]:
    """The last figures in libFuzzer's log: inputs, features and edges of the code that they reached, memory in MiB."""
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
