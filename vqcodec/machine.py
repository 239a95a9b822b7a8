"""The machine that this process runs on: what results and model cards say about it.

::

    /proc/cpuinfo, the scheduler, torch ──Machine.this──▶ frozen dataclass
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Machine", "cores", "processor"]


@dataclass(frozen=True)
class Machine:
    """What a run computed on.

    Attributes:
        system: operating system and architecture.
        cpu: the processor's name.
        cores: processors that the process may use.
        cpu_capability: the vector units that torch uses.
        gpu: its name; None without CUDA.
        load_average: mean number of busy processes in the last minute; None where the system does not say.
    """

    system: str
    cpu: str
    cores: int
    cpu_capability: str
    gpu: str | None
    load_average: float | None

    @classmethod
    def this(cls) -> "Machine":
        """The machine that this process runs on, now."""
        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cpu=processor(),
            cores=cores(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        )


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name; empty where neither Linux nor the platform module tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
