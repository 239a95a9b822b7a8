"""The optimiser of every phase: Muon for convolution kernels, Adam for the rest, one cosine for both.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, so that every direction
of a kernel learns at the same speed. A convolution kernel is a matrix ``[out, in·k·k]`` here already.
"""

import copy
import math
from typing import Any

import torch
from torch import nn

from vqcodec.config import PhaseConfig
from vqcodec.networks.layers import Conv

__all__ = ["Average", "Optimizer", "schedule"]


def schedule(progress: float, step: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up over ``warmup`` steps, cosine to zero as ``progress`` goes 0..1."""
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Optimizer:
    """Muon and Adam side by side, with gradient clipping and a common schedule."""

    def __init__(self, module: nn.Module, config: PhaseConfig, *, extra_lr: dict[str, float] | None = None) -> None:
        """``extra_lr`` gives parameters whose name ends in a key a learning rate of their own."""
        self.config = config
        kernels = {id(layer.weight) for layer in module.modules() if isinstance(layer, Conv)}
        matrices: list[nn.Parameter] = []
        groups: dict[float, list[nn.Parameter]] = {config.adam_lr: []}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if id(parameter) in kernels:
                matrices.append(parameter)
                continue
            own = [lr for suffix, lr in (extra_lr or {}).items() if name.endswith(suffix)]
            groups.setdefault(own[0] if own else config.adam_lr, []).append(parameter)
        self.parameters = matrices + [p for group in groups.values() for p in group]
        adam = [{"params": params, "lr": lr} for lr, params in groups.items() if params]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(adam, betas=(0.9, 0.98))]
        if matrices:
            # "original" scales a step by √max(1, out/in·k²), the rule our learning rate was tuned with.
            muon = torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.0, adjust_lr_fn="original")
            self.optimizers.append(muon)
        self.peak = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, factor: float) -> float:
        """Clip, update at ``factor`` of the peak learning rates, clear; returns the gradient norm."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.clip))
        for optimizer, peaks in zip(self.optimizers, self.peak, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            if math.isfinite(norm):  # one bad batch must not poison the weights
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class Average:
    """Exponential moving average of a module's weights, which is what is evaluated and exported."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        # A short memory at first, or the random start would linger.
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, current in zip(self.module.parameters(), module.parameters(), strict=True):
            average.lerp_(current, 1 - decay)
        for kept, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(buffer)
