"""−ln p in chunks and by groups: values and gradients are those of the plain computation."""

import pytest
import torch

from vqcodec.search.nats import CHUNK, GroupHead, candidate_nats, present_nats

GROUPS, SIZE, CHANNELS = 3, 5, 8


def head() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(CHANNELS, GROUPS * SIZE), torch.randn(GROUPS * SIZE)


@pytest.mark.parametrize("positions", [1, CHUNK, 2 * CHUNK + 3])
def test_present_codes(positions: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(positions, CHANNELS, requires_grad=True)
    weight, bias = head()
    codes = torch.randint(SIZE, (positions, GROUPS))
    share = torch.rand(positions)
    nats, margin = present_nats(features, codes, weight, bias)
    (found,) = torch.autograd.grad((share * nats).sum(), features)

    table = (features @ weight + bias).view(positions, GROUPS, SIZE).log_softmax(2)
    present = table.gather(2, codes[:, :, None])[:, :, 0]
    (expected,) = torch.autograd.grad(-(share[:, None] * present).sum(), features)
    torch.testing.assert_close(nats, -present.sum(1), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    others = table.masked_fill(torch.nn.functional.one_hot(codes, SIZE).bool(), -torch.inf)
    torch.testing.assert_close(margin, others.amax(2) - present, rtol=1e-5, atol=1e-4)


def test_candidates() -> None:
    torch.manual_seed(0)
    positions, count = 20, 2
    features = torch.randn(positions, CHANNELS, requires_grad=True)
    weight, bias = head()
    places = [torch.arange(0, 20, 3), torch.arange(0), torch.arange(1, 20, 2)]
    candidates = [torch.rand(len(place), SIZE).argsort(1)[:, :count] for place in places]
    weights = torch.rand(sum(map(len, places)), count).softmax(1).requires_grad_()
    groups: list[GroupHead] = []
    for group, (place, codes) in enumerate(zip(places, candidates, strict=True)):
        columns, first = slice(group * SIZE, (group + 1) * SIZE), sum(map(len, places[:group]))
        groups.append(GroupHead(weight[:, columns], bias[columns], place, codes, slice(first, first + len(place))))
    loss = 3 * candidate_nats(features, weights, groups)
    found = torch.autograd.grad(loss, [features, weights])

    table = (features @ weight + bias).view(positions, GROUPS, SIZE).log_softmax(2)
    parts = [table[place, group].gather(1, c) for group, (place, c) in enumerate(zip(places, candidates, strict=True))]
    plain = -3 * (torch.cat(parts) * weights).sum()
    expected = torch.autograd.grad(plain, [features, weights])
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-4)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
