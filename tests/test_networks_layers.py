"""The convolution blocks against their formulas, written out a second time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.networks.layers import EMBEDDING, Conv, Downsample, LambdaEmbedding, ResidualBlock, ResidualStack, Upsample


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def identity(conv: Conv) -> None:
    """Make a convolution pass each channel on as it is."""
    kernel = torch.zeros(conv.shape)
    for channel in range(conv.shape[0]):
        kernel[channel, channel, conv.shape[2] // 2, conv.shape[3] // 2] = 1
    conv.weight.data = kernel.flatten(1)


def shaken(block: ResidualBlock) -> ResidualBlock:
    """A block whose scale depends on λ, as after training."""
    nn.init.normal_(block.scale.weight)
    nn.init.normal_(block.scale.bias)
    return block


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1)])
def test_conv_is_one_matrix_over_every_patch(kernel: int, stride: int) -> None:
    conv, x = Conv(4, 6, kernel, stride=stride), torch.randn(2, 4, 8, 10)
    nn.init.normal_(conv.bias)
    patches = F.unfold(x, kernel, padding=kernel // 2, stride=stride)
    expected = (conv.weight @ patches + conv.bias[:, None]).view(2, 6, 8 // stride, 10 // stride)
    assert conv.weight.shape == (6, 4 * kernel**2)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_conv_starts_with_outputs_of_the_variance_of_its_gain(gain: float) -> None:
    conv = Conv(64, 256, gain=gain)
    assert conv.weight.std().item() == pytest.approx(gain / math.sqrt(64 * 9), rel=0.02)
    assert not conv.bias.any()


def test_lambda_enters_by_its_place_in_the_range() -> None:
    embedding = LambdaEmbedding(0.001, 0.1)
    assert embedding(torch.tensor([0.001, 0.01, 0.1])).shape == (3, EMBEDDING)
    embedding.net = nn.Sequential(nn.Identity())
    places = embedding(torch.tensor([0.001, 0.01, 0.1]))
    torch.testing.assert_close(places, torch.tensor([[-1.0], [0.0], [1.0]]), atol=1e-6, rtol=0)


def test_lambda_of_one_image_is_not_seen_by_another() -> None:
    embedding = LambdaEmbedding(0.001, 0.1)
    together = embedding(torch.tensor([0.002, 0.05]))
    torch.testing.assert_close(together[1:], embedding(torch.tensor([0.05])))
    assert not torch.allclose(together[0], together[1])


def test_residual_block_starts_near_the_identity_at_every_lambda() -> None:
    block, x = ResidualBlock(32), torch.randn(2, 32, 12, 12)
    out = block(x, torch.randn(2, EMBEDDING))
    assert 0 < (out - x).std() < 0.2
    torch.testing.assert_close(out, block(x, torch.randn(2, EMBEDDING)), rtol=0, atol=0)


def test_residual_block_is_its_formula() -> None:
    block, x, embedding = shaken(ResidualBlock(4)), torch.randn(2, 4, 5, 6), torch.randn(2, EMBEDDING)
    scale = 1 + embedding @ block.scale.weight.T + block.scale.bias

    def convolve(conv: Conv, h: Tensor) -> Tensor:
        return F.conv2d(h, conv.weight.view(4, 4, 3, 3), conv.bias, padding=1)

    hidden = convolve(block.first, x * x.sigmoid())
    expected = x + convolve(block.second, hidden * hidden.sigmoid() * scale[:, :, None, None])
    torch.testing.assert_close(block(x, embedding), expected)


def test_residual_stack_is_its_blocks_in_a_row() -> None:
    stack, x, embedding = ResidualStack(4, 2), torch.randn(2, 4, 5, 6), torch.randn(2, EMBEDDING)
    first, second = (shaken(block) for block in stack.blocks if isinstance(block, ResidualBlock))
    torch.testing.assert_close(stack(x, embedding), second(first(x, embedding), embedding), rtol=0, atol=0)
    assert ResidualStack(4, 0)(x, embedding) is x


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_blocks_of_pixels_become_channels_and_come_back(factor: int) -> None:
    down, up = Downsample(3, 3 * factor**2, factor), Upsample(3 * factor**2, 3, factor)
    identity(down.conv)
    identity(up.conv)
    x = torch.randn(2, 3, 8, 12)
    assert down(x).shape == (2, 3 * factor**2, 8 // factor, 12 // factor)
    torch.testing.assert_close(down(x)[:, :, 1, 1], x[:, :, factor : 2 * factor, factor : 2 * factor].flatten(1))
    torch.testing.assert_close(up(down(x)), x, rtol=0, atol=0)


def test_sampling_changes_channels_and_sides() -> None:
    assert Downsample(3, 5, 2)(torch.randn(2, 3, 8, 12)).shape == (2, 5, 4, 6)
    assert Upsample(5, 3, 4)(torch.randn(2, 5, 2, 3)).shape == (2, 3, 8, 12)
