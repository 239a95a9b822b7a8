r"""The VQ-VAE: image tensor ↔ a list of code grids, coarsest first.

Here with two levels of the trunk and one of pixels; the shipped model has three, at strides 32, 16 and 8, and none::

    x [B, 3, H, W] ───── x − x_hat ──▶ level 2 (of pixels) ───────────────────▶ + ──▶ x_hat [B, 3, H, W]
      │ patches                                                               ▲ patches
      ▼                                                                       │
    stride 4: blocks ────────────────────────────────────────────────── blocks, stride 4
      │                                                                       ▲
      ▼                                                                       │ upsample
    stride 8: blocks ── e_1 ──▶ level 1: codes [B, G_1, H/8, W/8] ──▶ f ─ blocks
      │                                                                       ▲ upsample
      ▼                                                                       │
    stride 16: blocks ─ e_0 ──▶ level 0: codes [B, G_0, H/16, W/16] ─▶ f ─ blocks

Legend: B batch, H and W image height and width, G_l groups and D_l channels a group at level l, E width of the λ
embedding.

A level quantises only what the coarser levels leave over (top-down, as in QRes-VAE, Duan et al. 2023):
:mod:`vqcodec.networks.levels` has its equations. The gain g puts the quantiser's step at one for every λ, so one set of
codebooks serves all qualities. A level of pixels starts as the principal components of what the trunk leaves over, so
any detail can be coded, however little the trunk has learned. With one level the class is the VQ-VAE of van den Oord
et al. 2017, with two that of Razavi et al. 2019.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig
from vqcodec.networks.choices import Decode, Encode, HardCodes, Noise, RoundedNoise
from vqcodec.networks.layers import Downsample, LambdaEmbedding, ResidualStack, Upsample
from vqcodec.networks.levels import Blocks, Choose, Head, Inputs, Level, PixelLevel, State, Step, Upscale
from vqcodec.networks.quantize import VectorQuantizer

__all__ = ["TRAINING_ONLY", "VQVAE", "Reconstruction"]

TRAINING_ONLY = (".usage", ".expected", ".sums")  # endings of the tensors that neither encoding nor decoding needs


@dataclass(frozen=True)
class Reconstruction:
    """The result of a training pass.

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


class VQVAE(nn.Module):
    """Image tensor ↔ code grids, at any λ of the configured range.

    The decoder is a list of steps, and one loop, :meth:`walk`, serves every use; uses differ in the choice of r_hat at
    the levels (:mod:`vqcodec.networks.choices`).

    Args:
        config: widths, levels and λ range.
        learn: how codebooks learn; see :class:`vqcodec.networks.codebooks.Codebooks`.
    """

    def __init__(self, config: ModelConfig, *, learn: str = "ema") -> None:
        super().__init__()
        self.config = config
        self.distortion = "mse"  # what it was trained for: "mse" or "visual"
        widths, blocks, patch = config.widths, config.blocks, config.patch
        self.embedding = LambdaEmbedding(config.lambda_min, config.lambda_max)
        self.first = Downsample(3, widths[0], patch)
        kernel = config.second_kernel
        self.encoder = nn.ModuleList(ResidualStack(w, n, kernel) for w, n in zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(Downsample(a, b, 2) for a, b in itertools.pairwise(widths))
        self.start = nn.Parameter(torch.zeros(widths[-1]))
        centre = (math.log(config.lambda_min) + math.log(config.lambda_max)) / 2
        self.strides = [patch << stage for stage in range(len(widths))]  # of the trunk, finest first
        self.levels = nn.ModuleList(
            PixelLevel(level, widths[0], patch, learn)
            if level.pixels
            else Level(level, widths[self.strides.index(level.stride)], centre, learn, config.sigma_min)
            for level in config.levels
        )
        self.decoder = nn.ModuleList(ResidualStack(w, n, kernel) for w, n in zip(widths, blocks, strict=True))
        self.up = nn.ModuleList(Upsample(b, a, 2) for a, b in itertools.pairwise(widths))
        self.last = Upsample(widths[0], 3, patch)

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this: the coarsest level's stride."""
        return self.config.levels[0].stride

    @property
    def reach(self) -> int:
        """How many positions of the coarsest grid away a code, or the zero border, can still change a pixel at most.

        From the last convolution back to the coarsest level, each 3×3 convolution reaches a position further.
        """
        config, reach = self.config, 0
        for stride, blocks in zip(self.strides, config.blocks, strict=True):
            levels = sum(level.stride == stride and not level.pixels for level in config.levels)
            upscale, block, level = 1, 1 + config.second_kernel // 2, 2
            reach = math.ceil(reach / 2) + upscale + blocks * block + levels * level
        return reach

    @property
    def trunk_steps(self) -> list[Step]:
        """The decoder from its first feature to x_hat, without levels of pixels."""
        levels = [level for level in self.levels if isinstance(level, Level)]
        steps: list[Step] = []
        for stage, stride in reversed(list(enumerate(self.strides))):
            steps += [level for level in levels if level.stride == stride]
            steps.append(Blocks(self.decoder[stage]))
            if stage > 0:
                steps.append(Upscale(self.up[stage - 1]))
        return [*steps, Head(self.last)]

    @property
    def steps(self) -> list[Step]:
        """The whole decoder: the trunk, then levels of pixels."""
        return [*self.trunk_steps, *(level for level in self.levels if isinstance(level, PixelLevel))]

    def walk(self, steps: Sequence[Step], inputs: Inputs, choose: Choose, height: int, width: int) -> State:
        """Take ``steps`` from the first feature on; ``height`` and ``width`` are those of the coarsest grid."""
        start = self.start.expand(len(inputs.lmbda), height, width, -1).contiguous().permute(0, 3, 1, 2)
        state = State(start)  # channels last
        for step in steps:
            state = step(state, inputs, choose)
        return state

    def quantizers(self) -> list[VectorQuantizer]:
        """The quantisers of all levels, coarsest first."""
        return [module for module in self.levels.modules() if isinstance(module, VectorQuantizer)]

    def sides(self) -> tuple[set[str], set[str]]:
        """Names of the tensors of the decoder side, which decoding needs, and of the encoder side, which it does not.

        The encoder side has the tensors that only choosing codes needs. Neither has those that only training needs.
        """
        beginnings = ["first.", "encoder.", "down."]
        for i, level in enumerate(self.levels):
            assert isinstance(level, (Level, PixelLevel))
            beginnings += [f"levels.{i}.{beginning}" for beginning in level.encoder_only]
        names = {name for name in self.state_dict() if not name.endswith(TRAINING_ONLY)}
        encoder = {name for name in names if name.startswith(tuple(beginnings))}
        return names - encoder, encoder

    def analyse(self, x: Tensor, lmbda: Tensor, *, bfloat16: bool = False) -> Inputs:
        """The encoder's half of the inputs: features of ``x [B, 3, H, W]`` (0..1) at ``lmbda [B]`` at every stride.

        With ``bfloat16`` they are computed in bfloat16 and returned in float32.
        """
        embedding = self.embedding(lmbda)
        if not bfloat16:
            return Inputs(lmbda, embedding, self._features(x, embedding), x)
        with torch.autocast(x.device.type, torch.bfloat16):
            features = self._features(x, embedding)
        return Inputs(lmbda, embedding, {stride: feature.float() for stride, feature in features.items()}, x)

    def reconstruct(self, x: Tensor, lmbda: Tensor, choose: Choose, *, pixels: bool = True) -> Tensor:
        """x_hat ``[B, 3, H, W]``, not clamped, of ``x [B, 3, H, W]`` at ``lmbda [B]`` with r_hat by ``choose``.

        Without ``pixels``, levels of pixels are left out.
        """
        steps = self.steps if pixels else self.trunk_steps
        x_hat = self.walk(steps, self.analyse(x, lmbda), choose, *self._grid(x)).x_hat
        assert x_hat is not None
        return x_hat

    def forward(self, x: Tensor, lmbda: Tensor, *, hard: bool, rounded: bool = False) -> Reconstruction:
        """Reconstruct ``x [B, 3, H, W]`` (0..1) at ``lmbda [B]`` for training.

        With ``hard=False`` quantisation is modelled by noise U(−½, ½), or with ``rounded`` by
        :class:`vqcodec.networks.choices.RoundedNoise`, and bits are those of
        :func:`vqcodec.networks.head.gaussian_bits`; otherwise codes are chosen. Levels of pixels are left out of the
        noise form: where a file would have only zeros for them, their noise would go straight to the image.
        """
        if not hard:
            noise = RoundedNoise() if rounded else Noise()
            x_hat = self.reconstruct(x, lmbda, noise, pixels=False)
            return Reconstruction(x_hat, noise.bits, [], x.new_zeros(()), x.new_zeros(()))
        choice = HardCodes()
        x_hat = self.reconstruct(x, lmbda, choice)
        losses = torch.stack([torch.stack([q.commitment_loss, q.codebook_loss]) for q in choice.quantized])
        commitment, codebook = losses.mean(0)
        quantized = choice.quantized
        return Reconstruction(x_hat, [q.bits for q in quantized], [q.codes for q in quantized], commitment, codebook)

    @torch.inference_mode()
    def encode(self, x: Tensor, lmbda: Tensor, *, bfloat16: bool = False) -> list[Tensor]:
        """Code grids, coarsest first, each ``[B, G_l, H/stride_l, W/stride_l]`` int64, of ``x [B, 3, H, W]`` (0..1).

        With ``bfloat16`` the encoder's features are computed in it, but the decoder's are not: codes chosen by less
        exact features are as good, while corrections of an inexact image would be wrong.
        """
        choice, steps = Encode(), self.steps
        while not isinstance(steps[-1], (Level, PixelLevel)):
            steps.pop()  # no code depends on it
        self.walk(steps, self.analyse(x, lmbda, bfloat16=bfloat16), choice, *self._grid(x))
        return choice.codes

    @torch.inference_mode()
    def decode(self, codes: list[Tensor], lmbda: Tensor) -> Tensor:
        """``x_hat [B, 3, H, W]`` in 0..1 from code grids ``[B, G_l, H/stride_l, W/stride_l]``, coarsest first.

        Levels missing at the end of the list are replaced by the decoder's prediction of them: a preview.
        """
        inputs = Inputs(lmbda, self.embedding(lmbda))
        x_hat = self.walk(self.steps, inputs, Decode(codes), *codes[0].shape[2:]).x_hat
        assert x_hat is not None
        return x_hat.clamp(0, 1)

    def freeze_encoder(self) -> None:
        """Stop training everything that the choice of codes depends on, except for the decoder."""
        parts: list[nn.Module] = [self.embedding, self.first, self.encoder, self.down]
        for level in self.levels:
            if isinstance(level, Level):
                parts += [level.posterior, level.log_gain]
        for part in parts:
            part.requires_grad_(False)

    def _features(self, x: Tensor, embedding: Tensor) -> dict[int, Tensor]:
        """Encoder features ``[B, width, H/stride, W/stride]`` by stride, finest first."""
        e = self.first(x - 0.5)
        features: dict[int, Tensor] = {}
        for stage, stack in enumerate(self.encoder):
            e = stack(e if stage == 0 else self.down[stage - 1](e), embedding)
            features[self.strides[stage]] = e
        return features

    def _grid(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the coarsest grid of ``x [B, 3, H, W]``."""
        return x.shape[2] // self.stride, x.shape[3] // self.stride
