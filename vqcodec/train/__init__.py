"""Training: ``vqcodec train DATA_DIR -o RUN_DIR`` runs the phases in order and exports the weights.

::

    vae ──▶ codes ──▶ prior ──▶ joint ──▶ export ──▶ RUN_DIR/<name>.safetensors and its model card
    noise   k-means,  PixelCNN  both,     fixed point, measured
            hard      on frozen large     with real bytes
            codes     codes     crops

Every phase leaves ``RUN_DIR/<phase>.pt`` and resumes from it after a kill.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from vqcodec.config import Config
from vqcodec.errors import ConfigError, TrainingError
from vqcodec.prior import PixelCNN
from vqcodec.train import distributed
from vqcodec.train.codes import CodesPhase
from vqcodec.train.data import Photographs, image_files
from vqcodec.train.export import export
from vqcodec.train.joint import JointPhase, Model
from vqcodec.train.loop import Run, run_phase
from vqcodec.train.prior import PriorPhase
from vqcodec.train.vae import EVALUATION_CROP, VAEPhase
from vqcodec.vqvae import VQVAE

__all__ = ["run"]

HELD_OUT = 20  # without a validation folder, one image in so many is kept for it


def run(
    data_dir: Path,
    run_dir: Path,
    config: Config,
    *,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
    validation_dir: Path | None = None,
) -> Path:
    """Train on the images under ``data_dir`` and return the exported weights file.

    Raises TrainingError if the data or the run directory cannot be used, ConfigError for impossible sizes.
    """
    for phase in (config.train.vae, config.train.codes, config.train.prior, config.train.joint):
        stride = config.model.levels[0].stride
        if phase.crop % stride:
            raise ConfigError(f"crop is {phase.crop}, expected a multiple of the coarsest stride {stride}")
    _open_folder(run_dir, config, resume)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where = distributed.start(torch.device(device))
    state = Run(run_dir, config.train, where, *_photographs(data_dir, validation_dir, config, where), quiet=quiet)
    state.writer = _tensorboard(run_dir)

    torch.manual_seed(config.train.seed)
    vqvae = VQVAE(config.model, learn=config.train.codebook).to(where)
    for vqvae_phase in (VAEPhase, CodesPhase):
        vqvae.load_state_dict(run_phase(vqvae_phase(state, vqvae)).state_dict())
    prior = PixelCNN(config.model, config.prior).to(where)
    prior.load_state_dict(run_phase(PriorPhase(state, prior, vqvae)).state_dict())
    model = Model(vqvae, prior)
    model.load_state_dict(run_phase(JointPhase(state, model)).state_dict())
    return export(state, model, config, data_dir)


def _open_folder(folder: Path, config: Config, resume: bool) -> None:
    """Make a fresh run directory, or check that the one to resume was made with ``config``."""
    contents = json.dumps(_finite(config.to_dict()), indent=1)
    path = folder / "config.json"
    if path.exists():
        if not resume:
            raise TrainingError(f"{folder}: holds a run already; go on with it by --resume, or name another folder")
        if path.read_text() != contents:
            raise TrainingError(f"{folder}: was started with another configuration; see {path}")
        return
    if resume:
        raise TrainingError(f"{folder}: holds no run to resume")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(contents)


def _finite(value: Any) -> Any:
    """JSON has no infinity: an unlimited phase says null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if value == float("inf") else value


def _photographs(
    data_dir: Path, validation_dir: Path | None, config: Config, device: torch.device
) -> tuple[Photographs, Photographs]:
    files = image_files(data_dir)
    if validation_dir is not None:
        held_out = image_files(validation_dir)
    else:
        held_out = files[::HELD_OUT]
        files = [path for path in files if path not in set(held_out)] or held_out
    phases = [getattr(config.train, field.name) for field in dataclasses.fields(config.train)]
    crop = max(phase.crop for phase in phases if hasattr(phase, "crop"))
    photographs = Photographs(files, device, smallest=crop, downscale_share=config.train.downscale_share)
    return photographs, Photographs(held_out, device, smallest=EVALUATION_CROP)


def _tensorboard(folder: Path) -> Any:
    """A writer if TensorBoard is installed; it is an extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder)) if distributed.is_main() else None
