"""The entropy coder: bytes of codes, a second decoder written from ``docs/format.md``, hostile bitstreams."""

import functools
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import FormatError
from vqcodec.exact.arithmetic import FREQUENCIES
from vqcodec.exact.entropy import SymbolReader, SymbolWriter, decode, encode
from vqcodec.exact.prior import FixedPrior
from vqcodec.exact.wavefront import Wavefront
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN

Codes = NDArray[np.int64]
Frequencies = NDArray[np.float64]

# Factors of 2, 1 and 4 between levels; one stage, several stages, and one stage per group.
TWO = ModelConfig(
    levels=(LevelConfig(8, groups=2, codebook_size=5, stages=1), LevelConfig(4, groups=4, codebook_size=9, stages=2)),
    widths=(8, 8),
    blocks=(1, 1),
)
THREE = ModelConfig(
    levels=(LevelConfig(16, 1, 1, 7, 1), LevelConfig(4, 3, 1, 2, 3), LevelConfig(4, 6, 1, 3, 2)),
    widths=(8, 8, 8),
    blocks=(1, 1, 1),
)
ONE = ModelConfig(levels=(LevelConfig(4, 3, 1, 4, 3),), widths=(8,), blocks=(1,))
PRIORS = {ONE: PriorConfig(5, 0, 1), TWO: PriorConfig(6, 2, 1), THREE: PriorConfig(4, 1, 2)}


@functools.cache
def integers(model: ModelConfig) -> dict[str, Tensor]:
    """Random integers of a prior, large enough to reach every clamp and the end of the frequency table."""
    torch.manual_seed(1)
    net = PixelCNN(model, PRIORS[model])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (1.5 if "table" in name or "heads" in name else 0.5))
    return fixed_point(net)


@functools.cache
def prior_of(model: ModelConfig) -> FixedPrior:
    return FixedPrior(integers(model), model, PRIORS[model])


def shapes_of(model: ModelConfig, height: int, width: int) -> list[tuple[int, int]]:
    """The grids of all levels, of which the coarsest is ``height`` by ``width``."""
    coarsest = model.levels[0].stride
    return [(height * coarsest // level.stride, width * coarsest // level.stride) for level in model.levels]


def random_codes(model: ModelConfig, height: int, width: int, seed: int = 0) -> list[Codes]:
    rng = np.random.default_rng(seed)
    levels = zip(model.levels, shapes_of(model, height, width), strict=True)
    return [rng.integers(level.codebook_size, size=(level.groups, *shape)) for level, shape in levels]


def likely_codes(prior: FixedPrior, height: int, width: int, quality: int, seed: int = 0) -> list[Codes]:
    """Codes drawn from the prior, distributed like those of a picture."""
    rng = np.random.default_rng(seed)

    def draw(_first: int, _last: int, _stage: int, frequencies: Frequencies) -> Codes:
        cumulative = frequencies.cumsum(2)
        drawn: Codes = (rng.random((*cumulative.shape[:2], 1)) * cumulative[:, :, -1:] >= cumulative).sum(2)
        return drawn

    codes = []
    states: list[Tensor] = []
    for index, shape in enumerate(shapes_of(prior.model, height, width)):
        (grid,), states = prior.decode(index, Wavefront(*shape), [quality], states, draw)
        codes.append(grid.astype(np.int64))
    return codes


def assert_round_trip(prior: FixedPrior, codes: list[Codes], quality: int) -> list[bytes]:
    bitstreams = [level.bitstream for level in encode(prior, codes, quality)]
    (decoded,) = decode(prior, [bitstreams], [grid.shape[1:] for grid in codes], [quality])
    for grid, again in zip(codes, decoded, strict=True):
        assert again.dtype == np.int16
        np.testing.assert_array_equal(again, grid)
    return bitstreams


# --- a second implementation, from docs/format.md alone: one position after the other, in Python and int64 ------------

A = 1023
Key = tuple[int, int, int]  # x, y, group


def _table() -> Iterator[int]:
    value = 2**22
    for i in range(1409):
        while value**64 > 2 ** (1408 - i):
            value -= 1
        yield value
    yield 0


F = list(_table())


class Level:
    """The prior of one level, for codes ``code[x, y, group]`` of which later ones may still be unknown."""

    def __init__(
        self, model: ModelConfig, index: int, shape: tuple[int, int], quality: int, before: "Level | None"
    ) -> None:
        names = {name.partition(".")[2]: name for name in integers(model) if name.startswith(f"{index}.")}
        self.tensors = {name: integers(model)[full].numpy().astype(np.int64) for name, full in names.items()}
        self.prior, self.level, self.quality, self.before = PRIORS[model], model.levels[index], quality, before
        self.factor = 1 if before is None else before.level.stride // self.level.stride
        self.height, self.width = shape
        self.code: dict[Key, int] = {}
        for method in ("embedding", "context", "carried", "h"):
            setattr(self, method, functools.cache(getattr(self, method)))

    def stage(self, t: int) -> range:
        size = self.level.groups // self.level.stages
        return range(t * size, (t + 1) * size)

    def order(self, key: Key) -> tuple[int, int, int, int]:
        x, y, group = key
        return x + 2 * y, group // len(self.stage(0)), y, group

    def symbols(self) -> list[Key]:
        return [(x, y, g) for y in range(self.height) for x in range(self.width) for g in range(self.level.groups)]

    def linear(self, name: str, x: Codes) -> Codes:
        shift = self.tensors[f"{name}.shift"]
        product = x @ self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        rounded: Codes = (product + 2 ** (shift - 1)) >> shift
        return rounded

    def around(self, vector: Callable[[int, int], Codes], x: int, y: int, taps: int) -> Codes:
        """The first ``taps`` of the nine neighbours in raster order, zero outside the grid."""
        near = [(i, j) for j in (y - 1, y, y + 1) for i in (x - 1, x, x + 1)][:taps]
        zero = np.zeros(self.prior.channels, np.int64)
        return np.concatenate([vector(i, j) if 0 <= i < self.width and 0 <= j < self.height else zero for i, j in near])

    def looked_up(self, table: str, x: int, y: int, groups: range) -> Codes:
        rows = [self.tensors[table][g, self.code[x, y, g]] for g in groups]
        total: Codes = np.sum(rows, axis=0).clip(-A, A)
        return total

    def embedding(self, x: int, y: int) -> Codes:
        return self.looked_up("embed", x, y, range(self.level.groups))

    def state(self, x: int, y: int) -> Codes:
        return (self.embedding(x, y) + self.context(x, y)).clip(-A, A)

    def context(self, x: int, y: int) -> Codes:
        context: Codes = self.tensors["quality"][self.quality - 1]
        if self.before is not None:
            f = self.factor
            spread = self.linear("spread", self.carried(self.prior.context_layers, x // f, y // f))
            context = context + spread.reshape(-1, f, f)[:, y % f, x % f]
        return context

    def carried(self, i: int, x: int, y: int) -> Codes:
        assert self.before is not None
        if i == 0:
            return self.before.state(x, y)
        near = self.before.around(functools.partial(self.carried, i - 1), x, y, 9)
        return self.linear(f"context.{i - 1}", near).clip(0, A)

    def h(self, i: int, x: int, y: int) -> Codes:
        if i == 0:
            return (self.linear("first", self.around(self.embedding, x, y, 4)) + self.context(x, y)).clip(0, A)
        below = functools.partial(self.h, i - 1)
        return (self.linear(f"layers.{i - 1}", self.around(below, x, y, 5)) + below(x, y)).clip(0, A)

    def frequencies(self, x: int, y: int, group: int) -> list[int]:
        t = group // len(self.stage(0))
        r = self.linear("hidden", self.h(self.prior.layers, x, y)).reshape(self.level.stages, -1)[t]
        for earlier in range(t):
            r = r + self.looked_up("inner", x, y, self.stage(earlier))
        logits = self.linear(f"heads.{t}", r.clip(0, A)).reshape(len(self.stage(t)), -1)
        row = logits[group - self.stage(t).start].tolist()
        return [F[min(max(row) - a, 1409)] for a in row]


def levels_of(model: ModelConfig, shapes: list[tuple[int, int]], quality: int) -> list[Level]:
    levels: list[Level] = []
    for index, shape in enumerate(shapes):
        levels.append(Level(model, index, shape, quality, levels[-1] if levels else None))
    return levels


def edges(frequencies: list[int]) -> list[int]:
    """L_0 … L_K."""
    count = len(frequencies)
    scale = (2**24 - count) / sum(frequencies)
    return [*(int(scale * sum(frequencies[:k])) + k for k in range(count)), 2**24]


def reference_bitstream(coded: list[tuple[int, list[int]]]) -> bytes:
    """The bitstream of codes, each with its frequencies."""
    size, low, n = 2**64 - 1, 0, 0
    for code, frequencies in coded:
        begin, end = edges(frequencies)[code : code + 2]
        unit = size // 2**24
        low, size = low + unit * begin, unit * (end - begin)
        if size < 2**32:
            size, low, n = size * 2**32, low * 2**32, n + 1
    return ((low + 2**32 - 1) // 2**32).to_bytes(4 * (n + 1), "big").rstrip(b"\0")


class ReferenceReader:
    def __init__(self, bitstream: bytes) -> None:
        self.bytes = itertools.chain(bitstream, itertools.repeat(0))
        self.size, self.offset = 2**64 - 1, self.take(8)

    def take(self, count: int) -> int:
        return int.from_bytes(itertools.islice(self.bytes, count), "big")

    def code(self, frequencies: list[int]) -> int:
        begins, unit = edges(frequencies), self.size // 2**24
        code = next(k for k in range(len(frequencies)) if self.offset // unit < begins[k + 1])
        self.offset -= unit * begins[code]
        self.size = unit * (begins[code + 1] - begins[code])
        if self.size < 2**32:
            self.size, self.offset = self.size * 2**32, self.offset * 2**32 + self.take(4)
        return code


def frequencies_seen(prior: FixedPrior, codes: list[Codes], quality: int) -> list[dict[Key, list[int]]]:
    """The frequencies that the prior gives to a decoder of ``codes``."""
    levels: list[dict[Key, list[int]]] = []
    states: list[Tensor] = []
    for index, grid in enumerate(codes):
        _, height, width = grid.shape
        seen: dict[Key, list[int]] = {}

        def choose(
            first: int,
            last: int,
            stage: int,
            frequencies: Frequencies,
            grid: Codes,
            raster: Codes,
            seen: dict[Key, list[int]],
        ) -> Codes:
            y, x = np.divmod(raster[first:last], grid.shape[2])
            groups = stage * frequencies.shape[1] + np.arange(frequencies.shape[1])
            for row, j in np.ndindex(frequencies.shape[:2]):
                seen[int(x[row]), int(y[row]), int(groups[j])] = frequencies[row, j].astype(int).tolist()
            codes: Codes = grid[groups[None], y[:, None], x[:, None]]
            return codes

        wavefront = Wavefront(height, width)
        look_up = functools.partial(choose, grid=grid, raster=wavefront.raster, seen=seen)
        _, states = prior.decode(index, wavefront, [quality], states, look_up)
        levels.append(seen)
    return levels


CASES = [(ONE, 1, 1), (ONE, 6, 9), (TWO, 1, 1), (TWO, 1, 4), (TWO, 4, 1), (TWO, 3, 5), (THREE, 2, 2), (THREE, 1, 3)]


@pytest.mark.parametrize(("model", "height", "width"), CASES)
def test_reference_in_raster_order_agrees(model: ModelConfig, height: int, width: int) -> None:
    prior, shapes = prior_of(model), shapes_of(model, height, width)
    codes = likely_codes(prior, height, width, 30)
    bitstreams = assert_round_trip(prior, codes, 30)
    seen = frequencies_seen(prior, codes, 30)
    for level, grid, frequencies, bitstream in zip(levels_of(model, shapes, 30), codes, seen, bitstreams, strict=True):
        coded = {}
        for x, y, g in level.symbols():
            expected = level.frequencies(x, y, g)
            assert frequencies.pop((x, y, g)) == expected
            level.code[x, y, g] = int(grid[g, y, x])
            coded[x, y, g] = (level.code[x, y, g], expected)
        assert not frequencies
        assert bitstream == reference_bitstream([coded[key] for key in sorted(coded, key=level.order)])


@pytest.mark.parametrize(("model", "height", "width"), CASES)
def test_reference_decodes(model: ModelConfig, height: int, width: int) -> None:
    codes = random_codes(model, height, width)
    coded = encode(prior_of(model), codes, 99)
    levels = levels_of(model, shapes_of(model, height, width), 99)
    for level, grid, result in zip(levels, codes, coded, strict=True):
        reader = ReferenceReader(result.bitstream)
        for key in sorted(level.symbols(), key=level.order):
            level.code[key] = reader.code(level.frequencies(*key))
        assert level.code == {(x, y, g): grid[g, y, x] for x, y, g in level.symbols()}


def test_reference_table_is_the_shipped_one() -> None:
    assert tuple(F) == FREQUENCIES


def test_the_example_of_the_format(root: Path) -> None:
    example = re.findall(r"```hex\n(.*?)```", (root / "docs/format.md").read_text(encoding="utf-8"), re.DOTALL)[-1]
    frequencies = [4194304, 2097152, 0, 1]
    assert edges(frequencies) == [0, 11184807, 16777211, 16777212, 16777216]
    assert write([(code, frequencies) for code in range(4)]).hex(" ") == example.strip()


def test_frozen_bytes() -> None:
    """Integers computed without a random generator, so that only a change of the format can change the bytes."""
    frozen = (
        "6975be4fd8e5665700000000db2bd2df3572fb0e84d26583d0627a3db1833cb00025baeb319f54280800000006db9de2fbd73aa4"
        "ca6241b44e4ba3be36331a5821e18648af376fd4"
    )
    model = ModelConfig(levels=(LevelConfig(4, 2, 1, 5, 2),), widths=(8,), blocks=(1,))
    config = PriorConfig(3, 1, 1)
    tensors = fixed_point(PixelCNN(model, config))
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        pattern = (torch.arange(tensor.numel()) * 7919 + number * 104729) % 251 - 251 // 2
        tensors[name] = torch.full_like(tensor, 6) if name.endswith("shift") else pattern.view(tensor.shape)
    codes = np.arange(2 * 4 * 6).reshape(2, 4, 6) ** 2 // 3 % 5
    (bitstream,) = assert_round_trip(FixedPrior(tensors, model, config), [codes], 42)
    assert bitstream.hex() == frozen


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    model=st.sampled_from([ONE, TWO, THREE]),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    quality=st.integers(1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(model: ModelConfig, height: int, width: int, quality: int, seed: int) -> None:
    codes = random_codes(model, height, width, seed)
    bitstreams = assert_round_trip(prior_of(model), codes, quality)
    assert [level.bitstream for level in encode(prior_of(model), codes, quality)] == bitstreams
    assert not any(bitstream.endswith(b"\0") for bitstream in bitstreams)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (2, 30), (30, 2), (23, 17)])
def test_round_trip_of_long_and_thin_grids(height: int, width: int) -> None:
    assert_round_trip(prior_of(ONE), random_codes(ONE, height, width), 75)


def test_chunks_change_no_byte() -> None:
    codes = likely_codes(prior_of(TWO), 7, 9, 50)
    whole = assert_round_trip(prior_of(TWO), codes, 50)
    prior = FixedPrior(integers(TWO), TWO, PRIORS[TWO])
    for size in (1, 5, 64):
        prior.chunk = size
        assert assert_round_trip(prior, codes, 50) == whole


def test_one_and_two_threads_with_the_default_model() -> None:
    model, config = ModelConfig(), PriorConfig()
    torch.manual_seed(0)
    prior = FixedPrior(fixed_point(PixelCNN(model, config)), model, config)
    codes = random_codes(model, 4, 6)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        bitstreams = [level.bitstream for level in encode(prior, codes, 75)]
        torch.set_num_threads(2)
        assert assert_round_trip(prior, codes, 75) == bitstreams
    finally:
        torch.set_num_threads(threads)


def test_another_instruction_set_makes_and_reads_the_same_bytes(tmp_path: Path) -> None:
    """torch's plain kernels and MKL's most compatible ones, against the best that this machine has."""
    codes = likely_codes(prior_of(TWO), 6, 8, 10)
    bitstreams = assert_round_trip(prior_of(TWO), codes, 10)
    torch.save((integers(TWO), [torch.from_numpy(grid) for grid in codes]), tmp_path / "case.pt")
    code = f"""
import sys, torch
from vqcodec.exact import entropy
from vqcodec.config import *
from vqcodec.exact.prior import FixedPrior
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
model, config = {TWO!r}, {PRIORS[TWO]!r}
integers, codes = torch.load(sys.argv[1])
prior, codes = FixedPrior(integers, model, config), [grid.numpy() for grid in codes]
bitstreams = [level.bitstream for level in entropy.encode(prior, codes, 10)]
(decoded,) = entropy.decode(prior, [bitstreams], [grid.shape[1:] for grid in codes], [10])
assert all((a == b).all() for a, b in zip(codes, decoded, strict=True))
print(*(bitstream.hex() for bitstream in bitstreams))
"""
    code = code.replace("import *", "import LevelConfig, ModelConfig, PriorConfig")
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, str(tmp_path / "case.pt")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [bitstream.hex() for bitstream in bitstreams]


@pytest.mark.parametrize(("model", "height", "width"), [(ONE, 40, 50), (TWO, 16, 20)])
def test_payload_is_the_cross_entropy(model: ModelConfig, height: int, width: int) -> None:
    torch.manual_seed(0)
    net = PixelCNN(model, PRIORS[model])
    net.start_from([torch.rand(level.groups, level.codebook_size).square() for level in model.levels])
    prior = FixedPrior(fixed_point(net), model, PRIORS[model])
    codes = likely_codes(prior, height, width, 50)
    levels = zip(encode(prior, codes, 50, measure=True), frequencies_seen(prior, codes, 50), codes, strict=True)
    for level, seen, grid in levels:
        shares = [seen[x, y, g][code] / sum(seen[x, y, g]) for (g, y, x), code in np.ndenumerate(grid)]
        assert level.bits is not None
        assert level.bits == pytest.approx(-np.log2(shares).reshape(grid.shape))
        assert level.cross_entropy == level.bits.sum()
        theory = level.cross_entropy / 8
        assert 100 < theory - 1 < len(level.bitstream) < theory * 1.005 + 8


def test_a_code_of_frequency_zero_can_be_coded() -> None:
    frequencies = np.array([[[4194304.0, 0, 0]]])
    writer = SymbolWriter(np.full((1, 1, 1), 2), Wavefront(1, 1), 1, measure=True)
    writer.write(0, 1, 0, frequencies)
    coded = writer.finish()
    assert coded.cross_entropy == 23
    assert read(coded.bitstream, [[4194304, 0, 0]]) == [2]


# --- streams of a few codes, and hostile ones -------------------------------------------------------------------------


def write(coded: list[tuple[int, list[int]]]) -> bytes:
    """The coder's bytes for codes, each with its frequencies."""
    count = len(coded)
    writer = SymbolWriter(np.array([[[code for code, _ in coded]]]), Wavefront(1, count), 1, measure=False)
    writer.write(0, count, 0, np.array([[frequencies] for _, frequencies in coded], np.float64))
    return writer.finish().bitstream


def read(bitstream: bytes, rows: list[list[int]]) -> list[int]:
    reader = SymbolReader(bitstream, "level 0")
    codes = [reader.read(np.array([[row]], np.float64))[0, 0] for row in rows]
    reader.finish()
    return codes


def test_thousands_of_tiny_streams() -> None:
    """Every bitstream equals the reference's and decodes completely, with any number of zero bytes left out."""
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(4000):
        count, size = int(rng.integers(1, 9)), int(rng.integers(2, 6))
        rows = rng.choice(FREQUENCIES, size=(count, size)).tolist()
        for row in rows:
            row[rng.integers(size)] = FREQUENCIES[0]
        codes = rng.integers(size, size=count).tolist() if rng.random() < 0.5 else np.argmax(rows, 1).tolist()
        bitstream = write(list(zip(codes, rows, strict=True)))
        lengths.add(len(bitstream))
        assert bitstream == reference_bitstream(list(zip(codes, rows, strict=True)))
        assert read(bitstream, rows) == codes
    assert lengths >= {0, 3, 4, 7, 8, 11, 12}


def test_certain_codes_cost_nothing() -> None:
    assert write([(0, [4194304, 0])] * 8) == b""
    assert read(b"", [[4194304, 0]] * 8) == [0] * 8


def test_all_ones_and_carries() -> None:
    last = [1, 4194304]
    for count in range(1, 40):
        bitstream = write([(1, last)] * count + [(0, last)])
        assert bitstream == reference_bitstream([(1, last)] * count + [(0, last)])
        assert read(bitstream, [last] * (count + 1)) == [1] * count + [0]
    with pytest.raises(FormatError, match="level 0 has a bitstream that stands for no codes"):
        read(b"\xff" * 8, [last])


def test_bytes_that_a_writer_leaves_out_or_never_makes_are_refused() -> None:
    coded = [(1, [4194304, 2097152])] * 30
    bitstream, rows = write(coded), [row for _, row in coded]
    with pytest.raises(FormatError, match="level 0 ends with a zero byte"):
        read(bitstream + b"\0", rows)
    with pytest.raises(FormatError, match="level 0 has bytes left after its last code"):
        read(bitstream + b"123456789", rows)
    with pytest.raises(FormatError, match="level 0 has bytes left after its last code"):
        read(bitstream, rows[:1])


def attempt(model: ModelConfig, bitstreams: list[bytes], height: int, width: int) -> list[NDArray[np.int16]] | str:
    """Codes, or the message of a FormatError; anything else fails the test."""
    try:
        return decode(prior_of(model), [bitstreams], shapes_of(model, height, width), [50])[0]
    except FormatError as error:
        return str(error)


@settings(max_examples=150)
@given(model=st.sampled_from([ONE, TWO]), data=st.lists(st.binary(max_size=40), min_size=2, max_size=2))
def test_garbage_gives_codes_or_a_format_error(model: ModelConfig, data: list[bytes]) -> None:
    result = attempt(model, data[: len(model.levels)], 2, 3)
    if isinstance(result, str):
        assert re.fullmatch(r"level [01] (has|ends with) .*", result)
    else:
        for grid, level, shape in zip(result, model.levels, shapes_of(model, 2, 3), strict=True):
            assert grid.shape == (level.groups, *shape)
            assert 0 <= grid.min() <= grid.max() < level.codebook_size


def test_truncations_and_flipped_bytes_give_codes_or_a_format_error() -> None:
    coarse, fine = (level.bitstream for level in encode(prior_of(TWO), random_codes(TWO, 1, 2), 50))
    cases = [fine[:end] for end in range(len(fine))]
    cases += [fine[:i] + bytes([fine[i] ^ 0x40]) + fine[i + 1 :] for i in range(len(fine))]
    results = [attempt(TWO, [coarse, case], 1, 2) for case in cases]
    assert {type(result) for result in results} == {list, str}


# --- levels without bytes ---------------------------------------------------------------------------------------------


def decode_step_by_step(prior: FixedPrior, bitstreams: list[bytes], height: int, width: int) -> list[NDArray[np.int16]]:
    """Codes as the range decoder reads them, position by position, from empty bitstreams too."""
    codes = []
    states: list[Tensor] = []
    for index, shape in enumerate(shapes_of(prior.model, height, width)):
        reader = SymbolReader(bitstreams[index], f"level {index}")
        wavefront = Wavefront(*shape)
        (grid,), states = prior.decode(
            index, wavefront, [50], states, lambda *step, reader=reader: reader.read(step[3])
        )
        reader.finish()
        codes.append(grid)
    return codes


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (3, 4)])
@pytest.mark.parametrize("empty", [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}])
def test_an_empty_level_is_filled_with_what_the_range_decoder_reads(height: int, width: int, empty: set[int]) -> None:
    prior, codes = prior_of(THREE), random_codes(THREE, height, width)
    for index in empty:
        codes[index][:] = 0
    bitstreams = assert_round_trip(prior, codes, 50)
    assert {index for index, bitstream in enumerate(bitstreams) if not bitstream} >= empty
    for grid, slow in zip(codes, decode_step_by_step(prior, bitstreams, height, width), strict=True):
        np.testing.assert_array_equal(slow, grid)


def test_pictures_with_different_empty_levels_are_decoded_together() -> None:
    prior = prior_of(THREE)
    pictures = []
    for seed, empty in enumerate([set(), {0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}]):
        codes = random_codes(THREE, 2, 3, seed)
        for index in empty:
            codes[index][:] = 0
        pictures.append(codes)
    qualities = list(range(10, 80, 10))
    coded = [
        [level.bitstream for level in encode(prior, codes, quality)]
        for codes, quality in zip(pictures, qualities, strict=True)
    ]
    for count in (1, 2, 3):  # all levels, and previews
        shapes = shapes_of(THREE, 2, 3)[:count]
        decoded = decode(prior, [bitstreams[:count] for bitstreams in coded], shapes, qualities)
        for codes, found in zip(pictures, decoded, strict=True):
            assert len(found) == count
            for grid, again in zip(codes, found, strict=False):
                assert again.dtype == np.int16
                np.testing.assert_array_equal(again, grid)


def test_nothing_is_computed_for_a_file_without_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("decode", "evaluate", "zero_state"):
        monkeypatch.setattr(FixedPrior, name, None)
    (codes,) = decode(prior_of(THREE), [[b""] * 3], shapes_of(THREE, 500, 700), [50])
    assert [grid.shape[1:] for grid in codes] == shapes_of(THREE, 500, 700)
    assert not any(grid.any() for grid in codes)


@settings(max_examples=200)
@given(
    rows=st.integers(2, 6).flatmap(
        lambda k: st.lists(st.lists(st.sampled_from(FREQUENCIES), min_size=k, max_size=k), min_size=1, max_size=8)
    )
)
def test_zeros_are_code_0_whatever_the_frequencies(rows: list[list[int]]) -> None:
    for row in rows:
        row[-1] = FREQUENCIES[0]  # as every group has
        row[0] = 0  # the least likely possible code
    assert read(b"", rows) == [0] * len(rows)
    assert write([(0, row) for row in rows]) == b""
    reader = ReferenceReader(b"")
    assert [reader.code(row) for row in rows] == [0] * len(rows)
