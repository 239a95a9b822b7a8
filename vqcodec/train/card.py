"""The model card: what a run says of its model, of the data and machine it had, and of how long it trained.

::

    RUN_DIR/log.jsonl ──▶ steps and minutes of each phase ─┐
    Measured, by the export ───────────────────────────────┴─▶ RUN_DIR/<name>.md
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqcodec import __version__
from vqcodec.config import DEFAULT_QUALITY, PHASES, Config, TrainConfig
from vqcodec.machine import cores, processor
from vqcodec.train import monitor
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run
from vqcodec.train.monitor import LevelActivity
from vqcodec.weights import encoder_path

__all__ = ["FEW_STEPS", "Measured", "model_card", "shortfall"]

FEW_STEPS = 500  # a phase with fewer has hardly left its warm-up


@dataclass(frozen=True)
class Measured:
    """What the export measured of the model that it wrote.

    Attributes:
        fingerprint: of the decoder side.
        curve: (quality, mean bpp, mean PSNR in dB) of compressed files.
        images: number of validation images in ``curve``.
        crop: pixels a side of the middle of each that was compressed; None for whole images.
        fixed_point_cost: relative increase in bits from the float prior to the integer one at the default quality.
        activity: of each level, with codes.
        searched: whether the weights of squared error were searched for.
    """

    fingerprint: str
    curve: list[tuple[int, float, float]]
    images: int
    crop: int | None
    fixed_point_cost: float
    activity: list[LevelActivity]
    searched: bool


def shortfall(folder: Path, settings: TrainConfig) -> str | None:
    """Which phases of the run in ``folder`` made fewer than FEW_STEPS steps, in words; None if none did.

    By ``settings``, phases with learning rates of 0 train nothing, and do not count.
    """
    trained = _last(folder / "log.jsonl", "loss")
    phases = [name for name in PHASES if getattr(settings, name).muon_lr or getattr(settings, name).adam_lr]
    steps = {phase: int(trained.get(phase, {"step": 0})["step"]) for phase in phases}
    few = [f"{count} of {phase}" for phase, count in steps.items() if count < FEW_STEPS]
    return f"barely trained, fewer than {FEW_STEPS} steps: {', '.join(few)}" if few else None


def model_card(
    run: Run, model: Model, config: Config, data_dir: Path, path: Path, name: str, measured: Measured
) -> str:
    """The card, in Markdown, of the model ``name`` whose decoder side lies at ``path``."""
    few = shortfall(run.folder, config.train)
    lines = [
        f"# Model card: {name}",
        "",
        f"The training run wrote this card, with vqcodec {__version__}.",
        "",
        *([f"**This model is {few}.** Its pictures are no measure of the method.", ""] if few else []),
        *_facts(run, model, config, data_dir, path, measured),
        "",
        *_phases(run),
        "",
        *_activity(run, measured.activity),
        "",
        f"At quality {DEFAULT_QUALITY}, the fixed-point prior changes the bits of the float prior by "
        f"{measured.fixed_point_cost:+.3%}.",
        "",
        f"Means over {_what(measured)}, compressed to files with effort 0:",
        "",
        "| quality | bpp | PSNR, dB |",
        "|---:|---:|---:|",
        *(f"| {quality} | {rate:.4f} | {decibel:.2f} |" for quality, rate, decibel in measured.curve),
        "",
    ]
    return "\n".join(lines)


def _facts(run: Run, model: Model, config: Config, data_dir: Path, path: Path, measured: Measured) -> list[str]:
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.vqvae, model.prior)]
    levels = ", ".join(
        f"1/{level.stride}: {level.groups} groups × {level.dim} channels, K = {level.codebook_size}"
        + (" (of pixels)" if level.pixels else "")
        for level in config.model.levels
    )
    factors = ", ".join(f"{quantizer.distortion_weight:g}" for quantizer in model.vqvae.quantizers())
    device = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else f"{processor()}, {cores()} cores"
    arithmetic = "bfloat16 autocast" if run.bfloat16 else "float32"
    pixels = sum(image.shape[1] * image.shape[2] for image in run.photographs.images) / 1e6
    unit = "SSIMULACRA2" if run.config.distortion == "visual" else "dB"
    spacing = (
        f"in even steps of {unit} on the validation images" if config.model.quality_scale else "evenly spaced in log λ"
    )
    return [
        f"- Fingerprint: `{measured.fingerprint}`; decoder side: {path.stat().st_size:,} bytes; encoder side: "
        f"{encoder_path(path).stat().st_size:,} bytes.",
        f"- VQ-VAE: {millions[0]:.2f} M parameters, stored as float16. Prior: {millions[1]:.2f} M, stored as integers.",
        f"- Levels, coarsest first: {levels}.",
        f"- Weight of squared error in the choice of codes, by level: {factors}"
        + ("." if measured.searched else "; there was no time to search for better ones."),
        f"- λ of quality 1 … 100: {config.model.lambda_min:g} … {config.model.lambda_max:g}, {spacing}.",
        f"- Data: {len(run.photographs.images)} photographs, {pixels:.0f} megapixels, from "
        f"`{data_dir.resolve().name}`; {len(run.photographs.skipped)} more were left out."
        + (f" Of the crops, {run.photographs.drawn_share:.0%} are drawings." if run.photographs.drawn_share else ""),
        f"- Hardware: {device}; torch {torch.__version__}, {torch.get_num_threads()} thread(s), {arithmetic}.",
    ]


def _phases(run: Run) -> list[str]:
    lines = ["| phase | steps | minutes | crop | batch | last loss |", "|---|---:|---:|---:|---:|---:|"]
    for phase, last in _last(run.folder / "log.jsonl", "loss").items():
        settings = getattr(run.config, phase)
        length = f"{last['step']} | {last['minutes']:.1f}"
        lines.append(f"| {phase} | {length} | {settings.crop} | {settings.batch} | {last['loss']:.4f} |")
    return lines


def _activity(run: Run, levels: list[LevelActivity]) -> list[str]:
    """Live channels, perplexity and usage of each level."""
    share, enough = monitor.live_share(levels), monitor.ENOUGH
    early = _last(run.folder / "log.jsonl", "live_share").get("vae")
    then = "" if early is None else f"; at the end of phase vae {early['live_share']:.0%}"
    verdict = "" if share >= enough else f" Fewer than {enough:.0%}: the codebooks hold less than their size suggests."
    lines = [
        f"Of the trunk's channels, {share:.0%} are live at λ = {monitor.LAMBDA:g} on validation images{then}.{verdict}",
        "",
        "| level | channels | live | perplexity | usage |",
        "|---|---:|---:|---:|---:|",
    ]
    for index, level in enumerate(levels):
        assert level.perplexity is not None
        assert level.usage is not None
        kind = " (of pixels)" if level.pixels else ""
        figures = f"{level.channels} | {level.live} | {level.perplexity:.2f} | {level.usage:.0%}"
        lines.append(f"| {index}{kind} | {figures} |")
    return lines


def _what(measured: Measured) -> str:
    part = "the whole files" if measured.crop is None else f"the middle {measured.crop}×{measured.crop}"
    return f"{part} of {measured.images} validation images"


def _last(log: Path, key: str) -> dict[str, dict[str, Any]]:
    """The last entry of each phase in the log that has a number called ``key``."""
    last: dict[str, dict[str, Any]] = {}
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):  # if the process was killed, a line may be incomplete
            entry = json.loads(line)
            if entry.get(key) is not None:
                last[entry["phase"]] = entry
    return last
