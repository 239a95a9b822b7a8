r"""The VQ-VAE: image tensor ↔ a list of code grids, coarsest first.

::

    x [B, 3, H, W]                                                      x_hat [B, 3, H, W]
      │ patches                                                               ▲ patches
      ▼                                                                       │
    stride 4: blocks ────────────────────────────────────────────────── blocks, stride 4
      │                                                                       ▲
      ▼                                                                       │ upsample
    stride 8: blocks ── e_1 ──▶ level 1: codes [B, G_1, H/8, W/8] ──▶ f ─ blocks
      │                                                                       ▲ upsample
      ▼                                                                       │
    stride 16: blocks ─ e_0 ──▶ level 0: codes [B, G_0, H/16, W/16] ─▶ f ─ blocks

    one level, from the encoder feature e and the decoder feature f:

        y = posterior(e, f)     μ, σ = predict(f)     r = g(λ)·(y − μ)
        codes = quantise(r)     f ← f + project(μ + codeword / g(λ))

Legend: B batch, H and W image height and width, G_l groups and D_l channels a group at level l.

Only what a coarser level has not told is quantised (top-down, as in QRes-VAE, Duan et al. 2023). The gain g
puts the quantiser's step at one for every λ, so one set of codebooks serves all qualities. With one level the
class is the VQ-VAE of van den Oord et al. 2017, with two that of Razavi et al. 2019.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.config import LevelConfig, ModelConfig
from vqcodec.layers import EMBEDDING, Conv, Downsample, LambdaEmbedding, ResidualStack, Upsample
from vqcodec.quantize import LN2, Quantized, VectorQuantizer

__all__ = ["TRAINING_ONLY", "VQVAE", "Level", "Reconstruction"]

TRAINING_ONLY = (".usage", ".expected", ".sums")  # endings of the tensors that neither encoding nor decoding needs


@dataclass(frozen=True)
class Reconstruction:
    """What a training pass gives.

    Attributes:
        x_hat: ``[B, 3, H, W]``, nominally 0..1, not clamped.
        bits: one ``[B]`` tensor a level, coarsest first: estimated bits of an image's codes.
        codes: the code grids, or an empty list in the noise form.
        commitment_loss, codebook_loss: scalars, mean over levels.
    """

    x_hat: Tensor
    bits: list[Tensor]
    codes: list[Tensor]
    commitment_loss: Tensor
    codebook_loss: Tensor


class Level(nn.Module):
    """One level: what to tell the decoder, given what it knows."""

    def __init__(self, config: LevelConfig, width: int, log_lambda_centre: float, learn: str) -> None:
        super().__init__()
        channels = config.groups * config.dim
        self.log_lambda_centre = log_lambda_centre
        self.posterior = Conv(2 * width, channels)
        self.predict_hidden = Conv(width, width)
        self.predict = Conv(width, 2 * channels, gain=0.1)
        self.project = Conv(channels, width, 1)
        self.log_gain = nn.Linear(EMBEDDING, channels)
        nn.init.zeros_(self.log_gain.weight)
        nn.init.constant_(self.log_gain.bias, 1.0)
        self.quantizer = VectorQuantizer(config.groups, config.codebook_size, config.dim, learn=learn)

    def gain(self, lmbda: Tensor, embedding: Tensor) -> Tensor:
        """g(λ) ``[B, G·D, 1, 1]``: ∝ √λ, the step of a high-resolution quantiser, times a learned correction."""
        log_gain: Tensor = self.log_gain(embedding) + 0.5 * (lmbda.log()[:, None] - self.log_lambda_centre)
        return log_gain.float().exp()[:, :, None, None]

    def mean_scale(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ of y given the decoder feature f, each ``[B, G·D, H, W]``, float32."""
        mean, log_scale = self.predict(F.silu(self.predict_hidden(F.silu(f)))).float().chunk(2, 1)
        return mean, log_scale.clamp(-8, 8).exp()

    def residual(self, e: Tensor, f: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
        """``r = g·(y − μ)``, ``[B, G·D, H, W]``, in units of the quantiser's step."""
        y: Tensor = self.posterior(torch.cat([e, f], 1))
        return gain * (y.float() - mean)

    def update(self, f: Tensor, mean: Tensor, r_hat: Tensor, gain: Tensor) -> Tensor:
        """The decoder feature after this level's news."""
        out: Tensor = f + self.project(mean + r_hat / gain)
        return out

    @torch.no_grad()
    def permute(self, order: Tensor) -> None:
        """Renumber the channels: new channel i is old channel ``order[i]``."""
        both = torch.cat([order, order + len(order)])  # μ and σ
        for layer, rows in ((self.posterior, order), (self.predict, both), (self.log_gain, order)):
            layer.weight.copy_(layer.weight[rows])
            layer.bias.copy_(layer.bias[rows])
        self.project.weight.copy_(self.project.weight[:, order])


Tell = Callable[[Level, Tensor, Tensor], Tensor]
"""``tell(level, r, scale)`` gives what the decoder is told of r ``[B, G·D, H, W]``, whose predicted σ is scale."""


class VQVAE(nn.Module):
    """Image tensor ↔ code grids, at any λ of the configured range.

    Args:
        config: widths, levels and λ range.
        learn: how codebooks learn, ``"ema"`` or ``"gradient"``; see :class:`VectorQuantizer`.
    """

    def __init__(self, config: ModelConfig, *, learn: str = "ema") -> None:
        super().__init__()
        self.config = config
        widths, blocks, patch = config.widths, config.blocks, config.patch
        self.embedding = LambdaEmbedding(config.lambda_min, config.lambda_max)
        self.first = Downsample(3, widths[0], patch)
        self.encoder = nn.ModuleList(ResidualStack(w, n) for w, n in zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(Downsample(a, b, 2) for a, b in itertools.pairwise(widths))
        self.start = nn.Parameter(torch.zeros(widths[-1]))
        centre = (math.log(config.lambda_min) + math.log(config.lambda_max)) / 2
        trunk = [patch << i for i in range(len(widths))]
        self.stage_of_level = [trunk.index(level.stride) for level in config.levels]
        self.levels = nn.ModuleList(
            Level(level, widths[stage], centre, learn)
            for level, stage in zip(config.levels, self.stage_of_level, strict=True)
        )
        self.decoder = nn.ModuleList(ResidualStack(w, n) for w, n in zip(widths, blocks, strict=True))
        self.up = nn.ModuleList(Upsample(b, a, 2) for a, b in itertools.pairwise(widths))
        self.last = Upsample(widths[0], 3, patch)

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this: the coarsest level's stride."""
        return self.config.levels[0].stride

    def forward(self, x: Tensor, lmbda: Tensor, *, hard: bool) -> Reconstruction:
        """Reconstruct ``x [B, 3, H, W]`` (0..1) at ``lmbda [B]``.

        With ``hard=False`` quantisation is modelled by noise U(−½, ½) and bits by the Gaussian that f
        predicts, integrated over the step (Ballé et al. 2018, eq. 8); otherwise codes are chosen.
        """
        bits: list[Tensor] = []
        quantized: list[Quantized] = []

        def tell(level: Level, r: Tensor, scale: Tensor) -> Tensor:
            if not hard:
                r_hat = r + torch.rand_like(r) - 0.5
                bits.append(_gaussian_bits(r_hat, scale))
                return r_hat
            q: Quantized = level.quantizer(r, _precision(scale))
            quantized.append(q)
            bits.append(q.bits)
            return q.z_q

        x_hat = self._top_down(x, lmbda, tell).float() + 0.5
        losses = [torch.stack([q.commitment_loss, q.codebook_loss]) for q in quantized] or [x.new_zeros(2)]
        commitment, codebook = torch.stack(losses).mean(0)
        return Reconstruction(x_hat, bits, [q.codes for q in quantized], commitment, codebook)

    @torch.inference_mode()
    def encode(self, x: Tensor, lmbda: Tensor) -> list[Tensor]:
        """Code grids, coarsest first, each ``[B, G_l, H/stride_l, W/stride_l]`` int64, of ``x [B, 3, H, W]``."""
        codes: list[Tensor] = []

        def tell(level: Level, r: Tensor, scale: Tensor) -> Tensor:
            codes.append(level.quantizer.encode(r, _precision(scale)))
            return level.quantizer.decode(codes[-1])

        self._top_down(x, lmbda, tell, last_stage=min(self.stage_of_level))
        return codes

    @torch.inference_mode()
    def decode(self, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        """``x_hat [B, 3, H, W]`` in 0..1 from code grids, coarsest first.

        Levels missing at the end of the list are replaced by what the decoder predicts of them: a preview.
        """
        embedding = self.embedding(lmbda)
        batch, _, height, width = codes[0].shape
        f = self.start[None, :, None, None].expand(batch, -1, height, width)
        remaining = iter(codes)
        for stage in reversed(range(len(self.decoder))):
            for level in self._levels_at(stage):
                gain = level.gain(lmbda, embedding)
                mean, _ = level.mean_scale(f)
                grid = next(remaining, None)
                r_hat = torch.zeros_like(mean) if grid is None else level.quantizer.decode(grid)
                f = level.update(f, mean, r_hat, gain)
            f = self._decode_stage(stage, f, embedding)
        return (f.float() + 0.5).clamp(0, 1)

    @torch.no_grad()
    def residuals(self, x: Tensor, lmbda: Tensor, *, quantized: int = 0) -> list[tuple[Tensor, Tensor]]:
        """``(r, 1/σ²)`` of every level, coarsest first: what codebooks are fitted on.

        The ``quantized`` coarsest levels are given their codes, the others noise.
        """
        pairs: list[tuple[Tensor, Tensor]] = []

        def tell(level: Level, r: Tensor, scale: Tensor) -> Tensor:
            pairs.append((r, _precision(scale)))
            if len(pairs) > quantized:
                return r + torch.rand_like(r) - 0.5
            return level.quantizer.decode(level.quantizer.encode(*pairs[-1]))

        self._top_down(x, lmbda, tell)
        return pairs

    def freeze_encoder(self) -> None:
        """Leave what chooses the codes as it is: only what reads them goes on learning."""
        parts: list[nn.Module] = [self.embedding, self.first, self.encoder, self.down]
        for level in self.levels:
            assert isinstance(level, Level)
            parts += [level.posterior, level.log_gain]
        for part in parts:
            part.requires_grad_(False)

    @torch.no_grad()
    def deal_channels(self, x: Tensor, lmbda: Tensor) -> None:
        """Spread channels over groups so that each group gets an equal share of the entropy of ``x``.

        Channels are sorted by entropy and dealt out in a snake; otherwise one group uses all of its K codes
        while others use ten. The model computes the same function afterwards.
        """
        for level, (_, precision) in zip(self.levels, self.residuals(x, lmbda), strict=True):
            assert isinstance(level, Level)
            # Bits of a Gaussian above the quantiser's own noise of 1/12.
            entropy = (1 + 12 / precision).log2().mean((0, 2, 3))
            level.permute(_snake(entropy.argsort(descending=True), level.quantizer.groups))

    def _top_down(self, x: Tensor, lmbda: Tensor, tell: Tell, *, last_stage: int = 0) -> Tensor:
        """Encode ``x``, go through the levels coarsest first, and return the decoder's output.

        With ``last_stage`` above 0 the walk ends behind that stage's levels, with the decoder feature there.
        """
        embedding = self.embedding(lmbda)
        features = self._encode_trunk(x, embedding)
        f = self._start(features[-1])
        for stage in reversed(range(last_stage, len(features))):
            for level in self._levels_at(stage):
                gain = level.gain(lmbda, embedding)
                mean, scale = level.mean_scale(f)
                r = level.residual(features[stage], f, mean, gain)
                f = level.update(f, mean, tell(level, r, gain * scale), gain)
            if stage > last_stage or stage == 0:
                f = self._decode_stage(stage, f, embedding)
        return f

    def _levels_at(self, stage: int) -> list[Level]:
        pairs = zip(self.levels, self.stage_of_level, strict=True)
        return [level for level, at in pairs if at == stage and isinstance(level, Level)]

    def _encode_trunk(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Encoder features at every stride, finest first."""
        e = self.first(x - 0.5)
        features: list[Tensor] = []
        for stage, stack in enumerate(self.encoder):
            e = stack(e if stage == 0 else self.down[stage - 1](e), embedding)
            features.append(e)
        return features

    def _start(self, e: Tensor) -> Tensor:
        """The decoder feature before any level has spoken."""
        return self.start[None, :, None, None].expand_as(e)

    def _decode_stage(self, stage: int, f: Tensor, embedding: Tensor) -> Tensor:
        """Refine f at a stride, then go to the next finer one, or to pixels at the last."""
        f = self.decoder[stage](f, embedding)
        out: Tensor = self.up[stage - 1](f) if stage > 0 else self.last(f)
        return out


def _precision(scale: Tensor) -> Tensor:
    """1/σ² for the rate of hard codes, with σ no smaller than a third of a step.

    A surer head would price every other code so high that nothing could correct a drift of a step.
    """
    return scale.clamp_min(1 / 3).pow(-2)


def _snake(channels: Tensor, groups: int) -> Tensor:
    """Deal ``channels`` to ``groups`` there and back; the channels of group 0, then those of group 1, …"""
    hands = [row if i % 2 == 0 else row.flip(0) for i, row in enumerate(torch.split(channels, groups))]
    return torch.stack(hands, 1).flatten()


def _gaussian_bits(r_hat: Tensor, scale: Tensor) -> Tensor:
    """Bits ``[B]`` of ``r_hat [B, C, H, W]`` under N(0, scale²) convolved with U(−½, ½).

    One part in a thousand is a Cauchy density four steps wide: outliers keep a finite cost and a gradient.
    """
    magnitude = r_hat.abs()  # the density is symmetric, and the lower tail keeps its precision
    inverse = scale.clamp_min(0.02).reciprocal() * math.sqrt(0.5)
    gaussian = 0.5 * (torch.erfc((magnitude - 0.5) * inverse) - torch.erfc((magnitude + 0.5) * inverse))
    cauchy = 1 / (4 * math.pi * (1 + (r_hat / 4).square()))
    return -(0.999 * gaussian + 0.001 * cauchy).log().sum((1, 2, 3)) / LN2
