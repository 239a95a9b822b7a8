"""Pillow opens, shows and saves ``.vq`` files after ``import vqcodec.pillow_plugin``.

::

    with Image.open("photo.vq") as image:  # reads header and chunks; the pixels are decoded when they are needed
        image.thumbnail((128, 128))        # decodes the coarse levels only
    image.save("small.vq", quality=50, effort=0)

An image has mode L, LA, RGB or RGBA; ``info`` has ``exif``, ``xmp`` and ``icc_profile`` if the file does, and the
colours are those of the profile. Images of every mode can be saved, with the options

- ``quality``, 1..100, by default 75, and ``effort``, 0..9, by default 1;
- ``exif``, ``xmp`` and ``icc_profile``: bytes, by default those of the image; None leaves them out. ``xmp`` may be
  text, ``exif`` Pillow's ``Exif``; TypeError for anything else;
- ``tune``, by default ``"psnr"``, or ``"visual"``, with which effort does nothing;
- ``strip``: what is left out, as in :func:`vqcodec.compress`.

A damaged file raises OSError with one line, at the latest when its pixels are needed: the checksum of the header, which
covers level 0 too, is not read before. With ``ImageFile.LOAD_TRUNCATED_IMAGES`` the levels before the damage are shown.
torch is imported when the first picture is decoded or saved.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image, ImageFile

from vqcodec.config import DEFAULT_EFFORT, DEFAULT_QUALITY, DEFAULT_TUNE
from vqcodec.errors import VqcodecError
from vqcodec.files.container import (
    ALPHA_TAG,
    MAGIC,
    MAX_HEADER_BYTES,
    Chunks,
    Header,
    parse,
    parse_chunks,
    parse_header,
)
from vqcodec.files.exif import PREFIX
from vqcodec.files.extras import read_metadata
from vqcodec.files.metadata import current_exif
from vqcodec.files.streams import MAX_FILE_BYTES, check_file_size

__all__ = ["EXTENSION", "FORMAT", "MIME_TYPE", "VqImageFile", "register"]

FORMAT, EXTENSION, MIME_TYPE = "VQ", ".vq", "image/x-vqcodec"


class VqImageFile(ImageFile.ImageFile):
    """A ``.vq`` file that Pillow has opened."""

    format, format_description = FORMAT, "vqcodec image"
    _shrink = 1  # how many times smaller the picture will be shown at least

    def _open(self) -> None:
        assert self.fp is not None
        with _os_errors():
            header = parse_header(self.fp.read(MAX_HEADER_BYTES))
            size = self.fp.seek(0, os.SEEK_END)
            check_file_size(size)
            chunks = _read_chunks(self.fp, header, size)
        has_alpha = any(tag == ALPHA_TAG for tag, _ in chunks)
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + ("A" if has_alpha else "")
        metadata, _ = read_metadata(chunks)
        named = {"exif": metadata.exif and PREFIX + metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc}
        self.info.update({name: data for name, data in named.items() if data is not None})
        self._decoded = False

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Let :meth:`load` decode no finer levels than a picture of ``size`` needs; its own size stays."""
        if self._decoded or size is None:
            return None
        self._shrink = max(1, min(self.width // max(size[0], 1), self.height // max(size[1], 1)))
        return self.mode, (0, 0, self.width, self.height)

    def load(self) -> Any:
        """Decode the picture, unless that has been done."""
        if not self._decoded:
            data = self._read()
            with _os_errors():
                image = _decode(data, self._shrink)
            super().verify()  # which closes the file
            self.im = image.im
            self._mode, self.info, self._decoded = image.mode, {**image.info}, True
        return super().load()

    def verify(self) -> None:
        """Check every byte of the file by its checksums, without decoding it; it must be opened again to be loaded."""
        if not self._decoded:
            data = self._read()
            with _os_errors():
                parse(data)
        super().verify()

    def _read(self) -> bytes:
        if self.fp is None or self.fp.closed:
            raise ValueError("Operation on closed image")  # in the words of Pillow's own plugins
        self.fp.seek(0)
        return self.fp.read(MAX_FILE_BYTES + 1)


def register() -> None:
    """Make ``.vq`` files known to Pillow, as importing this module does."""
    Image.register_open(FORMAT, VqImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME_TYPE)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Raise our errors as OSError, which those who use Pillow expect of a file."""
    try:
        yield
    except VqcodecError as error:
        raise OSError(str(error)) from error


def _accept(start: bytes) -> bool:
    return start.startswith(MAGIC)


def _read_chunks(file: IO[bytes], header: Header, size: int) -> Chunks:
    """The chunks of a file of ``size`` bytes; none if its header states another size: then it is damaged."""
    if not header.chunks_length or size != header.size:
        return ()
    file.seek(header.size - header.chunks_length)
    return parse_chunks(file.read(header.chunks_length))


def _decode(data: bytes, shrink: int) -> Image.Image:
    from vqcodec import api

    file = parse(data, intact=1 if ImageFile.LOAD_TRUNCATED_IMAGES else None)
    codec = api.installed(file.fingerprint)
    image, _ = api.decoded(codec, file, levels=api.levels_for(codec.model, shrink))
    return image


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Pillow's ``image.save``: ``image.encoderinfo`` has its options."""
    from vqcodec import api

    options: dict[str, Any] = image.encoderinfo
    given: dict[str, Any] = {name: options[name] for name in ("exif", "xmp", "icc_profile") if name in options}
    if given:
        image = _described(image, given)
    quality, effort = options.get("quality", DEFAULT_QUALITY), options.get("effort", DEFAULT_EFFORT)
    tune = options.get("tune", DEFAULT_TUNE)
    with _os_errors():
        file.write(api.compress(image, quality, effort=effort, tune=tune, strip=options.get("strip", ())))


def _described(image: Image.Image, given: dict[str, Any]) -> Image.Image:
    """A copy of ``image`` with its own metadata, except those ``given``; raises TypeError."""
    own: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # damaged EXIF, which costs a warning later
        tags, changed = current_exif(image)
        own = {"exif": tags} if changed else {}
    described = image.copy()
    for name, data in (own | given).items():
        described.info.pop(name, None)
        if data is not None and (written := _as_bytes(name, data)):
            described.info[name] = written
    return described


def _as_bytes(name: str, data: object) -> bytes:
    if name == "exif" and isinstance(data, Image.Exif):
        return data.tobytes() if len(data) else b""
    if name == "xmp" and isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{name} is of type {type(data).__name__}, expected bytes or None")


register()
