"""The prior's float form: which codes it depends on, which not, and that it learns."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.prior_support import NARROW, TINY
from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.networks.pixelcnn import LevelPrior, PixelCNN

SHAPES = [(5, 7), (10, 14)]

Codes = NDArray[np.int64]


def network() -> PixelCNN:
    """An untrained network whose codes are far from equally likely."""
    torch.manual_seed(0)
    net = PixelCNN(TINY, NARROW)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "heads" in name:
                parameter.add_(torch.randn_like(parameter))
    return net


def random_codes() -> list[Codes]:
    rng = np.random.default_rng(0)
    levels = zip(TINY.levels, SHAPES, strict=True)
    return [rng.integers(level.codebook_size, size=(level.groups, *shape)) for level, shape in levels]


def level_of(net: PixelCNN, index: int) -> LevelPrior:
    level = net.levels[index]
    assert isinstance(level, LevelPrior)
    return level


def head_outputs(net: PixelCNN, index: int) -> list[Tensor]:
    """A list to which the logits ``[B, G/S·K, H, W]`` of each stage of a level are appended when computed."""
    seen: list[Tensor] = []
    for head in level_of(net, index).heads:
        head.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    return seen


@pytest.mark.parametrize(("y", "x"), [(0, 0), (0, 6), (2, 3), (4, 0), (4, 6)])
def test_logits_depend_on_earlier_positions_only(y: int, x: int) -> None:
    net = network()
    embedded = torch.randn(1, 8, 5, 7, requires_grad=True)
    level = level_of(net, 0)
    (features,) = level.features(embedded, [], torch.rand(1, 8, 1, 1))
    (gradient,) = torch.autograd.grad(level.heads[0](features)[0, :, y, x].abs().sum(), embedded)
    reached = {(int(i), int(j)) for i, j in gradient.abs().sum((0, 1)).nonzero()}
    # Three layers of four neighbours each reach exactly the cone that they span.
    cone = {(y, x)}
    for _ in range(3):
        cone |= {(i + di, j + dj) for i, j in cone for di, dj in [(-1, -1), (-1, 0), (-1, 1), (0, -1)]}
    assert reached == {(i, j) for i, j in cone - {(y, x)} if 0 <= i < 5 and 0 <= j < 7}
    assert all(j + 2 * i < x + 2 * y for i, j in reached)


def test_a_stage_sees_the_stages_before_it_at_its_own_position() -> None:
    net = network()
    seen = head_outputs(net, 1)
    coarse, fine = (torch.from_numpy(grid)[None] for grid in random_codes())
    y, x = 4, 6

    def logits(group: int | None = None) -> list[Tensor]:
        """The logits of both stages, after one code at (x, y) was changed."""
        changed = fine.clone()
        if group is not None:
            changed[0, group, y, x] = (changed[0, group, y, x] + 1) % 6
        net([coarse, changed], torch.tensor([0.01]))
        return seen[-2:]

    before = logits()
    for group in range(4):
        after = logits(group)
        assert torch.equal(before[0][..., y, x], after[0][..., y, x])
        assert torch.equal(before[1][..., y, x], after[1][..., y, x]) == (group >= 2)
        for stage in range(2):
            assert torch.equal(before[stage][..., :y, :], after[stage][..., :y, :])
            assert torch.equal(before[stage][..., y, :x], after[stage][..., y, :x])
            assert not torch.equal(before[stage][..., y, x + 1], after[stage][..., y, x + 1])


def test_finer_levels_and_quality_matter_and_coarser_levels_do_not_look_ahead() -> None:
    net = network()
    codes = [torch.from_numpy(grid)[None] for grid in random_codes()]
    coarse, fine = net(codes, torch.tensor([0.01]))
    assert coarse.shape == fine.shape == (1,)
    other = [codes[0], (codes[1] + 1) % 6]
    assert torch.equal(net(other, torch.tensor([0.01]))[0], coarse)
    assert not torch.equal(net([(codes[0] + 1) % 5, codes[1]], torch.tensor([0.01]))[1], fine)
    assert not torch.equal(net(codes, torch.tensor([0.05]))[0], coarse)


def test_every_parameter_that_is_used_learns() -> None:
    net = network()
    codes = [torch.from_numpy(grid)[None] for grid in random_codes()]
    torch.autograd.backward(torch.stack(net(codes, torch.tensor([0.01]))).sum())
    silent = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert silent == {"levels.0.inner.table"}  # a single stage has no earlier stage


def test_start_from_static_frequencies() -> None:
    model = ModelConfig(levels=(LevelConfig(16, 4, 2, 8, 2),), widths=(8, 8, 8), blocks=(1, 1, 1))
    torch.manual_seed(0)
    net = PixelCNN(model, PriorConfig(16, 2, 1))
    usage = torch.rand(4, 8).pow(3)
    usage /= usage.sum(1, keepdim=True)
    net.start_from([usage])
    codes = torch.stack([torch.multinomial(row, 900, replacement=True) for row in usage]).view(1, 4, 30, 30)
    static = -usage.log2().gather(1, codes.view(4, -1)).sum()
    (bits,) = net([codes], torch.tensor([0.01]))
    assert abs(bits.item() / static.item() - 1) < 0.02
    uniform = 4 * 900 * 3
    assert static < 0.8 * uniform


def test_similar_codewords_start_alike() -> None:
    model = ModelConfig(levels=(LevelConfig(16, 4, 2, 8, 2),), widths=(8, 8, 8), blocks=(1, 1, 1))
    torch.manual_seed(0)
    net = PixelCNN(model, PriorConfig(16, 2, 1))
    line = torch.arange(8.0)[:, None].expand(-1, 2)  # codeword k is (k, k), and 0 is zero
    net.start_alike([line.expand(4, -1, -1)])
    (level,) = net.each_level()
    weight, _ = level.head(1)
    for rows in (level.embed.table[2], level.inner.table[3], weight.view(2, 8, 16)[1]):
        assert not rows[0].any()
        steps = rows.diff(dim=0).norm(dim=1)
        assert (steps[:-1] > steps[1:]).all()  # asinh: steps of large codewords count less
