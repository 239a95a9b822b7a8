"""Phase 4: the fixed-point form, the weights file, and a model card with what was measured.

The card's figures come from real bytes: every validation image is compressed and decompressed by the exported
model at a few qualities.
"""

import contextlib
import json
import platform
from pathlib import Path

import torch

from vqcodec import __version__
from vqcodec.codec import Codec
from vqcodec.config import Config
from vqcodec.images import write_atomic
from vqcodec.metrics import bpp, psnr
from vqcodec.prior import fixed_point
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run
from vqcodec.vqvae import TRAINING_ONLY
from vqcodec.weights import SUFFIX, load_weights, save_weights

__all__ = ["export_weights"]

QUALITIES = (1, 20, 40, 60, 80, 100)


def export_weights(run: Run, model: Model, config: Config, data_dir: Path, *, name: str) -> Path:
    """Write ``RUN_DIR/<name>.safetensors`` and its card ``RUN_DIR/<name>.md``; returns the weights file."""
    path = run.folder / f"{name}{SUFFIX}"
    vqvae = {key: value for key, value in model.vqvae.state_dict().items() if not key.endswith(TRAINING_ONLY)}
    fingerprint = save_weights(path, name, config.model, config.prior, vqvae, fixed_point(model.prior))
    card = _card(run, model, config, data_dir, name, fingerprint, path.stat().st_size, _curve(run, path))
    write_atomic(path.with_suffix(".md"), card.encode())
    return path


def _curve(run: Run, path: Path) -> list[tuple[int, float, float]]:
    """(quality, mean bpp, mean PSNR) of the validation images, from files."""
    codec = Codec(load_weights(path), run.device)
    curve: list[tuple[int, float, float]] = []
    for quality in QUALITIES:
        rates: list[float] = []
        psnrs: list[float] = []
        for image in run.validation.images:
            pixels = image.permute(1, 2, 0).cpu().numpy()
            data = codec.compress(pixels, quality)
            rates.append(bpp(len(data), pixels.shape[1], pixels.shape[0]))
            psnrs.append(psnr(pixels, codec.decompress(data)))
        curve.append((quality, sum(rates) / len(rates), sum(psnrs) / len(psnrs)))
    return curve


def _card(
    run: Run,
    model: Model,
    config: Config,
    data_dir: Path,
    name: str,
    fingerprint: bytes,
    size: int,
    curve: list[tuple[int, float, float]],
) -> str:
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.vqvae, model.prior)]
    levels = ", ".join(
        f"1/{level.stride}: {level.groups} groups × {level.dim} channels, K = {level.codebook_size}"
        for level in config.model.levels
    )
    device = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else _cpu()
    pixels = sum(image.shape[1] * image.shape[2] for image in run.photographs.images) / 1e6
    lines = [
        f"# Model card: {name}",
        "",
        f"Written by the training run itself, with vqcodec {__version__}.",
        "",
        f"- Fingerprint: `{fingerprint.hex()}`; file: {size:,} bytes.",
        f"- VQ-VAE: {millions[0]:.2f} M parameters, stored as float16. Prior: {millions[1]:.2f} M, stored as integers.",
        f"- Levels, coarsest first: {levels}.",
        f"- λ of quality 1 … 100: {config.model.lambda_min:g} … {config.model.lambda_max:g}, log-linear.",
        f"- Data: {len(run.photographs.images)} photographs, {pixels:.0f} megapixels, from "
        f"`{data_dir.resolve().name}`; {len(run.photographs.skipped)} more were unreadable or too small.",
        f"- Hardware: {device}; torch {torch.__version__}, {torch.get_num_threads()} thread(s), bfloat16 autocast.",
        "",
        "| phase | steps | minutes | crop | batch | last loss |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for phase, last in _phases(run.folder / "log.jsonl").items():
        settings = getattr(config.train, phase)
        length = f"{last['step']} | {last['minutes']:.1f}"
        lines.append(f"| {phase} | {length} | {settings.crop} | {settings.batch} | {last['loss']:.4f} |")
    lines += [
        "",
        f"Whole files of {len(run.validation.images)} validation images, mean:",
        "",
        "| quality | bpp | PSNR, dB |",
        "|---:|---:|---:|",
        *(f"| {quality} | {rate:.4f} | {decibel:.2f} |" for quality, rate, decibel in curve),
        "",
    ]
    return "\n".join(lines)


def _phases(log: Path) -> dict[str, dict[str, float]]:
    """The last training entry of every phase in the log."""
    last: dict[str, dict[str, float]] = {}
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a kill may have cut a line short
            entry = json.loads(line)
            if entry.get("loss") is not None:
                last[entry["phase"]] = entry
    return last


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()
