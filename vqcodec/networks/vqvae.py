r"""The VQ-VAE: image tensor ↔ a list of code grids, coarsest first.

::

    x [B, 3, H, W] ───── x − patches ──▶ level 2 (of pixels) ───────────────▶ + ──▶ x_hat [B, 3, H, W]
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

    a level of pixels, from the image x and what the decoder has made of it so far:

        r = g(λ)·A(x − x_hat)   codes = quantise(r)   x_hat ← x_hat + S(codeword / g(λ))

Legend: B batch, H and W image height and width, G_l groups and D_l channels a group at level l.

Only what a coarser level has not told is quantised (top-down, as in QRes-VAE, Duan et al. 2023). The gain g
puts the quantiser's step at one for every λ, so one set of codebooks serves all qualities. A and S are linear, and
start as the principal components of what the trunk leaves of the pixels: no detail is out of reach, however little the
trunk has learned. With one level the
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
from vqcodec.networks.head import RateHead, gaussian_bits
from vqcodec.networks.layers import EMBEDDING, Conv, Downsample, LambdaEmbedding, ResidualStack, Upsample
from vqcodec.networks.quantize import DISTORTION_WEIGHT, Quantized, VectorQuantizer

__all__ = ["TRAINING_ONLY", "VQVAE", "Level", "PixelLevel", "Reconstruction", "Tell"]

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
    """A level of the trunk: what to tell the decoder, given what it knows."""

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
        self.quantizer = VectorQuantizer(
            config.groups,
            config.codebook_size,
            config.dim,
            learn=learn,
            distortion_weight=config.distortion_weight,
        )

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
            _permute_outputs(layer, rows)
        self.project.weight.copy_(self.project.weight[:, order])


class PixelLevel(nn.Module):
    """A level of pixels: what the decoder still lacks of the image, by a linear transform of blocks.

    The transform is orthonormal, so a squared error of its coefficients is one of the pixels, and the best step is
    known: nothing of it is learned by gradients. Only how far coefficients may reach is, and codebooks as everywhere.

    Legend: F features and h × w positions of the decoder at the finest stride of the trunk.
    """

    components: Tensor

    def __init__(self, config: LevelConfig, features: int, patch: int, learn: str) -> None:
        super().__init__()
        channels, block = config.groups * config.dim, 3 * config.stride**2
        self.stride = config.stride
        self.register_buffer("components", torch.eye(channels, block))
        # The last features before pixels are small: with a gain of 1, σ would hardly see them.
        self.predict_hidden = Downsample(features, features, config.stride // patch, gain=16)
        self.predict = Conv(features, channels, gain=0.1)
        self.quantizer = VectorQuantizer(
            config.groups,
            config.codebook_size,
            config.dim,
            learn=learn,
            head=RateHead("laplacian", sigma_min=0.1),
            zero_code=True,
            distortion_weight=config.distortion_weight,
        )

    def gain(self, lmbda: Tensor) -> Tensor:
        """g(λ) ``[B, 1, 1, 1]``: a coefficient off by a step costs λ·255²/3 · g⁻² bits, which is DISTORTION_WEIGHT."""
        return (lmbda * (255**2 / 3 / DISTORTION_WEIGHT)).sqrt()[:, None, None, None]

    def scale(self, f: Tensor) -> Tensor:
        """σ of the coefficients, ``[B, G·D, H, W]``, float32, given the decoder feature ``f [B, F, h, w]``."""
        log_scale: Tensor = self.predict(F.silu(self.predict_hidden(F.silu(f)))).float()
        return log_scale.clamp(-8, 8).exp()

    def residual(self, missing: Tensor, gain: Tensor) -> Tensor:
        """``r = g·A(missing)``, ``[B, G·D, H, W]``, of ``missing [B, 3, …]``, in units of the quantiser's step."""
        return gain * F.conv2d(F.pixel_unshuffle(missing, self.stride), self.components[:, :, None, None]).float()

    def update(self, x_hat: Tensor, r_hat: Tensor, gain: Tensor) -> Tensor:
        """The image after this level's news."""
        blocks = F.conv2d(r_hat / gain, self.components.T[:, :, None, None])
        return x_hat + F.pixel_shuffle(blocks, self.stride).float()

    @torch.no_grad()
    def fit(self, missing: Tensor, gain: Tensor) -> None:
        """Set A to the principal components of blocks of ``gain·missing``, and σ to what coefficients are like.

        ``missing [B, 3, …]`` is what the decoder lacks and ``gain [B, 1, 1, 1]`` how much it counts.
        """
        blocks, weighed = (
            F.pixel_unshuffle(x.float(), self.stride).transpose(0, 1).flatten(1) for x in (missing, gain * missing)
        )
        _, components = torch.linalg.eigh(weighed @ weighed.T / weighed.shape[1])
        self.components.copy_(components[:, -len(self.components) :].T)
        self.predict.weight.zero_()
        self.predict.bias.copy_((self.components @ blocks).square().mean(1).sqrt().clamp_min(1e-6).log())

    @torch.no_grad()
    def permute(self, order: Tensor) -> None:
        """Renumber the channels: new channel i is old channel ``order[i]``."""
        self.components.copy_(self.components[order])
        _permute_outputs(self.predict, order)


def _permute_outputs(layer: Conv | nn.Linear, order: Tensor) -> None:
    layer.weight.copy_(layer.weight[order])
    layer.bias.copy_(layer.bias[order])


Tell = Callable[[VectorQuantizer, Tensor, Tensor], Tensor]
"""``tell(quantizer, r, scale)`` gives what the decoder is told of r ``[B, G·D, H, W]``, whose predicted σ is scale."""


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
        # The trunk level at each stage; the levels of pixels come after all of them.
        self.stage_of_level = [trunk.index(level.stride) for level in config.levels if not level.pixels]
        self.levels = nn.ModuleList(
            PixelLevel(level, widths[0], patch, learn)
            if level.pixels
            else Level(level, widths[trunk.index(level.stride)], centre, learn)
            for level in config.levels
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
        predicts, integrated over the step (Ballé et al. 2018, eq. 8); otherwise codes are chosen. Levels of pixels
        are left out of the noise form: where they have nothing to say, their noise would go straight to the image.
        """
        bits: list[Tensor] = []
        quantized: list[Quantized] = []

        def tell(quantizer: VectorQuantizer, r: Tensor, scale: Tensor) -> Tensor:
            if not hard:
                r_hat = r + torch.rand_like(r) - 0.5
                bits.append(gaussian_bits(r_hat, scale))
                return r_hat
            q: Quantized = quantizer(r, quantizer.head.precision(scale))
            quantized.append(q)
            bits.append(q.bits)
            return q.z_q

        x_hat = self.top_down(x, lmbda, tell, pixels=hard)
        losses = [torch.stack([q.commitment_loss, q.codebook_loss]) for q in quantized] or [x.new_zeros(2)]
        commitment, codebook = torch.stack(losses).mean(0)
        return Reconstruction(x_hat, bits, [q.codes for q in quantized], commitment, codebook)

    @torch.inference_mode()
    def encode(self, x: Tensor, lmbda: Tensor, *, bfloat16: bool = False) -> list[Tensor]:
        """Code grids, coarsest first, each ``[B, G_l, H/stride_l, W/stride_l]`` int64, of ``x [B, 3, H, W]``.

        With ``bfloat16`` the encoder's features are computed in it. What the decoder will make of the codes is not:
        codes chosen by rougher features are as good, while corrections of a rough image would be wrong.
        """
        codes: list[Tensor] = []

        def tell(quantizer: VectorQuantizer, r: Tensor, scale: Tensor) -> Tensor:
            codes.append(quantizer.encode(r, quantizer.head.precision(scale)))
            return quantizer.decode(codes[-1])

        trunk_only = len(self.stage_of_level) == len(self.levels)
        self.top_down(x, lmbda, tell, last_stage=min(self.stage_of_level) if trunk_only else 0, bfloat16=bfloat16)
        return codes

    @torch.inference_mode()
    def decode(self, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        """``x_hat [B, 3, H, W]`` in 0..1 from code grids, coarsest first.

        Levels missing at the end of the list are replaced by what the decoder predicts of them: a preview.
        """
        embedding = self.embedding(lmbda)
        batch, _, height, width = codes[0].shape
        f = self._start(batch, height, width)
        remaining = iter(codes)
        for stage in reversed(range(len(self.decoder))):
            for level in self._levels_at(stage):
                gain = level.gain(lmbda, embedding)
                mean, _ = level.mean_scale(f)
                grid = next(remaining, None)
                r_hat = torch.zeros_like(mean) if grid is None else level.quantizer.decode(grid)
                f = level.update(f, mean, r_hat, gain)
            f = self.decoder[stage](f, embedding)
            if stage > 0:
                f = self.up[stage - 1](f)
        x_hat: Tensor = self.last(f).float() + 0.5
        for pixel_level, grid in zip(self._pixel_levels(), remaining, strict=False):
            gain = pixel_level.gain(lmbda)
            x_hat = pixel_level.update(x_hat, pixel_level.quantizer.decode(grid), gain)
        return x_hat.clamp(0, 1)

    @torch.no_grad()
    def residuals(self, x: Tensor, lmbda: Tensor, *, quantized: int = 0) -> list[tuple[Tensor, Tensor]]:
        """``(r, 1/σ²)`` of every level, coarsest first: what codebooks are fitted on.

        The ``quantized`` coarsest levels are given their codes, the others noise.
        """
        pairs: list[tuple[Tensor, Tensor]] = []

        def tell(quantizer: VectorQuantizer, r: Tensor, scale: Tensor) -> Tensor:
            pairs.append((r, quantizer.head.precision(scale)))
            if len(pairs) > quantized:
                return r + torch.rand_like(r) - 0.5
            return quantizer.decode(quantizer.encode(*pairs[-1]))

        self.top_down(x, lmbda, tell)
        return pairs

    def freeze_encoder(self) -> None:
        """Leave what chooses the codes as it is: only what reads them goes on learning."""
        parts: list[nn.Module] = [self.embedding, self.first, self.encoder, self.down]
        for level in self.levels:
            if isinstance(level, Level):
                parts += [level.posterior, level.log_gain]
        for part in parts:
            part.requires_grad_(False)

    @torch.no_grad()
    def fit_level(self, index: int, x: Tensor, lmbda: Tensor, *, seed: int = 0) -> None:
        """Fit the codebooks of a level to what it has to tell of ``x [B, 3, H, W]`` at ``lmbda [B]``.

        What a level has to tell depends on how well the coarser ones were told, so those must have been fitted before.
        Channels are sorted by entropy and dealt out to the groups in a snake; otherwise one group uses all of its K
        codes while others use ten. A level of pixels gets its transform first.
        """
        level = self.levels[index]
        assert isinstance(level, (Level, PixelLevel))
        if isinstance(level, PixelLevel):
            level.fit(x - self._told(x, lmbda, index), level.gain(lmbda))
        r, precision = self.residuals(x, lmbda, quantized=index)[index]
        # Bits of a Gaussian above the quantiser's own noise of 1/12.
        variance = r.square() if isinstance(level, PixelLevel) else 1 / precision
        order = _snake((1 + 12 * variance).log2().mean((0, 2, 3)).argsort(descending=True), level.quantizer.groups)
        level.permute(order)
        level.quantizer.fit(r[:, order], precision[:, order], seed=seed)

    def top_down(
        self,
        x: Tensor,
        lmbda: Tensor,
        tell: Tell,
        *,
        last_stage: int = 0,
        pixels: bool = True,
        bfloat16: bool = False,
    ) -> Tensor:
        """Encode ``x``, go through the levels coarsest first, and return x_hat, float32.

        With ``last_stage`` above 0 the walk ends behind that stage's levels, with the decoder feature there; without
        ``pixels`` it ends before the levels of pixels. For ``bfloat16`` see :meth:`encode`.
        """
        embedding = self.embedding(lmbda)
        if bfloat16:
            with torch.autocast(x.device.type, torch.bfloat16):
                features = [feature.float() for feature in self._encode_trunk(x, embedding)]
        else:
            features = self._encode_trunk(x, embedding)
        batch, _, height, width = features[-1].shape
        f = self._start(batch, height, width)
        for stage in reversed(range(last_stage, len(features))):
            for level in self._levels_at(stage):
                gain = level.gain(lmbda, embedding)
                mean, scale = level.mean_scale(f)
                r = level.residual(features[stage], f, mean, gain)
                f = level.update(f, mean, tell(level.quantizer, r, gain * scale), gain)
            if stage == 0 or stage > last_stage:
                f = self.decoder[stage](f, embedding)
            if stage > last_stage:
                f = self.up[stage - 1](f)
        if last_stage > 0:
            return f
        x_hat: Tensor = self.last(f).float() + 0.5
        for pixel_level in self._pixel_levels() if pixels else []:
            gain = pixel_level.gain(lmbda)
            r = pixel_level.residual(x - x_hat, gain)
            told = tell(pixel_level.quantizer, r, gain * pixel_level.scale(f))
            x_hat = pixel_level.update(x_hat, told, gain)
        return x_hat

    def _told(self, x: Tensor, lmbda: Tensor, levels: int) -> Tensor:
        """What the decoder makes of ``x`` given the codes of so many levels, and zeros for the others' residuals."""
        codes: list[Tensor] = []

        def tell(quantizer: VectorQuantizer, r: Tensor, scale: Tensor) -> Tensor:
            if len(codes) == levels:
                return torch.zeros_like(r)
            codes.append(quantizer.encode(r, quantizer.head.precision(scale)))
            return quantizer.decode(codes[-1])

        return self.top_down(x, lmbda, tell)

    def _levels_at(self, stage: int) -> list[Level]:
        """The levels of the trunk at a stage."""
        trunk = [level for level in self.levels if isinstance(level, Level)]
        return [level for level, at in zip(trunk, self.stage_of_level, strict=True) if at == stage]

    def _pixel_levels(self) -> list[PixelLevel]:
        return [level for level in self.levels if isinstance(level, PixelLevel)]

    def _encode_trunk(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Encoder features at every stride, finest first."""
        e = self.first(x - 0.5)
        features: list[Tensor] = []
        for stage, stack in enumerate(self.encoder):
            e = stack(e if stage == 0 else self.down[stage - 1](e), embedding)
            features.append(e)
        return features

    def _start(self, batch: int, height: int, width: int) -> Tensor:
        """The decoder feature before any level has spoken, channels last."""
        return self.start.expand(batch, height, width, -1).contiguous().permute(0, 3, 1, 2)


def _snake(channels: Tensor, groups: int) -> Tensor:
    """Deal ``channels`` to ``groups`` there and back; the channels of group 0, then those of group 1, …"""
    hands = [row if i % 2 == 0 else row.flip(0) for i, row in enumerate(torch.split(channels, groups))]
    return torch.stack(hands, 1).flatten()
