"""The λ that training draws."""

import math

import pytest
import torch
from torch import Tensor

from tests.train_support import CPU
from vqcodec.config import ModelConfig
from vqcodec.train.lambdas import draw_lambda, draw_quality_lambda


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_lambda_is_stratified(batch: int) -> None:
    config = ModelConfig()
    strata: Tensor = torch.stack([draw_lambda(config, batch, CPU) for _ in range(50)])
    assert strata.min() >= config.lambda_min * 0.999
    assert strata.max() <= config.lambda_max * 1.001
    t = (strata / config.lambda_min).log() / math.log(config.lambda_max / config.lambda_min)
    assert torch.equal((t * batch).floor().clamp(0, batch - 1), torch.arange(float(batch)).expand(50, -1))
    assert t[:, 0].std() > 0.2 / batch


def test_the_prior_learns_at_the_qualities_that_files_have() -> None:
    config = ModelConfig()
    drawn = set(draw_quality_lambda(config, 3000, CPU).tolist())
    assert drawn == {float(torch.tensor(config.lmbda(quality))) for quality in range(1, 101)}
