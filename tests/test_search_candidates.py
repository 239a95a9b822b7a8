"""Slots are where another code is a serious choice, and their energies are differences of J."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.networks.fixed_point import floating_point
from vqcodec.networks.quantize import DISTORTION_WEIGHT
from vqcodec.search.candidates import (
    CANDIDATES,
    THRESHOLD,
    Slots,
    coarse_levels,
    codewords,
    curvatures,
    find_slots,
)
from vqcodec.search.objective import Objective, to_rows
from vqcodec.search.relaxation import RelaxedLevel

QUALITY = 60
Rows = list[torch.Tensor]


@pytest.fixture(scope="module")
def window(codec: Codec, photograph: NDArray[np.uint8]) -> tuple[Objective, Rows]:
    """The objective of a small picture, and the encoder's codes of it."""
    pixels = photograph[:64, :96]
    weights, quality = codec._weights, QUALITY
    prior = floating_point(weights.prior_integers, codec.model, weights.prior, quality, codec.device)
    codes = codec.encode(pixels, quality)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    shapes = [(grid.shape[1], grid.shape[2]) for grid in codes]
    lmbda = torch.tensor([codec.model.lmbda(quality)])
    objective = Objective(codec.vqvae, prior, x, lmbda, shapes, bfloat16=False)
    return objective, [to_rows(torch.from_numpy(grid.astype(np.int64))[None]) for grid in codes]


def slots_of(window: tuple[Objective, Rows], *, coarse: bool = False, movable: Rows | None = None) -> list[list[Slots]]:
    objective, codes = window
    movable = [torch.ones(len(grid), dtype=torch.bool) for grid in codes] if movable is None else movable
    return find_slots(objective, codes, movable, curvatures(objective, codes), coarse=coarse)[0]


def relax(window: tuple[Objective, Rows], slots: list[list[Slots]]) -> list[RelaxedLevel]:
    objective, codes = window
    parts = zip(objective.prior.each_level(), objective.vqvae.quantizers(), codes, slots, strict=True)
    return [RelaxedLevel(*part, whole=True) for part in parts]


def j(window: tuple[Objective, Rows], relaxed: list[RelaxedLevel], weights: Rows) -> torch.Tensor:
    leaves = [level.leaves(w) for level, w in zip(relaxed, weights, strict=True)]
    nats = [lambda stage, z, p=p: p[0].nats(p[1], stage, z) for p in zip(relaxed, weights, strict=True)]
    return window[0](leaves, nats).total


def test_slots_are_close_and_hold_the_present_code(window: tuple[Objective, Rows]) -> None:
    _, codes = window
    slots = slots_of(window)
    assert sum(len(group.position) for group in slots[0]) == 0, "coarse levels were not asked for"
    count = 0
    for grid, groups in zip(codes, slots, strict=True):
        for group, own in enumerate(groups):
            count += len(own.position)
            assert own.codes.shape == own.theta.shape == (len(own.position), CANDIDATES)
            assert torch.equal(own.codes[:, 0], grid[own.position, group])
            assert (own.codes.sort(1).values.diff(dim=1) > 0).all(), "a candidate is there twice"
            assert (own.theta[:, 1:].amax(1) > own.theta[:, 0] - THRESHOLD).all()
            assert (own.position.diff() > 0).all()
    assert 0.01 * sum(grid.numel() for grid in codes) < count < 0.3 * sum(grid.numel() for grid in codes)


def test_coarse_levels_have_slots_on_request(window: tuple[Objective, Rows]) -> None:
    assert coarse_levels(window[0].vqvae) == 2
    assert sum(len(group.position) for group in slots_of(window, coarse=True)[0]) > 0


def test_only_movable_positions_have_slots(window: tuple[Objective, Rows]) -> None:
    movable = [torch.arange(len(grid)) % 3 == 0 for grid in window[1]]
    for allowed, groups in zip(movable, slots_of(window, coarse=True, movable=movable), strict=True):
        for group in groups:
            assert allowed[group.position].all()


def test_weights_of_one_for_the_present_codes_change_nothing(window: tuple[Objective, Rows]) -> None:
    slots = slots_of(window, coarse=True)
    relaxed = relax(window, slots)
    present = [torch.eye(CANDIDATES)[0].expand(level.theta.shape) for level in relaxed]
    for level, weights, codes in zip(relaxed, present, window[1], strict=True):
        assert torch.equal(level.codes(weights), codes)
    nothing = relax(window, [[Slots(*(t[:0] for t in vars(group).values())) for group in groups] for groups in slots])
    for a, b, weights in zip(relaxed, nothing, present, strict=True):
        found, expected = a.leaves(weights), b.leaves(torch.zeros(0, CANDIDATES))
        for x, y in (
            (found.z, expected.z),
            (found.embedded, expected.embedded),
            *zip(found.inner, expected.inner, strict=True),
        ):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_energies_are_what_moving_one_code_costs(window: tuple[Objective, Rows]) -> None:
    relaxed = relax(window, slots_of(window))
    weights = [torch.eye(CANDIDATES)[0].repeat(len(level.theta), 1) for level in relaxed]
    before = float(j(window, relaxed, weights))
    level, own = relaxed[-1], weights[-1]  # the finest of the trunk
    rng = np.random.default_rng(0)
    predicted, measured = [], []
    for slot in rng.choice(len(own), 100, replace=False):
        own[slot] = torch.eye(CANDIDATES)[1]
        measured.append(float(j(window, relaxed, weights)) - before)
        own[slot] = torch.eye(CANDIDATES)[0]
        predicted.append(float(level.theta[slot, 0] - level.theta[slot, 1]) / np.log(2))
    # By rank, since a step of several slots' worth of bits is predicted less exactly.
    ours, theirs = (np.argsort(np.argsort(bits)).astype(np.float64) for bits in (predicted, measured))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.7
    assert np.corrcoef(predicted, measured)[0, 1] > 0.7


def test_curvature_is_that_of_the_distortion_but_at_least_that_of_a_uniform_quantiser(
    window: tuple[Objective, Rows],
) -> None:
    objective, codes = window
    quantizers = objective.vqvae.quantizers()
    *coarse, finest = curvatures(objective, codes)
    assert all(torch.equal(a, torch.full_like(a, DISTORTION_WEIGHT)) for a in coarse)
    assert finest.min() >= DISTORTION_WEIGHT
    z = [codewords(*each) for each in zip(codes, quantizers, strict=True)]
    channel = int(finest.flatten().argmax())
    measured = []
    for position in range(0, len(codes[-1]), 3):
        costs = []
        for step in (-1.0, 0.0, 1.0):
            changed = z[-1].clone()
            changed[position, channel] += step
            costs.append(objective.kept_distortion([*z[:-1], changed]))
        measured.append((costs[0] + costs[2]) / 2 - costs[1])
    assert float(np.mean(measured)) == pytest.approx(float(finest.flatten()[channel]), rel=0.5)


def test_j_before_is_that_of_the_whole_in_parts(window: tuple[Objective, Rows]) -> None:
    objective, codes = window
    parts: list[float] = []
    everywhere = [torch.ones(len(grid), dtype=torch.bool) for grid in codes]
    curvature = curvatures(objective, codes)
    _, whole = find_slots(objective, codes, everywhere, curvature, coarse=False)
    for half in (slice(0, 32), slice(32, 64)):
        movable = []
        for (height, width), stride in zip(objective.shapes, objective.vqvae.config.strides, strict=True):
            rows = torch.zeros(height, width, dtype=torch.bool)
            rows[half.start // stride : half.stop // stride] = True
            movable.append(rows.flatten())
        objective.kept = half, slice(None)
        parts.append(find_slots(objective, codes, movable, curvature, coarse=False)[1])
    objective.kept = slice(None), slice(None)
    assert sum(parts) == pytest.approx(whole, rel=1e-4)
    assert min(parts) > 0
