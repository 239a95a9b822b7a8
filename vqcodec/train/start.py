"""A start for the trunk that codes pictures before it has learned anything: an orthonormal transform of them.

::

    pixels ── blocks ── principal components ──▶ stride 4 ── 2×2 blocks, principal components ──▶ stride 8 ── …
    pixels ◀── transposed ────────────────────── stride 4 ◀── transposed ──────────────────────── stride 8 ◀── …

Each change of stride keeps the principal components of its input. The decoder is the transpose of the encoder. Each
level codes the principal components of what the coarser levels leave over, and the residual blocks start close to the
identity. From random weights, the trunk has to find such a path by itself. In AuxT (Li et al. 2025), shortcuts of
wavelets serve the same purpose.

Legend: B batch, C channels, h × w positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.networks.layers import Conv, Downsample, ResidualBlock, Upsample
from vqcodec.networks.levels import Level
from vqcodec.networks.quantize import DISTORTION_WEIGHT
from vqcodec.networks.vqvae import VQVAE

__all__ = ["start_linear"]

SCALE = 4.0  # of features: pixels are 0..1, and weights are drawn for features of about one
REST = 0.05  # factor of the random weights that stay beside the transform
SMALLEST_SCALE = 0.02  # that σ starts at


@torch.no_grad()
def start_linear(model: VQVAE, x: Tensor) -> None:
    """Set the trunk of ``model``, freshly drawn, to an orthonormal transform of crops ``x [B, 3, H, W]`` (0..1)."""
    for block in model.modules():
        if isinstance(block, ResidualBlock):
            block.second.weight.mul_(0.1)
    features = [_start_pixels(model, x)]
    for down, up in zip(model.down, model.up, strict=True):
        assert isinstance(down, Downsample)
        assert isinstance(up, Upsample)
        blocks = F.pixel_unshuffle(features[-1], 2)
        matrix = _components(blocks, down.conv.shape[0])
        _set_centre(down.conv, matrix, REST)
        _set_centre(up.conv, matrix.T, REST)
        features.append(_apply(matrix, blocks))
    coded: tuple[int, Tensor] | None = None  # the stage of the last level, and the decoder feature there
    for level in (level for level in model.levels if isinstance(level, Level)):
        stage = model.strides.index(level.stride)
        e = features[stage]
        f = torch.zeros_like(e) if coded is None else _upsampled(model, *coded, stage)
        coded = stage, f + _start_level(level, e - f)


def _start_pixels(model: VQVAE, x: Tensor) -> Tensor:
    """Set the first and the last layer; returns the features ``[B, C, h, w]`` at the finest stride."""
    blocks = F.pixel_unshuffle(x - 0.5, model.first.factor)
    width = model.config.widths[0]
    matrix = _components(blocks, min(width, blocks.shape[1]))
    padded = F.pad(matrix, (0, 0, 0, width - len(matrix)))
    _set_centre(model.first.conv, SCALE * matrix, REST)
    _set_centre(model.last.conv, padded.T / SCALE, 0.1 * REST)
    return _apply(SCALE * padded, blocks)


def _start_level(level: Level, missing: Tensor) -> Tensor:
    """Let ``level`` code the components of ``missing [B, C, h, w]``; returns their sum, the decoder's gain."""
    channels = level.quantizer.groups * level.quantizer.dim
    matrix = _components(missing, channels)
    matrix = F.pad(matrix, (0, 0, 0, channels - len(matrix)))  # more channels than features: the others start at zero
    _set_centre(level.posterior, torch.cat([matrix, -matrix], 1), REST)
    level.project.weight.copy_(matrix.T)
    # The transform is orthonormal, so the step is known: see PixelLevel.gain.
    step = math.exp(level.log_lambda_centre) * 255**2 / 3 / DISTORTION_WEIGHT
    level.log_gain.bias.fill_(0.5 * math.log(step) - math.log(SCALE))
    y = _apply(matrix, missing)
    level.predict.bias[channels:] = y.square().mean((0, 2, 3)).sqrt().clamp_min(SMALLEST_SCALE).log()
    return _apply(matrix.T, y)


def _upsampled(model: VQVAE, at: int, f: Tensor, stage: int) -> Tensor:
    """The decoder feature of stage ``at`` at the finer ``stage``, by the transform alone."""
    while at > stage:
        at -= 1
        up = model.up[at]
        assert isinstance(up, Upsample)
        f = F.pixel_shuffle(_apply(up.conv.weight.view(up.conv.shape)[:, :, 1, 1], f), 2)
    return f


def _components(z: Tensor, count: int) -> Tensor:
    """The first ``count`` principal directions ``[count, C]`` of ``z [B, C, h, w]``."""
    rows = z.transpose(0, 1).flatten(1).double()
    _, directions = torch.linalg.eigh(rows @ rows.T)
    return torch.as_tensor(directions.flip(1)[:, :count].T, dtype=z.dtype)


def _apply(matrix: Tensor, z: Tensor) -> Tensor:
    """``matrix [out, in]`` at every position of ``z [B, in, h, w]``."""
    return F.conv2d(z, matrix[:, :, None, None])


def _set_centre(conv: Conv, matrix: Tensor, rest: float) -> None:
    """Make ``matrix [o, in]`` the middle of the kernel's first ``o`` outputs; the rest shrinks to ``rest``."""
    weight, middle = conv.weight.view(conv.shape), conv.shape[-1] // 2
    weight *= rest
    weight[: len(matrix), :, middle, middle] = matrix
