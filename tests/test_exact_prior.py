"""The prior in integers: both sides see the same frequencies, at the cost of the float form; what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import vqcodec.exact.arithmetic
import vqcodec.exact.prior
from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import VqcodecError, WeightsError
from vqcodec.exact.arithmetic import ARITHMETIC, FREQUENCIES, Linear
from vqcodec.exact.prior import FixedPrior
from vqcodec.exact.wavefront import Wavefront
from vqcodec.networks.pixelcnn import LevelPrior, PixelCNN
from vqcodec.train.fixed_point import fixed_point

TINY = ModelConfig(
    levels=(LevelConfig(8, groups=2, codebook_size=5, stages=1), LevelConfig(4, groups=4, codebook_size=6, stages=2)),
    patch=4,
    widths=(8, 8),
    blocks=(1, 1),
)
NARROW = PriorConfig(channels=8, layers=2, context_layers=1)
IN_FLOAT64 = replace(NARROW, sum_bits=53)
SHAPES = [(5, 7), (10, 14)]

Codes = NDArray[np.int64]
Frequencies = NDArray[np.float64]


def network(model: ModelConfig = TINY, config: PriorConfig = NARROW, *, seed: int = 0) -> PixelCNN:
    """An untrained network whose codes are far from equally likely."""
    torch.manual_seed(seed)
    net = PixelCNN(model, config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "heads" in name:
                parameter.add_(torch.randn_like(parameter))
    return net


def random_codes(model: ModelConfig, shapes: list[tuple[int, int]], seed: int = 0) -> list[Codes]:
    rng = np.random.default_rng(seed)
    levels = zip(model.levels, shapes, strict=True)
    return [rng.integers(level.codebook_size, size=(level.groups, *shape)) for level, shape in levels]


class Recorder:
    """A ``choose`` that looks codes up, as both sides do, and keeps the frequencies of every row and stage."""

    def __init__(self, grid: Codes, stages: int) -> None:
        self.wavefront = Wavefront(*grid.shape[1:])
        self.codes = grid.reshape(len(grid), -1).T[self.wavefront.raster]
        self.calls: list[tuple[int, int, int]] = []
        self.frequencies: dict[int, Frequencies] = {s: np.full((len(self.codes), 0, 0), np.nan) for s in range(stages)}

    def choose(self, first: int, last: int, stage: int, frequencies: Frequencies) -> Codes:
        self.calls.append((first, last, stage))
        assert first == 0 or not np.isnan(self.frequencies[stage][:first]).any(), "rows out of order"
        if first == 0:
            self.frequencies[stage] = np.full((len(self.codes), *frequencies.shape[1:]), np.nan)
        self.frequencies[stage][first:last] = frequencies
        count = frequencies.shape[1]
        return self.codes[first:last, stage * count : (stage + 1) * count]


def visit(prior: FixedPrior, codes: list[Codes], quality: int = 50, *, known: bool) -> list[Recorder]:
    """Run every level as the encoder (``known``) or as the decoder does."""
    recorders = []
    state = None
    for index, grid in enumerate(codes):
        recorder = Recorder(grid, prior.model.levels[index].stages)
        _, height, width = grid.shape
        given_codes = grid[None] if known else None
        found, state = prior.code_level(index, height, width, [quality], state, recorder.choose, known=given_codes)
        np.testing.assert_array_equal(found, grid[None])
        recorders.append(recorder)
    return recorders


def assert_same(a: list[Recorder], b: list[Recorder]) -> None:
    for one, other in zip(a, b, strict=True):
        for stage, frequencies in one.frequencies.items():
            np.testing.assert_array_equal(frequencies, other.frequencies[stage])


def level_of(net: PixelCNN, index: int) -> LevelPrior:
    level = net.levels[index]
    assert isinstance(level, LevelPrior)
    return level


# --- the fixed-point form ----------------------------------------------------------------------------------------


def test_sequential_steps_of_the_decoder() -> None:
    model, config = ModelConfig(levels=(LevelConfig(16, 2, 2, 4, 2),)), PriorConfig(4, 1, 1)
    prior = FixedPrior(fixed_point(network(model, config)), model, config)
    (recorder,) = visit(prior, random_codes(model, [(64, 96)]), known=False)
    assert len(recorder.calls) == 2 * (96 + 2 * 63)
    assert len({first for first, _, _ in recorder.calls}) == 222


@pytest.mark.parametrize("shapes", [SHAPES, [(1, 1), (2, 2)], [(1, 9), (2, 18)], [(9, 1), (18, 2)]])
@pytest.mark.parametrize("chunk", [None, 1, 17])
@pytest.mark.parametrize("few", [None, 3])  # steps of more rows are filled up
def test_encoder_and_decoder_see_the_same_frequencies(
    shapes: list[tuple[int, int]], chunk: int | None, few: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
    codes = random_codes(TINY, shapes)
    encoder = visit(prior, codes, known=True)
    if few:
        monkeypatch.setattr(vqcodec.exact.prior, "FEW", few)
    decoder = visit(prior, codes, known=False)
    assert_same(encoder, decoder)
    if chunk:
        monkeypatch.setattr(vqcodec.exact.prior, "CHUNK", chunk)
    encoder = visit(prior, codes, known=True)
    assert_same(encoder, decoder)
    for recorder, level in zip(decoder, TINY.levels, strict=True):
        assert len(recorder.calls) == level.stages * len(recorder.wavefront.spans)
        for frequencies in recorder.frequencies.values():
            assert (frequencies.max(2) == FREQUENCIES[0]).all()
            assert set(np.unique(frequencies)) <= set(FREQUENCIES)


def test_shipped_sizes_with_one_thread_two_threads_and_in_one_go() -> None:
    model, config = ModelConfig(), PriorConfig()
    prior = FixedPrior(fixed_point(network(model, config)), model, config)
    codes = random_codes(model, [(5, 7), (10, 14), (10, 14)])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        decoder = visit(prior, codes, known=False)
        torch.set_num_threads(2)
        assert_same(decoder, visit(prior, codes, known=False))
        assert_same(decoder, visit(prior, codes, known=True))
    finally:
        torch.set_num_threads(threads)


def test_quality_enters_as_an_integer() -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
    codes = random_codes(TINY, SHAPES)
    first, again, other = (visit(prior, codes, q, known=True)[0].frequencies[0] for q in (1, 1, 100))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def structured(rng: np.random.Generator, model: ModelConfig, shapes: list[tuple[int, int]], batch: int) -> list[Tensor]:
    """Codes that follow their neighbours and the level before, with a little noise."""
    grids = []
    phase = rng.integers(100, size=(batch, 1, 1, 1))
    for level, (height, width) in zip(model.levels, shapes, strict=True):
        y, x, g = np.ogrid[:height, :width, : level.groups]
        pattern = (x * level.stride // 8 + y * level.stride // 8 + g + phase) % level.codebook_size
        noise = rng.random(pattern.shape) < 0.1
        codes = np.where(noise, rng.integers(level.codebook_size, size=pattern.shape), pattern)
        grids.append(torch.from_numpy(np.moveaxis(codes, 3, 1)))
    return grids


def test_fixed_point_costs_what_the_float_form_does() -> None:
    config = PriorConfig(channels=16, layers=1, context_layers=1)
    torch.manual_seed(0)
    net, rng = PixelCNN(TINY, config), np.random.default_rng(0)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    shapes = [(8, 8), (16, 16)]
    for _ in range(100):
        bits = torch.stack(net(structured(rng, TINY, shapes, 4), torch.full((4,), 0.01))).sum()
        optimizer.zero_grad()
        torch.autograd.backward(bits / 1000)
        optimizer.step()
    codes = structured(rng, TINY, shapes, 1)
    prior = FixedPrior(fixed_point(net), TINY, config)
    for quality in (1, 60, 100):
        with torch.no_grad():
            floats = net(codes, torch.tensor([TINY.lmbda(quality)]))
        seen = visit(prior, [grid[0].numpy() for grid in codes], quality, known=True)
        for level, grid, bits, recorder in zip(TINY.levels, codes, floats, seen, strict=True):
            frequencies = np.concatenate(list(recorder.frequencies.values()), 1)
            chosen = np.take_along_axis(frequencies, recorder.codes[:, :, None], 2)[:, :, 0]
            fixed = -np.log2(chosen / frequencies.sum(2)).sum()
            assert fixed == pytest.approx(bits.item(), rel=0.01)
            assert fixed < 0.8 * grid.numel() * math.log2(level.codebook_size), "the test trained nothing"


# --- the bound that makes it exact -------------------------------------------------------------------------------


def test_all_ways_to_multiply_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(TINY, SHAPES)
    tensors = fixed_point(network())
    ways = []
    for few, onednn in (
        (vqcodec.exact.arithmetic.FEW, vqcodec.exact.arithmetic.ONEDNN),
        (0, vqcodec.exact.arithmetic.ONEDNN),
        (0, False),
    ):
        monkeypatch.setattr(vqcodec.exact.arithmetic, "FEW", few)
        monkeypatch.setattr(vqcodec.exact.arithmetic, "ONEDNN", onednn)
        ways.append(visit(FixedPrior(tensors, TINY, NARROW), codes, known=False))
    assert_same(ways[0], ways[1])
    assert_same(ways[0], ways[2])


@pytest.fixture(scope="module", params=ARITHMETIC)
def config(request: pytest.FixtureRequest) -> PriorConfig:
    return replace(NARROW, sum_bits=request.param)


@pytest.fixture(scope="module")
def tensors(config: PriorConfig) -> dict[str, Tensor]:
    return fixed_point(network(config=config))


def test_fixed_point_tensors_fill_their_bits(tensors: dict[str, Tensor], config: PriorConfig) -> None:
    arithmetic = ARITHMETIC[config.sum_bits]
    for name, tensor in tensors.items():
        match name.rsplit(".", 1)[1]:
            case "weight":
                assert tensor.dtype == arithmetic.stored
                largest = tensor.long().abs().amax(0)
                assert (largest <= arithmetic.weight_max).all()
                # A channel that could have one bit more would break the bound with it.
                shift = tensors[name.replace("weight", "shift")].double()
                bias = tensors[name.replace("weight", "bias")].double()
                sums = 2 * (tensor.double().abs().sum(0) * arithmetic.activation_max + bias.abs() + 2 ** (shift - 1))
                assert ((2 * largest >= arithmetic.weight_max - 1) | (sums > 0.98 * arithmetic.exact)).all()
            case "bias":
                assert tensor.dtype == torch.int64
            case "shift":
                assert tensor.dtype == torch.int32
            case _:
                assert tensor.dtype == torch.int16


def test_one_shift_for_all_channels(tensors: dict[str, Tensor], config: PriorConfig) -> None:
    """Older weights have a single shift for all channels of a layer."""
    smallest = {name: tensor.min() for name, tensor in tensors.items() if name.endswith("shift")}
    single = {name: shift.view(1) for name, shift in smallest.items()}
    repeated = {name: shift.expand_as(tensors[name]) for name, shift in smallest.items()}
    codes = random_codes(TINY, SHAPES)
    one, each = (visit(FixedPrior(tensors | t, TINY, config), codes, known=True) for t in (single, repeated))
    assert_same(one, each)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_is_sharp(tensors: dict[str, Tensor], config: PriorConfig, sign: int) -> None:
    arithmetic = ARITHMETIC[config.sum_bits]
    weight, shift = tensors["0.first.weight"].long(), int(tensors["0.first.shift"][3])
    room = int(arithmetic.exact) - int(weight[:, 3].abs().sum()) * arithmetic.activation_max - 2 ** (shift - 1)
    bias = tensors["0.first.bias"].clone()
    bias[3] = sign * (room - 1)
    FixedPrior(tensors | {"0.first.bias": bias}, TINY, config)
    bias[3] = sign * room
    with pytest.raises(
        WeightsError, match=rf"0\.first can reach .*, beyond the exact integers below 2\^{config.sum_bits}"
    ):
        FixedPrior(tensors | {"0.first.bias": bias}, TINY, config)


@pytest.mark.parametrize("sum_bits", ARITHMETIC)
def test_callers_autocast_does_not_round_the_integers(sum_bits: int) -> None:
    config = replace(NARROW, sum_bits=sum_bits)
    prior = FixedPrior(fixed_point(network(config=config)), TINY, config)
    codes = random_codes(TINY, SHAPES)
    plain = visit(prior, codes, known=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(plain, visit(prior, codes, known=False))


def test_products_of_less_precision_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)

    def rounded(self: Linear, x: Tensor) -> Tensor:
        return x.bfloat16().float() @ self.weight.bfloat16().float() + self.bias

    monkeypatch.setattr(Linear, "product", rounded)
    with pytest.raises(VqcodecError, match="set_float32_matmul_precision"):
        visit(prior, random_codes(TINY, SHAPES), known=False)


@pytest.mark.parametrize("sum_bits", ARITHMETIC)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e13, "can reach"),
        (-1e13, "can reach"),
        (1e30, "can reach"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
    ],
)
def test_fixed_point_refuses_what_it_cannot_hold(value: float, message: str, sum_bits: int) -> None:
    net = network(config=replace(NARROW, sum_bits=sum_bits))
    with torch.no_grad():
        level_of(net, 1).hidden.bias[3] = value
    with pytest.raises(WeightsError, match=rf"layer 1\.hidden .*{message}"):
        fixed_point(net)


def test_fixed_point_refuses_weights_too_large_for_16_bits() -> None:
    net = network(config=IN_FLOAT64)
    with torch.no_grad():
        level_of(net, 0).first.weight[0, 0] = 1e5
    with pytest.raises(WeightsError, match=r"0\.first\.shift is -2..16, expected 1\.\.32"):
        fixed_point(net)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("0.embed", None, "prior has no tensor 0.embed"),
        ("1.heads.1.shift", None, "prior has no tensor 1.heads.1.shift"),
        (
            "1.spread.weight",
            lambda t: t.T.flatten(),
            r"1.spread.weight is {stored} [256], expected integers [8, 32]",
        ),
        ("1.inner", lambda t: t[:1], "1.inner is torch.int16 [1, 6, 8], expected integers [2, 6, 8]"),
        ("0.quality", lambda t: t.float(), "0.quality is torch.float32 [100, 8], expected integers [100, 8]"),
        ("0.quality", lambda t: t.bool(), "0.quality is torch.bool"),
        ("0.quality", lambda t: t.to(torch.complex64), "0.quality is torch.complex64"),
        ("0.quality", lambda t: t.int() + 40000, "0.quality has values beyond ±{largest}"),
        ("0.embed", lambda t: torch.full_like(t, -(2**15)), "0.embed has values beyond ±{largest}"),
        ("0.first.shift", lambda t: t * 0, "0.first.shift is 0, expected 1..32"),
        ("0.first.shift", lambda t: t * 0 + 33, "0.first.shift is 33, expected 1..32"),
        ("0.first.weight", lambda t: t.long() << 40, "layer 0.first can reach"),
        ("1.context.1.bias", lambda _: torch.zeros(8), "unexpected tensors: 1.context.1.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tensors: dict[str, Tensor], config: PriorConfig, name: str, change: object, message: str
) -> None:
    changed = dict(tensors)
    if callable(change):
        changed[name] = change(tensors.get(name))
    else:
        del changed[name]
    with pytest.raises(WeightsError) as caught:
        FixedPrior(changed, TINY, config)
    arithmetic = ARITHMETIC[config.sum_bits]
    message = message.replace("{largest}", str(arithmetic.activation_max)).replace("{stored}", str(arithmetic.stored))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
