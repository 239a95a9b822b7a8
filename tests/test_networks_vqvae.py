"""The VQ-VAE: textbook and default configurations, one function in all its forms, and gradients of all parameters."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.networks_support import (
    PLAIN,
    TINY,
    TWINS,
    each_config,
    images,
    lambdas,
    levels,
    tiny_configs,
    trained,
)
from vqcodec.config import LevelConfig, ModelConfig
from vqcodec.networks.fitting import residuals
from vqcodec.networks.vqvae import TRAINING_ONLY, VQVAE

GOLDEN = Path(__file__).resolve().parent / "golden"
STORED = ModelConfig(  # of golden/vqvae-state.txt
    levels=(LevelConfig(16, 8, 2, 64), LevelConfig(8, 32, 3, 64), LevelConfig(8, 48, 2, 32, pixels=True)),
    widths=(64, 128, 128),
    blocks=(1, 2, 2),
    second_kernel=3,
)
LEARN = pytest.mark.parametrize("learn", ["ema", "gradient"])


def test_the_names_in_stored_states_stay() -> None:
    """Checkpoints and weights files use these names; the optimiser's state numbers parameters in this order."""
    model = VQVAE(STORED, learn="gradient")
    parameters = {name for name, _ in model.named_parameters()}
    lines = [
        f"{name} {list(tensor.shape)}{' parameter' if name in parameters else ''}"
        for name, tensor in model.state_dict().items()
    ]
    order = [line.split()[0] for line in lines if line.endswith("parameter")]
    assert order == [name for name, _ in model.named_parameters()]
    assert lines == (GOLDEN / "vqvae-state.txt").read_text().splitlines()


@each_config
def test_shapes(config: ModelConfig) -> None:
    model, x, lmbda = VQVAE(config).eval(), images(2, 32, 64), lambdas(config, 20, 90)
    grids = [(2, level.groups, 32 // level.stride, 64 // level.stride) for level in config.levels]
    codes = model.encode(x, lmbda)
    assert [grid.shape for grid in codes] == grids
    assert all(g.min() >= 0 and g.max() < level.codebook_size for g, level in zip(codes, config.levels, strict=True))
    x_hat = model.decode(codes, lmbda)
    assert x_hat.shape == x.shape
    assert 0 <= x_hat.min() <= x_hat.max() <= 1
    assert model.stride == config.levels[0].stride
    for hard in (False, True):
        out = model(x, lmbda, hard=hard)
        assert out.x_hat.shape == x.shape
        # The noise form has no levels of pixels.
        assert [bits.shape for bits in out.bits] == [(2,) for level in config.levels if hard or not level.pixels]
        assert min(bits.min() for bits in out.bits) > 0
        assert [grid.shape for grid in out.codes] == (grids if hard else [])
    for (r, precision), grid, level in zip(residuals(model, x, lmbda), grids, config.levels, strict=True):
        assert r.shape == precision.shape == (2, level.groups * level.dim, *grid[2:])
        assert precision.min() > 0


@tiny_configs
def test_the_training_pass_sees_the_codes_that_a_file_holds(config: ModelConfig) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    out, codes = model(x, lmbda, hard=True), model.encode(x, lmbda)
    assert all(torch.equal(a, b) for a, b in zip(out.codes, codes, strict=True))
    assert all(len(set(grid.flatten().tolist())) > 4 for grid in codes)
    torch.testing.assert_close(model.decode(codes, lmbda), out.x_hat.detach().clamp(0, 1), atol=1e-5, rtol=0)


@each_config
def test_reach_is_how_far_a_position_can_change_pixels(config: ModelConfig) -> None:
    model = VQVAE(config).eval()
    reach = model.reach
    start = model.start.detach().repeat(2 * reach + 3, 1)
    start[reach + 1] = math.nan
    model.start = torch.nn.Parameter(start)
    sizes = [model.stride // level.stride for level in config.levels]
    codes = [
        torch.zeros(1, level.groups, size, size * len(start), dtype=torch.int64)
        for level, size in zip(config.levels, sizes, strict=True)
    ]
    x_hat = model.decode(codes, lambdas(config, 60))
    changed = x_hat[0, 0].isnan().any(0).view(-1, model.stride).any(1)
    assert changed.tolist() == [False, *[True] * (2 * reach + 1), False]


def test_an_image_does_not_see_the_others_of_its_batch() -> None:
    model, x, lmbda = trained(TINY), images(), lambdas(TINY, 20, 90)
    together = model.encode(x, lmbda)
    x_hat = model.decode(together, lmbda)
    for i in range(2):
        alone = model.encode(x[i : i + 1], lmbda[i : i + 1])
        assert all(torch.equal(a, b[i : i + 1]) for a, b in zip(alone, together, strict=True))
        torch.testing.assert_close(model.decode(alone, lmbda[i : i + 1])[0], x_hat[i])


def test_lambda_is_heard_by_encoder_and_decoder() -> None:
    model, x = trained(TINY), images(1)
    low, high = lambdas(TINY, 1), lambdas(TINY, 100)
    codes = model.encode(x, high)
    assert any(not torch.equal(a, b) for a, b in zip(codes, model.encode(x, low), strict=True))
    assert not torch.allclose(model.decode(codes, high), model.decode(codes, low), atol=0.01)


def test_a_preview_is_what_silent_finer_levels_would_say() -> None:
    model, x, lmbda = trained(TWINS), images(), lambdas(TWINS, 50, 60)
    codes = model.encode(x, lmbda)
    full = model.decode(codes, lmbda)
    for kept in (2, 1):
        preview = model.decode(codes[:kept], lmbda)
        assert not torch.equal(preview, full)
        levels(model)[kept].quantizer.codebook.zero_()
        torch.testing.assert_close(model.decode(codes, lmbda), preview, rtol=0, atol=0)


def test_coarse_codes_do_not_depend_on_finer_levels() -> None:
    model, x, lmbda = trained(TWINS), images(), lambdas(TWINS, 50, 60)
    before = model.encode(x, lmbda)
    for changed in (2, 1, 0):
        levels(model)[changed].quantizer.codebook.normal_()
        after = model.encode(x, lmbda)
        assert all(torch.equal(a, b) for a, b in zip(after[:changed], before[:changed], strict=True))
        assert not torch.equal(after[changed], before[changed])


def test_neither_encoding_nor_decoding_needs_the_training_tensors() -> None:
    model, x, lmbda = trained(TINY), images(), lambdas(TINY, 20, 90)
    codes = model.encode(x, lmbda)
    x_hat = model.decode(codes, lmbda)
    state = model.state_dict()
    dropped = [key for key in state if key.endswith(TRAINING_ONLY)]
    assert len(dropped) == 3 * len(TINY.levels)
    for key in dropped:
        state[key].fill_(math.nan)
    assert all(torch.equal(a, b) for a, b in zip(model.encode(x, lmbda), codes, strict=True))
    assert torch.equal(model.decode(codes, lmbda), x_hat)


@tiny_configs
def test_the_sides_are_what_decoding_needs_and_what_only_choosing_codes_needs(config: ModelConfig) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    codes = model.encode(x, lmbda)
    x_hat = model.decode(codes, lmbda)
    state, (decoder, encoder) = model.state_dict(), model.sides()
    assert not decoder & encoder
    assert {name for name in state if not name.endswith(TRAINING_ONLY)} == decoder | encoder
    for name in decoder | encoder:
        kept = state[name].clone()
        state[name].fill_(math.nan)
        assert torch.equal(model.decode(codes, lmbda), x_hat) == (name in encoder), name
        state[name].copy_(kept)
    # Without any one of the encoder side's tensors, codes change.
    for name in encoder:
        kept = state[name].clone()
        state[name].fill_(math.nan)
        grids = zip(model.encode(x, lmbda), codes, strict=True)
        assert any(not torch.equal(a, b) for a, b in grids), name
        state[name].copy_(kept)


def test_evaluation_changes_nothing() -> None:
    model, x, lmbda = trained(TINY), images(), lambdas(TINY, 20, 90)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for hard in (False, True):
        model(x, lmbda, hard=hard)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def silent(model: VQVAE) -> Iterator[str]:
    """Parameters that no gradient has reached."""
    return (name for name, p in model.named_parameters() if p.grad is None or not p.grad.any())


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["tiny", "plain"])
@pytest.mark.parametrize(("hard", "learn"), [(False, "ema"), (True, "ema"), (True, "gradient")])
def test_gradients_reach_every_parameter(config: ModelConfig, hard: bool, learn: str) -> None:
    model = trained(config, learn=learn).train()
    x, lmbda = images(), lambdas(config, 20, 90)
    out = model(x, lmbda, hard=hard)
    loss = torch.stack(out.bits).mean() / 1e4 + (out.x_hat - x).square().mean()
    (loss + 0.02 * out.commitment_loss + out.codebook_loss).backward()
    assert not set(silent(model))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    learnt = [name for name, _ in model.named_parameters() if name.endswith("codebook")]
    assert len(learnt) == (len(config.levels) if learn == "gradient" else 0)


def test_a_frozen_encoder_leaves_only_the_decoders_half_to_learn() -> None:
    model = trained(TINY).train()
    model.freeze_encoder()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    halves = ("start", "decoder.", "up.", "last.")
    heads = ("predict.", "predict_hidden.", "project.")
    assert learning == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(halves) or any(f".{head}" in name for head in heads)
    }
    out = model(images(), lambdas(TINY, 20, 90), hard=True)
    (torch.stack(out.bits).mean() / 1e4 + out.x_hat.square().mean()).backward()
    assert not learning & set(silent(model))


def test_losses_are_means_over_levels() -> None:
    model, x, lmbda = trained(TINY, learn="gradient"), images(), lambdas(TINY, 20, 90)
    seen: list[tuple[Tensor, Tensor]] = []
    for level in levels(model):
        level.quantizer.register_forward_hook(lambda _, __, q: seen.append((q.commitment_loss, q.codebook_loss)))
    out = model(x, lmbda, hard=True)
    commitment, codebook = (torch.stack(values).mean() for values in zip(*seen, strict=True))
    assert len(seen) == 2
    torch.testing.assert_close((out.commitment_loss, out.codebook_loss), (commitment, codebook))


def descend(model: VQVAE, x: Tensor, lmbda: Tensor, steps: int, *, hard: bool, lr: float) -> list[float]:
    """The rate–distortion loss at each step of Adam on one image."""
    adam, losses = torch.optim.Adam(model.parameters(), lr=lr), []
    for _ in range(steps):
        out = model(x, lmbda, hard=hard)
        bpp = torch.stack(out.bits).sum() / x[0, 0].numel()
        loss = bpp + lmbda.item() * 255**2 * (out.x_hat - x).square().mean()
        adam.zero_grad()
        (loss + 0.25 * out.commitment_loss + out.codebook_loss).backward()
        adam.step()
        losses.append(loss.item())
    return losses


@LEARN
def test_one_image_is_learnt_with_noise_and_then_with_codes(learn: str) -> None:
    torch.manual_seed(0)
    model, lmbda = VQVAE(TINY, learn=learn), lambdas(TINY, 60)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    disc = (x - 0.5).square() + (y - 0.5).square() < 0.1
    image = torch.stack([x, y, disc.float()])[None]
    noisy = descend(model, image, lmbda, 100, hard=False, lr=0.005)
    assert noisy[-1] < noisy[0] / 20
    for level, (r, precision) in zip(levels(model), residuals(model, image, lmbda), strict=True):
        level.quantizer.fit(r, precision)
    coded = descend(model, image, lmbda, 140, hard=True, lr=0.001)
    assert coded[0] < 1.3 * noisy[-1]  # hard codes start near the loss of the noise form
    assert sum(coded[-10:]) / 10 < 0.85 * coded[0]
