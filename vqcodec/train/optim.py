"""The optimiser of every phase: Muon for convolution kernels, Adam for the rest, one cosine for both; and the average.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, so that every direction
of a kernel learns at the same speed. A convolution kernel is already stored as a matrix ``[out, in·k·k]``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vqcodec.config import PhaseConfig
from vqcodec.networks.layers import Conv

__all__ = ["Optimizer", "averaged", "schedule"]


def schedule(progress: float, step: int, warmup: int, cooldown: float = 1.0) -> float:
    """Learning-rate factor: linear warm-up over ``warmup`` steps, constant, and a cosine to zero at the end.

    The cosine takes the last ``cooldown`` of the ``progress`` 0..1; with 1 there is no constant part.
    """
    done = max(0.0, min(1.0, progress) - (1 - cooldown)) / cooldown
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * done))


class Optimizer:
    """Muon and Adam side by side, with gradient clipping and a common schedule.

    Args:
        module: its parameters that require gradients are trained.
        config: learning rates and the gradient norm to clip at.
        extra_lr: learning rates of parameters whose name ends in a key.
    """

    def __init__(self, module: nn.Module, config: PhaseConfig, *, extra_lr: Mapping[str, float] | None = None) -> None:
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
        """Clip, update at ``factor`` of the peak learning rates, clear; returns the gradient norm before clipping.

        If the norm is not finite, no parameter changes.
        """
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
        """Raises ValueError if ``states`` are those of other parameters."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a module's weights, which is evaluated and exported; buffers are copied.

    At update n (0, 1, …) the decay is min(``decay``, (1 + n) / (10 + n)): a short memory at first, or the random
    start would linger. After a restart, ``n_averaged`` must be set to the number of updates before it.
    """

    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        for average, current in zip(averages, currents, strict=True):
            average.lerp_(current, weight)

    model = AveragedModel(module, multi_avg_fn=torch.no_grad()(update))
    return model.eval().requires_grad_(False)
