"""Growing a model in every supported way does not change its function at first."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from vqcodec.config import LevelConfig, ModelConfig
from vqcodec.errors import ConfigError
from vqcodec.networks.levels import Latent
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.grow import grow

LEVELS = (LevelConfig(16, 2, 2, 8, 1), LevelConfig(8, 4, 2, 8, 1))
SMALL = ModelConfig(levels=LEVELS, widths=(8, 12, 12), blocks=(1, 1, 1), lambda_min=0.001, lambda_max=0.1)


def _trained(config: ModelConfig) -> VQVAE:
    """A model in which every weight differs from its initial value."""
    torch.manual_seed(1)
    model = VQVAE(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def _reconstruct(model: VQVAE, x: Tensor, lmbda: Tensor, channels: list[int]) -> Tensor:
    """The model's output for rounded residuals, of only the first ``channels`` of each level."""
    count = iter(channels)

    def choose(latent: Latent) -> Tensor:
        r_hat = latent.residual().round()
        r_hat[:, next(count) :] = 0
        return r_hat

    with torch.no_grad():
        return model.reconstruct(x, lmbda, choose, pixels=False)


@pytest.mark.parametrize(
    "larger",
    [
        {},
        {"widths": (8, 16, 20)},
        {"blocks": (2, 3, 1)},
        {"levels": (LevelConfig(16, 2, 2, 8, 1), LevelConfig(8, 4, 3, 16, 1))},
        {"levels": (LevelConfig(16, 3, 2, 8, 1), LevelConfig(8, 6, 2, 4, 2))},
        {"lambda_min": 0.0005, "lambda_max": 0.2},
        {"widths": (9, 13, 14), "levels": (*LEVELS, LevelConfig(8, 6, 2, 8, 1, pixels=True))},
        {
            "widths": (9, 13, 14),
            "blocks": (1, 2, 2),
            "lambda_max": 0.3,
            "levels": (LEVELS[0], LevelConfig(8, 9, 1, 8, 3)),
        },
    ],
)
def test_a_grown_model_computes_the_same(larger: dict[str, Any]) -> None:
    narrow, wide = _trained(SMALL), VQVAE(dataclasses.replace(SMALL, **larger))
    grow(narrow, wide)
    channels = [level.groups * level.dim for level in SMALL.levels]
    x = torch.rand(2, 3, 48, 32)
    for lmbda in (torch.tensor([0.002, 0.05]), torch.tensor([0.01, 0.01])):
        before, after = (_reconstruct(model, x, lmbda, channels) for model in (narrow, wide))
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_new_channels_start_silent() -> None:
    narrow = _trained(SMALL)
    wide = VQVAE(dataclasses.replace(SMALL, levels=(LEVELS[0], LevelConfig(8, 12, 2, 8, 1))))
    grow(narrow, wide)
    torch.manual_seed(2)
    x, lmbda = torch.rand(2, 3, 64, 64), torch.full((2,), 0.02)
    with torch.no_grad():
        before, after = (sum(model(x, lmbda, hard=False).bits) for model in (narrow, wide))
    assert isinstance(before, Tensor)
    # 16 new channels at 64 positions; one bit for each would add 1024.
    assert float((after - before).mean()) < 100


@pytest.mark.parametrize(
    ("smaller", "said"),
    [
        ({"widths": (8, 12, 11)}, "width at stride 16: 11 cannot start from 12"),
        ({"blocks": (0, 1, 1)}, "blocks at stride 4: 0 cannot start from 1"),
        (
            {"levels": (LEVELS[0], LevelConfig(8, 7, 1, 8, 1))},
            "channels of the level at stride 8: 7 cannot start from 8",
        ),
        ({"levels": (LEVELS[0],)}, "a model of patch 4 and strides"),
    ],
)
def test_a_smaller_model_is_refused(smaller: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grow(VQVAE(SMALL), VQVAE(dataclasses.replace(SMALL, **smaller)))
