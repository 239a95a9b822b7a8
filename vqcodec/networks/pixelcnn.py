r"""The prior: the probability of each code, given the codes that encoder and decoder both have already.

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

The network has two forms: :class:`PixelCNN` (van den Oord et al. 2016) is the float form, for training;
:class:`vqcodec.exact.prior.FixedPrior` is the integer form, which codes files, and :mod:`vqcodec.networks.fixed_point`
turns each into the other. With causal 3×3 masks a position (x, y)
depends only on positions with a smaller x + 2y, so a decoder computes all positions with the same x + 2y together
(:mod:`vqcodec.exact.wavefront`).
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.exact.arithmetic import ACTIVATION_LIMIT
from vqcodec.networks.layers import EMBEDDING, Conv, LambdaEmbedding

__all__ = ["PixelCNN"]


class CausalConv(Conv):
    """3×3 convolution over earlier neighbours in raster order, and on request the centre; ``[B, C, H, W]`` to the same.

    Only these taps are stored: ``[out, in·taps]`` with 4 or 5 taps (masks A and B of PixelCNN).
    """

    def __init__(self, channels: int, *, centre: bool, gain: float = 1.0) -> None:
        super().__init__(channels, channels, 3, gain=gain)
        self.taps = 5 if centre else 4
        self.weight = nn.Parameter(torch.randn(channels, channels * self.taps) * gain / math.sqrt(channels * self.taps))

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs = self.shape[:2]
        taps = self.weight.view(outputs, inputs, self.taps)
        # The mask: zeros take the place of the centre (A only) and of all taps that come after it in raster order.
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
        self.limit = ACTIVATION_LIMIT
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

    def features(self, embedded: Tensor, inner: list[Tensor], context: Tensor) -> list[Tensor]:
        """z_s ``[B, C, H, W]`` of every stage s, from which ``heads[s]`` makes the logits of its codes.

        Args:
            embedded: Σ over groups of the codes' vectors, ``[B, C, H, W]``.
            inner: of every stage but the last, the sum over its groups that later stages get, ``[B, C, H, W]``.
            context: of the level, ``[B, C, H, W]``.
        """
        h = self._activate(self.first(embedded) + context)
        for layer in self.layers:
            h = self._activate(h + layer(h))
        known = torch.zeros_like(h)
        features: list[Tensor] = []
        for stage, hidden in enumerate(self.hidden(h).chunk(self.stages, 1)):
            features.append(self._activate(hidden + known))
            if stage + 1 < self.stages:
                known = known + inner[stage].clamp(-self.limit, self.limit)
        return features

    def embed_stages(self, codes: Tensor) -> list[Tensor]:
        """What :meth:`features` needs as ``inner``, of ``codes [B, G, H, W]``."""
        return [self.inner(codes[:, groups], groups) for groups in self.groups_of[:-1]]

    def bits(self, codes: Tensor, features: list[Tensor]) -> Tensor:
        """Bits ``[B]`` of ``codes [B, G, H, W]``, given the features of every stage."""
        nats = codes.new_zeros(len(codes), dtype=torch.float32)
        for groups, z, head in zip(self.groups_of, features, self.heads, strict=True):
            logits = head(z).movedim(1, -1).reshape(-1, self.codebook_size)
            target = codes[:, groups].movedim(1, -1)
            loss = F.cross_entropy(logits.float(), target.flatten(), reduction="none")
            nats = nats + loss.view(len(codes), -1).sum(1)
        return nats / math.log(2)

    def head(self, stage: int) -> tuple[Tensor, Tensor]:
        """The weight ``[G/S·K, C]`` and the bias ``[G/S·K]`` that make a stage's logits of its features."""
        head = self.heads[stage]
        assert isinstance(head, Conv)
        return head.weight, head.bias

    @property
    def groups_of(self) -> list[slice]:
        """The groups of each stage."""
        size = self.groups_a_stage
        return [slice(stage * size, (stage + 1) * size) for stage in range(self.stages)]

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
        embedding = self.embedding(lmbda)
        levels = list(self.each_level())
        features = self.features(
            [level.embed(grid) for level, grid in zip(levels, codes, strict=True)],
            [level.embed_stages(grid) for level, grid in zip(levels, codes, strict=True)],
            [level.quality(embedding) for level in levels],
        )
        return [level.bits(grid, z) for level, grid, z in zip(levels, codes, features, strict=True)]

    def features(self, embedded: list[Tensor], inner: list[list[Tensor]], quality: list[Tensor]) -> list[list[Tensor]]:
        """z_s ``[B, C, H_l, W_l]`` of every stage of every level, coarsest first; see :meth:`LevelPrior.features`.

        ``quality[l] [B, C]`` is the part of level l's context that the quality decides.
        """
        features: list[list[Tensor]] = []
        state: Tensor | None = None
        for level, vectors, stages, row in zip(self.each_level(), embedded, inner, quality, strict=True):
            context = row[:, :, None, None]
            if state is not None:
                context = context + level.condition(state)
            vectors = vectors.clamp(-level.limit, level.limit)
            features.append(level.features(vectors, stages, context))
            state = (vectors + context).clamp(-level.limit, level.limit)
        return features

    def each_level(self) -> Iterator[LevelPrior]:
        """The networks of the levels, coarsest first."""
        for level in self.levels:
            assert isinstance(level, LevelPrior)
            yield level

    @torch.no_grad()
    def start_from(self, usage: list[Tensor]) -> None:
        """Let every head start with the static frequencies ``usage[l] [G, K]`` of its level."""
        for level, frequencies in zip(self.each_level(), usage, strict=True):
            for head, rows in zip(level.heads, frequencies.chunk(level.stages), strict=True):
                assert isinstance(head, Conv)
                head.bias.copy_((rows + 1e-5).log().flatten())

    @torch.no_grad()
    def start_alike(self, codebooks: list[Tensor]) -> None:
        """Let similar codewords of ``codebooks[l] [G, K, D]`` start with similar vectors and logits.

        Each is a random linear map of asinh e and |asinh e|. So what the prior learns about a code at first holds for
        its neighbours too, and codeword zero, which is sent most of the time, adds nothing.
        """
        for level, codebook in zip(self.each_level(), codebooks, strict=True):
            coordinates = codebook.asinh()
            coordinates = torch.cat([coordinates, coordinates.abs()], 2)  # [G, K, 2D]
            for table in (level.embed.table, level.inner.table):
                table.copy_(_random_map(coordinates, table.shape[2]) / math.sqrt(len(codebook)))
            for stage, groups in enumerate(level.groups_of):
                weight, _ = level.head(stage)
                rows = _random_map(coordinates[groups], weight.numel() // coordinates[groups].shape[:2].numel())
                weight.copy_(0.1 * rows.reshape(weight.shape) / math.sqrt(rows.shape[2]))


def _random_map(coordinates: Tensor, channels: int) -> Tensor:
    """``[G, K, channels]``: ``coordinates [G, K, F]`` times a random matrix for each group."""
    groups, _, features = coordinates.shape
    matrix = torch.randn(groups, features, channels, device=coordinates.device)
    return torch.bmm(coordinates, matrix) / math.sqrt(features)
