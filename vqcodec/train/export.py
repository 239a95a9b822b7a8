"""Phase 4: write the model as two weights files, with the prior in integers, and a model card with measurements.

For the card, the exported model compresses and decompresses up to twelve validation images at a few qualities. Rates
are those of the compressed bytes.
"""

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_QUALITY, Config
from vqcodec.files.atomic import write_atomic
from vqcodec.metrics import bpp, psnr
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.vqvae import VQVAE
from vqcodec.train import monitor
from vqcodec.train.card import Measured, model_card
from vqcodec.train.joint import Model
from vqcodec.train.loop import Run
from vqcodec.visual.ssimulacra2 import Ssimulacra2
from vqcodec.weights import DECODER_SUFFIX, load_weights, save_weights

__all__ = ["distortion_weights", "export_weights", "fixed_point_cost", "quality_scale"]

QUALITIES = (1, 20, 40, 60, 80, 100)
SCALE_POINTS = 13  # points of the quality scale
FACTORS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)  # candidates for the weight of squared error in the choice of codes
IMAGES = 12  # number of validation images that are compressed to files
WEIGHTS_SHARE, SCALE_SHARE = 0.4, 0.15  # of the export's time; …
FILES_SHARE = 0.7  # … and of what these leave


def export_weights(
    run: Run, model: Model, config: Config, data_dir: Path, *, name: str, seconds: float = math.inf
) -> Path:
    """Write the model to RUN_DIR as ``<name>.decoder.safetensors``, ``<name>.encoder.safetensors`` and ``<name>.md``.

    The ``.md`` file is the model card. If ``seconds`` are short, fewer images are measured, and what cannot be measured
    at all keeps its default. Returns the path of the decoder side.
    """
    path, begun = run.folder / f"{name}{DECODER_SUFFIX}", time.monotonic()
    with run.bar("export") as bar:
        searched = distortion_weights(run, model, seconds=WEIGHTS_SHARE * seconds) is not None
        bar.update(0.25)
        scale = quality_scale(run, model.vqvae, seconds=SCALE_SHARE * seconds)
        config = replace(config, model=replace(config.model, quality_scale=scale))
        model.vqvae.config = model.prior.model = config.model
        save_weights(path, name, model.vqvae, config.prior, fixed_point(model.prior))
        bar.update(0.25)
        codec = Codec(load_weights(path), run.device)
        images = [image.permute(1, 2, 0).cpu().numpy() for image in run.validation.images[:IMAGES]]
        left = FILES_SHARE * (seconds - (time.monotonic() - begun))
        pictures, crop, rates = _measure_files(codec, images, run.validation.smallest, left)
        bar.update(0.25)
        centres = itertools.islice(run.validation.centres(), len(pictures))
        measured = Measured(
            fingerprint=codec.fingerprint.hex(),
            curve=[(quality, float(b), float(p)) for quality, (b, p) in zip(QUALITIES, rates, strict=True)],
            images=len(pictures),
            crop=crop,
            fixed_point_cost=fixed_point_cost(model, codec, pictures, DEFAULT_QUALITY),
            activity=monitor.activity(model.vqvae, centres, hard=True),
            searched=searched,
        )
        card = model_card(run, model, config, data_dir, path, name, measured)
        write_atomic(run.folder / f"{name}.md", card.encode())
        bar.update(0.25)
    return path


@torch.no_grad()
def distortion_weights(run: Run, model: Model, *, seconds: float = math.inf) -> tuple[float, ...] | None:
    """Find the weight of squared error in each level's choice of codes, and set the model's quantisers to it.

    The head's bits decide which code is chosen, but a file costs the prior's bits, which are fewer where neighbours
    predict the code well. For one level after another, this function takes the factor in FACTORS that has the lowest
    BD-rate, by :func:`_score`, on as many validation images as ``seconds`` allow. Returns None, and changes nothing, if
    they do not suffice for one image.
    """
    quantizers = model.vqvae.quantizers()
    images = list(itertools.islice(run.validation.centres(), IMAGES))

    def curve(images: list[Tensor], qualities: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean score and log bpp at each quality."""
        scores, rates = np.zeros(len(qualities)), np.zeros(len(qualities))
        for i, quality in enumerate(qualities):
            lmbda = torch.tensor([model.vqvae.config.lmbda(quality)], device=run.device)
            for x in images:
                codes = [grid.clone() for grid in model.vqvae.encode(x, lmbda)]
                rates[i] += float(torch.stack(model.prior(codes, lmbda)).sum()) / (x.shape[2] * x.shape[3])
                scores[i] += _score(run, x, model.vqvae.decode(codes, lmbda))
        return scores / len(images), np.log(np.maximum(rates, 1e-9))

    begun = time.monotonic()
    curve(images[:1], QUALITIES[:1])
    # Seconds that the search takes on one image.
    search = (time.monotonic() - begun) * len(QUALITIES) * (1 + len(FACTORS) * len(quantizers))
    if seconds < search:
        return None
    images = images[: int(min(seconds / search, IMAGES))]
    scores, _ = curve(images, QUALITIES)
    heights = np.linspace(scores[0], scores[-1], 50)[5:-5]  # with every factor, curves reach this part
    for quantizer in quantizers:
        costs: dict[float, float] = {}
        for factor in FACTORS:
            quantizer.distortion_weight = factor
            costs[factor] = float(np.interp(heights, *curve(images, QUALITIES)).mean())
        quantizer.distortion_weight = min(costs, key=lambda factor: costs[factor])
    return tuple(quantizer.distortion_weight for quantizer in quantizers)


@torch.no_grad()
def quality_scale(run: Run, vqvae: VQVAE, *, seconds: float = math.inf) -> tuple[float, ...]:
    """The points on the log λ axis, 0 to 1, at which qualities are evenly spaced by :func:`_score`.

    It is measured on as many validation images as ``seconds`` allow. If they do not suffice for one, the scale is
    empty: linear.
    """
    low, high = math.log(vqvae.config.lambda_min), math.log(vqvae.config.lambda_max)
    places = np.linspace(0, 1, SCALE_POINTS)
    scores, begun = np.zeros(SCALE_POINTS), time.monotonic()
    for image, x in enumerate(run.validation.centres()):
        for i, place in enumerate(places):
            lmbda = torch.tensor([math.exp(low + place * (high - low))], device=run.device)
            x_hat = vqvae.decode(vqvae.encode(x, lmbda), lmbda)
            scores[i] += _score(run, x, x_hat)
            if image == i == 0 and (time.monotonic() - begun) * SCALE_POINTS > seconds:
                return ()
        if (time.monotonic() - begun) * (image + 2) / (image + 1) > seconds:
            break
    # The scale must rise even if the model is barely trained. A model that has diverged is refused later.
    gaps = np.maximum(np.diff(np.nan_to_num(scores)), 0.01 * (np.ptp(np.nan_to_num(scores)) + 1e-9))
    heights = np.concatenate([[0.0], gaps.cumsum()])
    wanted = np.linspace(0, heights[-1], SCALE_POINTS)
    return (0.0, *map(float, np.interp(wanted[1:-1], heights, places)), 1.0)


def _score(run: Run, x: Tensor, x_hat: Tensor) -> float:
    """How alike ``x_hat [1, 3, H, W]`` is to ``x``, by what the run trained for: PSNR in dB, or SSIMULACRA2."""
    if run.config.distortion == "visual":
        return float(Ssimulacra2(x)(x_hat))
    return -10 * float((x_hat - x).square().mean().clamp_min(1e-10).log10())


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


def _measure_files(
    codec: Codec, images: list[NDArray[np.uint8]], side: int, seconds: float
) -> tuple[list[NDArray[np.uint8]], int | None, NDArray[np.float64]]:
    """(pictures, crop, [qualities, 2] mean bpp and PSNR) of as many of ``images`` as ``seconds`` allow.

    The first to be compressed is the middle of an image, ``side`` pixels a side. If it shows that no whole image can be
    compressed in time, it is the only one, and ``crop`` is ``side``; otherwise None.
    """
    begun = time.monotonic()
    top, left = ((length - side) // 2 for length in images[0].shape[:2])
    middle = np.ascontiguousarray(images[0][top : top + side, left : left + side])
    cut = _rates(codec, middle)
    pace = (time.monotonic() - begun) / side**2  # seconds a pixel
    measured, rates = list[NDArray[np.uint8]](), list[NDArray[np.float64]]()
    for pixels in images:
        if time.monotonic() - begun + pace * pixels.shape[0] * pixels.shape[1] <= seconds:
            rates.append(_rates(codec, pixels))
            measured.append(pixels)
    if not measured:
        return [middle], side, cut
    return measured, None, np.mean(rates, axis=0)


def _rates(codec: Codec, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """bpp and PSNR of a compressed file of ``pixels`` at each quality, ``[qualities, 2]``."""
    rates: list[tuple[float, float]] = []
    for quality in QUALITIES:
        data = codec.compress(pixels, quality, effort=0)
        rates.append((bpp(len(data), pixels.shape[1], pixels.shape[0]), psnr(pixels, codec.decompress(data))))
    return np.array(rates)
