r"""The steps of the VQ-VAE's walk from the first decoder feature to the image, and the levels of codes among them.

::

    state (f, x_hat) ──▶ Level ──▶ Blocks ──▶ Upsample ──▶ … ──▶ Head ──▶ PixelLevel ──▶ state (f, x_hat)
                           │ ▲                                              │ ▲
                    latent ▼ │ r_hat                                 latent ▼ │ r_hat
                         choose                                           choose

    Level, from the encoder feature e and the decoder feature f:

        y = posterior(e, f)     μ, σ = predict(f)     r = g(λ)·(y − μ)
        r_hat = choose(r, σ)    f ← f + project(μ + r_hat / g(λ))

    PixelLevel, from the image x and the decoder's x_hat so far:

        r = g(λ)·A(x − x_hat)   r_hat = choose(r, σ)   x_hat ← x_hat + S(r_hat / g(λ))

Legend: B batch, H and W image height and width, G groups and D channels a group of the level, F channels and h × w
positions of the decoder feature at the step, E width of the λ embedding.

The choice of r_hat is the only thing that differs between training with noise, training on codes, encoding,
decoding, previews and fitting: :mod:`vqcodec.networks.choices`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.config import LevelConfig
from vqcodec.networks.head import RateHead
from vqcodec.networks.layers import EMBEDDING, Conv, Downsample, Upsample
from vqcodec.networks.quantize import DISTORTION_WEIGHT, VectorQuantizer

__all__ = [
    "Blocks",
    "Choose",
    "Head",
    "Inputs",
    "Latent",
    "Level",
    "PixelLevel",
    "State",
    "Step",
    "Upscale",
]


@dataclass(frozen=True)
class State:
    """What the decoder has computed so far.

    Attributes:
        f: the feature ``[B, F, h, w]``.
        x_hat: ``[B, 3, H, W]``, nominally 0..1, not clamped; None before the head.
    """

    f: Tensor
    x_hat: Tensor | None = None


@dataclass(frozen=True)
class Inputs:
    """What every step may use.

    Attributes:
        lmbda: λ of each image, ``[B]``.
        embedding: its features ``[B, E]``.
        features: encoder features ``[B, width, H/stride, W/stride]`` by stride; empty when decoding.
        x: the image ``[B, 3, H, W]``; None when decoding.
    """

    lmbda: Tensor
    embedding: Tensor
    features: Mapping[int, Tensor] = field(default_factory=dict)
    x: Tensor | None = None


@dataclass(frozen=True)
class Latent:
    """The residual of one level, which is to be quantised.

    Attributes:
        quantizer: the level's.
        shape: of r, ``[B, G·D, h, w]``.
        residual: computes r, in units of the quantiser's step; needs the encoder's half of the inputs.
        scale: computes σ of r, float32, in the same shape, from the decoder's half alone.
    """

    quantizer: VectorQuantizer
    shape: tuple[int, ...]
    residual: Callable[[], Tensor]
    scale: Callable[[], Tensor]


Choose = Callable[[Latent], Tensor]
"""``choose(latent)`` returns r_hat ``[B, G·D, h, w]``, in steps: what the decoder goes on with at this level."""

Step = Callable[[State, Inputs, Choose], State]
"""One step of the walk: the state after it."""


@dataclass(frozen=True)
class Blocks:
    """Residual blocks on f."""

    stack: nn.Module  # a ResidualStack

    def __call__(self, state: State, inputs: Inputs, choose: Choose) -> State:
        return State(self.stack(state.f, inputs.embedding))


@dataclass(frozen=True)
class Upscale:
    """f at half the stride, ``[B, F, h, w] -> [B, F', 2h, 2w]``."""

    layer: nn.Module  # an Upsample

    def __call__(self, state: State, inputs: Inputs, choose: Choose) -> State:
        return State(self.layer(state.f))


@dataclass(frozen=True)
class Head:
    """x_hat of f, ``[B, 3, H, W]``, float32."""

    layer: Upsample

    def __call__(self, state: State, inputs: Inputs, choose: Choose) -> State:
        return replace(state, x_hat=self.layer(state.f).float() + 0.5)


class Level(nn.Module):
    """A level of the trunk: it codes what the encoder feature adds to the decoder's prediction.

    Args:
        config: groups, codebooks and stride.
        width: channels of e and f at this stride.
        log_lambda_centre: log λ at which the gain starts at e.
        learn: how codebooks learn; see :class:`vqcodec.networks.codebooks.Codebooks`.
        sigma_min: the smallest σ of the rate head, in steps.
    """

    encoder_only = ("posterior.", "quantizer.bias")  # how the names of tensors begin that only choosing codes needs

    def __init__(self, config: LevelConfig, width: int, log_lambda_centre: float, learn: str, sigma_min: float) -> None:
        super().__init__()
        channels = config.groups * config.dim
        self.stride, self.log_lambda_centre = config.stride, log_lambda_centre
        self.posterior = Conv(2 * width, channels)
        self.predict_hidden = Conv(width, width)
        self.predict = Conv(width, 2 * channels, gain=0.1)
        self.project = Conv(channels, width, 1)
        self.log_gain = nn.Linear(EMBEDDING, channels)
        nn.init.zeros_(self.log_gain.weight)
        nn.init.constant_(self.log_gain.bias, 1.0)
        self.quantizer = VectorQuantizer(
            config.groups, config.codebook_size, config.dim, learn=learn, head=RateHead(sigma_min=sigma_min)
        )

    def forward(self, state: State, inputs: Inputs, choose: Choose) -> State:
        f = state.f
        gain = self.gain(inputs.lmbda, inputs.embedding)
        mean, scale = self.mean_scale(f)
        latent = Latent(
            self.quantizer,
            mean.shape,
            residual=lambda: self.residual(inputs.features[self.stride], f, mean, gain),
            scale=lambda: gain * scale,
        )
        return State(self.update(f, mean, choose(latent), gain))

    def gain(self, lmbda: Tensor, embedding: Tensor) -> Tensor:
        """g(λ) ``[B, G·D, 1, 1]``: ∝ √λ, the step of a high-resolution quantiser, times a learned correction."""
        log_gain: Tensor = self.log_gain(embedding) + 0.5 * (lmbda.log()[:, None] - self.log_lambda_centre)
        return log_gain.float().exp()[:, :, None, None]

    def mean_scale(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ of y given the decoder feature f, each ``[B, G·D, h, w]``, float32."""
        mean, log_scale = self.predict(F.silu(self.predict_hidden(F.silu(f)))).float().chunk(2, 1)
        return mean, log_scale.clamp(-8, 8).exp()

    def residual(self, e: Tensor, f: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
        """``r = g·(y − μ)``, ``[B, G·D, h, w]``, in units of the quantiser's step."""
        y: Tensor = self.posterior(torch.cat([e, f], 1))
        return gain * (y.float() - mean)

    def update(self, f: Tensor, mean: Tensor, r_hat: Tensor, gain: Tensor) -> Tensor:
        """The decoder feature once r_hat is known."""
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
    """A level of pixels: it codes what x_hat still lacks of the image, by a linear transform of blocks.

    The transform is orthonormal, so a squared error of its coefficients is one of the pixels, and the best step is
    known. Gradients train σ only; the transform is fitted, and codebooks learn as everywhere.

    Args:
        config: groups, codebooks and stride; blocks are ``stride`` pixels a side.
        features, patch: channels and stride of the decoder's last feature.
        learn: how codebooks learn; see :class:`vqcodec.networks.codebooks.Codebooks`.
    """

    encoder_only = ("predict_hidden.", "predict.", "quantizer.bias")  # unlike a Level's, they predict no μ
    components: Tensor

    def __init__(self, config: LevelConfig, features: int, patch: int, learn: str) -> None:
        super().__init__()
        channels, block = config.groups * config.dim, 3 * config.stride**2
        self.stride = config.stride
        self.register_buffer("components", torch.eye(channels, block))
        # The last features before pixels are small: with a gain of 1, σ would hardly depend on them.
        self.predict_hidden = Downsample(features, features, config.stride // patch, gain=16)
        self.predict = Conv(features, channels, gain=0.1)
        self.quantizer = VectorQuantizer(
            config.groups,
            config.codebook_size,
            config.dim,
            learn=learn,
            head=RateHead("laplacian", sigma_min=0.1),
            zero_code=True,
        )

    def forward(self, state: State, inputs: Inputs, choose: Choose) -> State:
        x_hat = state.x_hat
        assert x_hat is not None, "a level of pixels comes after the head"
        gain = self.gain(inputs.lmbda)

        def residual() -> Tensor:
            assert inputs.x is not None, "only an encoder has residuals"
            return self.residual(inputs.x - x_hat, gain)

        batch, _, height, width = x_hat.shape
        shape = (batch, len(self.components), height // self.stride, width // self.stride)
        latent = Latent(self.quantizer, shape, residual=residual, scale=lambda: gain * self.scale(state.f))
        return replace(state, x_hat=self.update(x_hat, choose(latent), gain))

    def gain(self, lmbda: Tensor) -> Tensor:
        """g(λ) ``[B, 1, 1, 1]``: a coefficient off by a step costs λ·255²/3 · g⁻² bits, which is DISTORTION_WEIGHT."""
        return (lmbda * (255**2 / 3 / DISTORTION_WEIGHT)).sqrt()[:, None, None, None]

    def scale(self, f: Tensor) -> Tensor:
        """σ of the coefficients, ``[B, G·D, H/stride, W/stride]``, float32, given the last ``f [B, F, h, w]``."""
        log_scale: Tensor = self.predict(F.silu(self.predict_hidden(F.silu(f)))).float()
        return log_scale.clamp(-8, 8).exp()

    def residual(self, missing: Tensor, gain: Tensor) -> Tensor:
        """``r = g·A(missing)``, ``[B, G·D, …]``, of ``missing [B, 3, H, W]``, in units of the quantiser's step."""
        return gain * F.conv2d(F.pixel_unshuffle(missing, self.stride), self.components[:, :, None, None]).float()

    def update(self, x_hat: Tensor, r_hat: Tensor, gain: Tensor) -> Tensor:
        """The image ``[B, 3, H, W]`` once r_hat is known."""
        blocks = F.conv2d(r_hat / gain, self.components.T[:, :, None, None])
        return x_hat + F.pixel_shuffle(blocks, self.stride).float()

    @torch.no_grad()
    def fit(self, missing: Tensor, gain: Tensor) -> None:
        """Set A to the principal components of blocks of ``gain·missing``, and σ to the coefficients' root mean square.

        ``missing [B, 3, H, W]`` is x − x_hat; ``gain [B, 1, 1, 1]`` weighs the images.
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
