r"""The prior in integers: the form that codes files, the same on every device.

::

    coarser level's state ── context layers ── spread ──▶ c [N, C] ┐  in chunks
    quality ───────────────────── table ────────▶ q [C] ───────────┤
                                                                   ▼          one wavefront step after another:
    codes ── embed ──▶ v ── gather 4 taps, first ──▶ h_0 ── gather 5 taps, layer ── + ──▶ h_L ── hidden ──▶ z_s
      ▲                                                                                                      │
      └────────────── choose ◀── frequencies [n, G/S, K] ◀── table ◀── heads ◀── + earlier groups' inner ◀───┘

Legend: N = H·W positions, C channels, G groups, K codewords, S stages, n rows of a step; the network is that of
:mod:`vqcodec.networks.pixelcnn`. Rows of every buffer are in the order of :mod:`vqcodec.exact.wavefront`; all layers
are those of :mod:`vqcodec.exact.arithmetic`, whose bound is proved from Σ|w| when the form is made and when it is
loaded.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.config import QUALITY_MAX, QUALITY_MIN, LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import VqcodecError, WeightsError
from vqcodec.exact.arithmetic import ARITHMETIC, FEW, FREQUENCIES, OCTAVE_BITS, Arithmetic, Linear
from vqcodec.exact.wavefront import Wavefront, chunks, merge

__all__ = ["Choose", "Codes", "FixedPrior", "bound"]

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
MAX_SHIFT = 32

ALIGN = 32  # rows
CHUNK = 1024  # rows computed in one go where nothing forces single steps; bounds memory
STATE = torch.int16  # holds every activation in half the memory of a float32


def bound(arithmetic: Arithmetic, weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """The largest that a sum, or a part of it, of each output ``[out]`` can become for inputs in range."""
    return weight.abs().sum(0) * arithmetic.activation_max + bias.abs() + 2 ** (shift - 1)


Codes = NDArray[np.int16]
"""Codes, which are below 4096, wherever there are many of them."""

Choose = Callable[[int, int, int, NDArray[np.float64]], NDArray[np.integer[Any]]]
"""``choose(first_row, last_row + 1, stage, frequencies [n, G/S, K]) -> codes [n, G/S]``."""


class FixedPrior:
    """The exact integer form, made by :func:`vqcodec.train.fixed_point.fixed_point`; codes files.

    Args:
        tensors: integers by name, as ``fixed_point`` returns them.
        model, config: what they belong to.
        device: any; the integers that come out are the same.

    Raises WeightsError if a tensor is missing or misshapen, or if a layer's sums could leave the exact integers.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        model: ModelConfig,
        config: PriorConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.config = model, config
        self.device = torch.device(device)
        self.arithmetic = ARITHMETIC[config.sum_bits]
        self._frequencies = torch.tensor(FREQUENCIES, dtype=torch.float64, device=self.device)
        self._probe = self._make_probe()
        self._remaining = dict(tensors)
        self._levels = [self._load(i, level) for i, level in enumerate(model.levels)]
        if self._remaining:
            raise WeightsError(f"prior has unexpected tensors: {', '.join(sorted(self._remaining))}")

    def code_level(
        self,
        index: int,
        height: int,
        width: int,
        qualities: Sequence[int],
        coarser: Tensor | None,
        choose: Choose,
        *,
        known: NDArray[np.integer[Any]] | None = None,
        poll: Callable[[], None] = lambda: None,
    ) -> tuple[Codes, Tensor | None]:
        """Visit every position of a level of B pictures, in coding order, and learn its codes from ``choose``.

        Args:
            index: the level, 0 the coarsest.
            height, width: of its grid, the same for all pictures.
            qualities: of the B pictures, 1..100.
            coarser: the state that this function returned for the level before, which is used up; None for level 0.
            choose: given the frequencies of a stage's codes at some rows, returns the codes: the encoder
                looks them up, the decoder reads them from the bitstream. The frequencies are overwritten after the
                call for the last stage of these rows.
            known: the codes ``[B, G, H, W]``, where the caller has them. The same sums are then done for many
                wavefront steps in one go, which changes no integer.
            poll: called every few milliseconds; what it raises ends the work.

        Returns the codes ``[B, G, H, W]`` and, for the next finer level if there is one, the level's state
        ``[B, H, W, C]``.
        Raises VqcodecError where torch was told to multiply with less precision than the integers need.
        """
        # Nor may a caller's autocast round the integers.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            self._check_products()
            return self._code_level(index, height, width, qualities, coarser, choose, known, poll)

    def _make_probe(self) -> Linear:
        inputs = 512
        largest = int(self.arithmetic.exact / inputs / self.arithmetic.activation_max)
        options: dict[str, Any] = {"dtype": self.arithmetic.dtype, "device": self.device}
        weight = torch.full((inputs, 16), float(largest), **options)
        return Linear(weight, torch.ones(16, **options))

    def _check_products(self) -> None:
        """One small product whose sums come as close to the bound as any."""
        probe = self._probe
        largest = self.arithmetic.activation_max
        x = torch.full((FEW + 1, len(probe.weight)), float(largest), dtype=self.arithmetic.dtype, device=self.device)
        expected = len(probe.weight) * largest * probe.weight[0] + probe.bias
        if not torch.equal(probe.product(x), expected.expand(len(x), -1)):
            raise VqcodecError(
                "torch multiplies matrices with less than their precision here, which codes cannot bear; "
                'torch.set_float32_matmul_precision("highest") mends that'
            )

    def _code_level(
        self,
        index: int,
        height: int,
        width: int,
        qualities: Sequence[int],
        coarser: Tensor | None,
        choose: Choose,
        known: NDArray[np.integer[Any]] | None,
        poll: Callable[[], None],
    ) -> tuple[Codes, Tensor | None]:
        level, ceiling = self._levels[index], self.arithmetic.activation_max
        wavefront = Wavefront(height, width, len(qualities))
        positions = len(qualities) * height * width
        context = self._context(level, wavefront, qualities, coarser, poll)
        codes = np.zeros((positions, level.groups), dtype=np.int16)
        spans = wavefront.spans
        if known is not None:
            codes[:] = known.swapaxes(0, 1).reshape(level.groups, -1).T[wavefront.raster]
            spans = merge(spans, CHUNK)
        longest, steps = _plan(wavefront, spans, self.device)
        ring = 4 * longest + 1, self.config.channels
        embedded, *hidden = (context.new_zeros(ring) for _ in range(self.config.layers + 1))
        scratch = _Scratch(level, longest, self.device)
        for step in steps:
            poll()
            here, own = slice(step.first, step.last), step.own
            if known is not None:
                embedded[own] = level.embed(codes[here])
            x = embedded.index_select(0, step.before).view(step.full, -1)
            h = level.first(x)
            h[: step.rows].add_(context[here])
            h.clamp_(0, ceiling)
            for layer, buffer in zip(level.layers, hidden, strict=True):
                buffer[own] = h[: step.rows]
                x = buffer.index_select(0, step.around).view(step.full, -1)
                h = layer(x).add_(h).clamp_(0, ceiling)
            self._choose_codes(level, step, h, choose, scratch, codes)
            if known is None:
                embedded[own] = level.embed(codes[here])
            if index + 1 < len(self._levels):
                context[here].add_(embedded[own])
        grid = np.empty_like(codes)
        grid[wavefront.raster] = codes
        del codes
        found = grid.reshape(-1, height, width, level.groups).transpose(0, 3, 1, 2)
        if index + 1 == len(self._levels):
            return found, None
        state = torch.empty(context.shape, dtype=STATE, device=self.device)
        raster = torch.from_numpy(wavefront.raster).to(self.device)
        for first, last in chunks(positions, CHUNK):
            poll()
            state[raster[first:last]] = context[first:last].clamp_(-ceiling, ceiling).to(STATE)
        return found, state.view(len(qualities), height, width, -1)

    def _choose_codes(
        self, level: "_Level", step: "_Step", h: Tensor, choose: Choose, scratch: "_Scratch", codes: Codes
    ) -> None:
        """The codes of a step, stage by stage, into the rows of ``codes [N, G]``; ``h [full, C]`` knows all before."""
        ceiling, room = self.arithmetic.activation_max, scratch.of(step.rows)
        hiddens = level.hidden(h).chunk(level.stages, 1)
        news: Tensor | None = None
        for stage, head in enumerate(level.heads):
            z = hiddens[stage] if news is None else hiddens[stage] + news
            logits = head(z.clamp(0, ceiling))[: step.rows]
            found = choose(step.first, step.last, stage, self._to_frequencies(logits, room[stage]))
            codes[step.first : step.last, level.groups_of[stage]] = found
            if stage + 1 < level.stages:
                inner = level.inner[stage](found)
                if step.full > step.rows:
                    inner = F.pad(inner, (0, 0, 0, step.full - step.rows))
                news = inner if news is None else news.add_(inner)

    def _to_frequencies(self, logits: Tensor, room: "_Room") -> NDArray[np.float64]:
        """Integer frequencies of logits in 64ths of a bit: 2^(22 − gap to the largest of a group), from the table."""
        logits = logits.view(room.shape)
        gap = torch.sub(logits.amax(1, keepdim=True), logits, out=logits).clamp_(max=len(FREQUENCIES) - 1)
        room.index.copy_(gap.view(-1))
        torch.index_select(self._frequencies, 0, room.index, out=room.frequencies)
        if room.host is not None:
            room.host.copy_(room.frequencies)
        return room.array

    def _context(
        self,
        level: "_Level",
        wavefront: Wavefront,
        qualities: Sequence[int],
        coarser: Tensor | None,
        poll: Callable[[], None],
    ) -> Tensor:
        """Context ``[B·N, C]`` in coding order, from the coarser state ``[B, H/f, W/f, C]``, which is used up."""
        own = level.quality[[quality - QUALITY_MIN for quality in qualities]]
        ranks = torch.from_numpy(wavefront.rank).to(self.device).view(len(qualities), -1)
        context = own.new_empty(ranks.numel(), own.shape[1])
        for i, rank in enumerate(ranks):
            if coarser is None:
                context[rank] = own[i]
            else:
                self._fill(level, context, rank, own[i], coarser[i], poll)
        return context

    def _fill(
        self, level: "_Level", context: Tensor, rank: Tensor, own: Tensor, coarser: Tensor, poll: Callable[[], None]
    ) -> None:
        """The rows ``rank`` of ``context``: those of one picture, whose coarser state is ``[H/f, W/f, C]``."""
        assert level.spread is not None
        for layer in level.context:
            self._convolve(layer, coarser, poll)
        height, width, _ = coarser.shape
        factor, row = level.factor, width * level.factor**2  # positions that a row of the coarser grid becomes
        for first, last in chunks(height, max(1, CHUNK // width)):
            poll()
            spread = level.spread(coarser[first:last].flatten(0, 1).to(own.dtype))
            spread = spread.view(last - first, width, -1, factor, factor).permute(0, 3, 1, 4, 2)
            context[rank[first * row : last * row]] = spread.reshape(-1, len(own)) + own

    def _convolve(self, layer: Linear, x: Tensor, poll: Callable[[], None]) -> None:
        """A 3×3 layer and its clamp on ``x [H, W, C]``, in place."""
        height, width, _ = x.shape
        above = torch.zeros_like(x[:1])  # the row before the next one, as it was
        # A few grid rows at a time: the nine shifted copies are nine times the grid.
        for first, last in chunks(height, max(1, CHUNK // width)):
            poll()
            below = x[last : last + 1] if last < height else torch.zeros_like(above)
            padded = F.pad(torch.cat([above, x[first:last], below]), (0, 0, 1, 1))
            above = x[last - 1 : last].clone()
            taps = [padded[i : i + last - first, j : j + width] for i in range(3) for j in range(3)]
            rows = layer(torch.cat(taps, 2).flatten(0, 1).to(layer.weight.dtype))
            x[first:last] = rows.clamp_(0, self.arithmetic.activation_max).view(last - first, width, -1)

    def _load(self, index: int, level: LevelConfig) -> "_Level":
        channels, prefix = self.config.channels, f"{index}."
        a_stage = level.groups // level.stages
        known = a_stage * (level.stages - 1)
        inner = self._summed(prefix + "inner", known, level.codebook_size, channels)
        largest = self.arithmetic.activation_max
        factor = 1 if index == 0 else self.model.levels[index - 1].stride // level.stride
        context = range(self.config.context_layers if index > 0 else 0)
        outputs = a_stage * level.codebook_size
        return _Level(
            groups=level.groups,
            stages=level.stages,
            codebook_size=level.codebook_size,
            factor=factor,
            embed=_Embedding(self._summed(prefix + "embed", level.groups, level.codebook_size, channels), largest),
            inner=[_Embedding(inner[i : i + a_stage], largest) for i in range(0, known, a_stage)],
            quality=self._table(prefix + "quality", QUALITY_MAX - QUALITY_MIN + 1, channels),
            context=[self._linear(f"{prefix}context.{i}", 9 * channels, channels) for i in context],
            spread=self._linear(prefix + "spread", channels, channels * factor**2) if index > 0 else None,
            first=self._linear(prefix + "first", 4 * channels, channels),
            layers=[self._linear(f"{prefix}layers.{i}", 5 * channels, channels) for i in range(self.config.layers)],
            hidden=self._linear(prefix + "hidden", channels, channels * level.stages),
            heads=[self._linear(f"{prefix}heads.{i}", channels, outputs, logits=True) for i in range(level.stages)],
        )

    def _take(self, name: str, *shape: int) -> Tensor:
        tensor = self._remaining.pop(name, None)
        if tensor is None:
            raise WeightsError(f"prior has no tensor {name}")
        if tuple(tensor.shape) != shape or tensor.dtype not in INTEGERS:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise WeightsError(f"prior tensor {name} is {found}, expected integers {list(shape)}")
        return tensor.to(self.device, torch.float64)

    def _table(self, name: str, *shape: int) -> Tensor:
        table, largest = self._take(name, *shape), self.arithmetic.activation_max
        if bool((table.abs() > largest).any()):
            raise WeightsError(f"prior tensor {name} has values beyond ±{largest}")
        return table.to(self.arithmetic.dtype)

    def _summed(self, name: str, groups: int, *shape: int) -> Tensor:
        """A table ``[groups, *shape]``, a row of which may be summed over all groups."""
        if not groups * self.arithmetic.activation_max < self.arithmetic.exact:
            raise WeightsError(f"prior tensor {name} sums {groups} groups, beyond the exact integers")
        return self._table(name, groups, *shape)

    def _linear(self, name: str, inputs: int, outputs: int, *, logits: bool = False) -> Linear:
        """The layer whose inputs and outputs have ``fraction_bits``, as all activations, or logits OCTAVE_BITS."""
        arithmetic = self.arithmetic
        weight = self._take(f"{name}.weight", inputs, outputs)
        bias = self._take(f"{name}.bias", outputs)
        # Older weights have one shift for all channels.
        single = tuple(self._remaining.get(f"{name}.shift", bias).shape) == (1,)
        shift = self._take(f"{name}.shift", 1 if single else outputs)
        if bool(((shift < 1) | (shift > MAX_SHIFT)).any()):
            raise WeightsError(f"prior tensor {name}.shift is {_range(shift)}, expected 1..{MAX_SHIFT}")
        if logits:
            shift += arithmetic.fraction_bits - OCTAVE_BITS
        # Every input of every layer has been clamped to ±activation_max.
        largest = float(bound(arithmetic, weight, bias, shift).max())
        if not largest < arithmetic.exact:
            power = self.config.sum_bits
            raise WeightsError(f"prior layer {name} can reach {largest:.3g}, beyond the exact integers below 2^{power}")
        dtype = arithmetic.dtype
        scale = 2.0**-shift
        return Linear((weight * scale).to(dtype), (bias * scale + 0.5).to(dtype))


def _range(values: Tensor) -> str:
    low, high = (int(v) for v in values.aminmax())
    return str(low) if low == high else f"{low}..{high}"


class _Embedding:
    """Sums over groups of rows of a table ``[G, K, C]``, clamped to ±``largest``."""

    def __init__(self, table: Tensor, largest: int) -> None:
        self._largest = largest
        self._rows = table.flatten(0, 1)
        self._groups = np.arange(len(table), dtype=np.int32) * table.shape[1]
        self._starts = self._starts_of(CHUNK)

    def __call__(self, codes: NDArray[np.integer[Any]]) -> Tensor:
        """``codes [n, G] -> [n, C]``."""
        count, starts = codes.shape[0], self._starts
        if count > starts.numel():
            starts = self._starts = self._starts_of(count)
        index = torch.from_numpy((codes + self._groups).reshape(-1)).to(self._rows.device)
        sums = F.embedding_bag(index, self._rows, starts[:count], mode="sum")
        return sums.clamp_(-self._largest, self._largest)

    def _starts_of(self, count: int) -> Tensor:
        # Torch would make them anew each time, which takes as long as the sums.
        return torch.arange(count, dtype=torch.int32, device=self._rows.device) * len(self._groups)


@dataclass(frozen=True)
class _Room:
    """Memory for the frequencies of one stage of so many rows."""

    shape: tuple[int, int]  # a row a group
    index: Tensor  # [rows · G/S · K], int32
    frequencies: Tensor  # the same, float64
    host: Tensor | None  # a copy of them, unless they lie where numpy can read them
    array: NDArray[np.float64]  # them as [rows, G/S, K]


class _Scratch:
    """Memory that all spans use in turn; the system would have to clear what was asked for anew."""

    def __init__(self, level: "_Level", rows: int, device: torch.device) -> None:
        self._width = level.groups_a_stage, level.codebook_size
        size = rows * math.prod(self._width)
        self._index = torch.empty(size, dtype=torch.int32, device=device)
        self._stages = [torch.empty(size, dtype=torch.float64, device=device) for _ in range(level.stages)]
        self._rooms: dict[int, list[_Room]] = {}

    def of(self, rows: int) -> list[_Room]:
        """A room for each stage of ``rows`` rows."""
        if rows not in self._rooms:
            self._rooms[rows] = [self._room(stage, rows) for stage in self._stages]
        return self._rooms[rows]

    def _room(self, stage: Tensor, rows: int) -> _Room:
        size = rows * math.prod(self._width)
        host = None if stage.device.type == "cpu" else torch.empty(size, dtype=stage.dtype)
        array = (stage[:size] if host is None else host).numpy().reshape(rows, *self._width)
        return _Room((-1, self._width[1]), self._index[:size], stage[:size], host, array)


@dataclass(frozen=True)
class _Level:
    """The integers of one level; names as in :class:`LevelPrior`."""

    groups: int
    stages: int
    codebook_size: int
    factor: int
    embed: _Embedding
    inner: list[_Embedding]
    quality: Tensor
    context: list[Linear]
    spread: Linear | None
    first: Linear
    layers: list[Linear]
    hidden: Linear
    heads: list[Linear]

    @property
    def groups_a_stage(self) -> int:
        return self.groups // self.stages

    @functools.cached_property
    def groups_of(self) -> list[slice]:
        """The groups of each stage."""
        return [slice(i, i + self.groups_a_stage) for i in range(0, self.groups, self.groups_a_stage)]


@dataclass(frozen=True)
class _Step:
    """Rows that are computed in one go: one wavefront step, or several.

    Attributes:
        first, last, rows: ``first..last - 1``, so many.
        full: rows when filled up with zeros: products are prepared for each number of rows that occurs, which takes
            a millisecond and most of a megabyte.
        own: where the ring keeps the rows.
        before, around: ``[4·full]``, where it keeps their neighbours, and ``[5·full]``, these and the rows themselves.
    """

    first: int
    last: int
    rows: int
    full: int
    own: slice
    before: Tensor
    around: Tensor


def _plan(wavefront: Wavefront, spans: list[tuple[int, int]], device: torch.device) -> tuple[int, list[_Step]]:
    """The most rows that a span has, and the spans as steps with their places in a ring.

    A ring keeps rows as long as another one needs them. A neighbour is at most three steps back, so the last four
    spans are kept, and one row more for the zeros outside the grid: a large picture needs hardly more memory than its
    codes and context.
    """
    firsts = np.array([first for first, _ in spans])
    sizes = np.array([last - first for first, last in spans])
    fulls = np.where(sizes > FEW, -(-sizes // ALIGN) * ALIGN, sizes)
    longest = int(sizes.max())
    starts = np.arange(len(spans)) % 4 * longest
    slots = np.append(np.arange(sizes.sum()) + np.repeat(starts - firsts, sizes), 4 * longest).astype(np.int32)
    filled = np.full((fulls.sum(), 5), 4 * longest, dtype=np.int32)
    filled[np.arange(sizes.sum()) + np.repeat(np.cumsum(fulls) - fulls - firsts, sizes)] = slots[wavefront.neighbours]
    near = torch.from_numpy(filled).to(device)
    before = torch.split(near[:, :4].flatten(), (4 * fulls).tolist())
    around = torch.split(near.flatten(), (5 * fulls).tolist())
    owns = [slice(start, start + size) for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)]
    parts = zip(spans, sizes.tolist(), fulls.tolist(), owns, before, around, strict=True)
    return longest, [_Step(first, last, *others) for (first, last), *others in parts]
