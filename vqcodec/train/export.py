"""Phase 4: write the model as two weights files, with the prior in integers, and a model card with measurements.

For the card, the exported model compresses and decompresses up to twelve validation images at a few qualities. Rates
are those of the compressed bytes.
"""

import contextlib
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec import __version__
from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_QUALITY, Config
from vqcodec.files.atomic import write_atomic
from vqcodec.machine import cores, processor
from vqcodec.metrics import bpp, psnr
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run
from vqcodec.weights import DECODER_SUFFIX, encoder_path, load_weights, save_weights

__all__ = ["distortion_weights", "export_weights", "fixed_point_cost", "quality_scale"]

QUALITIES = (1, 20, 40, 60, 80, 100)
SCALE_POINTS = 13  # points of the quality scale
FACTORS = (0.7, 0.85, 1.0, 1.4, 2.0, 2.8)  # candidates for the weight of squared error in the choice of codes
IMAGES = 12  # number of validation images that are compressed to files


def export_weights(run: Run, model: Model, config: Config, data_dir: Path, *, name: str) -> Path:
    """Write the model to RUN_DIR as ``<name>.decoder.safetensors``, ``<name>.encoder.safetensors`` and ``<name>.md``.

    The ``.md`` file is the model card. Returns the path of the decoder side.
    """
    path = run.folder / f"{name}{DECODER_SUFFIX}"
    distortion_weights(run, model)
    config = replace(config, model=replace(config.model, quality_scale=quality_scale(run, model.vqvae)))
    model.vqvae.config = model.prior.model = config.model
    save_weights(path, name, model.vqvae, config.prior, fixed_point(model.prior))
    codec = Codec(load_weights(path), run.device)
    images = [image.permute(1, 2, 0).cpu().numpy() for image in run.validation.images[:IMAGES]]
    cost = fixed_point_cost(model, codec, images, DEFAULT_QUALITY)
    curve = _curve(codec, images)
    card = _card(run, model, config, data_dir, name, path, codec, curve, len(images), cost)
    write_atomic(run.folder / f"{name}.md", card.encode())
    return path


@torch.no_grad()
def distortion_weights(run: Run, model: Model) -> tuple[float, ...]:
    """Find the weight of squared error in each level's choice of codes, and set the model's quantisers to it.

    The head's bits decide which code is chosen, but a file costs the prior's bits, which are fewer where neighbours
    predict the code well. For one level after another, this function takes the factor in FACTORS that has the lowest
    BD-rate on validation images.
    """
    quantizers = model.vqvae.quantizers()
    images = list(itertools.islice(run.validation.centres(), IMAGES))

    def curve() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean PSNR and log bpp at each quality."""
        decibels, rates = np.zeros(len(QUALITIES)), np.zeros(len(QUALITIES))
        for i, quality in enumerate(QUALITIES):
            lmbda = torch.tensor([model.vqvae.config.lmbda(quality)], device=run.device)
            for x in images:
                codes = [grid.clone() for grid in model.vqvae.encode(x, lmbda)]
                rates[i] += float(torch.stack(model.prior(codes, lmbda)).sum()) / (x.shape[2] * x.shape[3])
                mse = (model.vqvae.decode(codes, lmbda) - x).square().mean()
                decibels[i] -= 10 * float(mse.clamp_min(1e-10).log10())
        return decibels / len(images), np.log(np.maximum(rates, 1e-9))

    decibels, _ = curve()
    heights = np.linspace(decibels[0], decibels[-1], 50)[5:-5]  # dB; with every factor, curves reach this part
    for quantizer in quantizers:
        costs: dict[float, float] = {}
        for factor in FACTORS:
            quantizer.distortion_weight = factor
            costs[factor] = float(np.interp(heights, *curve()).mean())
        quantizer.distortion_weight = min(costs, key=lambda factor: costs[factor])
    return tuple(quantizer.distortion_weight for quantizer in quantizers)


@torch.no_grad()
def quality_scale(run: Run, vqvae: VQVAE) -> tuple[float, ...]:
    """The points on the log λ axis, 0 to 1, at which qualities are evenly spaced in dB on the validation images."""
    low, high = math.log(vqvae.config.lambda_min), math.log(vqvae.config.lambda_max)
    places = np.linspace(0, 1, SCALE_POINTS)
    decibels = np.zeros(SCALE_POINTS)
    for i, place in enumerate(places):
        lmbda = torch.tensor([math.exp(low + place * (high - low))], device=run.device)
        for x in run.validation.centres():
            x_hat = vqvae.decode(vqvae.encode(x, lmbda), lmbda)
            decibels[i] -= 10 * float((x_hat - x).square().mean().clamp_min(1e-10).log10())
    # The scale must rise even if the model is barely trained. A model that has diverged is refused later.
    gaps = np.maximum(np.diff(np.nan_to_num(decibels)), 0.01 * (np.ptp(np.nan_to_num(decibels)) + 1e-9))
    heights = np.concatenate([[0.0], gaps.cumsum()])
    wanted = np.linspace(0, heights[-1], SCALE_POINTS)
    return (0.0, *map(float, np.interp(wanted[1:-1], heights, places)), 1.0)


def fixed_point_cost(model: Model, codec: Codec, images: list[NDArray[np.uint8]], quality: int) -> float:
    """Relative increase in bits from the float prior to the fixed-point one on the codes of ``images``; 0.01 is 1 %."""
    exact = in_float = 0.0
    lmbda = torch.tensor([codec.model.lmbda(quality)], device=codec.device)
    for pixels in images:
        codes = codec.encode(pixels, quality)
        exact += sum(codec.cross_entropy(codes, quality))
        with torch.no_grad():
            bits = model.prior([torch.from_numpy(grid)[None].to(codec.device, torch.int64) for grid in codes], lmbda)
        in_float += float(torch.stack(bits).sum())
    return exact / in_float - 1


def _curve(codec: Codec, images: list[NDArray[np.uint8]]) -> list[tuple[int, float, float]]:
    """(quality, mean bpp, mean PSNR in dB) of ``images``, measured on compressed files."""
    curve: list[tuple[int, float, float]] = []
    for quality in QUALITIES:
        rates: list[float] = []
        psnrs: list[float] = []
        for pixels in images:
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
    path: Path,
    codec: Codec,
    curve: list[tuple[int, float, float]],
    images: int,
    cost: float,
) -> str:
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.vqvae, model.prior)]
    levels = ", ".join(
        f"1/{level.stride}: {level.groups} groups × {level.dim} channels, K = {level.codebook_size}"
        + (" (of pixels)" if level.pixels else "")
        for level in config.model.levels
    )
    factors = ", ".join(f"{quantizer.distortion_weight:g}" for quantizer in model.vqvae.quantizers())
    device = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else f"{processor()}, {cores()} cores"
    pixels = sum(image.shape[1] * image.shape[2] for image in run.photographs.images) / 1e6
    lines = [
        f"# Model card: {name}",
        "",
        f"The training run wrote this card, with vqcodec {__version__}.",
        "",
        f"- Fingerprint: `{codec.fingerprint.hex()}`; decoder side: {path.stat().st_size:,} bytes; encoder side: "
        f"{encoder_path(path).stat().st_size:,} bytes.",
        f"- VQ-VAE: {millions[0]:.2f} M parameters, stored as float16. Prior: {millions[1]:.2f} M, stored as integers.",
        f"- Levels, coarsest first: {levels}.",
        f"- Weight of squared error in the choice of codes, by level: {factors}.",
        f"- λ of quality 1 … 100: {config.model.lambda_min:g} … {config.model.lambda_max:g}, in even steps of dB on "
        "the validation images.",
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
        f"At quality {DEFAULT_QUALITY}, the fixed-point prior changes the bits of the float prior by {cost:+.3%}.",
        "",
        f"Means over the whole files of {images} validation images:",
        "",
        "| quality | bpp | PSNR, dB |",
        "|---:|---:|---:|",
        *(f"| {quality} | {rate:.4f} | {decibel:.2f} |" for quality, rate, decibel in curve),
        "",
    ]
    return "\n".join(lines)


def _phases(log: Path) -> dict[str, dict[str, float]]:
    """The last training entry of each phase in the log."""
    last: dict[str, dict[str, float]] = {}
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):  # if the process was killed, a line may be incomplete
            entry = json.loads(line)
            if entry.get("loss") is not None:
                last[entry["phase"]] = entry
    return last
