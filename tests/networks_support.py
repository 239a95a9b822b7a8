"""Models, images and λ that the tests of the networks share."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqcodec.config import Config, LevelConfig, ModelConfig
from vqcodec.networks.fitting import fit_level
from vqcodec.networks.layers import ResidualBlock
from vqcodec.networks.levels import Level, PixelLevel
from vqcodec.networks.vqvae import VQVAE

PRESETS = Path(__file__).resolve().parents[1] / "presets"
TINY = ModelConfig(
    levels=(LevelConfig(8, 2, 2, 16, stages=1), LevelConfig(4, 3, 4, 16, stages=1)),
    patch=2,
    widths=(8, 12, 16),
    blocks=(1, 0, 2),
    lambda_min=0.0004,
    second_kernel=3,
    sigma_min=1 / 3,
)
PLAIN = ModelConfig(levels=(LevelConfig(4, 1, 8, 32, stages=1),), patch=2, widths=(8, 12), blocks=(1, 1))
TWINS = ModelConfig(
    levels=(LevelConfig(4, 2, 2, 8, stages=1), LevelConfig(4, 3, 1, 8, stages=1), LevelConfig(2, 1, 3, 8, stages=1)),
    patch=2,
    widths=(8, 12),
    blocks=(0, 0),
)
PIXELS = dataclasses.replace(TINY, levels=(*TINY.levels, LevelConfig(4, 5, 3, 16, stages=1, pixels=True)))
CONFIGS = {
    "tiny": TINY,
    "pixels": PIXELS,
    "plain": PLAIN,
    "two levels at one stride": TWINS,
    "default": ModelConfig(),
    "vqvae": Config.from_toml(PRESETS / "vqvae.toml").model,
    "vqvae2": Config.from_toml(PRESETS / "vqvae2.toml").model,
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
tiny_configs = pytest.mark.parametrize("config", [TINY, PLAIN, TWINS, PIXELS], ids=["tiny", "plain", "twins", "pixels"])


def trained(config: ModelConfig, *, learn: str = "ema") -> VQVAE:
    """A model with changed weights, so that every block depends on λ and codes are not arbitrary."""
    torch.manual_seed(0)
    model = VQVAE(config, learn=learn).eval()
    with torch.no_grad():
        for block in (module for module in model.modules() if isinstance(module, ResidualBlock)):
            block.scale.weight.normal_(std=0.2)
        model.start.normal_()
        for level in levels(model):
            level.log_gain.weight.normal_(std=0.2)
            level.predict.bias.normal_(std=0.3)
            level.posterior.weight.mul_(3)
            level.quantizer.bias.normal_()
        for pixel_level in pixel_levels(model):
            pixel_level.components.copy_(torch.linalg.qr(torch.randn(48, 15)).Q.T)
            pixel_level.quantizer.codebook.mul_(2)
    return model


def levels(model: VQVAE) -> list[Level]:
    return [level for level in model.levels if isinstance(level, Level)]


def pixel_levels(model: VQVAE) -> list[PixelLevel]:
    return [level for level in model.levels if isinstance(level, PixelLevel)]


def images(count: int = 2, height: int = 16, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def lambdas(config: ModelConfig, *qualities: float) -> Tensor:
    return torch.tensor([config.lmbda(quality) for quality in qualities])


def fitted() -> tuple[VQVAE, Tensor, Tensor]:
    """A model with a level of pixels that is fitted to smooth images only; the images, and their λ."""
    torch.manual_seed(0)
    model = VQVAE(PIXELS).eval()
    x = torch.nn.functional.avg_pool2d(images(6, 68, 68), 5, 1).repeat(4, 1, 1, 1)
    lmbda = torch.logspace(-3.4, -1, 24)
    for index in range(len(model.levels)):
        fit_level(model, index, x, lmbda)
    return model, x, lmbda
