"""Search through the codec: a smaller J, files that every reader decodes, the same bytes each time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.plain_reader import read_codes
from vqcodec.codec import SURE, Codec
from vqcodec.config import EFFORT_MAX
from vqcodec.errors import Cancelled
from vqcodec.exact import entropy
from vqcodec.search import ROUNDS, Found, Search
from vqcodec.weights import find_weights

Pixels = NDArray[np.uint8]


def cost(codec: Codec, pixels: Pixels, data: bytes) -> float:
    file, _ = codec.read(data)
    seen = codec.decompress(data)
    distortion = np.square(pixels.astype(np.float64) - seen).sum() / pixels.shape[2]
    return float(8 * sum(map(len, file.levels)) + codec.model.lmbda(file.quality) * distortion)


def test_steps_rise_with_effort() -> None:
    assert len(ROUNDS) == EFFORT_MAX + 1
    total = [sum(rounds) for rounds in ROUNDS]
    assert total == sorted(set(total))
    assert total[0] == 0


@pytest.mark.parametrize(("quality", "share"), [(10, 0.995), (75, 0.99)])
def test_search_lowers_the_cost(codec: Codec, photograph: Pixels, quality: int, share: float) -> None:
    costs = [cost(codec, photograph, codec.compress(photograph, quality, effort=e)) for e in (0, 2, 5)]
    assert max(costs[1:]) < share * costs[0]


def test_coarse_levels_are_searched_at_high_efforts(codec: Codec, photograph: Pixels) -> None:
    files = [codec.compress(photograph, 40, effort=effort) for effort in (0, 4, 7)]
    coarse = [codec.read(file)[1][:-1] for file in files]
    assert all(np.array_equal(a, b) for a, b in zip(coarse[0], coarse[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(coarse[0], coarse[2], strict=True))
    assert cost(codec, photograph, files[2]) < cost(codec, photograph, files[1])


def test_the_same_bytes_each_time_in_any_mode(codec: Codec, photograph: Pixels) -> None:
    data = codec.compress(photograph, 40, effort=2)
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert codec.compress(photograph, 40, effort=2) == data
    with torch.no_grad():
        assert codec.compress(photograph, 40, effort=2) == data
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in codec.vqvae.parameters())


@settings(max_examples=8)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    quality=st.integers(1, 100),
    effort=st.sampled_from([1, 2, 3, 6]),
    grey=st.booleans(),
    seed=st.integers(0, 9),
)
def test_files_of_every_effort_decode(
    codec: Codec, height: int, width: int, quality: int, effort: int, grey: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 1 if grey else 3), np.uint8)
    pixels = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    data = codec.compress(pixels, quality, effort=effort, check=True)
    assert codec.decompress(data).shape == pixels.shape
    plain = read_codes(data, find_weights(codec.fingerprint).read_bytes())
    assert all(np.array_equal(*pair) for pair in zip(plain, codec.read(data)[1], strict=True))
    assert cost(codec, pixels, data) <= cost(codec, pixels, codec.compress(pixels, quality, effort=0)) + 1e-6


def test_windows_are_searched_one_by_one(codec: Codec, photograph: Pixels) -> None:
    weights = codec._weights
    quality = 60
    codes = codec.encode(photograph, quality)
    searched = []
    for window in (1024, 64):
        search = Search(codec.vqvae, weights.prior_integers, weights.prior, bfloat16=False, window=window)
        found = search(photograph, codes, quality, 3).codes
        bits = sum(level.cross_entropy for level in entropy.encode(codec.prior, found, quality, measure=True))
        seen = codec.decode(found, quality, *photograph.shape[:2], grey=False)
        error = np.square(photograph.astype(np.float64) - seen).sum() / 3
        searched.append(bits + codec.model.lmbda(quality) * error)
    whole, parts = searched
    assert parts == pytest.approx(whole, rel=0.005)
    grown = search.memory(8_192, 8_192) - search.memory(4_096, 4_096)
    assert grown < 20 * (8_192**2 - 4_096**2), "only grids and pixels are held whole"


def test_search_can_be_cancelled_and_tells_its_progress(codec: Codec, photograph: Pixels) -> None:
    shares: list[float] = []
    codec.compress(photograph, 50, effort=4, progress=shares.append)
    steps = sum(ROUNDS[4])
    assert shares == [step / steps for step in range(steps)]
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > 12

    with pytest.raises(Cancelled):
        codec.compress(photograph, 50, effort=9, cancelled=cancelled)


@pytest.mark.parametrize("effort", [-1, 10, 2.5])
def test_other_efforts_are_refused(codec: Codec, photograph: Pixels, effort: int) -> None:
    with pytest.raises(ValueError, match=r"^effort is .*, expected a whole number from 0 to 9$"):
        codec.compress(photograph, effort=effort)


@pytest.mark.parametrize("estimate", [0.0, 1e9])
def test_a_search_that_loses_is_dropped(
    codec: Codec, photograph: Pixels, monkeypatch: pytest.MonkeyPatch, estimate: float
) -> None:
    def worse(pixels: Pixels, codes: list[NDArray[np.int16]], *_: object, **__: object) -> Found:
        return Found([(grid + 1) % 32 for grid in codes], before=1e4, distortion=estimate)

    monkeypatch.setattr(codec, "_search", worse)
    assert codec.compress(photograph, 50, effort=3) == codec.compress(photograph, 50, effort=0)


@pytest.mark.parametrize("quality", [5, 60, 98])
def test_estimates_are_off_by_less_than_what_counts_as_sure(codec: Codec, photograph: Pixels, quality: int) -> None:
    codes = codec.encode(photograph, quality)
    before = cost(codec, photograph, codec.compress(photograph, quality, effort=0))
    found = codec._search(photograph, codes, quality, 1)
    data = codec.compress(photograph, quality, effort=1)
    after = cost(codec, photograph, data)
    estimate = 8 * sum(map(len, codec.read(data)[0].levels)) + found.distortion
    assert abs(after / before - estimate / found.before) < (1 - SURE)
