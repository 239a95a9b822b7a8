"""Run functions in a fresh process, which gets the model and files but no memory of the compressing process.

::

    this process ──path.vq──▶ fresh process: model, threads and environment of its own ──▶ results
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from vqcodec.codec import Codec

__all__ = ["fresh_process", "loaded", "start"]

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


@contextlib.contextmanager
def fresh_process(
    weights: Path, device: str, threads: int, environment: Mapping[str, str] | None = None
) -> Iterator[concurrent.futures.Executor]:
    """One new Python process in which :func:`start` has run, with ``environment`` added to its variables.

    It shares no memory with this process, so it can decode only from files.
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
