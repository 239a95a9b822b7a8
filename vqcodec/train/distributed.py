"""More than one process by ``torchrun``: the same weights everywhere, and the first process does the writing.

::

    process 0 ── loss on crops of its own ──▶ gradients ─┐                    ┌─▶ the same step
    process 1 ── loss on crops of its own ──▶ gradients ─┴─ average_gradients ┴─▶ the same step

In a single process every function does nothing or returns its argument.
"""

import datetime
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["average", "average_gradients", "broadcast", "finish", "from_main", "is_main", "rank", "start", "wait"]

TIMEOUT = datetime.timedelta(hours=6)  # the others wait while the first process evaluates and exports


def start(device: torch.device) -> torch.device:
    """Join the other processes if torchrun started this one; returns this process's device."""
    if "RANK" not in os.environ or not dist.is_available():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return device


def finish() -> None:
    """Leave the group of processes, once all of them have called this."""
    if _together():
        wait()
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 in a single process."""
    return dist.get_rank() if _together() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and messages."""
    return rank() == 0


def wait() -> None:
    """Return once every process has called this."""
    if _together():
        dist.barrier()


def from_main(value: float) -> float:
    """The first process's ``value``, in every process, for decisions that depend on a clock."""
    if not _together():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    box = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(box, 0)
    return float(box)


def broadcast(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if _together():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each float tensor by its mean over the processes."""
    tensors = list(tensors)
    if not _together() or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; one that is missing counts as zero."""
    if not _together():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    average(parameter.grad for parameter in parameters if parameter.grad is not None)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
