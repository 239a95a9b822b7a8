"""Where a result comes from: versions, machine, model and command; and how it is stored.

::

    packages, libraries, processor, weights, argv ──provenance──▶ plain dict ──write_json──▶ file

Nothing here names a person, a host or a folder outside the repository, since results are published.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import features

from vqcodec import __version__
from vqcodec.codec import Codec
from vqcodec.files.atomic import write_atomic

__all__ = ["command_line", "cores", "image_facts", "package_version", "provenance", "surroundings", "write_json"]


def provenance(codec: Codec, weights: Path, *, threads: int) -> dict[str, Any]:
    """Facts about this run of ``codec``, whose file is ``weights``; ``threads`` is what the caller gave torch."""
    return surroundings(threads=threads) | {
        "weights": {
            "name": codec.name,
            "fingerprint": codec.fingerprint.hex(),
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "bytes": weights.stat().st_size,
        },
        "device": str(codec.device),
    }


def surroundings(*, threads: int) -> dict[str, Any]:
    """Facts about a run whatever it measures: date, command, versions, machine."""
    packages = ("torch", "numpy", "pillow", "constriction", "bjontegaard", "pytorch-msssim", "ssimulacra2")
    libraries = ("libjpeg_turbo", "webp", "avif", "jpg_2000")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command_line(sys.argv),
        "versions": {
            "vqcodec": __version__,
            "python": platform.python_version(),
            **{name: package_version(name) for name in packages},
            **{name: features.version(name) for name in libraries},
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu(),
            "cores": cores(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        },
        "threads": threads,
    }


def command_line(argv: Sequence[str]) -> str:
    """The command that was run, with paths that lead out of the working directory cut to their last part."""
    program = Path(argv[0])
    ours = program.parent.name != "benchmarks"
    start = ["vqcodec"] if ours else ["python", "-m", f"benchmarks.{program.stem}"]
    return shlex.join([*start, *map(_public, argv[1:])])


def image_facts(path: Path, width: int, height: int) -> dict[str, Any]:
    """What identifies an image in a result."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": path.name, "width": width, "height": height, "sha256": digest}


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write ``result``, a list of numbers on one line so that two results can be compared by eye."""
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\n([-+.\deE,\s]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    write_atomic(path, f"{text}\n".encode())


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_version(package: str) -> str | None:
    """The installed version of a package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # an optional one


def _public(argument: str) -> str:
    argument = argument.encode("utf-8", "backslashreplace").decode()
    if argument.startswith("--"):
        option, equals, value = argument.partition("=")
    elif argument.startswith("-"):
        option, equals, value = argument[:2], "", argument[2:]
    else:
        option, equals, value = "", "", argument
    path = Path(value)
    if not (path.is_absolute() or ".." in path.parts):
        return argument
    path, here = path.resolve(), Path.cwd()
    return option + equals + (str(path.relative_to(here)) if path.is_relative_to(here) else path.name)


def _cpu() -> str:
    """The processor's name; the platform module knows it on some systems only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
