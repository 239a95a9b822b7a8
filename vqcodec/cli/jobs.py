"""File jobs: the work of ``encode`` and ``decode`` on one file, or on a batch of them.

::

    Encoder   photo.png ──read_pixels──▶ pixels ──Codec.compress──▶ bytes ──write_bytes──▶ photo.vq
    Decoder   photo.vq ──read_container──▶ Container ──Codec.decompress_many──▶ pixels ──write_pixels──▶ photo.png
                                                        ▲
    Models    weights ──loaded once──▶ Codec ───────────┘

The decoder takes pictures of one size together. Encoder and Decoder can be sent to another process, which then loads
its own models. ``torch`` is imported with the first model, after the first file has been read.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vqcodec.errors import VqcodecError, naming
from vqcodec.files.container import Container
from vqcodec.files.streams import STREAM, read_container, read_header, read_pixels, shown, write_bytes, write_pixels
from vqcodec.geometry import batch_size
from vqcodec.metrics import bpp

if TYPE_CHECKING:
    from vqcodec.codec import Codec

__all__ = ["Coder", "Decoder", "Encoder", "FileResult", "Models", "Task"]


@dataclass(frozen=True)
class Task:
    """A file to read and the one to write."""

    source: str
    target: str


@dataclass(frozen=True)
class FileResult:
    """One file that was encoded or decoded.

    Attributes:
        source, target: names of the input and of the output.
        width, height: of the picture in pixels.
        quality: 1..100.
        size: bytes of the ``.vq`` file.
        seconds: duration of compressing or decompressing, with the model loaded; in a batch, an equal share.
        start, end: before reading and after writing, on ``time.perf_counter``, which is one clock for all processes.
            Loading the model is left out: start is moved forward by its duration.
        psnr: in dB; None unless it was asked for.
        warnings: one line each, about what reading the image dropped or converted, or damage that does not matter.
        preview: how many of how many levels the picture shows, if fewer were asked for.
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
        weights: the file of the one model for all files; None for the installed models.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        threads: to compute with; None for an equal share of the threads that torch would use.
        processes: how many processes share the cores.
    """

    weights: str | None
    device: str
    threads: int | None
    processes: int = 1
    _loaded: dict[bytes | None, "Codec"] = field(default_factory=dict, init=False, repr=False)

    def to_encode(self) -> "Codec":
        """The model to compress with, complete with its encoder side."""
        codec = self._load(None)
        codec.load_encoder()
        return codec

    def to_decode(self, fingerprint: bytes | None) -> "Codec":
        """The model for ``.vq`` files that name ``fingerprint``; None for the default model, without its encoder."""
        return self._load(None if self.weights else fingerprint)

    def _load(self, fingerprint: bytes | None) -> "Codec":
        if fingerprint not in self._loaded:
            if self.threads is not None or self.processes > 1:
                import torch

                self.threads = self.threads or max(1, torch.get_num_threads() // self.processes)
                torch.set_num_threads(self.threads)
            from vqcodec.codec import Codec

            self._loaded[fingerprint] = Codec.load(self.weights, fingerprint=fingerprint, device=self.device)
        return self._loaded[fingerprint]


@dataclass(frozen=True)
class Encoder:
    """Makes a ``.vq`` file of an image."""

    suffix: ClassVar[str] = ".vq"
    verb: ClassVar[str] = "encoding"
    models: Models
    quality: int
    effort: int
    psnr: bool
    check: bool = False
    max_pixels: int | None = None
    progress: Callable[[float], None] | None = None

    def inputs(self, folder: Path) -> list[Path]:
        """Every image file under ``folder``, in sorted order; raises ImageError when there is none."""
        from vqcodec.files.images import image_files

        return image_files(folder)

    def batches(self, tasks: Sequence[Task], processes: int) -> list[list[Task]]:
        """One by one: the encoder knows all codes, so one picture keeps the processor busy already."""
        return [[task] for task in tasks]

    def __call__(self, batch: Sequence[Task]) -> list[FileResult]:
        """Encode each file; the first error ends the batch."""
        return [self._encode(task) for task in batch]

    def _encode(self, task: Task) -> FileResult:
        from vqcodec.files.images import has_image_extension

        if has_image_extension(task.target):
            raise VqcodecError(f"{task.target}: has the extension of an image, expected {self.suffix}")
        begun = time.perf_counter()
        pixels, warnings = read_pixels(task.source, max_pixels=self.max_pixels)
        with naming(shown(task.source, "input")):
            read = time.perf_counter()
            codec = self.models.to_encode()
            start = time.perf_counter()
            data = codec.compress(
                pixels,
                self.quality,
                effort=self.effort,
                check=self.check,
                max_pixels=self.max_pixels,
                progress=self.progress,
            )
            seconds = time.perf_counter() - start
            decibels = None
            if self.psnr:
                from vqcodec.metrics import psnr

                decibels = psnr(pixels, codec.decompress(data, max_pixels=self.max_pixels))
        write_bytes(task.target, data)
        height, width = pixels.shape[:2]
        begun += start - read
        return FileResult(
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
        levels: decode only this many levels, coarsest first, and accept damage after them; None for all.
        salvage: accept damage after level 0, and decode the levels before it.
        max_pixels: limit for a picture; see :func:`vqcodec.files.container.parse`.
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
        """``tasks`` in their order; consecutive files of one model and size form a batch.

        Only the headers are read. With several ``processes``, batches are short enough for all processes to end at
        about the same time. A file without a sound header is alone.
        """
        batches: list[list[Task]] = []
        share = len(tasks) if processes == 1 else -(-len(tasks) // (3 * processes))
        before, longest = None, 1
        for task in tasks:
            kind = None
            with contextlib.suppress(VqcodecError):
                header = read_header(task.source)
                short, long = sorted((header.height, header.width))
                kind = (header.fingerprint, short, long)
                longest = min(batch_size(short, long), share)
            if kind is not None and kind == before and len(batches[-1]) < longest:
                batches[-1].append(task)
            else:
                batches.append([task])
            before = kind
        return batches

    def __call__(self, batch: Sequence[Task]) -> list[FileResult]:
        """Decode files of one model, each of which is read and parsed once.

        Raises VqcodecError for the first that cannot be decoded, and writes nothing then. An error of the codec names
        the first file of the batch, so the caller must try the files of a failed batch one by one.
        """
        from vqcodec.files.images import output_format

        for task in batch:
            if task.target != STREAM:
                output_format(task.target)
        begun = time.perf_counter()
        intact = 1 if self.salvage else self.levels
        files = [read_container(task.source, intact=intact, max_pixels=self.max_pixels) for task in batch]
        with naming(shown(batch[0].source, "input")):
            read = time.perf_counter()
            codec = self.models.to_decode(files[0][1].fingerprint)
            start = time.perf_counter()
            pictures = codec.decompress_many([file for _, file in files], levels=self.levels)
            seconds = (time.perf_counter() - start) / len(batch)
        begun += start - read
        results: list[FileResult] = []
        for task, (data, file), pixels in zip(batch, files, pictures, strict=True):
            write_pixels(task.target, pixels)
            results.append(self._result(task, file, len(data), seconds, begun))
        return results

    def _result(self, task: Task, file: Container, size: int, seconds: float, begun: float) -> FileResult:
        preview, damage, warnings = None, None, []
        if self.levels is not None and self.levels < file.level_count:
            preview = f"{self.levels} of {file.level_count} levels"
        if file.damage and self.salvage:
            damage = f"{file.damage}; the picture shows only {len(file.levels)} of {file.level_count} levels"
        elif file.damage:
            warnings = [f"{file.damage}; the levels asked for are intact"]
        return FileResult(
            task.source,
            task.target,
            file.width,
            file.height,
            file.quality,
            size,
            seconds,
            begun,
            time.perf_counter(),
            warnings=warnings,
            preview=preview,
            damage=damage,
        )


Coder = Encoder | Decoder
