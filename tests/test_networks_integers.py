"""Codewords that are vectors of integers."""

import itertools

import pytest
import torch

from vqcodec.networks.integers import STRETCH, frequent_integers


def vectors(*points: tuple[tuple[float, ...], int]) -> torch.Tensor:
    """One group ``[1, N, D]``: each point as often as stated, in an order that does not matter, off by up to .4."""
    rows = torch.tensor([point for point, count in points for _ in range(count)])
    torch.manual_seed(0)
    return (rows + torch.empty_like(rows).uniform_(-0.4, 0.4))[torch.randperm(len(rows))][None]


def test_the_most_frequent_vectors_become_codewords_and_then_the_one_that_longer_vectors_miss_most() -> None:
    found = frequent_integers(
        vectors(((0.0, 0.0), 50), ((1.0, 0.0), 30), ((0.0, -2.0), 20), ((0.0, 1.0), 15), ((9.0, 9.0), 3)), 4
    )
    assert found[0, :3].tolist() == [[0, 0], [1, 0], [0, -2]]
    assert (found[0, 3] - STRETCH * 9).abs().max() <= 1  # 3·17² is more than 15·2²


def test_codewords_reach_further_than_the_vectors() -> None:
    torch.manual_seed(0)
    normal = 3 * torch.randn(1, 4000, 2) * torch.tensor([1.0, 0.1])
    found = frequent_integers(normal, 64)
    longer = 1.8 * normal
    assert torch.cdist(longer, found).amin(2).max() < 0.25 * longer.norm(dim=2).max()
    assert (torch.cdist(normal.round(), found).amin(2) < 0.5).double().mean() > 0.99, "most have their own codeword"


@pytest.mark.parametrize(("dim", "size"), [(1, 9), (2, 16), (3, 40), (4, 128)])
def test_codewords_are_different_integers_also_where_hardly_any_occurs(dim: int, size: int) -> None:
    found = frequent_integers(torch.zeros(2, 5, dim), size)
    assert found.shape == (2, size, dim)
    assert torch.equal(found, found.round())
    for group in found.tolist():
        assert group[0] == [0.0] * dim
        assert len({tuple(row) for row in group}) == size


def test_every_group_has_its_own() -> None:
    low, high = vectors(((1.0,), 9), ((2.0,), 5)), vectors(((-7.0,), 9), ((4.0,), 5))
    found = frequent_integers(torch.cat([low, high]), 3)
    assert found[:, :2, 0].tolist() == [[1, 2], [-7, 4]]


def test_of_equally_frequent_vectors_those_near_zero_come_first() -> None:
    corners = list(itertools.product((-1.0, 0.0, 1.0), repeat=2))
    found = frequent_integers(vectors(*((corner, 4) for corner in corners)), 9)[0]
    norms = found.square().sum(1).tolist()[:7]  # the share that is chosen by how often they occur
    assert norms == [0, 1, 1, 1, 1, 2, 2]
