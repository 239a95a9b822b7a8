"""A trunk that starts as an orthonormal transform."""

import math
from dataclasses import replace

import torch

from vqcodec.config import LevelConfig, ModelConfig
from vqcodec.networks.choices import Round
from vqcodec.networks.levels import Level
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.start import start_linear

LEVELS = (LevelConfig(16, groups=8, stages=4, codebook_size=4), LevelConfig(8, groups=24, dim=3, codebook_size=4))
CONFIG = ModelConfig(levels=LEVELS, widths=(48, 96, 96), blocks=(1, 1, 1), lambda_min=0.001, lambda_max=0.1)


def smooth(batch: int) -> torch.Tensor:
    """Images whose neighbouring pixels are alike, ``[batch, 3, 64, 64]``."""
    noise = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (64, 64), mode="bicubic").mul(0.15).add(0.5).clamp(0, 1)


@torch.no_grad()
def error(model: VQVAE, x: torch.Tensor) -> float:
    x_hat = model.eval().reconstruct(x, torch.full((len(x),), 0.1), Round(), pixels=False)
    return float(-10 * (x_hat - x).square().mean().log10())


def test_it_reconstructs_before_it_has_learned_anything() -> None:
    x = smooth(8)
    wide = replace(CONFIG, levels=(replace(LEVELS[0], dim=20), LEVELS[1]))  # 160 channels from 96 features
    for config in (CONFIG, replace(CONFIG, second_kernel=1), wide):
        torch.manual_seed(0)
        model = VQVAE(config)
        before = error(model, x)
        start_linear(model, x)
        assert error(model, x) > 25 > before


def test_the_step_is_the_one_of_an_orthonormal_transform() -> None:
    torch.manual_seed(0)
    model = VQVAE(CONFIG)
    start_linear(model, smooth(4))
    for level in model.levels:
        assert isinstance(level, Level)
        (bias,) = set(level.log_gain.bias.tolist())
        # λ·255²/3 · (Δ/4)² bits for a squared error of one step Δ = 1/g, which is DISTORTION_WEIGHT.
        cost = math.exp(level.log_lambda_centre) * 255**2 / 3 / 16 * math.exp(-2 * bias)
        assert math.isclose(cost, 6 / math.log(2), rel_tol=1e-4)
