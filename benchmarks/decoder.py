"""The other process: it knows a model and files, and never saw what was compressed.

::

    path.vq ──read──▶ bytes ─┬─ lengths of its levels
                             └─ codes ─┬─ pixels
                                       ├─ how often each codeword occurs
                                       └─ bits under the prior's integer frequencies
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec

__all__ = ["Contents", "decode_file", "fresh_process", "loaded", "start"]


@dataclass(frozen=True)
class Contents:
    """What one file holds, besides the picture.

    Attributes:
        level_bytes: of each level's bitstream, coarsest first.
        cross_entropy: bits of each level under the prior's integer frequencies.
        counts: how often each codeword occurs, ``[G_l, K_l]`` a level.
    """

    level_bytes: list[int]
    cross_entropy: list[float]
    counts: list[NDArray[np.int64]]


_codec: Codec | None = None


def start(weights: str, device: str, threads: int) -> None:
    """Load the model once, for all later calls in this process."""
    global _codec
    torch.set_num_threads(threads)
    _codec = Codec.load(weights, device=device)


def loaded() -> Codec:
    """The model that :func:`start` loaded."""
    assert _codec is not None, "start() comes first"
    return _codec


def decode_file(path: Path) -> tuple[NDArray[np.uint8], Contents]:
    """Pixels ``[H, W, 3 or 1]`` and contents of a file, by the model that :func:`start` loaded."""
    codec = loaded()
    data = path.read_bytes()
    file, codes = codec.read(data)
    # The same as Codec.decompress, which would decode the codes a second time.
    pixels = codec.reconstruct(codes, file.quality, file.height, file.width, grey=file.grey)
    counts = [_count(grid, level.codebook_size) for grid, level in zip(codes, codec.model.levels, strict=True)]
    level_bytes = [len(level) for level in file.levels]
    return pixels, Contents(level_bytes, codec.cross_entropy(codes, file.quality), counts)


@contextlib.contextmanager
def fresh_process(
    weights: Path, device: str, threads: int, environment: Mapping[str, str] | None = None
) -> Iterator[concurrent.futures.Executor]:
    """One new Python process in which :func:`start` has run, with ``environment`` added to its variables.

    It shares no memory with this one, so nothing but files can carry what it decodes.
    """
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with concurrent.futures.ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), start, (str(weights), device, threads)
        ) as pool:
            yield pool
    finally:
        os.environ.clear()
        os.environ.update(before)


def _count(grid: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.stack([np.bincount(group.ravel(), minlength=size) for group in grid])
