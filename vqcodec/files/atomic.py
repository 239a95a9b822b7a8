"""Files that are written whole or not at all.

::

    data ──▶ .vqcodec-….tmp, in the folder of the target ──fsync──▶ rename ──▶ target
                     └── an exception: the temporary file is removed, and the target stays as it was

A reader, and a machine that comes back after a crash, sees the old bytes or the new ones.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vqcodec.errors import ImageError

__all__ = ["open_atomic", "write_atomic"]


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to, which replaces the file at ``path`` when the block ends without an exception.

    A new file gets the permissions that the umask leaves, a replaced one keeps its own; a symbolic link is
    followed. Anything but a regular file, such as a pipe or ``/dev/stdout``, is written to directly.

    Raises ImageError, ``<path>: cannot be written: <reason>``, for any OSError, also one from the block; no
    temporary file stays behind.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with _replacement(_resolved(path)) as file:
                yield file
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` as the whole file ``path`` or, if that fails, nothing; see :func:`open_atomic`."""
    with open_atomic(path) as file:
        file.write(data)


def _resolved(path: Path) -> Path:
    """``path`` without symbolic links; raises ImageError if they lead in a circle."""
    try:
        return path.resolve()
    except RuntimeError as error:  # what Python before 3.13 raises for a circle
        raise ImageError(f"{path}: cannot be written: too many symbolic links") from error


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[BinaryIO]:
    """:func:`open_atomic` where ``path`` is, or will be, a regular file; raises OSError."""
    temporary = path.with_name(f".vqcodec-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:  # with the umask's permissions, where tempfile would make it private
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
