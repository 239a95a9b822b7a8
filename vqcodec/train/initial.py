"""What a run starts from: random weights, the weights of a file, or those of another run.

::

    nothing                    ──────────────────────────▶ random VQ-VAE, random prior
    file, or a run's phase 0   ── grow ──────────────────▶ that VQ-VAE, maybe larger; random prior
    a run, fit_batches = 0     ── copy ──────────────────▶ that VQ-VAE with its codebooks; its prior
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqcodec.config import Config, TrainConfig
from vqcodec.errors import ConfigError, TrainingError, WeightsError
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.codes import CodesPhase
from vqcodec.train.grow import grow
from vqcodec.train.joint import JointPhase, Model
from vqcodec.train.loop import load_checkpoint
from vqcodec.train.prior import PriorPhase
from vqcodec.train.vae import VAEPhase
from vqcodec.weights import ABSENT, fill_decoder, fill_encoder, load_weights

__all__ = ["CONFIG", "current", "initial"]

CONFIG = "config.json"  # in the folder of a run
# Weights of squared error in the choice of integers, until the export finds better ones: with the prior, codes will be
# cheaper than the head says, those of coarse levels most.
COARSE, FINEST = 8.0, 3.5
RETIRED = ("distortion_weight", "sum_bits")  # fields of a configuration, which old runs may still state
# What a run did before there were these fields, in the tables of a configuration that have the first field.
FORMER: dict[str, dict[str, Any]] = {
    "patch": ABSENT,
    "codebook": {"downscale_max": 2.0, "grain": 0.0, "drawn_share": 0.0, "linear_start": False, "rounded": False},
    "clip": {"cooldown": 1.0},
}


def initial(config: Config, init: Path | None) -> tuple[Model, TrainConfig]:
    """The model before phase 0, and the settings that it is trained with.

    Raises ConfigError if ``init`` is needed and missing, or another model than ``config`` asks for; TrainingError or
    WeightsError if it cannot be read.
    """
    vqvae, settings = VQVAE(config.model, learn=config.train.codebook), config.train
    vqvae.distortion = settings.distortion
    if settings.codebook == "integers":
        *coarse, finest = vqvae.quantizers()
        finest.distortion_weight = FINEST
        for quantizer in coarse:
            quantizer.distortion_weight = COARSE
    model = Model(vqvae, PixelCNN(config.model, config.prior))
    if init is None:
        if settings.fit_batches == 0:
            raise ConfigError("fit_batches is 0: name the run whose codebooks are kept, also to resume (--init)")
        return model, settings
    if settings.fit_batches == 0:
        _copy(init, model)
    else:
        grow(_trained(init), vqvae)
    return model, replace(settings, linear_start=False)  # the other model has a transform already


def current(table: dict[str, Any]) -> dict[str, Any]:
    """A table of a stored configuration with the fields of today, and with infinity for null."""
    former = [fields for mark, fields in FORMER.items() if mark in table]
    filled = {key: value for fields in [*former, table] for key, value in fields.items() if key not in RETIRED}
    return {key: math.inf if value is None else value for key, value in filled.items()}


def _copy(folder: Path, model: Model) -> None:
    """Give ``model`` the weights, codebooks and prior of the run in ``folder``."""
    try:
        model.load_state_dict(_tensors(folder))
    except RuntimeError as error:
        raise ConfigError(f"{folder}: its model has other levels, widths or channels than the configuration") from error


def _tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / f"{JointPhase.name}.pt").is_file():
        return _average(folder, JointPhase.name)
    parts = {"vqvae": CodesPhase.name, "prior": PriorPhase.name}
    return {f"{part}.{key}": value for part, name in parts.items() for key, value in _average(folder, name).items()}


def _average(folder: Path, phase: str) -> dict[str, Tensor]:
    """The averaged weights of a ``phase`` of the run in ``folder``."""
    try:
        average: dict[str, Tensor] = load_checkpoint(folder / f"{phase}.pt", torch.device("cpu"))["average"]
    except (OSError, TrainingError) as error:
        raise TrainingError(f"{folder}: holds no run to start from, expected {phase}.pt") from error
    return average


def _trained(path: Path) -> VQVAE:
    """The VQ-VAE of a weights file, or that of phase 0 of the run in a folder."""
    if not path.is_dir():
        weights = load_weights(path)
        model = VQVAE(weights.model)
        try:
            fill_decoder(model, weights)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        fill_encoder(model, weights)
        return model
    try:
        stored = json.loads((path / CONFIG).read_text(encoding="utf-8"), object_hook=current)
        model = VQVAE(Config.from_dict({"model": stored["model"]}).model)
        model.load_state_dict(_average(path, VAEPhase.name))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, ConfigError, TrainingError) as error:
        raise TrainingError(f"{path}: holds no run to start from, expected {CONFIG} and {VAEPhase.name}.pt") from error
    return model
