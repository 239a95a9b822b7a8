"""Weights files: safetensors with the configuration inside, found by name or by fingerprint.

::

    VQVAE ── float16 ──┐
                       ├─▶ NAME.safetensors {metadata: name, config} ── SHA-256, first 4 bytes ──▶ fingerprint
    prior ── integers ─┘                                                   (what a .vq file names)

A fingerprint covers the file to the last byte, so that weights which decode a file today do so for ever:
``sha256sum`` of a weights file begins with it. Where a folder has a manifest, which is what ``sha256sum`` writes, the
files that it lists must be what it says.
"""

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vqcodec.config import Config, ModelConfig, PriorConfig
from vqcodec.errors import ConfigError, UnknownModelError, WeightsError, one_line
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import FINGERPRINT_BYTES

__all__ = ["DEFAULT_NAME", "Weights", "find_weights", "load_weights", "save_weights"]

DEFAULT_NAME = "compact"
SUFFIX = ".safetensors"
MANIFEST = "SHA256SUMS"
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
    vqvae: dict[str, Tensor] = field(repr=False)
    prior_integers: dict[str, Tensor] = field(repr=False)


def folders() -> list[Path]:
    """Where weights are looked for: ``$VQCODEC_WEIGHTS``, the installed package, the source tree."""
    package = Path(__file__).resolve().parent
    own = os.environ.get("VQCODEC_WEIGHTS")
    if own and not Path(own).is_dir():
        raise WeightsError(f"VQCODEC_WEIGHTS is {own}, expected a folder of weights")
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
    known: list[str] = []
    for path in files:
        try:
            stated = _manifest(path.parent).get(path.name)
            found = bytes.fromhex(stated)[:FINGERPRINT_BYTES] if stated else _read(path)[1]
        except WeightsError:  # one file that cannot be read must not hide the others
            known.append(f"{path.stem} (unreadable)")
            continue
        if found == fingerprint:
            return path
        known.append(f"{path.stem} ({found.hex()})")
    installed = ", ".join(known) or "none"
    raise UnknownModelError(f"made with weights {fingerprint.hex()}, which are not installed here; known: {installed}")


def load_weights(path: str | Path) -> Weights:
    """Read a weights file; raises WeightsError with the file's name. Shapes are for the models to check."""
    data, fingerprint = _read(Path(path))
    try:
        tensors = load(data)
        # safetensors keeps its metadata to itself when it loads from bytes.
        metadata = _split(data)[0].get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format', 'not stated')}, expected {FORMAT}")
        contents = json.loads(metadata.get("config", "{}"))
        if isinstance(contents, dict) and isinstance(contents.get("prior", {}), dict):
            # Weights from before there was a choice do not say it.
            contents.setdefault("prior", {}).setdefault("sum_bits", 53)
        config = Config.from_dict(contents)
        name = metadata.get("name", "?")
    except (SafetensorError, ValueError, ArithmeticError, RecursionError, ConfigError) as error:
        raise WeightsError(f"{path}: not a vqcodec weights file: {one_line(error)}") from None
    parts: dict[str, dict[str, Tensor]] = {"vqvae": {}, "prior": {}}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise WeightsError(f"{path}: unexpected tensor {key}, expected vqvae.* and prior.*")
        parts[part][rest] = tensor.float() if part == "vqvae" else tensor
    return Weights(name, fingerprint, config.model, config.prior, parts["vqvae"], parts["prior"])


def save_weights(
    path: Path,
    name: str,
    model: ModelConfig,
    prior: PriorConfig,
    vqvae: dict[str, Tensor],
    prior_integers: dict[str, Tensor],
) -> bytes:
    """Write a weights file, the VQ-VAE in float16; returns its fingerprint.

    Raises WeightsError, and writes nothing, if a weight is not finite in float16.
    """
    tensors = {f"vqvae.{key}": tensor.to(torch.float16) for key, tensor in vqvae.items()}
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: tensor {key} is not finite in float16: the training has diverged")
    tensors |= {f"prior.{key}": tensor for key, tensor in prior_integers.items()}
    contents = Config(model=model, prior=prior).to_dict()
    del contents["train"]
    metadata = {"format": FORMAT, "name": name, "config": json.dumps(contents)}
    data = _in_order(save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, metadata))
    write_atomic(path, data)
    return _fingerprint(data)


def _fingerprint(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:FINGERPRINT_BYTES]


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, which is an 8-byte length and JSON, and the bytes after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _in_order(data: bytes) -> bytes:
    """The same file with the header's entries sorted: safetensors shuffles its metadata, and a fingerprint must not."""
    header, rest = _split(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + rest


def _manifest(folder: Path) -> dict[str, str]:
    """SHA-256 in hexadecimal digits of each file that the folder's manifest lists; empty where there is none."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    listed: dict[str, str] = {}
    for line in _bytes_of(path).decode(errors="replace").splitlines():
        if not (match := re.fullmatch(r"([0-9a-f]{64}) [ *](\S+)", line)):
            raise WeightsError(f"{path}: not a list of SHA-256 sums, as sha256sum writes it: {one_line(line)}")
        listed[match[2]] = match[1]
    return listed


def _read(path: Path) -> tuple[bytes, bytes]:
    """The bytes of a weights file, held against the manifest that lists it, and its fingerprint."""
    data = _bytes_of(path)
    digest = hashlib.sha256(data)
    stated = _manifest(path.parent).get(path.name, digest.hexdigest())
    if digest.hexdigest() != stated:
        found = f"its SHA-256 is {digest.hexdigest()[:16]}…, {MANIFEST} says {stated[:16]}…"
        raise WeightsError(f"{path}: damaged: {found}")
    return data, digest.digest()[:FINGERPRINT_BYTES]


def _bytes_of(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{path}: not a regular file, expected a {SUFFIX} file")
        if status.st_size > MAX_BYTES:
            raise WeightsError(f"{path}: {status.st_size} bytes, expected weights of at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
