"""Weights files: safetensors with the configuration inside, found by name or by fingerprint.

::

    VQVAE ── float16 ──┐
                       ├─▶ NAME.safetensors {metadata: name, config} ── SHA-256, first 4 bytes ──▶ fingerprint
    prior ── integers ─┘                                                   (what a .vq file names)

A fingerprint covers the file to the last byte, so that weights which decode a file today do so for ever:
``sha256sum`` of a weights file begins with it.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vqcodec.config import Config, ModelConfig, PriorConfig
from vqcodec.container import FINGERPRINT_BYTES
from vqcodec.errors import ConfigError, UnknownModelError, WeightsError
from vqcodec.images import write_atomic

__all__ = ["DEFAULT_NAME", "Weights", "find_weights", "load_weights", "save_weights"]

DEFAULT_NAME = "compact"
SUFFIX = ".safetensors"
FORMAT = "vqcodec-weights-1"
MAX_BYTES = 2**28


@dataclass(frozen=True)
class Weights:
    """The contents of a weights file.

    Attributes:
        name: of the model, such as ``compact``.
        fingerprint: 4 bytes, what a ``.vq`` file names.
        model, prior: the configurations that the tensors belong to.
        vqvae: the VQ-VAE's tensors, float32.
        prior_integers: the fixed-point prior's tensors.
    """

    name: str
    fingerprint: bytes
    model: ModelConfig
    prior: PriorConfig
    vqvae: dict[str, Tensor]
    prior_integers: dict[str, Tensor]


def folders() -> list[Path]:
    """Where weights are looked for: ``$VQCODEC_WEIGHTS``, the installed package, the source tree."""
    package = Path(__file__).resolve().parent
    own = os.environ.get("VQCODEC_WEIGHTS")
    return [*([Path(own)] if own else []), package / "models", package.parent / "weights"]


def find_weights(fingerprint: bytes | None = None) -> Path:
    """The default model's file, or the one with ``fingerprint``.

    Raises WeightsError if there is none at all, UnknownModelError if none has the fingerprint.
    """
    files = [path for folder in folders() if folder.is_dir() for path in sorted(folder.glob(f"*{SUFFIX}"))]
    if fingerprint is None:
        for path in files:
            if path.stem == DEFAULT_NAME:
                return path
        raise WeightsError(f"no weights named {DEFAULT_NAME}{SUFFIX} in {', '.join(map(str, folders()))}")
    for path in files:
        if _fingerprint(_read(path)) == fingerprint:
            return path
    known = ", ".join(f"{path.stem} ({_fingerprint(_read(path)).hex()})" for path in files) or "none"
    raise UnknownModelError(f"made with weights {fingerprint.hex()}, which are not installed here; known: {known}")


def load_weights(path: str | Path) -> Weights:
    """Read a weights file; raises WeightsError with the file's name."""
    data = _read(Path(path))
    try:
        tensors = load(data)
        # safetensors keeps its metadata to itself when it loads from bytes: an 8-byte length, then JSON.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        if metadata["format"] != FORMAT:
            raise WeightsError(f"{path}: weights of format {metadata['format']}, expected {FORMAT}")
        config = Config.from_dict(json.loads(metadata["config"]))
    except (SafetensorError, KeyError, ValueError, TypeError, ConfigError) as error:
        raise WeightsError(f"{path}: not a vqcodec weights file: {error}") from None
    vqvae = {name[6:]: tensor.float() for name, tensor in tensors.items() if name.startswith("vqvae.")}
    prior = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("prior.")}
    return Weights(metadata.get("name", "?"), _fingerprint(data), config.model, config.prior, vqvae, prior)


def save_weights(
    path: Path,
    name: str,
    model: ModelConfig,
    prior: PriorConfig,
    vqvae: dict[str, Tensor],
    prior_integers: dict[str, Tensor],
) -> bytes:
    """Write a weights file, the VQ-VAE in float16; returns its fingerprint."""
    tensors = {f"vqvae.{key}": tensor.to(torch.float16) for key, tensor in vqvae.items()}
    tensors |= {f"prior.{key}": tensor for key, tensor in prior_integers.items()}
    contents = Config(model=model, prior=prior).to_dict()
    del contents["train"]
    metadata = {"format": FORMAT, "name": name, "config": json.dumps(contents)}
    data = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, metadata)
    write_atomic(path, data)
    return _fingerprint(data)


def _fingerprint(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:FINGERPRINT_BYTES]


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path}: {path.stat().st_size} bytes, expected weights of at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
