"""The monitor, against figures counted by hand."""

import math

import pytest
import torch
from torch import Tensor

from vqcodec.networks.levels import Level
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train import monitor
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run
from vqcodec.train.monitor import LevelActivity
from vqcodec.train.vae import VAEPhase


def _images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, height, 64, generator=generator) for height in (32, 64)]


@torch.no_grad()
def test_live_channels_are_those_whose_codewords_vary(tiny_model: Model) -> None:
    model = tiny_model.vqvae.eval()
    for quantizer in model.quantizers():
        quantizer.codebook[:, :, 0] = 1.0  # the first channel of each group says nothing
    images = _images()
    codes = [model.encode(x, torch.tensor([monitor.LAMBDA])) for x in images]
    for index, level in enumerate(monitor.activity(model, images, hard=True)):
        quantizer = model.quantizers()[index]
        values = torch.cat([quantizer.decode(grids[index])[0].flatten(1) for grids in codes], 1)
        deviations = values.double().std(1, correction=0)
        assert not (deviations[::2] > 0.25).any()
        assert level.channels == len(deviations) == quantizer.groups * quantizer.dim
        assert level.live == int((deviations > 0.25).sum()) <= level.channels // 2
        assert level.pixels == model.config.levels[index].pixels
        perplexities, shares = [], []
        for group in range(quantizer.groups):
            counts = torch.cat([grids[index][0, group].flatten() for grids in codes]).bincount(minlength=16).double()
            p = counts[counts > 0] / counts.sum()
            perplexities.append(float(2 ** -(p * p.log2()).sum()))
            shares.append(len(p) / 16)
        assert level.perplexity == pytest.approx(sum(perplexities) / len(perplexities))
        assert level.usage == pytest.approx(sum(shares) / len(shares))


@torch.no_grad()
def test_before_there_are_codebooks_rounded_residuals_are_observed(tiny_model: Model) -> None:
    model = tiny_model.vqvae.eval()
    loud, silent = (level for level in model.levels if isinstance(level, Level))
    loud.log_gain.bias.fill_(8.0)
    silent.log_gain.bias.fill_(-8.0)
    levels = monitor.activity(model, _images(), hard=False)
    assert [(level.live, level.channels) for level in levels] == [(4, 4), (0, 8)]  # the level of pixels is left out
    assert [(level.perplexity, level.usage) for level in levels] == [(None, None)] * 2
    assert monitor.live_share(levels) == pytest.approx(4 / 12)
    assert monitor.figures(levels) == {"live_share": pytest.approx(4 / 12), "live_0": 4.0, "live_1": 0.0}


def test_figures_of_levels_with_codes() -> None:
    levels = [LevelActivity(False, 4, 3, 2.5, 0.5), LevelActivity(True, 8, 0, 1.0, 0.0625)]
    assert monitor.live_share(levels) == 0.75  # levels of pixels do not count
    assert monitor.figures(levels) == {
        "live_share": 0.75,
        "live_0": 3.0,
        "validation_perplexity_0": 2.5,
        "validation_usage_0": 0.5,
        "live_1": 0.0,
        "validation_perplexity_1": 1.0,
        "validation_usage_1": 0.0625,
    }


def test_few_live_channels_give_a_warning(tiny_state: Run, tiny_model: Model) -> None:
    assert monitor.warning(0.7) is None
    text = monitor.warning(0.24)
    assert text is not None
    assert text.startswith("only 24% of the trunk's channels are live at λ = 0.03, expected at least 70%")
    phase = VAEPhase(tiny_state, tiny_model.vqvae)
    assert phase.warning({"live_share": 0.24}) == text
    assert phase.warning({"live_share": 1.0}) is None


def test_the_monitor_changes_nothing_and_keeps_to_the_models_range(tiny_model: Model) -> None:
    model: VQVAE = tiny_model.vqvae.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lowest = monitor.activity(model, _images(), hard=True, lmbda=1e-9)
    assert lowest == monitor.activity(model, _images(), hard=True, lmbda=model.config.lambda_min)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(level.perplexity is not None and math.isfinite(level.perplexity) for level in lowest)
