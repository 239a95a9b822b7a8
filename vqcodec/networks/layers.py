"""Convolution blocks that the VQ-VAE and the training form of the prior share.

Legend: B batch, C channels, H and W grid height and width, E width of the λ embedding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv", "Downsample", "LambdaEmbedding", "ResidualBlock", "ResidualStack", "Upsample"]

EMBEDDING = 32  # E


class Conv(nn.Module):
    """2-d convolution, ``[B, in, H, W] -> [B, out, H/stride, W/stride]``, zero padded.

    The kernel is stored as the matrix ``[out, in·k·k]``: Muon orthogonalises matrices, and a
    convolution is one matrix applied to every patch.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.shape = (outputs, inputs, kernel, kernel)
        self.stride = stride
        fan_in = inputs * kernel * kernel
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * (gain / math.sqrt(fan_in)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.view(self.shape)
        return F.conv2d(x, kernel, self.bias, stride=self.stride, padding=self.shape[-1] // 2)


class LambdaEmbedding(nn.Module):
    """λ of each image, ``[B]``, to the features ``[B, E]`` that scale every block.

    λ enters as t, its logarithm mapped to −1..1 over the trained range, so that one model serves
    every rate (variable-rate conditioning as in QARV, Duan et al. 2023).
    """

    def __init__(self, lambda_min: float, lambda_max: float) -> None:
        super().__init__()
        self.centre = (math.log(lambda_max) + math.log(lambda_min)) / 2
        self.half_range = (math.log(lambda_max) - math.log(lambda_min)) / 2
        self.net = nn.Sequential(nn.Linear(1, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU())

    def forward(self, lmbda: Tensor) -> Tensor:
        t = (lmbda.log() - self.centre) / self.half_range
        features: Tensor = self.net(t[:, None])
        return features


class ResidualBlock(nn.Module):
    """``x + conv(silu(conv(silu(x))) · (1 + s(λ)))``, ``[B, C, H, W]`` to the same shape.

    At first it is close to the identity, and s is 0 at every λ.
    """

    def __init__(self, channels: int, second_kernel: int = 3) -> None:
        super().__init__()
        self.first = Conv(channels, channels, gain=math.sqrt(2))
        self.second = Conv(channels, channels, second_kernel, gain=0.1)
        self.scale = nn.Linear(EMBEDDING, channels)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale = 1 + self.scale(embedding)[:, :, None, None]
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))) * scale)
        return out


class ResidualStack(nn.Module):
    """Residual blocks in a row, ``[B, C, H, W]`` to the same shape."""

    def __init__(self, channels: int, blocks: int, second_kernel: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels, second_kernel) for _ in range(blocks))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class Downsample(nn.Module):
    """``[B, in, H, W] -> [B, out, H/factor, W/factor]``: blocks of pixels to channels, then a convolution."""

    def __init__(self, inputs: int, outputs: int, factor: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.conv = Conv(inputs * factor * factor, outputs, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pixel_unshuffle(x, self.factor))
        return out


class Upsample(nn.Module):
    """``[B, in, H, W] -> [B, out, H·factor, W·factor]``: a convolution, then channels to blocks of pixels."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = Conv(inputs, outputs * factor * factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.factor)
