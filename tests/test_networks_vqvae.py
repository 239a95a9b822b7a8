"""The VQ-VAE: textbook and shipped configurations, one function in all its forms, and gradients that arrive."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from vqcodec.config import Config, LevelConfig, ModelConfig
from vqcodec.networks import choices
from vqcodec.networks.choices import HardCodes
from vqcodec.networks.fitting import deal_channels, fit_level, residuals
from vqcodec.networks.head import gaussian_bits
from vqcodec.networks.layers import ResidualBlock
from vqcodec.networks.levels import Level, PixelLevel
from vqcodec.networks.vqvae import TRAINING_ONLY, VQVAE

PRESETS = Path(__file__).resolve().parents[1] / "presets"
GOLDEN = Path(__file__).resolve().parent / "golden"
TINY = ModelConfig(
    levels=(LevelConfig(8, 2, 2, 16, stages=1), LevelConfig(4, 3, 4, 16, stages=1)),
    patch=2,
    widths=(8, 12, 16),
    blocks=(1, 0, 2),
    lambda_min=0.0004,
)
PLAIN = ModelConfig(levels=(LevelConfig(4, 1, 8, 32, stages=1),), patch=2, widths=(8, 12), blocks=(1, 1))
TWINS = ModelConfig(
    levels=(LevelConfig(4, 2, 2, 8, stages=1), LevelConfig(4, 3, 1, 8, stages=1), LevelConfig(2, 1, 3, 8, stages=1)),
    patch=2,
    widths=(8, 12),
    blocks=(0, 0),
)
PIXELS = dataclasses.replace(TINY, levels=(*TINY.levels, LevelConfig(4, 5, 3, 16, stages=1, pixels=True)))
CONFIGS = {
    "tiny": TINY,
    "pixels": PIXELS,
    "plain": PLAIN,
    "two levels at one stride": TWINS,
    "shipped": ModelConfig(),
    "vqvae": Config.from_toml(PRESETS / "vqvae.toml").model,
    "vqvae2": Config.from_toml(PRESETS / "vqvae2.toml").model,
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
tiny_configs = pytest.mark.parametrize("config", [TINY, PLAIN, TWINS, PIXELS], ids=["tiny", "plain", "twins", "pixels"])

LEARN = pytest.mark.parametrize("learn", ["ema", "gradient"])


def trained(config: ModelConfig, *, learn: str = "ema") -> VQVAE:
    """A model away from its start, where λ matters to every block and codes are no accident."""
    torch.manual_seed(0)
    model = VQVAE(config, learn=learn).eval()
    with torch.no_grad():
        for block in (module for module in model.modules() if isinstance(module, ResidualBlock)):
            block.scale.weight.normal_(std=0.2)
        model.start.normal_()
        for level in levels(model):
            level.log_gain.weight.normal_(std=0.2)
            level.predict.bias.normal_(std=0.3)
            level.posterior.weight.mul_(3)
            level.quantizer.bias.normal_()
        for pixel_level in pixel_levels(model):
            pixel_level.components.copy_(torch.linalg.qr(torch.randn(48, 15)).Q.T)
            pixel_level.quantizer.codebook.mul_(2)
    return model


def levels(model: VQVAE) -> list[Level]:
    return [level for level in model.levels if isinstance(level, Level)]


def pixel_levels(model: VQVAE) -> list[PixelLevel]:
    return [level for level in model.levels if isinstance(level, PixelLevel)]


def images(count: int = 2, height: int = 16, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def lambdas(config: ModelConfig, *qualities: float) -> Tensor:
    return torch.tensor([config.lmbda(quality) for quality in qualities])


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise form without its noise."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))


def test_the_names_in_stored_states_stay() -> None:
    """Checkpoints and weights files name tensors so; the optimiser's state numbers parameters in this order."""
    model = VQVAE(ModelConfig(), learn="gradient")
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
    model, x, lmbda = VQVAE(config).eval(), images(), lambdas(config, 20, 90)
    grids = [(2, level.groups, 16 // level.stride, 32 // level.stride) for level in config.levels]
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
        # Levels of pixels are no part of the noise form.
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


def test_evaluation_changes_nothing() -> None:
    model, x, lmbda = trained(TINY), images(), lambdas(TINY, 20, 90)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for hard in (False, True):
        model(x, lmbda, hard=hard)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@tiny_configs
def test_residuals_are_those_of_the_noise_form(
    config: ModelConfig, still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(r_hat: Tensor, scale: Tensor) -> Tensor:
        seen.append((r_hat, scale.clamp_min(1 / 3).pow(-2)))
        return r_hat.new_ones(len(r_hat))

    monkeypatch.setattr(choices, "gaussian_bits", spy)
    model(x, lmbda, hard=False)
    expected = list(seen)
    assert len(expected) == len(levels(model))
    torch.testing.assert_close(residuals(model, x, lmbda)[: len(expected)], expected)


def test_residuals_below_quantized_levels_are_those_of_the_codes() -> None:
    model, x, lmbda = trained(TWINS), images(), lambdas(TWINS, 20, 90)
    seen: list[tuple[Tensor, Tensor]] = []
    for level in levels(model):
        level.quantizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    model(x, lmbda, hard=True)
    for quantized in range(4):
        pairs = residuals(model, x, lmbda, quantized=quantized)
        torch.testing.assert_close(pairs[: quantized + 1], seen[: quantized + 1])
        assert quantized >= 2 or not torch.allclose(pairs[-1][0], seen[-1][0], atol=0.1)


def test_the_head_is_never_surer_than_a_third_of_a_step() -> None:
    model, x = trained(TINY), images()
    with torch.no_grad():
        for level in levels(model):
            level.predict.bias.fill_(-8)
    peaks = [precision.max().item() for _, precision in residuals(model, x, lambdas(TINY, 1, 2))]
    assert peaks == pytest.approx([9, 9])


def test_the_noise_is_one_step_wide_and_centred(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, lmbda = trained(PLAIN), images(), lambdas(PLAIN, 20, 90)
    seen: list[Tensor] = []

    def spy(r_hat: Tensor, scale: Tensor) -> Tensor:
        seen.append(r_hat)
        return scale

    monkeypatch.setattr(choices, "gaussian_bits", spy)
    model(x, lmbda, hard=False)
    noise = seen[0] - residuals(model, x, lmbda)[0][0]
    assert noise.abs().max() <= 0.5 + 1e-5
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.1)


def test_fitting_a_level_renumbers_its_channels_and_fits_its_codebooks() -> None:
    model, x, lmbda = trained(TINY), images(8, 32, 32), lambdas(TINY, *range(10, 90, 10))
    before, (r, precision) = model(x, lmbda, hard=False), residuals(model, x, lmbda)[0]
    fit_level(model, 0, x, lmbda)
    r_dealt, precision_dealt = residuals(model, x, lmbda)[0]
    entropy = (1 + 12 / precision).log2().mean((0, 2, 3)).tolist()
    ranked = sorted(range(len(entropy)), key=lambda channel: -entropy[channel])
    order = deal_channels(torch.tensor(ranked), TINY.levels[0].groups)
    torch.testing.assert_close(r_dealt, r[:, order], atol=1e-4, rtol=0)
    torch.testing.assert_close(precision_dealt, precision[:, order], atol=0, rtol=1e-4)
    assert not torch.allclose(r_dealt, r, atol=0.1)
    # Noise apart, the function is what it was.
    torch.testing.assert_close(model(x, lmbda, hard=False).bits[0].sum(), before.bits[0].sum(), atol=0, rtol=0.05)
    quantizer = levels(model)[0].quantizer
    twin = VQVAE(TINY).levels[0]
    assert isinstance(twin, Level)
    twin.quantizer.fit(r_dealt, precision_dealt, seed=0)
    torch.testing.assert_close(quantizer.codebook, twin.quantizer.codebook, atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", [TINY, TWINS], ids=["tiny", "twins"])
def test_renumbered_channels_compute_the_same(config: ModelConfig, still: None) -> None:
    model, x, lmbda = trained(config), images(), lambdas(config, 20, 90)
    before = model(x, lmbda, hard=False)
    for level in levels(model):
        level.permute(torch.randperm(level.project.shape[1]))
    after = model(x, lmbda, hard=False)
    torch.testing.assert_close(after.x_hat, before.x_hat, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.bits, before.bits, atol=0.01, rtol=1e-5)


def fitted() -> tuple[VQVAE, Tensor, Tensor]:
    """A model with a level of pixels fitted to smooth images, which cannot do much else; the images, and their λ."""
    torch.manual_seed(0)
    model = VQVAE(PIXELS).eval()
    x = torch.nn.functional.avg_pool2d(images(6, 68, 68), 5, 1).repeat(4, 1, 1, 1)
    lmbda = torch.logspace(-3.4, -1, 24)
    for index in range(len(model.levels)):
        fit_level(model, index, x, lmbda)
    return model, x, lmbda


def test_a_level_of_pixels_reaches_what_the_trunk_does_not() -> None:
    model, x, _ = fitted()
    (level,) = pixel_levels(model)
    identity = level.components @ level.components.T
    torch.testing.assert_close(identity, torch.eye(len(identity)), atol=1e-5, rtol=0)
    errors = []
    for quality in (1, 60, 100):
        lmbda = lambdas(PIXELS, quality).expand(len(x))
        codes = model.encode(x, lmbda)
        whole, preview = model.decode(codes, lmbda), model.decode(codes[:-1], lmbda)
        errors.append([float((x_hat - x).square().mean()) for x_hat in (whole, preview)])
    assert errors[2][0] < errors[2][1] / 3  # at the best quality
    assert errors[2][0] < errors[1][0] < errors[0][0]
    # Were there codewords enough, the MSE would be 3 / (2 ln 2 · λ · 255²); sixteen for three channels are few.
    assert 1 / 3 < errors[2][0] * (2 * math.log(2) * PIXELS.lambda_max * 255**2) / 3 < 3


def test_a_silent_level_of_pixels_changes_nothing() -> None:
    model, x, _ = fitted()
    (level,) = pixel_levels(model)
    assert not level.quantizer.codebook[:, 0].any()
    lmbda = lambdas(PIXELS, 50).expand(len(x))
    codes = model.encode(x, lmbda)
    codes[-1] = torch.zeros_like(codes[-1])
    assert torch.equal(model.decode(codes, lmbda), model.decode(codes[:-1], lmbda))


def test_where_a_level_of_pixels_is_silent_the_trunk_answers_for_the_whole_error() -> None:
    model, x, _ = fitted()
    model.train().requires_grad_(True)
    lmbda = lambdas(PIXELS, 1).expand(len(x))
    (level,) = pixel_levels(model)
    with torch.no_grad():
        level.quantizer.bias[:, 1:] = -1e4  # dear enough never to be used
    gradients = []
    for pixels in (True, False):
        model.zero_grad()
        error = model.reconstruct(x, lmbda, HardCodes(), pixels=pixels) - x
        error.square().mean().backward()  # type: ignore[no-untyped-call]
        gradients.append(model.last.conv.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0] is not None
    assert gradients[0].any()


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [
        ([9, 8, 7, 6, 5, 4], 3, [9, 4, 8, 5, 7, 6]),
        ([9, 8, 7, 6, 5, 4], 2, [9, 6, 5, 8, 7, 4]),
        ([9, 8, 7], 1, [9, 8, 7]),
        ([9, 8, 7], 3, [9, 8, 7]),
    ],
)
def test_channels_are_dealt_there_and_back(channels: list[int], groups: int, expected: list[int]) -> None:
    assert deal_channels(torch.tensor(channels), groups).tolist() == expected


def test_the_gain_starts_in_proportion_to_the_root_of_lambda() -> None:
    model = VQVAE(TINY)
    centre = math.sqrt(TINY.lambda_min * TINY.lambda_max)
    lmbda = torch.tensor([centre / 4, centre, centre * 9])
    for level in levels(model):
        gain = level.gain(lmbda, model.embedding(lmbda)).squeeze((2, 3))
        expected = math.e * torch.tensor([0.5, 1.0, 3.0])[:, None].expand_as(gain)
        torch.testing.assert_close(gain, expected)


SCALES = [0.06, 0.3, 1.0, 2.5]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("offset", [0.0, 0.25, -0.5])
def test_the_probabilities_of_all_bins_add_up_to_one(scale: float, offset: float) -> None:
    r = (torch.arange(-5000.0, 5001, dtype=torch.float64) + offset).view(-1, 1, 1, 1)
    p = (-gaussian_bits(r, torch.full_like(r, scale))).exp2()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("r", [0.0, 0.4, -0.7, 2.0, -6.0, 1e4])
def test_bits_of_the_noise_form(scale: float, r: float) -> None:
    normal = NormalDist(0, scale)
    gaussian = normal.cdf(-abs(r) + 0.5) - normal.cdf(-abs(r) - 0.5)
    p = 0.999 * gaussian + 0.001 * 4 / (math.pi * (16 + r * r))
    x = torch.full((2, 3, 1, 1), r, requires_grad=True)
    bits = gaussian_bits(x, torch.full_like(x, scale))
    assert bits.tolist() == pytest.approx([-3 * math.log2(p)] * 2, rel=1e-3, abs=1e-4)
    bits.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad * r >= 0).all()
    assert r == 0 or abs(r) < 0.5 or x.grad.all()  # a stray residual is always called back


def test_bits_are_those_of_the_best_gaussian_when_the_scale_is_right() -> None:
    torch.manual_seed(0)
    r = 3 * torch.randn(1, 1, 200, 200)
    bits = [gaussian_bits(r, torch.full_like(r, scale)).item() / r.numel() for scale in (2.5, 3.0, 3.5)]
    assert bits[1] == min(bits)
    assert bits[1] == pytest.approx(math.log2(3 * math.sqrt(2 * math.pi * math.e)), abs=0.02)


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
    coded = descend(model, image, lmbda, 80, hard=True, lr=0.001)
    assert coded[0] < 1.3 * noisy[-1]  # codes take over from noise without a break
    assert sum(coded[-10:]) / 10 < 0.85 * coded[0]
