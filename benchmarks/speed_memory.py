"""Peak memory of a codec that encodes and decodes one image.

::

    pixels ──▶ process A: open, encode ──▶ coded ──▶ process B: open, decode
                   └─ peaks                              └─ peaks, after opening and at the end
"""

import json
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed_codecs import Settings, open_coder

__all__ = ["measure", "peak"]


def measure(name: str, settings: Settings, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Bytes by direction: ``opened`` is the peak when the codec is loaded, ``peak`` when the direction is done."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "subject"
        file.write_bytes(pickle.dumps(pixels))
        return {direction: _child(name, settings, direction, file) for direction in ("encode", "decode")}


def _child(name: str, settings: Settings, direction: str, file: Path) -> dict[str, int]:
    """Encode or decode the content of ``file`` in another process, which replaces it by the result."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed_memory"],
        input=pickle.dumps((name, settings, direction, file)),
        stdout=subprocess.PIPE,
        check=True,
    )
    peaks: dict[str, int] = json.loads(run.stdout)
    return peaks


def _main() -> None:
    name, settings, direction, file = pickle.loads(sys.stdin.buffer.read())
    coder = open_coder(name, settings)
    subject = pickle.loads(file.read_bytes())
    opened = peak()
    outcome = coder.encode(subject) if direction == "encode" else coder.decode(subject)
    most = peak()
    file.write_bytes(pickle.dumps(outcome))
    print(json.dumps({"opened": opened, "peak": most}))


def peak() -> int:
    """The peak memory of this process in bytes."""
    # On Linux, ru_maxrss starts at the size of the parent process, so the kernel's own figure comes first.
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return 1024 * int(found[1])
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


if __name__ == "__main__":
    _main()
