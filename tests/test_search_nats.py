"""−ln p in chunks: the value and both gradients are those of the plain computation."""

import pytest
import torch

from vqcodec.search.nats import CHUNK, Weighted, weighted_nats


@pytest.mark.parametrize("positions", [1, CHUNK, 2 * CHUNK + 3])
def test_value_and_gradients(positions: int) -> None:
    torch.manual_seed(0)
    groups, size, channels, count = 3, 5, 8, 2
    features = torch.randn(positions, channels, requires_grad=True)
    weight, bias = torch.randn(channels, groups * size), torch.randn(groups * size)
    codes = torch.randint(size, (positions, groups))
    open_slots = torch.rand(positions, groups) < 0.3
    position, group = open_slots.nonzero(as_tuple=True)
    candidates = torch.rand(len(position), size).argsort(1)[:, :count]
    weights = torch.rand(len(position), count).softmax(1).requires_grad_()
    starts = torch.arange(0, positions + CHUNK, CHUNK)
    stage = Weighted(
        weight,
        bias,
        codes,
        (~open_slots).float(),
        ((position[:, None] * groups + group[:, None]) * size + candidates).flatten(),
        (torch.searchsorted(position, starts) * count).tolist(),
    )
    loss = 3 * weighted_nats(features, weights.flatten(), stage)
    found = torch.autograd.grad(loss, [features, weights])

    table = (features @ weight + bias).view(positions, groups, size).log_softmax(2)
    plain = -(table.gather(2, codes[:, :, None])[:, :, 0] * ~open_slots).sum()
    plain = plain - (table[position[:, None], group[:, None], candidates] * weights).sum()
    expected = torch.autograd.grad(3 * plain, [features, weights])
    torch.testing.assert_close(loss, 3 * plain, rtol=1e-5, atol=1e-3)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
