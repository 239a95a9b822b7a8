"""One file to another: what ``encode`` and ``decode`` do with each, be it the only one or one of many.

Of many, the decoder takes those of one size together.

::

    Encoder   photo.png ──files──▶ pixels ──Codec.compress──▶ bytes ──files──▶ photo.vq
    Decoder   photo.vq ──files──▶ bytes ──Codec.decompress──▶ pixels ──files──▶ photo.png
                                           ▲
    Models    weights ──the first time──▶ Codec

Encoder and Decoder can be sent to another process, which then loads models of its own. ``torch`` is imported with
the first model, when the first file has been read.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vqcodec.errors import FormatError, VqcodecError, naming
from vqcodec.files.container import Container
from vqcodec.files.streams import STREAM, read_container, read_pixels, read_salvage, shown, write_bytes, write_pixels
from vqcodec.geometry import batch_size
from vqcodec.metrics import bpp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqcodec.codec import Codec

__all__ = ["Coded", "Coder", "Decoder", "Encoder", "Models", "Task"]


@dataclass(frozen=True)
class Task:
    """A file to read and the one to write."""

    source: str
    target: str


@dataclass(frozen=True)
class Coded:
    """One file that was encoded or decoded.

    Attributes:
        source, target: names of the input and of the output.
        width, height, quality: of the picture.
        size: bytes of the ``.vq`` file.
        seconds: that compressing or decompressing took, with the model loaded; a share of that of its batch.
        start, end: from before reading to after writing, on ``time.perf_counter``, which is one clock for all
            processes. The time that loading the model took is left out.
        psnr: in dB; None unless it was asked for.
        warnings: one line each, what reading the image has dropped or converted, or damage that does not matter.
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
        return bpp(self.size, self.width, self.height)


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
        from vqcodec.files.images import image_files

        return image_files(folder)

    def batches(self, tasks: Sequence[Task], processes: int) -> list[list[Task]]:
        """Each by itself: the encoder, which knows all codes, has enough to do at a time."""
        return [[task] for task in tasks]

    def __call__(self, batch: Sequence[Task]) -> list[Coded]:
        """Encode each; raises VqcodecError, and then nothing more is written."""
        return [self._encode(task) for task in batch]

    def _encode(self, task: Task) -> Coded:
        from vqcodec.files.images import has_image_extension

        if has_image_extension(task.target):
            raise VqcodecError(f"{task.target}: has the extension of an image, expected {self.suffix}")
        begun = time.perf_counter()
        pixels, warnings = read_pixels(task.source, max_pixels=self.max_pixels)
        with naming(task.source):
            read = time.perf_counter()
            codec = self.models.to_encode()
            start = time.perf_counter()
            data = codec.compress(pixels, self.quality, check=self.check, max_pixels=self.max_pixels)
            seconds = time.perf_counter() - start
            decibels = None
            if self.psnr:
                from vqcodec.metrics import psnr

                decibels = psnr(pixels, codec.decompress(data, max_pixels=self.max_pixels))
        write_bytes(task.target, data)
        height, width = pixels.shape[:2]
        begun += start - read
        return Coded(
            task.source,
            task.target,
            width,
            height,
            self.quality,
            len(data),
            seconds,
            begun,
            time.perf_counter(),
            decibels,
            tuple(warnings),
        )


@dataclass(frozen=True)
class Decoder:
    """Makes an image of a ``.vq`` file.

    Attributes:
        levels: decode only so many, coarsest first, and mind no damage after them; None for all.
        salvage: of a damaged file, take the levels before the damage.
        max_pixels: that a file may have; see :func:`vqcodec.files.container.parse`.
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

    def batches(self, tasks: Sequence[Task], processes: int) -> list[list[Task]]:
        """``tasks`` in their order; files of one model and size that follow each other go together.

        Each of several ``processes`` gets some batches, so that they end at about the same time. A file that cannot be
        read is alone.
        """
        batches: list[list[Task]] = []
        share = len(tasks) if processes == 1 else -(-len(tasks) // (3 * processes))
        before, longest = None, 1
        for task in tasks:
            kind = None
            with contextlib.suppress(VqcodecError):
                container = read_container(task.source, max_pixels=self.max_pixels)[1]
                short, long = sorted((container.height, container.width))
                kind = (container.fingerprint, short, long)
                longest = min(batch_size(short, long), share)
            if kind is not None and kind == before and len(batches[-1]) < longest:
                batches[-1].append(task)
            else:
                batches.append([task])
            before = kind
        return batches

    def __call__(self, batch: Sequence[Task]) -> list[Coded]:
        """Decode all, or raise VqcodecError for one; nothing is written unless all can be decoded."""
        return [self._decode(*batch)] if len(batch) == 1 else self._decode_many(batch)

    def _decode_many(self, tasks: Sequence[Task]) -> list[Coded]:
        begun = time.perf_counter()
        files = [read_container(task.source, max_pixels=self.max_pixels) for task in tasks]
        read = time.perf_counter()
        codec = self.models.to_decode(files[0][1].fingerprint)
        start = time.perf_counter()
        pictures = codec.decompress_many([data for data, _ in files], levels=self.levels, max_pixels=self.max_pixels)
        seconds = (time.perf_counter() - start) / len(tasks)
        begun += start - read
        return [
            self._write(task, container, len(container.levels), len(data), pixels, seconds, begun)
            for task, (data, container), pixels in zip(tasks, files, pictures, strict=True)
        ]

    def _decode(self, task: Task) -> Coded:
        from vqcodec.files.images import output_format

        if task.target != STREAM:
            output_format(task.target)
        begun = time.perf_counter()
        data, left = read_salvage(task.source, max_pixels=self.max_pixels)
        container, whole = left.container, len(left.container.levels)
        if left.damage and not self.salvage and (self.levels is None or whole < self.levels):
            raise FormatError(f"{shown(task.source, 'input')}: {left.damage}")
        with naming(task.source):
            read = time.perf_counter()
            codec = self.models.to_decode(container.fingerprint)
            start = time.perf_counter()
            if left.damage:
                pixels, _ = codec.salvage(data, levels=self.levels, max_pixels=self.max_pixels)
            else:
                pixels = codec.decompress(data, levels=self.levels, max_pixels=self.max_pixels)
            seconds = time.perf_counter() - start
        begun += start - read
        coded = self._write(task, container, left.level_count, len(data), pixels, seconds, begun)
        if not left.damage:
            return coded
        if self.salvage:
            made_of = f"the picture is made of {whole} of {left.level_count} levels"
            return replace(coded, damage=f"{left.damage}; {made_of}")
        return replace(coded, warnings=[f"{left.damage}; the levels asked for are whole"])

    def _write(
        self,
        task: Task,
        container: Container,
        level_count: int,
        size: int,
        pixels: "NDArray[np.uint8]",
        seconds: float,
        begun: float,
    ) -> Coded:
        write_pixels(task.target, pixels)
        preview = None
        if self.levels is not None and self.levels < level_count:
            preview = f"{self.levels} of {level_count} levels"
        return Coded(
            task.source,
            task.target,
            container.width,
            container.height,
            container.quality,
            size,
            seconds,
            begun,
            time.perf_counter(),
            preview=preview,
        )


Coder = Encoder | Decoder
