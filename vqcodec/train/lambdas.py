"""The λ that images are trained at: any of the range at first, those of whole qualities once the prior learns."""

import math

import torch
from torch import Tensor

from vqcodec.config import QUALITY_MAX, QUALITY_MIN, ModelConfig

__all__ = ["draw_lambda", "draw_quality_lambda"]


def draw_lambda(config: ModelConfig, batch: int, device: torch.device) -> Tensor:
    """λ ``[batch]``, log-uniform over the configured range and stratified over the batch."""
    t = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
    low, high = math.log(config.lambda_min), math.log(config.lambda_max)
    return (low + (high - low) * t).exp()


def draw_quality_lambda(config: ModelConfig, batch: int, device: torch.device) -> Tensor:
    """λ ``[batch]`` of whole qualities drawn uniformly from 1..100, the only ones that files have."""
    qualities = torch.randint(QUALITY_MIN, QUALITY_MAX + 1, (batch,)).tolist()
    return torch.tensor([config.lmbda(quality) for quality in qualities], device=device)
