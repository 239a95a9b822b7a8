"""File jobs: the work of ``encode`` and ``decode`` on one file, or on a batch of them.

::

    Encoder   photo.png ──read_source──▶ Picture ──Codec.compress──▶ bytes ──write_bytes──▶ photo.vq
    Decoder   photo.vq ──read_container──▶ Container ──Codec.decompress_many──▶ Picture ──write_picture──▶ photo.png
                                                        ▲
    Models    weights ──loaded once──▶ Codec ───────────┘

The decoder takes pictures of one size together. Encoder and Decoder can be sent to another process, which then loads
its own models. ``torch`` is imported with the first model, after the first file has been read.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict

from vqcodec.config import DEFAULT_TUNE, Tune
from vqcodec.errors import VqcodecError, naming
from vqcodec.files.container import MAX_SIDE, Chunks, Container, pack, parse
from vqcodec.files.streams import (
    STREAM,
    is_image,
    read_container,
    read_header,
    read_source,
    shown,
    write_bytes,
    write_picture,
)
from vqcodec.geometry import batch_size
from vqcodec.metrics import bpp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqcodec.codec import Codec

__all__ = ["Coder", "Decoder", "Encoder", "FileResult", "Models", "Task", "parts_of"]


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
        ssimulacra2: None unless it was the target.
        warnings: one line each, about what reading the image dropped or converted, or damage that does not matter.
        suited: whether the picture is one for this codec; None if nobody asked.
        preview: how many of how many levels the picture shows, if fewer were asked for.
        damage: what is wrong with the ``.vq`` file, if only some of its levels could be used.
        fingerprint: of the model, in hexadecimal digits.
        parts: names and bytes of the levels and chunks of the ``.vq`` file.
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
    ssimulacra2: float | None = None
    warnings: Sequence[str] = ()
    suited: bool | None = None
    preview: str | None = None
    damage: str | None = None
    fingerprint: str = ""
    parts: Sequence[tuple[str, int]] = ()

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
        tune: of the installed model to compress with.
        processes: how many processes share the cores.
    """

    weights: str | None
    device: str
    threads: int | None
    tune: Tune = DEFAULT_TUNE
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

            self._loaded[fingerprint] = Codec.load(
                self.weights, fingerprint=fingerprint, tune=self.tune, device=self.device
            )
        return self._loaded[fingerprint]


class _Options(TypedDict):
    """What :meth:`vqcodec.codec.Codec.compress` and :func:`vqcodec.targets.compress_to` are both told."""

    effort: int
    chunks: Chunks
    check: bool
    max_pixels: int | None


@dataclass(frozen=True)
class Encoder:
    """Makes a ``.vq`` file of an image.

    Attributes:
        quality, effort, check, max_pixels: as for :meth:`vqcodec.codec.Codec.compress`.
        progress: called with the share of the search that is done, and how many pixels that is.
        psnr: whether to decode the file and measure it.
        advise: whether to warn of pictures that are better stored without loss.
        target: kind and value of a :class:`vqcodec.targets.Target`, which chooses the quality; None for ``quality``.
    """

    suffix: ClassVar[str] = ".vq"
    verb: ClassVar[str] = "encoding"
    wanted: ClassVar[str] = "images; expected files such as .png, .jpg or .avif"
    models: Models
    quality: int
    effort: int
    psnr: bool
    check: bool = False
    max_pixels: int | None = None
    target: tuple[str, float] | None = None
    progress: Callable[[float, int], None] | None = None
    strip: Sequence[str] = ()
    advise: bool = True

    def takes(self, file: Path) -> bool:
        """Whether a file in a folder is an input."""
        from vqcodec.files.images import is_image_name

        return is_image_name(file)

    def has_made(self, target: str) -> bool:
        """Whether a file is an output: a .vq file with a valid header and of the size that it states."""
        with contextlib.suppress(VqcodecError):
            read_header(target)
            return True
        return False

    def batches(self, tasks: Sequence[Task], processes: int) -> list[list[Task]]:
        """One by one: the encoder knows all codes, so one picture keeps the processor busy already."""
        return [[task] for task in tasks]

    def __call__(self, batch: Sequence[Task]) -> list[FileResult]:
        """Encode each file; the first error ends the batch."""
        return [self._encode(task) for task in batch]

    def _encode(self, task: Task) -> FileResult:
        from vqcodec.files.extras import to_chunks
        from vqcodec.files.images import has_image_extension
        from vqcodec.files.suited import unsuited

        if has_image_extension(task.target):
            raise VqcodecError(f"{task.target}: has the extension of an image, expected {self.suffix}")
        begun = time.perf_counter()
        picture, warnings = read_source(task.source, strip=self.strip, max_pixels=self.max_pixels)
        pixels = picture.pixels
        with naming(shown(task.source, "input")):
            read = time.perf_counter()
            codec = self.models.to_encode()
            start = time.perf_counter()
            data, reached, note = self._compress(codec, pixels, to_chunks(picture.extras))
            seconds = time.perf_counter() - start
            if self.psnr:
                from vqcodec.metrics import psnr

                reached["psnr"] = psnr(pixels, codec.decompress(data, max_pixels=self.max_pixels))
        file = parse(data, max_pixels=MAX_SIDE**2)
        advice = unsuited(pixels, len(pack(replace(file, chunks=())))) if self.advise else None
        write_bytes(task.target, data)
        height, width = pixels.shape[:2]
        begun += start - read
        return FileResult(
            task.source,
            task.target,
            width,
            height,
            file.quality,
            len(data),
            seconds,
            begun,
            time.perf_counter(),
            psnr=reached.get("psnr"),
            ssimulacra2=reached.get("ssimulacra2"),
            warnings=[*warnings, *filter(None, [note, advice])],
            suited=advice is None if self.advise else None,
            fingerprint=file.fingerprint.hex(),
            parts=parts_of(file),
        )

    def _compress(
        self, codec: "Codec", pixels: "NDArray[np.uint8]", chunks: Chunks
    ) -> tuple[bytes, dict[str, float], str | None]:
        """The bytes, what they have of the target's kind, and a note on the target."""
        options = _Options(effort=self.effort, chunks=chunks, check=self.check, max_pixels=self.max_pixels)
        if self.target is None:
            return codec.compress(pixels, self.quality, progress=self._share_of(pixels), **options), {}, None
        from vqcodec.targets import Target, compress_to

        found = compress_to(codec, pixels, Target(*self.target), **options)
        return found.data, {self.target[0]: found.value}, found.note

    def _share_of(self, pixels: "NDArray[np.uint8]") -> Callable[[float], None] | None:
        """Tells ``progress`` how much of a picture is done."""
        if (progress := self.progress) is None:
            return None
        size = pixels.shape[0] * pixels.shape[1]
        return lambda share: progress(share, round(share * size))


@dataclass(frozen=True)
class Decoder:
    """Makes an image of a ``.vq`` file.

    Attributes:
        levels: decode only this many levels, coarsest first, and accept damage after them; None for all.
        salvage: accept damage after level 0, and decode the levels before it.
        max_pixels: limit for a picture; see :func:`vqcodec.files.container.parse`.
        suffix: extension of the outputs that are not named, and format of standard output.
    """

    verb: ClassVar[str] = "decoding"
    wanted: ClassVar[str] = ".vq files"
    models: Models
    levels: int | None = None
    salvage: bool = False
    max_pixels: int | None = None
    suffix: str = ".png"

    def takes(self, file: Path) -> bool:
        """Whether a file in a folder is an input."""
        return file.suffix.lower() == ".vq"

    def has_made(self, target: str) -> bool:
        """Whether a file is an output: one that begins as an image does."""
        return is_image(target)

    def batches(self, tasks: Sequence[Task], processes: int) -> list[list[Task]]:
        """``tasks`` in their order; consecutive files of one model and size form a batch.

        Only the headers are read. With several ``processes``, batches are short enough for all processes to end at
        about the same time. A file without a valid header is alone.
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
        from vqcodec.files.extras import Picture, from_container
        from vqcodec.files.images import output_format

        for task in batch:
            if task.target != STREAM:
                output_format(task.target)
        begun = time.perf_counter()
        intact = 1 if self.salvage else self.levels
        files = [read_container(task.source, intact=intact, max_pixels=self.max_pixels) for task in batch]
        extras = []
        for task, (_, file) in zip(batch, files, strict=True):
            with naming(shown(task.source, "input")):
                extras.append(from_container(file))
        with naming(shown(batch[0].source, "input")):
            read = time.perf_counter()
            codec = self.models.to_decode(files[0][1].fingerprint)
            start = time.perf_counter()
            pictures = codec.decompress_many([file for _, file in files], levels=self.levels)
            seconds = (time.perf_counter() - start) / len(batch)
        begun += start - read
        results: list[FileResult] = []
        for task, (data, file), pixels, (extra, warnings) in zip(batch, files, pictures, extras, strict=True):
            lost = write_picture(task.target, Picture(pixels, extra), self.suffix)
            results.append(self._result(task, file, len(data), seconds, begun, warnings + lost))
        return results

    def _result(
        self, task: Task, file: Container, size: int, seconds: float, begun: float, warnings: list[str]
    ) -> FileResult:
        preview, damage = None, None
        if self.levels is not None and self.levels < file.level_count:
            preview = f"{self.levels} of {file.level_count} levels"
        if file.damage and self.salvage:
            levels = f"only {len(file.levels)} of {file.level_count} levels" if file.missing else "all levels"
            damage = f"{file.damage}; the picture shows {levels}{_without_chunks(file)}"
        elif file.damage:
            warnings = [f"{file.damage}; the levels asked for are intact{_without_chunks(file)}", *warnings]
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
            fingerprint=file.fingerprint.hex(),
            parts=parts_of(file),
        )


def parts_of(container: Container) -> list[tuple[str, int]]:
    """Names and bytes of the levels and chunks of a file."""
    levels = [(f"level {number}", len(level)) for number, level in enumerate(container.levels)]
    return levels + [(f"chunk {tag.decode('ascii')}", len(payload)) for tag, payload in container.chunks]


def _without_chunks(file: Container) -> str:
    """What the output of a damaged file lacks besides levels."""
    return ", without the chunks (transparency, metadata)" if file.chunks_lost else ""


Coder = Encoder | Decoder
