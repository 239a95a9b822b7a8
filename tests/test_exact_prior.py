"""The prior in integers: both sides see the same frequencies, at the cost of the float form."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.prior_support import NARROW, TINY
from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import VqcodecError
from vqcodec.exact import prior as prior_module
from vqcodec.exact.arithmetic import FREQUENCIES
from vqcodec.exact.kernels import ADDMM, FBGEMM, ONEDNN, Kernel, Linear
from vqcodec.exact.prior import FixedPrior
from vqcodec.exact.wavefront import Wavefront
from vqcodec.geometry import Geometry
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN

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
    """A ``choose`` that returns known codes and records the frequencies of every row and stage."""

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

    def observe(self, first: int, last: int, stage: int, frequencies: Frequencies) -> None:
        self.choose(first, last, stage, frequencies)


def visit(prior: FixedPrior, codes: list[Codes], quality: int = 50, *, known: bool) -> list[Recorder]:
    """Run every level as the encoder (``known``) or as the decoder does."""
    recorders = []
    states: list[Tensor] = []
    for index, grid in enumerate(codes):
        recorder = Recorder(grid, prior.model.levels[index].stages)
        if known:
            states = prior.evaluate(index, recorder.wavefront, grid[None], [quality], states, recorder.observe)
        else:
            found, states = prior.decode(index, recorder.wavefront, [quality], states, recorder.choose)
            np.testing.assert_array_equal(found, grid[None])
        recorders.append(recorder)
    return recorders


def assert_same(a: list[Recorder], b: list[Recorder]) -> None:
    for one, other in zip(a, b, strict=True):
        for stage, frequencies in one.frequencies.items():
            np.testing.assert_array_equal(frequencies, other.frequencies[stage])


def test_sequential_steps_of_the_decoder() -> None:
    model = ModelConfig(levels=(LevelConfig(16, 2, 2, 4, 2),), widths=(8, 8, 8), blocks=(1, 1, 1))
    config = PriorConfig(4, 1, 1)
    prior = FixedPrior(fixed_point(network(model, config)), model, config)
    (recorder,) = visit(prior, random_codes(model, [(64, 96)]), known=False)
    assert len(recorder.calls) == 2 * (96 + 2 * 63)
    assert len({first for first, _, _ in recorder.calls}) == 222


@pytest.mark.parametrize("shapes", [SHAPES, [(1, 1), (2, 2)], [(1, 9), (2, 18)], [(9, 1), (18, 2)]])
@pytest.mark.parametrize("chunk", [None, 1, 17])
@pytest.mark.parametrize("few", [None, 3])  # steps of more rows are padded
def test_encoder_and_decoder_see_the_same_frequencies(
    shapes: list[tuple[int, int]], chunk: int | None, few: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
    codes = random_codes(TINY, shapes)
    encoder = visit(prior, codes, known=True)
    if few:
        monkeypatch.setattr(prior_module, "padded_rows", lambda rows: rows if rows <= few else -(-rows // 8) * 8)
    decoder = visit(prior, codes, known=False)
    assert_same(encoder, decoder)
    prior.chunk = chunk or prior.chunk
    encoder = visit(prior, codes, known=True)
    assert_same(encoder, decoder)
    for recorder, level in zip(decoder, TINY.levels, strict=True):
        assert len(recorder.calls) == level.stages * len(recorder.wavefront.spans)
        for frequencies in recorder.frequencies.values():
            assert (frequencies.max(2) == FREQUENCIES[0]).all()
            assert set(np.unique(frequencies)) <= set(FREQUENCIES)


def test_the_default_model_with_one_thread_two_threads_and_in_one_go() -> None:
    model, config = ModelConfig(), PriorConfig()
    prior = FixedPrior(fixed_point(network(model, config)), model, config)
    codes = random_codes(model, Geometry(5 * model.strides[0], 7 * model.strides[0], model.strides).grids)
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


def test_all_kernels_give_the_same_integers() -> None:
    codes = random_codes(TINY, SHAPES)
    tensors = fixed_point(network())
    choices: list[list[Kernel]] = [[FBGEMM, ONEDNN], [ONEDNN], [ADDMM]]
    choices.append([dataclasses.replace(FBGEMM, most_rows=3), ADDMM])
    first, *others = (
        visit(FixedPrior(tensors, TINY, NARROW, kernels=kernels), codes, known=False) for kernels in choices
    )
    for other in others:
        assert_same(first, other)


def test_the_state_of_zeros_is_that_of_the_long_way() -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
    for height, width in [(5, 7), (1, 1), (9, 2), (40, 70)]:
        grid = np.zeros((1, 2, height, width), np.int64)
        (expected,) = prior.evaluate(0, Wavefront(height, width), grid, [30], [], lambda *_: None)
        assert torch.equal(prior.zero_state(0, height, width, 30, None), expected)


def test_the_state_of_zeros_on_top_of_any_state() -> None:
    model = dataclasses.replace(TINY, levels=(*TINY.levels, TINY.levels[1]))
    prior = FixedPrior(fixed_point(network(model)), model, NARROW)
    coarse, zeros = random_codes(TINY, SHAPES)[0][None], np.zeros((1, 4, *SHAPES[1]), np.int64)
    first, second = (prior.evaluate(0, Wavefront(*SHAPES[0]), coarse, [30], [], lambda *_: None) for _ in range(2))
    (expected,) = prior.evaluate(1, Wavefront(*SHAPES[1]), zeros, [30], first, lambda *_: None)
    assert torch.equal(prior.zero_state(1, *SHAPES[1], 30, second[0]), expected)


def test_decoding_takes_one_thread_and_leaves_the_number_as_it_was() -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        recorder = Recorder(random_codes(TINY, SHAPES)[0], 1)

        def choose(first: int, last: int, stage: int, frequencies: Frequencies) -> Codes:
            seen.append(torch.get_num_threads())
            return recorder.choose(first, last, stage, frequencies)

        prior.decode(0, recorder.wavefront, [50], [], choose)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_callers_autocast_does_not_round_the_integers() -> None:
    prior = FixedPrior(fixed_point(network()), TINY, NARROW)
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
