"""Schedule, optimiser, and the average of the weights."""

import copy
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from vqcodec.config import Config, PhaseConfig
from vqcodec.networks.layers import Conv
from vqcodec.networks.pixelcnn import CausalConv, PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.joint import Model
from vqcodec.train.optim import Optimizer, averaged, schedule


def test_schedule() -> None:
    assert [schedule(0.0, step, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(0.5, 99, 0) == pytest.approx(0.5)
    assert schedule(1.0, 99, 0) == pytest.approx(0)
    assert schedule(1.5, 99, 0) == pytest.approx(0)  # minutes overrun by a step
    factors = [schedule(i / 20, 100, 0) for i in range(21)]
    assert factors == sorted(factors, reverse=True)


def test_a_short_cooldown_follows_a_constant_rate() -> None:
    factors = [schedule(progress, 1000, 10, cooldown=0.25) for progress in (0, 0.5, 0.75, 0.875, 1)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 0])


def test_muon_gets_the_convolution_kernels_and_adam_the_rest(tiny_config: Config) -> None:
    vqvae = VQVAE(tiny_config.model, learn="gradient")
    model = Model(vqvae, PixelCNN(tiny_config.model, tiny_config.prior))
    config = PhaseConfig(muon_lr=0.02, adam_lr=0.003)
    optimizer = Optimizer(model, config, extra_lr={"codebook": 7e-4})
    adam, muon = optimizer.optimizers
    assert isinstance(muon, torch.optim.Muon)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def of(*groups: dict[str, Any]) -> set[str]:
        return {names[id(parameter)] for group in groups for parameter in group["params"]}

    kernels = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv)}
    codebooks = {name for name in names.values() if name.endswith("codebook")}
    assert any(isinstance(module, CausalConv) for module in model.modules())
    assert of(*muon.param_groups) == kernels
    assert of(*adam.param_groups) == set(names.values()) - kernels
    assert of(adam.param_groups[1]) == codebooks != set()
    assert [[group["lr"] for group in o.param_groups] for o in optimizer.optimizers] == [[0.003, 7e-4], [0.02]]
    assert {id(p) for p in optimizer.parameters} == set(names)


def test_a_step_is_clipped_scaled_and_cleared() -> None:
    conv = Conv(2, 2, 1)
    optimizer = Optimizer(conv, PhaseConfig(clip=0.5, adam_lr=0.1, muon_lr=0.1))
    seen = []
    handle = optimizer.optimizers[0].register_step_pre_hook(lambda *_: seen.append(_norm(conv)))
    before = {name: p.detach().clone() for name, p in conv.named_parameters()}
    conv.weight.grad, conv.bias.grad = torch.full((2, 2), 30.0), torch.full((2,), 40.0)
    norm = optimizer.step(0.25)
    handle.remove()
    assert norm == pytest.approx(math.sqrt(4 * 30**2 + 2 * 40**2))
    assert seen == [pytest.approx(0.5, rel=1e-4)]
    assert all(p.grad is None for p in conv.parameters())
    assert [g["lr"] for o in optimizer.optimizers for g in o.param_groups] == [0.025, 0.025]
    assert torch.allclose(
        before["bias"] - conv.bias, torch.full((2,), 0.025), atol=1e-5
    )  # Adam's first step is the rate
    assert not torch.equal(before["weight"], conv.weight)


def _norm(module: nn.Module) -> float:
    return math.sqrt(sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_skipped(value: float) -> None:
    conv = Conv(2, 2, 1)
    optimizer = Optimizer(conv, PhaseConfig())
    for gradient in (1.0, value, 1.0):
        before = conv.bias.detach().clone()
        conv.weight.grad, conv.bias.grad = torch.ones(2, 2), torch.full((2,), gradient)
        norm = optimizer.step(1.0)
        assert math.isfinite(norm) == math.isfinite(gradient)
        assert torch.equal(conv.bias, before) == (not math.isfinite(gradient))
        assert conv.weight.isfinite().all()


def test_the_optimizer_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    results = []
    for restart in (False, True):
        torch.manual_seed(0)
        conv = Conv(3, 4)
        optimizer = Optimizer(conv, PhaseConfig())
        for step in range(4):
            if restart and step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = Optimizer(conv, PhaseConfig())
                optimizer.load_state_dict(state)
            conv.weight.grad = torch.sin(torch.arange(4.0 * 27) * (step + 1)).view(4, 27)
            conv.bias.grad = torch.cos(torch.arange(4.0) * (step + 1))
            optimizer.step(1.0 / (step + 1))
        results.append(torch.cat([conv.weight.flatten(), conv.bias]))
    assert torch.equal(results[0], results[1])


class Number(nn.Module):
    """One weight, and a buffer that follows what it sees, as codebooks do."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("seen", torch.zeros(1))


def test_the_average_of_the_weights() -> None:
    module = Number()
    average = averaged(module, 0.9)
    number = cast(Number, average.module)
    expected = math.nan
    for step, value in enumerate([2.0, 3.0, 5.0, 8.0]):
        module.weight.data.fill_(value)
        module.seen.fill_(-value)
        average.update_parameters(module)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = value if step == 0 else decay * expected + (1 - decay) * value  # nothing is left of the start
        assert float(number.weight) == pytest.approx(expected)
        assert float(number.seen) == -value  # buffers are averages themselves
    average.n_averaged.fill_(10**6)
    average.update_parameters(module)
    assert float(number.weight) == pytest.approx(0.9 * expected + 0.1 * 8)
    assert not average.training
    assert not number.training
    assert not number.weight.requires_grad
    assert module.weight.requires_grad
    assert average.module.state_dict().keys() == module.state_dict().keys()
