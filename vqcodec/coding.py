"""One file to another: what ``encode`` and ``decode`` do with each, be it the only one or one of many.

::

    Encoder   photo.png ──files──▶ pixels ──Codec.compress──▶ bytes ──files──▶ photo.vq
    Decoder   photo.vq ──files──▶ bytes ──Codec.decompress──▶ pixels ──files──▶ photo.png
                                           ▲
    Models    weights ──the first time──▶ Codec

Encoder and Decoder can be sent to another process, which then loads models of its own. ``torch`` is imported with
the first model, when the first file has been read.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vqcodec.errors import VqcodecError, naming
from vqcodec.files import STREAM, read_container, read_pixels, read_salvage, write_bytes, write_pixels

if TYPE_CHECKING:
    from vqcodec.codec import Codec

__all__ = ["Coded", "Coder", "Decoder", "Encoder", "Models"]


@dataclass(frozen=True)
class Coded:
    """One file that was encoded or decoded.

    Attributes:
        source, target: names of the input and of the output.
        width, height, quality: of the picture.
        size: bytes of the ``.vq`` file.
        seconds: that compressing or decompressing took, with the model loaded.
        start, end: from before reading to after writing, on ``time.perf_counter``, which is one clock for all
            processes. The time that loading the model took is left out.
        psnr: in dB; None unless it was asked for.
        warnings: one line each, what reading the image has dropped or converted.
        preview: how many levels of how many it shows, if fewer were asked for.
        damage: what is wrong with the ``.vq`` file, if only some of its levels could be used.
    """

    source: str
    target: str
    width: int
    height: int
    quality: int
    size: int
    seconds: float
    start: float
    end: float
    psnr: float | None = None
    warnings: Sequence[str] = ()
    preview: str | None = None
    damage: str | None = None

    @property
    def bpp(self) -> float:
        """Bits per pixel of the ``.vq`` file."""
        return 8 * self.size / (self.width * self.height)


@dataclass
class Models:
    """The models that files need, each loaded once.

    Attributes:
        weights: a file that holds the model for everything; None for those installed.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        threads: to compute with; None for this process's share of what torch would take.
        processes: that share the cores.
    """

    weights: str | None
    device: str
    threads: int | None
    processes: int = 1
    _loaded: dict[bytes | None, "Codec"] = field(default_factory=dict, init=False, repr=False)

    def to_encode(self) -> "Codec":
        """The model to compress with."""
        if None not in self._loaded:
            codec = self._prepare()
            self._loaded[None] = codec.load(self.weights, device=self.device)
        return self._loaded[None]

    def to_decode(self, fingerprint: bytes) -> "Codec":
        """The model for ``.vq`` files that name ``fingerprint``."""
        key = None if self.weights else fingerprint
        if key not in self._loaded:
            codec = self._prepare()
            self._loaded[key] = codec.for_fingerprint(fingerprint, weights=self.weights, device=self.device)
        return self._loaded[key]

    def _prepare(self) -> type["Codec"]:
        """Codec, with torch told how many threads to use."""
        if self.threads is not None or self.processes > 1:
            import torch

            self.threads = self.threads or max(1, torch.get_num_threads() // self.processes)
            torch.set_num_threads(self.threads)
        from vqcodec.codec import Codec

        return Codec


@dataclass(frozen=True)
class Encoder:
    """Makes a ``.vq`` file of an image."""

    suffix: ClassVar[str] = ".vq"
    verb: ClassVar[str] = "encoding"
    models: Models
    quality: int
    psnr: bool
    check: bool = False
    max_pixels: int | None = None

    def inputs(self, folder: Path) -> list[Path]:
        """Every image file under ``folder``, in sorted order; raises ImageError when there is none."""
        from vqcodec.images import image_files

        return image_files(folder)

    def __call__(self, source: str, target: str) -> Coded:
        """Encode ``source`` to ``target``; raises VqcodecError, and then nothing is written."""
        from vqcodec.images import has_image_extension

        if has_image_extension(target):
            raise VqcodecError(f"{target}: has the extension of an image, expected {self.suffix}")
        begun = time.perf_counter()
        pixels, warnings = read_pixels(source, max_pixels=self.max_pixels)
        with naming(source):
            read = time.perf_counter()
            codec = self.models.to_encode()
            start = time.perf_counter()
            data = codec.compress(pixels, self.quality, check=self.check, max_pixels=self.max_pixels)
            seconds = time.perf_counter() - start
            decibels = None
            if self.psnr:
                from vqcodec.metrics import psnr

                decibels = psnr(pixels, codec.decompress(data, max_pixels=self.max_pixels))
        write_bytes(target, data)
        height, width = pixels.shape[:2]
        end = time.perf_counter()
        begun += start - read
        return Coded(
            source, target, width, height, self.quality, len(data), seconds, begun, end, decibels, tuple(warnings)
        )


@dataclass(frozen=True)
class Decoder:
    """Makes an image of a ``.vq`` file.

    Attributes:
        levels: decode only so many, coarsest first; None for all.
        salvage: of a damaged file, take the levels before the damage.
        max_pixels: that a file may have; see :func:`vqcodec.container.parse`.
    """

    suffix: ClassVar[str] = ".png"
    verb: ClassVar[str] = "decoding"
    models: Models
    levels: int | None = None
    salvage: bool = False
    max_pixels: int | None = None

    def inputs(self, folder: Path) -> list[Path]:
        """Every ``.vq`` file under ``folder``, in sorted order; raises VqcodecError when there is none."""
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".vq" and path.is_file())
        if not files:
            raise VqcodecError(f"{folder}: holds no .vq files")
        return files

    def __call__(self, source: str, target: str) -> Coded:
        """Decode ``source`` to ``target``; raises VqcodecError, and then nothing is written."""
        from vqcodec.images import output_format

        if target != STREAM:
            output_format(target)
        begun = time.perf_counter()
        damage = None
        if self.salvage:
            data, left = read_salvage(source, max_pixels=self.max_pixels)
            container, damage = left.container, left.damage
        else:
            data, container = read_container(source, max_pixels=self.max_pixels)
        with naming(source):
            read = time.perf_counter()
            codec = self.models.to_decode(container.fingerprint)
            start = time.perf_counter()
            if damage:
                pixels, _ = codec.salvage(data, max_pixels=self.max_pixels)
            else:
                pixels = codec.decompress(data, levels=self.levels, max_pixels=self.max_pixels)
            seconds = time.perf_counter() - start
        write_pixels(target, pixels)
        preview = None
        if damage:
            damage = f"{damage}; the picture is made of {len(container.levels)} of {left.level_count} levels"
        elif self.levels is not None and self.levels < len(container.levels):
            preview = f"{self.levels} of {len(container.levels)} levels"
        end = time.perf_counter()
        begun += start - read
        return Coded(
            source,
            target,
            container.width,
            container.height,
            container.quality,
            len(data),
            seconds,
            begun,
            end,
            preview=preview,
            damage=damage,
        )


Coder = Encoder | Decoder
