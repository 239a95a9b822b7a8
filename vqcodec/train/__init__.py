"""Training: ``vqcodec train DATA_DIR -o RUN_DIR`` runs the phases in order and exports the weights.

::

    vae ──▶ codes ──▶ prior ──▶ joint ──▶ export ──▶ RUN_DIR/<name>.decoder.safetensors, .encoder.safetensors and .md
    noise   fitted,   PixelCNN  both,     fixed point, measured
            hard      on frozen large     with real bytes
            codes     codes     crops

Every phase leaves ``RUN_DIR/<phase>.pt`` and resumes from it after a kill.
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from tqdm import tqdm

from vqcodec.codec import pick_device
from vqcodec.config import PHASES, Config, TrainConfig
from vqcodec.errors import ConfigError, ImageError, TrainingError
from vqcodec.files.atomic import write_atomic
from vqcodec.files.images import image_files
from vqcodec.jsonfile import finite
from vqcodec.train import distributed
from vqcodec.train.card import shortfall
from vqcodec.train.codes import CodesPhase
from vqcodec.train.data import Photographs
from vqcodec.train.drawings import can_draw
from vqcodec.train.export import export_weights
from vqcodec.train.initial import CONFIG, current, initial
from vqcodec.train.joint import JointPhase, Model
from vqcodec.train.loop import Phase, Run, ScalarWriter, Trainer
from vqcodec.train.prior import PriorPhase
from vqcodec.train.vae import VAEPhase
from vqcodec.weights import DECODER_SUFFIX

__all__ = ["run", "shortfall"]

READING = 0.2  # share of a run's minutes after which no more images are read
HELD_OUT = 20  # without a validation folder, one image in twenty is kept for it


def run(
    data_dir: Path,
    run_dir: Path,
    config: Config,
    *,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
    validation_dir: Path | None = None,
    name: str | None = None,
    init: Path | None = None,
    stop_after: float = math.inf,
    since: float | None = None,
) -> Path:
    """Train on the images under ``data_dir`` and return the exported decoder side's file in ``run_dir``.

    Without ``validation_dir``, one training image in twenty is held out. Under torchrun every process calls this,
    and the first one writes. With ``init``, the file of a decoder side with the encoder side next to it, or another
    run's folder, training starts from there instead of from random numbers; see :mod:`vqcodec.train.initial`. The
    model's ``name`` is that of ``run_dir`` by default.

    The configuration's ``minutes`` for the whole run count from ``since``, a time of :func:`time.monotonic`, or else
    from now. After ``stop_after`` minutes the run leaves a checkpoint and raises TrainingPaused.

    Raises TrainingError if the data or the run directory cannot be used, ConfigError for impossible sizes.
    """
    since = time.monotonic() if since is None else since
    name = run_dir.resolve().name if name is None else name
    _check_request(config, name)
    where = distributed.start(pick_device(device))
    if distributed.is_main():
        _check_folder(run_dir, config, resume)
    torch.manual_seed(config.train.seed)
    model, settings = initial(config, init)
    model.to(where)
    photographs, validation = _photographs(data_dir, validation_dir, config, where)
    settings = _fitted(settings, int(distributed.from_main(photographs.smallest)))
    if distributed.is_main():
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(run_dir / CONFIG, _contents(config).encode())
        if not quiet:
            _warn([*photographs.skipped, *validation.skipped], photographs.smallest, config)
    distributed.wait()  # the others look for checkpoints only once the folder is complete
    limits = {"stop_after": stop_after, "spent": distributed.from_main(time.monotonic() - since)}
    writer = _tensorboard(run_dir)
    state = Run(run_dir, settings, where, photographs, validation, quiet=quiet, writer=writer, **limits)
    _train_phases(state, model)
    if distributed.is_main():
        seconds = 60 * config.train.minutes - state.spent
        export_weights(state, model, config, data_dir, name=name, seconds=seconds)
        if state.writer is not None:
            state.writer.close()
    distributed.finish()
    return run_dir / f"{name}{DECODER_SUFFIX}"


def _warn(skipped: list[str], side: int, config: Config) -> None:
    """Say which images are left out, that crops are of only ``side`` pixels, and that nothing is drawn."""
    lines = list[str]()
    if skipped:
        lines.append(f"{len(skipped)} images left out; the first: {skipped[0]}")
    if side < max(_crops(config)):
        lines.append(f"crops are at most {side} pixels a side, as most images are small")
    if config.train.drawn_share and not can_draw():
        lines.append(
            'no drawings among the crops, which need the package matplotlib: pip install ".[bench]" in a checkout'
        )
    for line in lines:
        tqdm.write(f"vqcodec: warning: {line}", file=sys.stderr)


def _train_phases(run: Run, model: Model) -> None:
    """All phases in order, each from the averaged weights of the one before; ``model`` has those of the last."""
    vqvae, prior, settings = model.vqvae, model.prior, run.config
    begin: list[Callable[[], Phase]] = [
        lambda: VAEPhase(run, vqvae),
        lambda: CodesPhase(run, vqvae),
        lambda: PriorPhase(run, prior, vqvae),
        lambda: JointPhase(run, model),
    ]
    for index, phase in enumerate(begin):
        run.config = settings.scaled(run.spent / 60, PHASES[index:])
        trainer = Trainer(phase())
        trainer.phase.module.load_state_dict(trainer.train().state_dict())
        run.spent += trainer.seconds


def _check_request(config: Config, name: str) -> None:
    """Raise ConfigError for impossible crops, TrainingError for an impossible name of the model."""
    stride = config.model.levels[0].stride
    for what, crop in [*(("crop", crop) for crop in _crops(config)), ("evaluation_crop", config.train.evaluation_crop)]:
        if crop % stride:
            raise ConfigError(f"{what} is {crop}, expected a multiple of the coarsest stride {stride}")
    if name in ("", "..") or Path(name).name != name:
        raise TrainingError(f"{name!r} cannot be the name of a model, expected a file name without a folder")


def _crops(config: Config) -> list[int]:
    return [getattr(config.train, phase).crop for phase in PHASES]


def _fitted(settings: TrainConfig, side: int) -> TrainConfig:
    """``settings`` with crops of at most ``side`` pixels."""
    phases = {name: getattr(settings, name) for name in PHASES}
    fitted = {name: replace(phase, crop=min(phase.crop, side)) for name, phase in phases.items()}
    return replace(settings, evaluation_crop=min(settings.evaluation_crop, side), **fitted)


def _contents(config: Config) -> str:
    return json.dumps(finite(config.to_dict()), indent=1)


def _stored_config(path: Path) -> Config | None:
    """The configuration that :func:`_contents` wrote to ``path``, also before fields changed; None if it is none."""
    try:
        return Config.from_dict(json.loads(path.read_text(encoding="utf-8"), object_hook=current))
    except (ValueError, TypeError, ConfigError):
        return None


def _check_folder(folder: Path, config: Config, resume: bool) -> None:
    """Raise TrainingError unless ``folder`` is fit for a fresh run, or holds the run to resume."""
    path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: not a folder; expected one, or none yet, to keep the run in")
    if not resume:
        if path.exists() or any(folder.glob("*.pt")):
            raise TrainingError(f"{folder}: holds a run already; go on with it by --resume, or name another folder")
    elif not path.exists():
        raise TrainingError(f"{folder}: holds no run to resume")
    elif _stored_config(path) != config:
        raise TrainingError(f"{folder}: was started with another configuration; see {path}, and give the same --config")


def _photographs(
    data_dir: Path, validation_dir: Path | None, config: Config, device: torch.device
) -> tuple[Photographs, Photographs]:
    try:
        files = image_files(data_dir)
        held_out = None if validation_dir is None else image_files(validation_dir)
    except ImageError as error:
        raise TrainingError(str(error)) from None
    settings, stride = config.train, config.model.levels[0].stride
    seconds = READING * 60 * settings.minutes
    if settings.minutes < math.inf:  # then any of the files may be the ones that there is no time for
        random.Random(settings.seed).shuffle(files)
    photographs = Photographs(
        files,
        device,
        smallest=max(_crops(config)),
        stride=stride,
        seconds=seconds,
        downscale_share=settings.downscale_share,
        downscale_max=settings.downscale_max,
        grain=settings.grain,
        drawn_share=settings.drawn_share if can_draw() else 0.0,
    )
    if held_out is None:
        return photographs, photographs.hold_out(HELD_OUT, min(settings.evaluation_crop, photographs.smallest))
    return photographs, Photographs(held_out, device, smallest=settings.evaluation_crop, stride=stride, seconds=seconds)


def _tensorboard(folder: Path) -> ScalarWriter | None:
    """A writer in the first process if TensorBoard is installed, which is an extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Its type stubs leave add_scalar untyped.
    return cast(ScalarWriter, SummaryWriter(str(folder))) if distributed.is_main() else None
