r"""The prior: how probable each code is, given the codes that both sides already have.

::

    coarser codes ── embed ── context layers ── shuffle up ──▶ c [C, H, W] ┐  parallel, once a level
    quality ─────────────────── table ───────────────────────▶ q [C] ──────┤
                                                                           ▼
    codes of this level ── embed, Σ over groups ──▶ v ── masked 3×3 ──▶ h_0 ── masked 3×3 … ──▶ h_L
                             ▲                                                                   │
                             │                       ┌───────────────────────────────────────────┘
                             │                       ▼            for each stage s of a position:
                             └──── codes ◀── z_s = relu(V_s h_L + Σ earlier groups' embeddings)
                                                     │
                                                     ▼  W_s
                                        logits [G/S, K] ──▶ integer frequencies ──▶ range coder

Legend: B batch, G groups, K codewords, C channels, S stages, H and W grid height and width, N = H·W positions.

Two forms of one network. :class:`PixelCNN` (van den Oord et al. 2016) is the float form, for training.
:class:`FixedPrior` is what codes files: integers held in floats, where every sum stays below 2²⁴ (float32; 2⁵³ in
float64) and is therefore exact in any order, on any device, with any number of threads. That bound is proved for
every layer from Σ|w| when the form is made and again when it is loaded.

Causal 3×3 masks let position (x, y) depend only on positions with a smaller x + 2y, so all positions of one
index can be computed together: W + 2(H−1) steps instead of W·H. Rows of every buffer are kept in that order.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vqcodec.config import QUALITY_MAX, QUALITY_MIN, LevelConfig, ModelConfig, PriorConfig
from vqcodec.errors import VqcodecError, WeightsError
from vqcodec.layers import EMBEDDING, Conv, LambdaEmbedding

__all__ = ["ARITHMETIC", "FREQUENCIES", "Arithmetic", "Codes", "FixedPrior", "PixelCNN", "Wavefront", "fixed_point"]


@dataclass(frozen=True)
class Arithmetic:
    """Integers in floats: how large they may be.

    Attributes:
        dtype: it holds every integer below ``exact``, so that sums below it are exact in any order.
        fraction_bits: activations are multiples of 2^-fraction_bits …
        activation_max: … and, as integers, lie within ±activation_max.
        weight_max: weights lie within ±weight_max,
        stored: and are kept in files as this.
    """

    dtype: torch.dtype
    exact: float
    fraction_bits: int
    activation_max: int
    weight_max: int
    stored: torch.dtype

    @property
    def limit(self) -> float:
        """The clamp of activations in the float form."""
        return math.ldexp(self.activation_max, -self.fraction_bits)


ARITHMETIC = {
    24: Arithmetic(torch.float32, 2.0**24, 6, 2**10 - 1, 2**7 - 1, torch.int8),
    53: Arithmetic(torch.float64, 2.0**53, 10, 2**15 - 1, 2**15 - 1, torch.int16),
}
"""By ``PriorConfig.sum_bits``."""

ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
MAX_SHIFT = 32
MAX_SCALE_BITS = 24  # of weights so small that they would fit with more

OCTAVE_BITS = 6  # the frequency table has 2^6 entries for each factor of two
TOP_BITS = 22  # the likeliest code has the frequency 2^22


def _power_of_two_root(exponent: int) -> int:
    """⌊2^(exponent / 64)⌋ in exact integer arithmetic: six nested integer square roots."""
    value = 1 << exponent
    for _ in range(OCTAVE_BITS):
        value = math.isqrt(value)
    return value


# FREQUENCIES[i] = ⌊2^(22 − i/64)⌋, then one zero for everything less likely than that.
FREQUENCIES: tuple[int, ...] = (*(_power_of_two_root(e) for e in range(TOP_BITS << OCTAVE_BITS, -1, -1)), 0)


class CausalConv(Conv):
    """3×3 convolution over the neighbours that come earlier in raster order, and the centre if asked.

    Only these taps are stored: ``[out, in·taps]`` with 4 or 5 taps (masks A and B of PixelCNN).
    """

    def __init__(self, channels: int, *, centre: bool, gain: float = 1.0) -> None:
        super().__init__(channels, channels, 3, gain=gain)
        self.taps = 5 if centre else 4
        self.weight = nn.Parameter(torch.randn(channels, channels * self.taps) * gain / math.sqrt(channels * self.taps))

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs = self.shape[:2]
        taps = self.weight.view(outputs, inputs, self.taps)
        return F.conv2d(x, F.pad(taps, (0, 9 - self.taps)).view(self.shape), self.bias, padding=1)


class CodeEmbedding(nn.Module):
    """Sum over groups of a vector for each code: ``[B, G, H, W] -> [B, C, H, W]``."""

    def __init__(self, groups: int, codebook_size: int, channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(groups, codebook_size, channels) / math.sqrt(groups))

    def forward(self, codes: Tensor, groups: slice = slice(None)) -> Tensor:
        table = self.table[groups]
        offsets = torch.arange(len(table), device=codes.device) * table.shape[1]
        rows = codes.movedim(1, -1) + offsets
        summed = F.embedding_bag(rows.flatten(0, -2), table.flatten(0, 1), mode="sum")
        return summed.view(*rows.shape[:-1], -1).movedim(-1, 1)


class LevelPrior(nn.Module):
    """The network of one level; see the module's diagram."""

    def __init__(self, level: LevelConfig, coarser: LevelConfig | None, config: PriorConfig) -> None:
        super().__init__()
        channels = config.channels
        self.limit = ARITHMETIC[config.sum_bits].limit
        self.stages, self.codebook_size = level.stages, level.codebook_size
        self.groups_a_stage = level.groups // level.stages
        self.embed = CodeEmbedding(level.groups, level.codebook_size, channels)
        self.inner = CodeEmbedding(level.groups, level.codebook_size, channels)
        self.quality = nn.Linear(EMBEDDING, channels)
        self.context = nn.ModuleList()
        self.factor = 1 if coarser is None else coarser.stride // level.stride
        if coarser is not None:
            self.context.extend(Conv(channels, channels, gain=math.sqrt(2)) for _ in range(config.context_layers))
            self.spread = Conv(channels, channels * self.factor**2, 1)
        self.first = CausalConv(channels, centre=False)
        self.layers = nn.ModuleList(CausalConv(channels, centre=True, gain=0.5) for _ in range(config.layers))
        self.hidden = Conv(channels, channels * level.stages, 1, gain=math.sqrt(2))
        outputs = self.groups_a_stage * level.codebook_size
        self.heads = nn.ModuleList(Conv(channels, outputs, 1, gain=0.1) for _ in range(level.stages))

    def condition(self, coarser: Tensor) -> Tensor:
        """Context ``[B, C, H, W]`` from the coarser level's state ``[B, C, H/f, W/f]``."""
        for layer in self.context:
            coarser = self._activate(layer(coarser))
        return F.pixel_shuffle(self.spread(coarser), self.factor)

    def bits(self, codes: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        """Bits ``[B]`` of ``codes [B, G, H, W]``, given their embedding and the context, each ``[B, C, H, W]``."""
        h = self._activate(self.first(embedded) + context)
        for layer in self.layers:
            h = self._activate(h + layer(h))
        known = torch.zeros_like(h)
        nats = codes.new_zeros(len(codes), dtype=torch.float32)
        for stage, (hidden, head) in enumerate(zip(self.hidden(h).chunk(self.stages, 1), self.heads, strict=True)):
            groups = slice(stage * self.groups_a_stage, (stage + 1) * self.groups_a_stage)
            logits = head(self._activate(hidden + known)).movedim(1, -1)
            logits = logits.reshape(-1, self.codebook_size)
            target = codes[:, groups].movedim(1, -1)
            loss = F.cross_entropy(logits.float(), target.flatten(), reduction="none")
            nats = nats + loss.view(len(codes), -1).sum(1)
            if stage + 1 < self.stages:
                known = known + self.inner(codes[:, groups], groups).clamp(-self.limit, self.limit)
        return nats / math.log(2)

    def _activate(self, x: Tensor) -> Tensor:
        """ReLU with the ceiling that activations have in the fixed-point form."""
        return x.clamp(0, self.limit)


class PixelCNN(nn.Module):
    """The float form: bits of code grids, in parallel over positions, differentiable.

    Args:
        model: the levels whose codes are modelled, and the λ range.
        config: width and depth.
    """

    def __init__(self, model: ModelConfig, config: PriorConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.embedding = LambdaEmbedding(model.lambda_min, model.lambda_max)
        coarser = (None, *model.levels[:-1])
        self.levels = nn.ModuleList(LevelPrior(a, b, config) for a, b in zip(model.levels, coarser, strict=True))

    def forward(self, codes: list[Tensor], lmbda: Tensor) -> list[Tensor]:
        """Bits ``[B]`` of each level for grids ``[B, G_l, H_l, W_l]``, coarsest first, coded at ``lmbda [B]``."""
        features = self.embedding(lmbda)
        bits: list[Tensor] = []
        state: Tensor | None = None
        for level, grid in zip(self.levels, codes, strict=True):
            assert isinstance(level, LevelPrior)
            context = level.quality(features)[:, :, None, None]
            if state is not None:
                context = context + level.condition(state)
            embedded = level.embed(grid).clamp(-level.limit, level.limit)
            bits.append(level.bits(grid, embedded, context))
            state = (embedded + context).clamp(-level.limit, level.limit)
        return bits

    @torch.no_grad()
    def start_from(self, usage: list[Tensor]) -> None:
        """Start every head at the static frequencies ``usage[l] [G, K]``."""
        for level, frequencies in zip(self.levels, usage, strict=True):
            assert isinstance(level, LevelPrior)
            for head, rows in zip(level.heads, frequencies.chunk(level.stages), strict=True):
                assert isinstance(head, Conv)
                head.bias.copy_((rows + 1e-5).log().flatten())


# --- fixed point ------------------------------------------------------------------------------------------------


@torch.no_grad()
def fixed_point(prior: PixelCNN) -> dict[str, Tensor]:
    """The integers that :class:`FixedPrior` computes with, named as it expects them.

    Each output channel of a layer gets the largest power-of-two scale at which its weights fit the arithmetic and
    its sums stay exact. Raises WeightsError where there is none.
    """
    tensors: dict[str, Tensor] = {}
    arithmetic = ARITHMETIC[prior.config.sum_bits]

    def linear(name: str, matrix: Tensor, bias: Tensor) -> None:
        """``matrix [in, out]``; a channel's shift is how many fraction bits its weights have."""
        if not bool(matrix.isfinite().all() and bias.isfinite().all()):
            raise WeightsError(f"prior layer {name} has weights that are not finite")
        matrix, bias = matrix.double(), bias.double()
        largest = matrix.abs().amax(0).clamp_min(1e-9)
        shift = (arithmetic.weight_max / largest).log2().floor().clamp(max=MAX_SCALE_BITS)
        while True:
            weight = (matrix * 2**shift).round()
            integers = (bias * 2 ** (shift + arithmetic.fraction_bits)).round()
            too_large = _bound(arithmetic, weight, integers, shift) >= arithmetic.exact
            if not bool((too_large & (shift > 1)).any()):
                break
            shift -= too_large.double()
        tensors[f"{name}.weight"] = weight.to(arithmetic.stored)
        tensors[f"{name}.bias"] = integers.to(torch.int64)
        tensors[f"{name}.shift"] = shift.to(torch.int32)

    def table(name: str, values: Tensor) -> None:
        integers = (values.double() * 2**arithmetic.fraction_bits).round()
        tensors[name] = integers.clamp(-arithmetic.activation_max, arithmetic.activation_max).to(torch.int16)

    qualities = [prior.model.lmbda(q) for q in range(QUALITY_MIN, QUALITY_MAX + 1)]
    features = prior.embedding(torch.tensor(qualities, device=next(prior.parameters()).device))
    for index, level in enumerate(prior.levels):
        assert isinstance(level, LevelPrior)
        prefix = f"{index}."
        table(prefix + "embed", level.embed.table)
        known = level.groups_a_stage * (level.stages - 1)  # the last stage's codes inform no later stage
        table(prefix + "inner", level.inner.table[:known])
        table(prefix + "quality", level.quality(features))
        for i, layer in enumerate(level.context):
            linear(f"{prefix}context.{i}", *_matrix(layer, 9))
        if index > 0:
            linear(f"{prefix}spread", *_matrix(level.spread, 1))
        linear(f"{prefix}first", *_matrix(level.first, 4))
        for i, layer in enumerate(level.layers):
            linear(f"{prefix}layers.{i}", *_matrix(layer, 5))
        linear(f"{prefix}hidden", *_matrix(level.hidden, 1))
        for i, head in enumerate(level.heads):
            matrix, bias = _matrix(head, 1)
            linear(f"{prefix}heads.{i}", matrix / math.log(2), bias / math.log(2))  # logits to base 2
    FixedPrior(tensors, prior.model, prior.config)  # proves the bound
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _bound(arithmetic: Arithmetic, weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """The largest that a sum, or a part of it, of each output ``[out]`` can become for inputs in range."""
    return weight.abs().sum(0) * arithmetic.activation_max + bias.abs() + 2 ** (shift - 1)


def _matrix(layer: nn.Module, taps: int) -> tuple[Tensor, Tensor]:
    """A convolution as ``[taps·in, out]`` and its bias."""
    assert isinstance(layer, Conv)
    weight = layer.weight.view(layer.shape[0], layer.shape[1], taps)
    return weight.permute(2, 1, 0).reshape(-1, layer.shape[0]), layer.bias


@dataclass(frozen=True)
class Linear:
    """``x ↦ ⌊(x·W + b) / 2^shift + ½⌋`` on integers held in floats."""

    weight: Tensor  # [in, out]
    bias: Tensor  # [out], with the ½ folded in
    scale: Tensor  # 2^-shift, [out] or [1]
    packed: Tensor | None = field(init=False, default=None, repr=False)  # weight as oneDNN likes it best

    def __post_init__(self) -> None:
        if self.weight.device.type == "cpu" and self.weight.dtype == torch.float32 and ONEDNN:
            # What torch's compiler does with constant weights; twice as fast as addmm.
            packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.T.contiguous(), None)
            object.__setattr__(self, "packed", packed)

    def product(self, x: Tensor) -> Tensor:
        """x·W + b, a new tensor."""
        if self.packed is None:
            return torch.addmm(self.bias, x, self.weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x).mul_(self.scale).floor_()


class Wavefront:
    """The order in which a grid's positions are coded, and where their neighbours are in that order.

    Attributes:
        spans: ``(first, last + 1)`` rows of each sequential step; there are W + 2(H−1) of them.
        raster: ``[N]`` raster index of each row.
        rank: ``[N]`` row of each raster index.
        neighbours: ``[N, 5]`` rows of the positions up-left, up, up-right, left and the position itself; N
            stands for a position outside the grid.
    """

    def __init__(self, height: int, width: int) -> None:
        y, x = np.divmod(np.arange(height * width), width)
        step = x + 2 * y
        order = np.lexsort((y, step))
        rank = np.full((height + 1, width + 2), height * width)
        rank[1 + y[order], 1 + x[order]] = np.arange(height * width)
        y, x = y[order], x[order]
        taps = [(y, x), (y, x + 1), (y, x + 2), (y + 1, x), (y + 1, x + 1)]
        self.raster = order
        self.rank = rank[1:, 1:-1].flatten()
        self.neighbours = np.stack([rank[tap] for tap in taps], 1)
        ends = np.cumsum(np.bincount(step, minlength=width + 2 * (height - 1))).tolist()
        # A grid one column wide has no position at the odd indices.
        self.spans = [(a, b) for a, b in itertools.pairwise([0, *ends]) if a < b]


Codes = NDArray[np.int16]
"""Codes, which are below 4096, wherever there are many of them."""

Choose = Callable[[int, int, int, NDArray[np.float64]], NDArray[np.integer[Any]]]
"""``choose(first_row, last_row + 1, stage, frequencies [n, G/S, K]) -> codes [n, G/S]``."""


class FixedPrior:
    """The exact integer form, made by :func:`fixed_point`; codes files.

    Args:
        tensors: integers by name, as :func:`fixed_point` returns them.
        model, config: what they belong to.
        device: any; the integers that come out are the same.

    Raises WeightsError if a tensor is missing or misshapen, or if a layer's sums could reach 2⁵³.
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
        quality: int,
        coarser: Tensor | None,
        choose: Choose,
        *,
        known: NDArray[np.integer[Any]] | None = None,
    ) -> tuple[Codes, Tensor | None]:
        """Visit every position of a level, in coding order, and learn its codes from ``choose``.

        Args:
            index: the level, 0 the coarsest.
            height, width: of its grid.
            quality: 1..100.
            coarser: the state that this function returned for the level before; None for level 0.
            choose: given the frequencies of a stage's codes at some rows, returns the codes: the encoder
                looks them up, the decoder reads them from the bitstream.
            known: the codes ``[G, H, W]``, where the caller has them. The same sums are then done for many
                wavefront steps in one go, which changes no integer.

        Returns the codes ``[G, H, W]`` and, for the next finer level if there is one, the level's state ``[H, W, C]``.
        Raises VqcodecError where torch was told to multiply with less precision than the integers need.
        """
        # Nor may a caller's autocast round the integers.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            self._check_products()
            return self._code_level(index, height, width, quality, coarser, choose, known)

    def _make_probe(self) -> Linear:
        inputs = 512
        largest = int(self.arithmetic.exact / inputs / self.arithmetic.activation_max)
        options: dict[str, Any] = {"dtype": self.arithmetic.dtype, "device": self.device}
        weight = torch.full((inputs, 16), float(largest), **options)
        return Linear(weight, torch.ones(16, **options), torch.ones(1, **options))

    def _check_products(self) -> None:
        """One small product whose sums come as close to the bound as any."""
        probe = self._probe
        largest = self.arithmetic.activation_max
        x = torch.full((16, len(probe.weight)), float(largest), dtype=self.arithmetic.dtype, device=self.device)
        expected = len(probe.weight) * largest * probe.weight[0] + probe.bias
        if not torch.equal(probe.product(x), expected.expand(16, -1)):
            raise VqcodecError(
                "torch multiplies matrices with less than their precision here, which codes cannot bear; "
                'torch.set_float32_matmul_precision("highest") mends that'
            )

    def _code_level(
        self,
        index: int,
        height: int,
        width: int,
        quality: int,
        coarser: Tensor | None,
        choose: Choose,
        known: NDArray[np.integer[Any]] | None,
    ) -> tuple[Codes, Tensor | None]:
        level, ceiling = self._levels[index], self.arithmetic.activation_max
        wavefront = Wavefront(height, width)
        positions = height * width
        context = self._context(level, wavefront, quality, coarser)
        neighbours = torch.from_numpy(wavefront.neighbours).to(self.device)
        codes = np.zeros((positions, level.groups), dtype=np.int16)
        spans = wavefront.spans
        if known is not None:
            codes[:] = known.reshape(level.groups, -1).T[wavefront.raster]
            spans = _merge(spans)
        # A neighbour is at most three steps back, so each layer keeps the last four spans of rows, and one row
        # more for the zeros outside the grid: a large picture needs hardly more memory than its codes and context.
        kept = min(positions, 4 * max(last - first for first, last in spans))
        slots = torch.where(neighbours < positions, neighbours % kept, kept)
        embedded, *hidden = (context.new_zeros(kept + 1, self.config.channels) for _ in range(self.config.layers + 1))
        for first, last in spans:
            earlier, near, own = slots[first:last, :4].flatten(), slots[first:last].flatten(), slots[first:last, 4]
            if known is not None:
                embedded[own] = level.embed(codes[first:last])
            x = embedded.index_select(0, earlier).view(last - first, -1)
            h = level.first(x).add_(context[first:last]).clamp_(0, ceiling)
            for layer, buffer in zip(level.layers, hidden, strict=True):
                buffer[own] = h
                x = buffer.index_select(0, near).view(last - first, -1)
                h = layer(x).add_(h).clamp_(0, ceiling)
            stages = level.hidden(h).chunk(level.stages, 1)
            news: Tensor | float = 0.0
            for stage, head in enumerate(level.heads):
                logits = head((stages[stage] + news).clamp_(0, ceiling))
                frequencies = self._to_frequencies(logits.view(-1, level.codebook_size))
                groups = slice(stage * level.groups_a_stage, (stage + 1) * level.groups_a_stage)
                rows = frequencies.view(last - first, -1, level.codebook_size).cpu().numpy()
                codes[first:last, groups] = choose(first, last, stage, rows)
                if stage + 1 < level.stages:
                    news = news + level.inner(codes[first:last, groups], groups.start)
            if known is None:
                embedded[own] = level.embed(codes[first:last])
            context[first:last] += embedded[own]
        grid = np.empty_like(codes)
        grid[wavefront.raster] = codes
        found = grid.T.reshape(level.groups, height, width)
        if index + 1 == len(self._levels):
            return found, None
        state = torch.empty(context.shape, dtype=STATE, device=self.device)
        state[torch.from_numpy(wavefront.raster).to(self.device)] = context.clamp_(-ceiling, ceiling).to(STATE)
        return found, state.view(height, width, -1)

    def _to_frequencies(self, logits: Tensor) -> Tensor:
        """Integer frequencies ``[n, K]`` of logits in 64ths of a bit: 2^(22 − gap to the largest), from the table."""
        gap = (logits.amax(1, keepdim=True) - logits).clamp_(max=len(FREQUENCIES) - 1)
        return self._frequencies.index_select(0, gap.to(torch.int32).flatten()).view_as(gap)

    def _context(self, level: "_Level", wavefront: Wavefront, quality: int, coarser: Tensor | None) -> Tensor:
        """Context ``[N, C]`` in coding order, from the coarser level's state ``[H/f, W/f, C]``."""
        own = level.quality[quality - QUALITY_MIN]
        rank = torch.from_numpy(wavefront.rank).to(self.device)
        if coarser is None:
            return own.repeat(len(rank), 1)
        assert level.spread is not None
        for layer in level.context:
            coarser = self._convolve(layer, coarser)
        height, width, _ = coarser.shape
        factor, row = level.factor, width * level.factor**2  # positions that a row of the coarser grid becomes
        context = own.new_empty(len(rank), len(own))
        for first, last in _chunks(height, max(1, CHUNK // width)):
            spread = level.spread(coarser[first:last].flatten(0, 1).to(own.dtype))
            spread = spread.view(last - first, width, -1, factor, factor).permute(0, 3, 1, 4, 2)
            context[rank[first * row : last * row]] = spread.reshape(-1, len(own)) + own
        return context

    def _convolve(self, layer: Linear, x: Tensor) -> Tensor:
        """A 3×3 layer and its clamp, ``[H, W, C]`` to the same shape."""
        height, width, _ = x.shape
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        out = torch.empty_like(x)
        # A few grid rows at a time: the nine shifted copies are nine times the grid.
        for first, last in _chunks(height, max(1, CHUNK // width)):
            taps = [padded[first + i : last + i, j : j + width] for i in range(3) for j in range(3)]
            rows = layer(torch.cat(taps, 2).flatten(0, 1).to(layer.weight.dtype))
            out[first:last] = rows.clamp_(0, self.arithmetic.activation_max).view(last - first, width, -1)
        return out

    def _load(self, index: int, level: LevelConfig) -> "_Level":
        channels, prefix = self.config.channels, f"{index}."
        known = level.groups // level.stages * (level.stages - 1)
        factor = 1 if index == 0 else self.model.levels[index - 1].stride // level.stride
        context = range(self.config.context_layers if index > 0 else 0)
        outputs = level.groups // level.stages * level.codebook_size
        return _Level(
            groups=level.groups,
            stages=level.stages,
            codebook_size=level.codebook_size,
            factor=factor,
            embed=self._embedding(prefix + "embed", level.groups, level.codebook_size, channels),
            inner=self._embedding(prefix + "inner", known, level.codebook_size, channels),
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

    def _embedding(self, name: str, groups: int, *shape: int) -> "_Embedding":
        table, largest = self._table(name, groups, *shape), self.arithmetic.activation_max
        if not groups * largest < self.arithmetic.exact:
            raise WeightsError(f"prior tensor {name} sums {groups} groups, beyond the exact integers")
        return _Embedding(table, largest)

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
        bound = float(_bound(arithmetic, weight, bias, shift).max())
        if not bound < arithmetic.exact:
            power = self.config.sum_bits
            raise WeightsError(f"prior layer {name} can reach {bound:.3g}, beyond the exact integers below 2^{power}")
        dtype = arithmetic.dtype
        return Linear(weight.to(dtype), (bias + 2 ** (shift - 1)).to(dtype), (2.0**-shift).to(dtype))


def _range(values: Tensor) -> str:
    low, high = (int(v) for v in values.aminmax())
    return str(low) if low == high else f"{low}..{high}"


class _Embedding:
    """Sums of rows of a table ``[G, K, C]``, one row a group, clamped to ±``largest``."""

    def __init__(self, table: Tensor, largest: int) -> None:
        self._size, self._largest = table.shape[1], largest
        self._rows = table.flatten(0, 1)

    def __call__(self, codes: NDArray[np.integer[Any]], first_group: int = 0) -> Tensor:
        """``codes [n, g] -> [n, C]``."""
        index = codes + (first_group + np.arange(codes.shape[1])) * self._size
        rows = F.embedding_bag(torch.from_numpy(index).to(self._rows.device), self._rows, mode="sum")
        return rows.clamp_(-self._largest, self._largest)


@dataclass(frozen=True)
class _Level:
    """The integers of one level; names as in :class:`LevelPrior`."""

    groups: int
    stages: int
    codebook_size: int
    factor: int
    embed: _Embedding
    inner: _Embedding
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


STATE = torch.int16  # holds every activation in half the memory of a float32
CHUNK = 1024  # rows computed in one go where nothing forces single steps; bounds memory


def _chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, size):
        yield first, min(count, first + size)


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join neighbouring wavefront steps into spans of about CHUNK rows."""
    merged = [spans[0]]
    for first, last in spans[1:]:
        if last - merged[-1][0] <= CHUNK:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
