"""The files and standard streams that a command reads and writes, with errors that name them.

::

    photo.png or - ──read_source──▶ Picture           photo.vq or - ──read_container──▶ bytes, and what they hold
                                                      photo.vq ───────read_header─────▶ what the file says first
    photo.png or - ◀─write_picture─ Picture           photo.vq or - ◀─write_bytes────── bytes

A name that cannot be used is refused before any work. A file is never read without a limit, and never half written.
"""

import os
import re
import stat
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from vqcodec.errors import FormatError, VqcodecError, naming, printable
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import MAGIC, MAX_HEADER_BYTES, Container, Header, parse, parse_header

if TYPE_CHECKING:
    from vqcodec.files.extras import Picture

__all__ = [
    "MAX_FILE_BYTES",
    "STREAM",
    "check_file_size",
    "check_input",
    "check_place",
    "is_image",
    "is_vq",
    "mistaken",
    "output_name",
    "read_container",
    "read_header",
    "read_source",
    "shown",
    "write_bytes",
    "write_picture",
]

MAX_FILE_BYTES = 512 * 2**20  # of a .vq file, and of anything on standard input; more is refused unread
STREAM = "-"  # stands for standard input or output

_IMAGES = {  # how their files begin
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WebP": rb"RIFF....WEBP",
    "AVIF": rb"....ftypavi[fs]",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II\*\0|MM\0\*",
    "BMP": rb"BM....\0\0\0\0",
    "PPM": rb"P[1-6]\s+[\d#]",
    "JPEG 2000": rb"\0\0\0\x0cjP  ",
}
_START_BYTES = 16


def shown(name: str, direction: str) -> str:
    """A file's name in messages; ``direction`` is ``"input"`` or ``"output"``."""
    return f"standard {direction}" if name == STREAM else name


def output_name(source: str, output: str | None, suffix: str, force: bool) -> str:
    """The output file's name: ``output`` or, if that is None, ``source`` with another ``suffix``.

    Raises VqcodecError if the input cannot be read or the output may not be written.
    """
    if source != STREAM:
        check_input(source)
    target = str(Path(source).with_suffix(suffix)) if output is None else output
    if output is None and target == source:
        problem = mistaken(source, suffix) or f"has the output's extension {suffix} itself (-o names another output)"
        raise VqcodecError(f"{source}: {problem}")
    if target == STREAM:
        return target
    if os.path.isdir(target):
        raise VqcodecError(f"{target}: is a folder, expected the name of an output file")
    check_place(target)
    if os.path.isfile(target):  # and no pipe or device, to which -f would mean nothing
        if source != STREAM and os.path.samefile(source, target):
            raise VqcodecError(f"{target}: is the input, expected another name for the output")
        if not force:
            raise VqcodecError(f"{target}: exists already; name another with -o, or overwrite with -f")
    return target


def check_place(target: str) -> None:
    """Raise VqcodecError if the folder of an output, or of the file that it links to, is missing."""
    place = os.path.realpath(target)
    if os.path.islink(place):
        raise VqcodecError(f"{target}: cannot be written: its symbolic links lead in a circle")
    if not os.path.isdir(os.path.dirname(place)):
        raise VqcodecError(f"{target}: cannot be written: there is no such folder")


def mistaken(name: str, suffix: str) -> str | None:
    """What the input ``name`` is instead of what can be converted to ``suffix``; None if that is not certain."""
    if suffix == ".vq":
        return "is a .vq file, expected an image" if is_vq(name) else None
    try:
        with open(name, "rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return None
    return _image_not_vq(start)


def is_vq(name: str) -> bool:
    """Whether the file ``name`` begins as a .vq file does; False for standard input and for what cannot be read."""
    try:
        with open(name, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_image(name: str) -> bool:
    """Whether the file ``name`` begins as an image does; False for what cannot be read."""
    return mistaken(name, "") is not None


def _image_not_vq(data: bytes) -> str | None:
    """What to say of ``data``, expected to be a .vq file, if an image begins like that."""
    for name, pattern in _IMAGES.items():
        if re.match(pattern, data[:_START_BYTES], re.DOTALL):
            return f"is a {name} image, expected a .vq file"
    return None


def check_input(name: str) -> int:
    """The size of the regular file ``name``; raises VqcodecError for anything else, since reading it could hang."""
    try:
        status = os.stat(name)
    except OSError as error:
        raise VqcodecError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise VqcodecError(f"{printable(name)}: cannot be read: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise VqcodecError(f"{name}: is a folder, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise VqcodecError(f"{name}: is not a regular file (- reads from standard input)")
    return status.st_size


def read_container(source: str, *, intact: int | None = None, max_pixels: int | None = None) -> tuple[bytes, Container]:
    """The bytes of a .vq file, read once, and their contents; for the options and errors, see :func:`parse`."""
    with naming(shown(source, "input")):
        data = _read_vq(source)
        return data, parse(data, intact=intact, max_pixels=max_pixels)


def read_header(name: str) -> Header:
    """The header of the .vq file ``name``, of which no more is read; raises FormatError if its size is wrong.

    Other damage may go unnoticed, see :func:`parse_header`.
    """
    with naming(name):
        size = check_input(name)
        try:
            with open(name, "rb") as file:
                header = parse_header(file.read(MAX_HEADER_BYTES))
        except OSError as error:
            raise VqcodecError(f"{name}: cannot be read: {error.strerror}") from None
        if size != header.size:
            raise FormatError(f"the file has {size} bytes, its header says {header.size}")
        return header


def _read_vq(source: str) -> bytes:
    """The bytes of what may be a .vq file; raises FormatError for an image."""
    data = _read_stream() if source == STREAM else _read_file(source)
    if problem := _image_not_vq(data):
        raise FormatError(problem)
    return data


def check_file_size(size: int) -> None:
    """Raise FormatError for more bytes than a .vq file may have, before they are read."""
    if size > MAX_FILE_BYTES:
        raise FormatError(f"{size:,} bytes, expected a .vq file of at most {MAX_FILE_BYTES:,}")


def _read_file(name: str) -> bytes:
    check_file_size(check_input(name))
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise VqcodecError(f"{name}: cannot be read: {error.strerror}") from None


def _read_stream() -> bytes:
    """All of standard input, up to MAX_FILE_BYTES; raises VqcodecError for more, or where it is closed."""
    if sys.stdin is None:
        raise VqcodecError("standard input: is closed")
    pieces: list[bytes] = []
    left = MAX_FILE_BYTES
    while piece := sys.stdin.buffer.read(min(left, 2**20) + 1):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise VqcodecError(f"standard input: expected at most {MAX_FILE_BYTES:,} bytes")
    return b"".join(pieces)


def read_source(
    source: str, *, strip: str | Collection[str] = (), max_pixels: int | None = None
) -> tuple["Picture", list[str]]:
    """The picture in the image ``source``, and warnings; see :func:`vqcodec.files.images.read_picture`."""
    from vqcodec.files.images import read_picture

    if source != STREAM:
        check_input(source)
        return read_picture(source, strip=strip, max_pixels=max_pixels)
    with naming(shown(STREAM, "input")):
        return read_picture(_read_stream(), strip=strip, max_pixels=max_pixels)


def write_picture(target: str, picture: "Picture", stream_suffix: str) -> list[str]:
    """Write an image in the format that the extension of ``target`` names, to standard output as ``stream_suffix``.

    Returns warnings about what the format cannot hold.
    """
    from vqcodec.files.images import encode_picture

    with naming(shown(target, "output")):
        data, warnings = encode_picture(picture, stream_suffix if target == STREAM else Path(target).suffix)
    write_bytes(target, data)
    return warnings


def write_bytes(target: str, data: bytes) -> None:
    """Write all of ``data`` to standard output or, whole or not at all, to a file."""
    if target != STREAM:
        write_atomic(target, data)
        return
    if sys.stdout is None:
        raise VqcodecError("standard output: is closed")
    left = memoryview(data)
    while left:  # under PYTHONUNBUFFERED, a write may take only a part
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()
