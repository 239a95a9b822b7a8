"""The files and standard streams that a command reads and writes, with errors that name them.

::

    photo.png or - ──read_pixels──▶ pixels            photo.vq or - ──read_container──▶ bytes, and what they hold
                                                      damaged  ──read_salvage──▶ bytes, and what is left of them
    photo.png or - ◀─write_pixels── pixels            photo.vq or - ◀─write_bytes────── bytes

What is wrong with a name is found before there is any work; a file is never read without a limit, nor
half written.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vqcodec.errors import FormatError, ImageError, LimitError, VqcodecError, naming
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import Container, Salvage, parse, salvage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MAX_FILE_BYTES",
    "STREAM",
    "check_input",
    "output_name",
    "read_container",
    "read_pixels",
    "read_salvage",
    "shown",
    "write_bytes",
    "write_pixels",
]

MAX_FILE_BYTES = 512 * 2**20  # a larger .vq file, or anything larger on standard input, is refused unread
STREAM = "-"  # stands for standard input or output


def shown(name: str, direction: str) -> str:
    """A file's name in messages."""
    return f"standard {direction}" if name == STREAM else name


def output_name(source: str, output: str | None, suffix: str, force: bool) -> str:
    """The output file's name, after checks that it may be written and that the input can be read."""
    if source != STREAM:
        check_input(source)
    target = str(Path(source).with_suffix(suffix)) if output is None else output
    if output is None and target == source:
        raise VqcodecError(f"{source}: has the output's extension {suffix} itself (-o names another output)")
    if target == STREAM:
        return target
    if os.path.isdir(target):
        raise VqcodecError(f"{target}: is a folder, expected the name of an output file")
    if not os.path.isdir(os.path.dirname(target) or "."):
        raise VqcodecError(f"{target}: cannot be written: there is no such folder")
    if os.path.isfile(target):  # and no pipe or device, to which -f would mean nothing
        if source != STREAM and os.path.samefile(source, target):
            raise VqcodecError(f"{target}: is the input, expected another name for the output")
        if not force:
            raise VqcodecError(f"{target}: exists already (-f overwrites it)")
    return target


def check_input(name: str) -> int:
    """The size of the regular file ``name``; anything else is refused before a read could hang."""
    try:
        status = os.stat(name)
    except OSError as error:
        raise VqcodecError(f"{name}: cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        raise VqcodecError(f"{name}: is a folder, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise VqcodecError(f"{name}: is not a regular file (- reads from standard input)")
    return status.st_size


def read_container(source: str, *, max_pixels: int | None = None) -> tuple[bytes, Container]:
    """The bytes of a .vq file, read once, and what they hold."""
    with naming(shown(source, "input")):
        data = _read_stream() if source == STREAM else _read_file(source)
        return data, parse(data, max_pixels=max_pixels)


def read_salvage(source: str, *, max_pixels: int | None = None) -> tuple[bytes, Salvage]:
    """The bytes of a .vq file that may be damaged, read once, and what is left of them."""
    with naming(shown(source, "input")):
        data = _read_stream() if source == STREAM else _read_file(source)
        return data, salvage(data, max_pixels=max_pixels)


def _read_file(name: str) -> bytes:
    size = check_input(name)
    if size > MAX_FILE_BYTES:
        raise FormatError(f"{size:,} bytes, expected a .vq file of at most {MAX_FILE_BYTES:,}")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise VqcodecError(f"{name}: cannot be read: {error.strerror}") from None


def _read_stream() -> bytes:
    """All of standard input, up to MAX_FILE_BYTES; raises VqcodecError for more."""
    pieces: list[bytes] = []
    left = MAX_FILE_BYTES
    while piece := sys.stdin.buffer.read(min(left, 2**20) + 1):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise VqcodecError(f"standard input: expected at most {MAX_FILE_BYTES:,} bytes")
    return b"".join(pieces)


def read_pixels(source: str, *, max_pixels: int | None = None) -> tuple["NDArray[np.uint8]", list[str]]:
    """The image ``source`` and what was converted or dropped on the way."""
    from vqcodec.files.images import read_image

    if source != STREAM:
        check_input(source)
        return read_image(source, max_pixels=max_pixels)
    with tempfile.TemporaryDirectory(prefix="vqcodec-") as folder:
        path = Path(folder, "image")
        path.write_bytes(_read_stream())
        try:
            return read_image(path, max_pixels=max_pixels)
        except (ImageError, LimitError) as error:
            raise type(error)(f"standard input: {str(error).removeprefix(f'{path}: ')}") from None


def write_pixels(target: str, pixels: "NDArray[np.uint8]") -> None:
    from vqcodec.files.images import write_image

    if target != STREAM:
        write_image(target, pixels)
        return
    with tempfile.TemporaryDirectory(prefix="vqcodec-") as folder:
        path = Path(folder, "image.png")
        write_image(path, pixels)
        write_bytes(STREAM, path.read_bytes())


def write_bytes(target: str, data: bytes) -> None:
    if target != STREAM:
        write_atomic(target, data)
        return
    if sys.stdout is None:
        raise VqcodecError("standard output: is closed")
    left = memoryview(data)
    while left:  # under PYTHONUNBUFFERED, a write may take only a part
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()
