"""Weights files: each model is two safetensors files, one for its decoder side and one for its encoder side.

::

    VQVAE ─┬─ what decoding needs, float16 ─┐
           │                                ├─▶ NAME.decoder.safetensors ── SHA-256, first 4 bytes ──▶ fingerprint
    prior ─┼─ integers ─────────────────────┘         ▲                                        (a .vq file names it)
           │                                          │ SHA-256
           └─ the rest of the VQ-VAE, float16 ─▶ NAME.encoder.safetensors

The fingerprint covers every byte of the decoder side: ``sha256sum`` of the file begins with it. The encoder side
chooses codes and nothing else. It names the decoder side it belongs to, lies next to it, and may be replaced: files
made before decode as they did, and files made after decode with the same decoder side.

If a folder has a manifest as ``sha256sum`` writes it, vqcodec refuses every listed file whose SHA-256 differs.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vqcodec.config import DEFAULT_TUNE, DISTORTIONS, Config, ModelConfig, PriorConfig, Tune, check_tune
from vqcodec.errors import ConfigError, UnknownModelError, WeightsError, one_line
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import FINGERPRINT_BYTES
from vqcodec.networks.vqvae import VQVAE

__all__ = [
    "ABSENT",
    "DECODER_SUFFIX",
    "ENCODER_SUFFIX",
    "Weights",
    "decoder_paths",
    "encoder_fingerprint",
    "encoder_path",
    "fill_decoder",
    "fill_encoder",
    "find_weights",
    "load_weights",
    "save_encoder",
    "save_weights",
]

MODELS: Mapping[Tune, str] = {"psnr": "compact", "visual": "visual"}  # the name of the model for each tune
DECODER_SUFFIX, ENCODER_SUFFIX = ".decoder.safetensors", ".encoder.safetensors"
DECODER_FORMAT, ENCODER_FORMAT = "vqcodec-decoder-1", "vqcodec-encoder-1"
MANIFEST = "SHA256SUMS"
MAX_BYTES = 2**28
# What docs/format.md says of absent entries.
ABSENT: dict[str, Any] = {"quality_scale": [], "second_kernel": 3, "sigma_min": 1 / 3}


@dataclass(frozen=True)
class Weights:
    """The decoder side of a model: the contents of a ``NAME.decoder.safetensors`` file.

    Attributes:
        path: of the file, absolute.
        name: of the model, such as ``compact``.
        digest: SHA-256 of the file, 32 bytes.
        model, prior: the configurations that the tensors belong to.
        vqvae: the tensors of the VQ-VAE's decoder side, float32; see :meth:`VQVAE.sides`.
        prior_integers: the fixed-point prior's tensors.
    """

    path: Path
    name: str
    digest: bytes
    model: ModelConfig
    prior: PriorConfig
    vqvae: dict[str, Tensor] = field(repr=False)
    prior_integers: dict[str, Tensor] = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        """The first 4 bytes of the digest, by which a ``.vq`` file names the model."""
        return self.digest[:FINGERPRINT_BYTES]


def folders() -> list[Path]:
    """Where weights are looked for: ``$VQCODEC_WEIGHTS``, the installed package, the source tree."""
    package = Path(__file__).resolve().parent
    own = os.environ.get("VQCODEC_WEIGHTS")
    if own:
        try:
            os.listdir(own)  # glob takes a folder that cannot be read for an empty one
        except OSError as error:
            raise WeightsError(f"VQCODEC_WEIGHTS is {own}, expected a folder of weights: {error.strerror}") from None
    return [*([Path(own)] if own else []), package / "models", package.parent / "weights"]


def decoder_paths() -> list[Path]:
    """The files of all installed decoder sides, in the order in which they are looked for."""
    return [path for folder in folders() if folder.is_dir() for path in sorted(folder.glob(f"*{DECODER_SUFFIX}"))]


def find_weights(fingerprint: bytes | None = None, *, tune: Tune = DEFAULT_TUNE) -> Path:
    """The file of the decoder side of the model with ``fingerprint``, or, if that is None, of the model for ``tune``.

    Raises WeightsError if no folder has the tune's model, UnknownModelError if no model has the fingerprint, ValueError
    for another tune.
    """
    check_tune(tune)
    files = decoder_paths()
    if fingerprint is None:
        for path in files:
            if path.name == MODELS[tune] + DECODER_SUFFIX:
                return path
        raise WeightsError(f"no weights named {MODELS[tune]}{DECODER_SUFFIX} in {', '.join(map(str, folders()))}")
    known: list[str] = []
    for path in files:
        name = path.name.removesuffix(DECODER_SUFFIX)
        try:
            stated = _manifest(path.parent).get(path.name)
            digest = bytes.fromhex(stated) if stated else _read(path)[1]
        except WeightsError:  # one file that cannot be read must not hide the others
            known.append(f"{name} (unreadable)")
            continue
        if digest[:FINGERPRINT_BYTES] == fingerprint:
            return path
        known.append(f"{name} ({digest[:FINGERPRINT_BYTES].hex()})")
    installed = ", ".join(known) or "none"
    raise UnknownModelError(f"made with weights {fingerprint.hex()}, which are not installed here; known: {installed}")


def encoder_path(path: Path) -> Path:
    """The file of the encoder side, which lies next to the decoder side at ``path``.

    Raises WeightsError if the name of ``path`` does not end as the name of a decoder side must.
    """
    if not path.name.endswith(DECODER_SUFFIX):
        raise WeightsError(
            f"{path}: expected a name that ends with {DECODER_SUFFIX}: without it, the file of the encoder side, "
            "which compressing needs, cannot be found"
        )
    return path.with_name(path.name.removesuffix(DECODER_SUFFIX) + ENCODER_SUFFIX)


def encoder_fingerprint(path: Path) -> bytes:
    """The first 4 bytes of the SHA-256 of the encoder side next to ``path``; raises WeightsError if it is missing."""
    return _read(encoder_path(path))[1][:FINGERPRINT_BYTES]


def load_weights(path: str | Path) -> Weights:
    """Read a decoder side; raises WeightsError with the file's name.

    :func:`fill_decoder` and :class:`vqcodec.exact.prior.FixedPrior` check names and shapes.
    """
    data, digest = _read(Path(path))
    metadata, contents, tensors = _unpack(path, data, DECODER_FORMAT)
    if isinstance(model := contents.get("model"), dict):
        contents = contents | {"model": ABSENT | model}
    try:
        config = Config.from_dict(contents)
    except (ArithmeticError, ConfigError) as error:
        raise WeightsError(f"{path}: not a vqcodec weights file: {one_line(error)}") from None
    parts: dict[str, dict[str, Tensor]] = {"vqvae": {}, "prior": {}}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise WeightsError(f"{path}: unexpected tensor {key}, expected vqvae.* and prior.*")
        parts[part][rest] = tensor.float() if part == "vqvae" else tensor
    name = metadata.get("name", "?")
    return Weights(Path(path).absolute(), name, digest, config.model, config.prior, parts["vqvae"], parts["prior"])


def fill_decoder(vqvae: VQVAE, weights: Weights, device: torch.device | str = "cpu") -> None:
    """Give ``vqvae`` the tensors of the decoder side; raises WeightsError if they do not fit it."""
    _fill(vqvae, weights.vqvae, vqvae.sides()[0], device)


def fill_encoder(vqvae: VQVAE, weights: Weights, device: torch.device | str = "cpu") -> None:
    """Read the encoder side that lies next to ``weights``, and give ``vqvae`` its tensors and distortion weights.

    Raises WeightsError with the file's name if it is missing or damaged, or made for another decoder side.
    """
    path = encoder_path(weights.path)
    if not os.path.lexists(path):  # what a link leads to may be out of reach, which reading tells
        raise WeightsError(f"{path}: missing; compressing needs this encoder side next to {weights.path.name}")
    data, _ = _read(path)
    metadata, contents, tensors = _unpack(path, data, ENCODER_FORMAT)
    if (decoder := metadata.get("decoder", "")) != weights.digest.hex():
        fingerprint = one_line(decoder[: 2 * FINGERPRINT_BYTES]) or "not stated"
        raise WeightsError(
            f"{path}: made for another decoder: its decoder is {fingerprint}, {weights.path.name} is "
            f"{weights.fingerprint.hex()}"
        )
    factors = contents.get("distortion_weights")
    if not (
        isinstance(factors, list)
        and len(factors) == len(weights.model.levels)
        and all(isinstance(factor, float) and 0 < factor < math.inf for factor in factors)
    ):
        raise WeightsError(f"{path}: distortion_weights are {one_line(factors)}, expected a number above 0 a level")
    if (distortion := contents.get("distortion", "mse")) not in DISTORTIONS:
        raise WeightsError(f"{path}: distortion is {one_line(distortion)}, expected {' or '.join(DISTORTIONS)}")
    if foreign := [key for key in tensors if not key.startswith("vqvae.")]:
        raise WeightsError(f"{path}: unexpected tensor {min(foreign)}, expected vqvae.*")
    named = {key.removeprefix("vqvae."): tensor.float() for key, tensor in tensors.items()}
    try:
        _fill(vqvae, named, vqvae.sides()[1], device)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    for quantizer, factor in zip(vqvae.quantizers(), factors, strict=True):
        quantizer.distortion_weight = factor
    vqvae.distortion = distortion


def save_weights(path: Path, name: str, vqvae: VQVAE, prior: PriorConfig, prior_integers: dict[str, Tensor]) -> bytes:
    """Write the decoder side to ``path`` and the encoder side next to it; returns the decoder side's SHA-256.

    The VQ-VAE is stored in float16. Raises WeightsError, and writes nothing, if a weight is not finite in float16,
    or if ``path`` does not end with DECODER_SUFFIX.
    """
    encoder = encoder_path(path)
    half = _half(path, vqvae, vqvae.sides()[0])
    _half(encoder, vqvae, vqvae.sides()[1])  # is it finite?
    contents = {"model": dataclasses.asdict(vqvae.config), "prior": dataclasses.asdict(prior)}
    tensors = half | {f"prior.{key}": tensor for key, tensor in prior_integers.items()}
    data = _pack(tensors, {"format": DECODER_FORMAT, "name": name, "config": json.dumps(contents)})
    write_atomic(path, data)
    digest = hashlib.sha256(data).digest()
    save_encoder(encoder, name, vqvae, digest)
    return digest


def save_encoder(path: Path, name: str, vqvae: VQVAE, decoder: bytes) -> None:
    """Write an encoder side for the decoder side whose SHA-256 is ``decoder``.

    Raises WeightsError, and writes nothing, if a weight is not finite in float16.
    """
    factors = [float(quantizer.distortion_weight) for quantizer in vqvae.quantizers()]
    contents = json.dumps({"distortion_weights": factors, "distortion": vqvae.distortion})
    metadata = {"format": ENCODER_FORMAT, "name": name, "decoder": decoder.hex(), "config": contents}
    write_atomic(path, _pack(_half(path, vqvae, vqvae.sides()[1]), metadata))


def _half(path: Path, vqvae: VQVAE, names: set[str]) -> dict[str, Tensor]:
    """The tensors called ``names``, in float16 and by the names that they have in files."""
    state = vqvae.state_dict()
    tensors = {f"vqvae.{name}": state[name].to(torch.float16) for name in sorted(names)}
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: tensor {key} is not finite in float16: the training has diverged")
    return tensors


def _fill(vqvae: VQVAE, tensors: dict[str, Tensor], names: set[str], device: torch.device | str) -> None:
    """Give ``vqvae`` the ``tensors``, which must be those called ``names``."""
    wrong = [f"missing {name}" for name in sorted(names - tensors.keys())]
    wrong += [f"unexpected {name}" for name in sorted(tensors.keys() - names)]
    try:
        if wrong:
            raise RuntimeError(", ".join(wrong))
        vqvae.load_state_dict({k: tensor.to(device) for k, tensor in tensors.items()}, strict=False, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"tensors do not fit the configuration: {one_line(error, 300)}") from None


def _pack(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file with the header's entries sorted: safetensors shuffles them, and a digest must not change."""
    header, rest = _split(save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, metadata))
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + rest


def _unpack(path: str | Path, data: bytes, form: str) -> tuple[dict[str, str], dict[str, Any], dict[str, Tensor]]:
    """Metadata, configuration and tensors of a safetensors file whose format must be ``form``."""
    try:
        tensors = load(data)
        # safetensors does not return the metadata when it loads from bytes.
        metadata = _split(data)[0].get("__metadata__", {})
        if metadata.get("format") != form:
            raise ValueError(f"its format is {metadata.get('format', 'not stated')}, expected {form}")
        contents = json.loads(metadata.get("config", "{}"))
        if not isinstance(contents, dict):
            raise ValueError(f"its configuration is {contents!r}, expected a table")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a vqcodec weights file: {one_line(error)}") from None
    return metadata, contents, tensors


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, which is an 8-byte length and JSON, and the bytes after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _manifest(folder: Path) -> dict[str, str]:
    """SHA-256 in hexadecimal digits of each file that the folder's manifest lists; empty where there is none."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return {}
    listed: dict[str, str] = {}
    for line in _bytes_of(path).decode(errors="replace").splitlines():
        if not (match := re.fullmatch(r"([0-9a-f]{64}) [ *](\S+)", line)):
            raise WeightsError(f"{path}: not a list of SHA-256 sums, as sha256sum writes it: {one_line(line)}")
        listed[match[2]] = match[1]
    return listed


def _read(path: Path) -> tuple[bytes, bytes]:
    """The bytes of a weights file and their SHA-256, which must be that of the manifest if it lists the file."""
    data = _bytes_of(path)
    digest = hashlib.sha256(data)
    stated = _manifest(path.parent).get(path.name, digest.hexdigest())
    if digest.hexdigest() != stated:
        found = f"its SHA-256 is {digest.hexdigest()[:16]}…, {MANIFEST} says {stated[:16]}…"
        raise WeightsError(f"{path}: damaged: {found}")
    return data, digest.digest()


def _bytes_of(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{path}: not a regular file, expected a .safetensors file")
        if status.st_size > MAX_BYTES:
            raise WeightsError(f"{path}: {status.st_size} bytes, expected weights of at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
