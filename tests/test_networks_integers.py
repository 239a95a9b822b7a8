"""Codewords that are vectors of integers."""

import itertools

import pytest
import torch

from vqcodec.networks.integers import frequent_integers


def vectors(*points: tuple[tuple[float, ...], int]) -> torch.Tensor:
    """One group ``[1, N, D]``: each point as often as stated, in an order that does not matter, off by up to .4."""
    rows = torch.tensor([point for point, count in points for _ in range(count)])
    torch.manual_seed(0)
    return (rows + torch.empty_like(rows).uniform_(-0.4, 0.4))[torch.randperm(len(rows))][None]


def test_the_most_frequent_vectors_become_codewords_and_then_the_one_that_is_missed_most() -> None:
    found = frequent_integers(
        vectors(((0.0, 0.0), 50), ((1.0, 0.0), 30), ((0.0, -2.0), 20), ((0.0, 1.0), 15), ((9.0, 9.0), 3)), 4
    )
    assert found[0].tolist() == [[0, 0], [1, 0], [0, -2], [9, 9]]  # 3·145 is more than 15·1


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
