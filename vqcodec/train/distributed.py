"""More than one GPU by ``torchrun``: average gradients, and let the first process do the writing."""

import os

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["average_gradients", "is_main", "rank", "start"]


def start(device: torch.device) -> torch.device:
    """Join the other processes if torchrun started this one; returns the device that is ours."""
    if "RANK" not in os.environ or not dist.is_available():
        return device
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type != "cuda":
        return device
    ours = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(ours)
    return ours


def rank() -> int:
    """This process's number; 0 when it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
