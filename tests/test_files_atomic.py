"""A file is written completely or not at all, at every kind of failure."""

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.errors import ImageError
from vqcodec.files.atomic import open_atomic, write_atomic

posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and pipes of POSIX")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_write_atomic_replaces_all_bytes(tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "atomic.vq"
    for data in (old, new):
        write_atomic(str(path), data)
        assert path.read_bytes() == data


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize(
    ("fault", "raised"),
    [(OSError(28, "No space left on device"), ImageError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_write_that_fails_leaves_no_trace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    old: bytes | None,
    fault: BaseException,
    raised: type[BaseException],
) -> None:
    def fail(*_: Any) -> None:
        assert len(os.listdir(tmp_path)) == 1 + (old is not None)  # the temporary file is in the same folder
        raise fault

    path = tmp_path / "x.vq"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(raised) as caught:
        write_atomic(path, b"new")
    if raised is ImageError:
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == ([("x.vq", old)] if old else [])


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be written: File name too long$"):
        write_atomic(tmp_path / ("x" * 300), b"")
    write_atomic(tmp_path / ("x" * 255), b"")  # the longest possible name leaves no room for a suffix
    assert os.listdir(tmp_path) == ["x" * 255]


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask_then_the_old_file(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "x.vq"
    before = os.umask(umask)
    try:
        write_atomic(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        path.chmod(0o640)
        write_atomic(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


@posix
def test_a_symbolic_link_to_itself(tmp_path: Path) -> None:
    link = tmp_path / "x.bin"
    link.symlink_to(link)
    if sys.version_info >= (3, 13):  # where such a link is like any broken one
        write_atomic(link, b"new")
        assert link.read_bytes() == b"new"
    else:
        with pytest.raises(ImageError, match=r"x\.bin: cannot be written: too many symbolic links"):
            write_atomic(link, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link.vq", tmp_path / "there" / "x.vq"
    link.symlink_to(target)
    for data in (b"new", b"again"):
        write_atomic(link, data)
        assert link.is_symlink()
        assert target.read_bytes() == data


@posix
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomic(pipe, b"bytes")
        assert os.read(reader, 100) == b"bytes"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"old")
    with contextlib.suppress(ZeroDivisionError), open_atomic(path) as file:
        file.write(b"half of the n")
        raise ZeroDivisionError
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.pt", b"old")]
    with open_atomic(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
