"""The pictures of the report's page, which a reader compares by eye.

::

    compressed files ─┬─ JPEG, WebP, AVIF: as they are, browsers show them ─┐
                      └─ vqcodec and others: decoded, then AVIF 4:4:4 ──────┴─▶ pictures, within a budget of bytes
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from tqdm import tqdm

from vqcodec.codec import Codec
from vqcodec.files.atomic import write_atomic
from vqcodec.files.images import read_image
from vqcodec.rd.anchors import ANCHORS, OWN
from vqcodec.rd.page import Picture
from vqcodec.rd.sources import Image
from vqcodec.rd.sweep import Parts

__all__ = ["Gallery", "choose_settings", "gallery"]

RATES = 6  # settings of vqcodec that the page shows, and at most as many of each anchor at about the same bpp
FAR = 1.5  # how many times larger or smaller than all of vqcodec's rates an anchor's rate may be
QUALITIES = (85, 75, 65)  # of AVIF for pictures that not every browser reads; the first that fits the budget is used
NATIVE = {"image/jpeg", "image/webp", "image/avif"}


@dataclass(frozen=True)
class Gallery:
    """The pictures, and a sentence that says how they are stored."""

    pictures: list[Picture]
    stored: str


def choose_settings(curves: Mapping[str, Sequence[float]]) -> dict[str, list[int]]:
    """The settings of each codec to show: some of vqcodec's, and the nearest ones of others.

    ``curves`` has the bpp of every setting by codec; the result has indices into the settings.
    """
    own = curves[OWN]
    count = min(RATES, len(own))
    chosen = {OWN: sorted({round(i * (len(own) - 1) / max(1, count - 1)) for i in range(count)})}
    for codec, rates in curves.items():
        if codec == OWN:
            continue
        nearest = {min(range(len(rates)), key=lambda i: abs(math.log(rates[i] / own[mine]))) for mine in chosen[OWN]}
        lowest, highest = own[0] / FAR, own[-1] * FAR
        chosen[codec] = sorted(i for i in nearest if lowest <= rates[i] <= highest)
    return chosen


def gallery(
    images: Sequence[Image],
    settings: Mapping[str, Sequence[int]],
    parts: Parts,
    codec: Codec,
    folder: Path,
    *,
    budget: int,
    quiet: bool = False,
) -> Gallery:
    """Pictures of ``images`` by every codec at ``settings``, ``budget`` bytes at most in all.

    Where they would not fit, those stored as AVIF get a lower quality; if that is not enough, the last images are left
    out. ``folder`` keeps the AVIF files for the next run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[Picture] = []
    for quality in QUALITIES:
        shown, total, count = [], 0, 0
        for image in tqdm(
            images, desc=f"pictures {quality}", unit="image", disable=True if quiet else None, leave=False
        ):
            one = _of_image(image, settings, parts, codec, folder, quality)
            size = sum(len(picture.data) for picture in one)
            if total + size > budget:
                break
            shown, total, count = shown + one, total + size, count + 1
        if count == len(images):
            break
    left = (
        ""
        if count == len(images)
        else f" Pictures of the first {count} of {len(images)} images, to keep the page small."
    )
    stored = (
        "JPEG, WebP and AVIF pictures are the files that were measured. Not every browser reads the other files: "
        f"the original and all other codecs are stored here as AVIF 4:4:4 of quality {quality}, which changes them a "
        f"little; all figures are of the pixels before this change. Each codec is shown at the settings nearest to "
        f"{RATES} rates of vqcodec.{left}"
    )
    return Gallery(shown, stored)


def _of_image(
    image: Image,
    settings: Mapping[str, Sequence[int]],
    parts: Parts,
    codec: Codec,
    folder: Path,
    quality: int,
) -> list[Picture]:
    kept = folder / f"{image.sha256[:24]}-{quality}.avif"
    if not kept.exists():
        write_atomic(kept, _avif(read_image(image.path)[0], quality))
    pictures = [Picture(image.name, "original", 0, "image/avif", kept.read_bytes())]
    for name, chosen in settings.items():
        for index in chosen:
            file = parts[image.name, name, index].file
            if name != OWN and ANCHORS[name].mime in NATIVE:
                pictures.append(Picture(image.name, name, index, ANCHORS[name].mime, file.read_bytes()))
                continue
            kept = folder / f"{file.stem}-{quality}.avif"
            if not kept.exists():
                data = file.read_bytes()
                pixels = codec.decompress(data) if name == OWN else ANCHORS[name].decompress(data)
                write_atomic(kept, _avif(pixels, quality))
            pictures.append(Picture(image.name, name, index, "image/avif", kept.read_bytes()))
    return pictures


def _avif(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    picture = PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, "AVIF", quality=quality, subsampling="4:4:4", speed=8)
    return buffer.getvalue()
