"""Frozen configurations: the VQ-VAE, the prior and the phases of training.

A preset is a TOML file with the tables ``[model]``, ``[prior]`` and ``[train.<phase>]``; each
field has a default; the defaults are those of ``presets/compact.toml``. This module does not import torch,
so ``vqcodec info`` and ``--help`` start at once.

The textbook models are configurations, not classes::

    presets/vqvae.toml     van den Oord et al. 2017    one level of one group
    presets/vqvae2.toml    Razavi et al. 2019          two levels of one group
"""

import dataclasses
import itertools
import math
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from vqcodec.errors import ConfigError

__all__ = [
    "DEFAULT_EFFORT",
    "DEFAULT_QUALITY",
    "DEFAULT_TUNE",
    "DISTORTIONS",
    "EFFORT_MAX",
    "PHASES",
    "QUALITY_MAX",
    "QUALITY_MIN",
    "TUNES",
    "Config",
    "LevelConfig",
    "ModelConfig",
    "PhaseConfig",
    "PriorConfig",
    "TrainConfig",
    "Tune",
    "check_tune",
]

QUALITY_MIN, QUALITY_MAX = 1, 100
DEFAULT_QUALITY = 75
EFFORT_MAX = 9  # 0 is the encoder alone; more is a longer search for better codes
DEFAULT_EFFORT = 1
Tune = Literal["psnr", "visual"]  # what files are made for: the least squared error, or what people see
TUNES: tuple[Tune, ...] = typing.get_args(Tune)
DEFAULT_TUNE: Tune = "psnr"
DISTORTIONS = ("mse", "visual")  # what a model is trained for: the mean squared error, or what people see
PHASES = ("vae", "codes", "prior", "joint")  # of training, in order
ENDLESS = 10**9  # steps of a phase that ends by minutes
EXPORT, EXPORT_MINUTES = 0.2, 20.0  # share of a run's minutes that is kept for the export, and its most minutes
LEAST = 0.02  # share of a run's minutes that is left for its next phases, whatever was spent before them


def check_tune(tune: object) -> None:
    """Raise ValueError unless ``tune`` is one of TUNES."""
    if tune not in TUNES:
        raise ValueError(f"tune is {tune!r}, expected {' or '.join(map(repr, TUNES))}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class LevelConfig:
    """One level of codes: ``groups`` codes at each position of a grid ``stride`` pixels apart."""

    stride: int = 8  # pixels per grid position along each axis
    groups: int = 24  # G: codes per position; 1 is the textbook VQ-VAE
    dim: int = 2  # D: channels that one code represents
    codebook_size: int = 128  # K: codewords in each group's codebook
    stages: int = 4  # S: groups of a position are coded in this many stages; each sees the codes of the stages before
    pixels: bool = False  # code the trunk's error in blocks of stride × stride pixels by a linear transform

    def __post_init__(self) -> None:
        _require(self.stride >= 1, f"level stride is {self.stride}, expected at least 1")
        _require(self.groups >= 1 and self.dim >= 1, "a level needs at least one group of one channel")
        _require(2 <= self.codebook_size <= 4096, f"codebook_size is {self.codebook_size}, expected 2..4096")
        _require(
            self.stages >= 1 and self.groups % self.stages == 0,
            f"stages is {self.stages}, expected a divisor of the {self.groups} groups",
        )


@dataclass(frozen=True)
class ModelConfig:
    """The VQ-VAE: a trunk with a width for each stride, and the levels of codes, coarsest first."""

    levels: tuple[LevelConfig, ...] = (
        LevelConfig(stride=32, groups=4, codebook_size=256, stages=2),
        LevelConfig(stride=16, groups=6, codebook_size=256, stages=3),
        LevelConfig(stride=8, groups=42, stages=3),
    )
    patch: int = 4  # pixels per side of the blocks that the first layer reads and the last one writes
    widths: tuple[int, ...] = (64, 128, 128, 128)  # channels at strides patch, 2*patch, 4*patch, …
    blocks: tuple[int, ...] = (1, 3, 2, 1)  # residual blocks at the same strides
    lambda_min: float = 0.0003  # λ, the weight of distortion, at quality 1 …
    lambda_max: float = 0.1  # … and at quality 100
    quality_scale: tuple[float, ...] = ()  # positions, 0 … 1, of evenly spaced qualities along log λ; empty: linear
    second_kernel: int = 1  # pixels a side of the second convolution of each residual block
    sigma_min: float = 0.1  # the smallest σ, in steps, in the bits that decide which code is chosen

    def __post_init__(self) -> None:
        _require(len(self.levels) >= 1, "a model needs at least one level")
        _require(
            len(self.widths) == len(self.blocks) >= 1,
            f"widths has {len(self.widths)} entries and blocks has {len(self.blocks)}, expected the same number",
        )
        _require(min(self.widths) >= 1 and min(self.blocks) >= 0, "a trunk needs widths >= 1 and blocks >= 0")
        _require(self.second_kernel % 2 == 1, f"second_kernel is {self.second_kernel}, expected an odd number")
        _require(0.01 <= self.sigma_min <= 1, f"sigma_min is {self.sigma_min}, expected 0.01..1")
        strides = [level.stride for level in self.levels]
        _require(strides == sorted(strides, reverse=True), f"levels have strides {strides}, expected coarsest first")
        trunk = [self.patch << i for i in range(len(self.widths))]
        for level in self.levels:
            _require(level.stride in trunk, f"a level has stride {level.stride}, expected one of {trunk}")
            room = 3 * level.stride**2
            _require(
                not level.pixels or level.groups * level.dim <= room,
                f"a level of pixels at stride {level.stride} has {level.groups} groups of {level.dim} channels, "
                f"expected at most {room} channels",
            )
        kinds = [level.pixels for level in self.levels]
        _require(kinds == sorted(kinds) and not kinds[0], "levels of pixels must come after those of the trunk")
        _require(strides[0] == trunk[-1], f"the coarsest level has stride {strides[0]}, expected {trunk[-1]}")
        _require(
            0 < self.lambda_min < self.lambda_max < math.inf,
            f"lambda range is {self.lambda_min}..{self.lambda_max}, expected 0 < min < max",
        )
        scale = self.quality_scale
        _require(
            not scale or (scale[0] == 0 and scale[-1] == 1 and all(a < b for a, b in itertools.pairwise(scale))),
            f"quality_scale is {list(scale)}, expected numbers that rise from 0 to 1",
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per grid position of each level, coarsest first."""
        return tuple(level.stride for level in self.levels)

    def lmbda(self, quality: float) -> float:
        """λ of ``loss = bpp + λ·255²·MSE`` at a quality in 1..100; log λ is linear between the points of the scale."""
        t = (quality - QUALITY_MIN) / (QUALITY_MAX - QUALITY_MIN)
        if self.quality_scale:
            last = len(self.quality_scale) - 1
            index = min(int(t * last), last - 1)
            low, high = self.quality_scale[index : index + 2]
            t = low + (high - low) * (t * last - index)
        return math.exp((1 - t) * math.log(self.lambda_min) + t * math.log(self.lambda_max))


@dataclass(frozen=True)
class PriorConfig:
    """The PixelCNN over code grids, one network of the same shape for each level."""

    channels: int = 64  # width of every layer
    layers: int = 3  # masked 3×3 residual layers after the first
    context_layers: int = 2  # 3×3 layers that pass each coarser level's codes to the next level

    def __post_init__(self) -> None:
        _require(self.channels >= 1, f"prior channels is {self.channels}, expected at least 1")
        _require(self.layers >= 0 and self.context_layers >= 1, "a prior needs layers >= 0 and context_layers >= 1")


@dataclass(frozen=True)
class PhaseConfig:
    """Length and step sizes of one phase, which ends after ``steps`` or ``minutes``, whichever comes first."""

    steps: int = 1_000_000
    minutes: float = math.inf  # with preparation and evaluations
    batch: int = 8
    crop: int = 256  # pixels per side; a multiple of the coarsest stride
    muon_lr: float = 0.01  # convolution kernels
    adam_lr: float = 1.5e-3  # everything else
    clip: float = 1.0  # gradient norm
    warmup: int = 100  # steps of linear warm-up
    cooldown: float = 1.0  # share of the phase, at its end, in which step sizes fall to zero by a cosine

    def __post_init__(self) -> None:
        _require(self.steps >= 1 and self.minutes > 0, "a phase needs steps >= 1 and minutes > 0")
        _require(self.batch >= 1 and self.crop >= 1, "a phase needs batch >= 1 and crop >= 1")
        _require(self.muon_lr >= 0 and self.adam_lr >= 0, "a phase needs learning rates >= 0")
        _require(self.clip > 0 and self.warmup >= 0, "a phase needs clip > 0 and warmup >= 0")
        _require(0 < self.cooldown <= 1, f"cooldown is {self.cooldown}, expected above 0 and at most 1")


@dataclass(frozen=True)
class TrainConfig:
    """The phases of training, in order, and the settings that they share."""

    vae: PhaseConfig = PhaseConfig(minutes=182, muon_lr=0.0028, adam_lr=0.0005, warmup=300, cooldown=0.25)
    codes: PhaseConfig = PhaseConfig(minutes=2, muon_lr=0.0, adam_lr=0.0)
    prior: PhaseConfig = PhaseConfig(minutes=70, adam_lr=0.002)
    joint: PhaseConfig = PhaseConfig(minutes=1, batch=2, crop=384, muon_lr=0.0, adam_lr=0.0)
    minutes: float = math.inf  # of the whole run, everything counted; the phases then share them in their proportions
    seed: int = 0
    ema: float = 0.9995  # decay of the exponential moving average of the weights, which is exported
    codebook: str = "integers"  # codewords are k-means' centroids and learn by "ema" or "gradient", or stay "integers"
    codebook_lr: float = 1e-3  # for codebook = "gradient"
    beta: float = 0.02  # weight of the commitment loss
    freeze_encoder: bool = False  # whether the encoder is trained in phase 0 only
    revive_below: float = 1e-7  # a code with a lower usage is dead and gets revived
    revive_steps: int = 200  # steps between two searches for dead codes
    fit_batches: int = 24  # batches that the codebooks are fitted to; 0: keep those, and the prior, of another run
    distortion: str = "mse"  # what λ weighs, one of DISTORTIONS
    downscale_share: float = 0.8  # share of crops taken from images downscaled at random, by up to …
    downscale_max: float = 2.5  # … this factor
    grain: float = 1.0  # mean standard deviation, in grey levels, of the film grain added to crops of photographs
    drawn_share: float = 0.08  # share of crops taken from drawings
    linear_start: bool = True  # start the trunk as an orthonormal transform of the training images
    rounded: bool = True  # in phase 0, the decoder gets rounded residuals; noise stays in the bits
    evaluation_crop: int = 256  # pixels a side of the centre crop of each validation image in evaluations
    checkpoint_minutes: float = 3.0
    evaluate_minutes: float = 14.0

    def __post_init__(self) -> None:
        ways = "'ema', 'gradient' or 'integers'"
        _require(self.codebook in ("ema", "gradient", "integers"), f"codebook is {self.codebook!r}, expected {ways}")
        _require(self.distortion in DISTORTIONS, f"distortion is {self.distortion!r}, expected 'mse' or 'visual'")
        _require(self.revive_steps >= 1 and self.fit_batches >= 0, "a run needs revive_steps >= 1 and fit_batches >= 0")
        _require(self.evaluation_crop >= 1, f"evaluation_crop is {self.evaluation_crop}, expected at least 1")
        _require(self.downscale_max >= 1 and self.grain >= 0, "a run needs downscale_max >= 1 and grain >= 0")
        _require(0 <= self.drawn_share <= 1, f"drawn_share is {self.drawn_share}, expected 0..1")
        _require(self.minutes > 0, f"minutes is {self.minutes}, expected above 0")
        endless = [name for name in PHASES if getattr(self, name).minutes == math.inf]
        _require(
            self.minutes == math.inf or not endless,
            f"a total of minutes needs the minutes of each phase; set those of {', '.join(endless)}",
        )
        _require(0 <= self.ema < 1, f"ema is {self.ema}, expected 0 <= ema < 1")

    def scaled(self, spent: float = 0.0, phases: Sequence[str] = PHASES) -> "TrainConfig":
        """The ``phases`` scaled to what remains of ``minutes`` after ``spent`` of them, without a limit of steps.

        EXPORT of ``minutes``, and at most EXPORT_MINUTES, are kept for the export. Each phase keeps its share of the
        rest. Without ``minutes`` nothing changes.
        """
        if self.minutes == math.inf:
            return self
        own = {name: getattr(self, name) for name in phases}
        rest = self.minutes - min(EXPORT * self.minutes, EXPORT_MINUTES) - spent
        factor = max(rest, LEAST * self.minutes) / sum(phase.minutes for phase in own.values())
        scaled = {
            name: dataclasses.replace(phase, minutes=phase.minutes * factor, steps=ENDLESS)
            for name, phase in own.items()
        }
        return dataclasses.replace(self, **scaled)


@dataclass(frozen=True)
class Config:
    """The complete configuration of a training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a preset; raises ConfigError that names the file and the field."""
        try:
            with open(path, "rb") as file:
                table = tomllib.load(file)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, or an integer of thousands of digits
            raise ConfigError(f"{path}: not TOML: {error}") from None
        try:
            return cls.from_dict(table)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; missing fields take their defaults, unknown fields raise ConfigError."""
        return typing.cast(Self, _build(cls, table, cls()))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, sequences and numbers, ready for JSON."""
        return dataclasses.asdict(self)


def _build(cls: type, table: object, default: Any = None) -> Any:
    """An instance of dataclass ``cls`` from a nested table; fields left out come from ``default``."""
    _require(isinstance(table, dict), f"{cls.__name__} is {table!r}, expected a table")
    assert isinstance(table, dict)
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(table) - set(hints))
    _require(not unknown, f"unknown field {', '.join(unknown)} in {cls.__name__}; it has {', '.join(hints)}")
    base = default if default is not None else cls()
    values = {name: getattr(base, name) for name in hints}
    for name, value in table.items():
        values[name] = _convert(hints[name], value, f"{cls.__name__}.{name}", values[name])
    return cls(**values)


def _convert(hint: Any, value: Any, name: str, default: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, default)
    if typing.get_origin(hint) is tuple:
        _require(isinstance(value, (list, tuple)), f"{name} is {value!r}, expected a list")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, entry, name, None) for entry in value)
    kinds: tuple[type, ...] = (int, float) if hint is float else (hint,)
    wrong = not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool)
    _require(not wrong, f"{name} is {value!r}, expected {getattr(hint, '__name__', hint)}")
    return hint(value)
