"""The export of the trained prior to integers: it uses all bits that the bound allows, and refuses what has no room."""

import math

import pytest
import torch

from tests.prior_support import NARROW, TINY
from vqcodec.errors import WeightsError
from vqcodec.exact.arithmetic import ACTIVATION_MAX, EXACT, WEIGHT_MAX
from vqcodec.networks.fixed_point import fixed_point, floating_point
from vqcodec.networks.pixelcnn import LevelPrior, PixelCNN


def network() -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN(TINY, NARROW)


def level_of(net: PixelCNN, index: int) -> LevelPrior:
    level = net.levels[index]
    assert isinstance(level, LevelPrior)
    return level


def test_fixed_point_tensors_fill_their_bits() -> None:
    tensors = fixed_point(network())
    for name, tensor in tensors.items():
        match name.rsplit(".", 1)[1]:
            case "weight":
                assert tensor.dtype == torch.int8
                largest = tensor.long().abs().amax(0)
                assert (largest <= WEIGHT_MAX).all()
                # A channel that could have one bit more would break the bound with it.
                shift = tensors[name.replace("weight", "shift")].double()
                bias = tensors[name.replace("weight", "bias")].double()
                sums = 2 * (tensor.double().abs().sum(0) * ACTIVATION_MAX + bias.abs() + 2 ** (shift - 1))
                assert ((2 * largest >= WEIGHT_MAX - 1) | (sums > 0.98 * EXACT)).all()
            case "bias":
                assert tensor.dtype == torch.int64
            case "shift":
                assert tensor.dtype == torch.int32
            case _:
                assert tensor.dtype == torch.int16


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e13, "can reach"),
        (-1e13, "can reach"),
        (1e30, "can reach"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
    ],
)
def test_fixed_point_refuses_what_it_cannot_hold(value: float, message: str) -> None:
    net = network()
    with torch.no_grad():
        level_of(net, 1).hidden.bias[3] = value
    with pytest.raises(WeightsError, match=rf"layer 1\.hidden .*{message}"):
        fixed_point(net)


def test_fixed_point_refuses_weights_too_large_for_8_bits() -> None:
    net = network()
    with torch.no_grad():
        level_of(net, 0).first.weight[0, 0] = 1e5
    with pytest.raises(WeightsError, match=r"0\.first\.shift is -10..8, expected 1\.\.32"):
        fixed_point(net)


@pytest.mark.parametrize("quality", [1, 60, 100])
@torch.no_grad()
def test_floating_point_is_the_inverse(quality: int) -> None:
    net = network()
    for parameter in net.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))  # biases too
    integers = fixed_point(net)
    before = torch.get_rng_state()
    back = floating_point(integers, TINY, NARROW, quality, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    shapes = [(2, 4, 4), (4, 8, 8)]
    codes = [torch.randint(0, 5, (1, *shape), generator=torch.Generator().manual_seed(1)) for shape in shapes]
    expected = net(codes, torch.tensor([TINY.lmbda(quality)]))
    found = back(codes, torch.tensor([0.01]))  # the quality was chosen before
    for a, b in zip(found, expected, strict=True):
        assert float(a) == pytest.approx(float(b), rel=0.01)
    # What is rounded already stays: weights, shifts and tables of the integers.
    again = fixed_point(back)
    assert all(torch.equal(again[name], integers[name]) for name in integers if name.endswith(("embed", "inner")))
