"""Files of a wanted rate by any codec, so that several can be looked at in equal bytes.

::

    pixels, bpp ─┬─ vqcodec: the largest file within the rate ──────┐
                 └─ others: their smallest file of at least as much ─┴─▶ bytes ──▶ pixels

The difference that remains is thus never in favour of vqcodec.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.errors import TargetError
from vqcodec.metrics import bpp
from vqcodec.rd.anchors import ANCHORS, OWN, Anchor, Setting, require_anchors
from vqcodec.targets import Target, compress_to
from vqcodec.weights import find_weights

__all__ = ["OVER", "WITH_QUALITY", "Coder", "coders", "ours", "theirs"]

OVER = 1.1
"""A file that is larger than asked for by more than this factor is not of equal bytes."""

WITH_QUALITY = tuple(name for name, anchor in ANCHORS.items() if "quality" in anchor.settings[0].options)
"""The anchors that can be asked for a rate: those with whole qualities of 0..100."""

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Coder:
    """A codec that can be asked for a rate.

    Attributes:
        label: as in tables and captions.
        compress: maps pixels ``[H, W, 3]`` and a rate in bits per pixel to a file; None where there is none that fits.
        decompress: the inverse, pixels ``[H, W, 3]``.
    """

    label: str
    compress: Callable[[_Pixels, float], bytes | None]
    decompress: Callable[[bytes], _Pixels]


def coders(weights: Sequence[Path], anchors: Sequence[str], effort: int) -> list[Coder]:
    """vqcodec with each model of ``weights``, with the shipped one if there are none, then the anchors by name.

    Raises MissingPackageError for an anchor whose codec is not installed, and WeightsError for a model that cannot be
    read.
    """
    require_anchors(anchors)
    models = [Codec.load(path, device="cpu") for path in weights or (find_weights(),)]
    labels = [OWN] if len(models) == 1 else [f"{OWN} {model.name}" for model in models]
    own = [ours(model, label, effort) for model, label in zip(models, labels, strict=True)]
    return [*own, *(theirs(ANCHORS[name]) for name in anchors)]


def ours(codec: Codec, label: str, effort: int) -> Coder:
    """vqcodec with a model, by the largest file that a rate allows."""

    def compress(pixels: _Pixels, rate: float) -> bytes | None:
        try:
            return compress_to(codec, pixels, Target("bpp", rate), effort=effort).data
        except TargetError:
            return None

    return Coder(label, compress, codec.decompress)


def theirs(anchor: Anchor) -> Coder:
    """An anchor of :data:`WITH_QUALITY`, by its smallest file of at least a rate."""
    common = {name: value for name, value in anchor.settings[0].options.items() if name != "quality"}

    def compress(pixels: _Pixels, rate: float) -> bytes | None:
        height, width = pixels.shape[:2]
        lowest, highest = 0, 100
        best = None
        while lowest <= highest:
            quality = (lowest + highest) // 2
            data = anchor.compress(pixels, Setting({**common, "quality": quality}))
            if bpp(len(data), width, height) < rate:
                lowest = quality + 1
            else:
                best, highest = data, quality - 1
        return best

    return Coder(anchor.label, compress, anchor.decompress)
