"""J of a window is what the codec measures: real bits of the integer prior, and the error of decoded pixels."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.networks.fixed_point import floating_point
from vqcodec.search.candidates import embed
from vqcodec.search.nats import present_nats
from vqcodec.search.objective import Objective, StageNats, to_grid, to_rows


def test_rows_and_grids_are_inverse() -> None:
    grid = torch.randn(1, 5, 2, 3)
    rows = to_rows(grid)
    assert rows.shape == (6, 5)
    assert torch.equal(rows[4], grid[0, :, 1, 1])
    assert torch.equal(to_grid(rows, 2, 3), grid)


@pytest.mark.parametrize("quality", [20, 75])
@pytest.mark.parametrize("grey", [False, True])
def test_j_is_that_of_the_file(codec: Codec, photograph: NDArray[np.uint8], quality: int, grey: bool) -> None:
    pixels = photograph[:, :187, :1] if grey else photograph[:, :187]  # padding counts for bits, not for distortion
    codes = codec.encode(pixels, quality)
    weights = codec._weights
    prior = floating_point(weights.prior_integers, codec.model, weights.prior, quality, codec.device)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    lmbda = codec.model.lmbda(quality)
    shapes = [(grid.shape[1], grid.shape[2]) for grid in codes]
    objective = Objective(codec.vqvae, prior, x, torch.tensor([lmbda]), shapes, bfloat16=False)
    rows = [to_rows(torch.from_numpy(grid.astype(np.int64))[None]) for grid in codes]
    levels = list(prior.each_level())
    leaves = [embed(*parts) for parts in zip(rows, levels, codec.vqvae.quantizers(), strict=True)]

    def nats(index: int) -> StageNats:
        def of_stage(stage: int, features: torch.Tensor) -> torch.Tensor:
            weight, bias = levels[index].head(stage)
            return present_nats(features, rows[index][:, levels[index].groups_of[stage]], weight.T, bias)[0].sum()

        return of_stage

    found = objective(leaves, [nats(index) for index in range(len(levels))]).total
    seen = codec.decode(codes, quality, *pixels.shape[:2], grey=grey)
    error = np.square(pixels.astype(np.float64) - seen).mean() * pixels.shape[0] * pixels.shape[1]
    expected = sum(codec.cross_entropy(codes, quality)) + lmbda * error
    assert float(found) == pytest.approx(expected, rel=0.01)
