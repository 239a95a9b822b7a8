"""Errors as a user sees them: each is one short line with the file's name."""

import pytest

from vqcodec.errors import (
    FormatError,
    UnknownModelError,
    VqcodecError,
    WeightsError,
    explain,
    naming,
    one_line,
    printable,
)


class OutOfMemoryError(RuntimeError):
    """Torch's on a GPU."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FormatError("x.vq: empty file"), "x.vq: empty file"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "not enough memory"),
        (OutOfMemoryError("CUDA"), "not enough memory"),
        (RuntimeError("could not create a primitive"), "not enough memory"),
        (FileNotFoundError(2, "No such file or directory", "x"), "x: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError(" odd \nframe #0"), "unexpected ValueError: odd (VQCODEC_DEBUG=1 shows where)"),
        (ValueError(), "unexpected ValueError (VQCODEC_DEBUG=1 shows where)"),
        (OSError("odd\x1b[31m"), "unexpected OSError: odd [31m (VQCODEC_DEBUG=1 shows where)"),
    ],
)
def test_explain(error: BaseException, line: str) -> None:
    assert explain(error) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("  a \n\tb\x1b[3m\u202ed  ", "a b [3m d"),
        ("1234567890", "1234567890"),
        ("12345678901", "123456789…"),
        ("x" * 10**6, "xxxxxxxxx…"),
        (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
        (12, "12"),
    ],
)
def test_one_line(text: object, line: str) -> None:
    assert one_line(text, 10) == line


def test_the_name_of_an_exception_is_whole() -> None:
    assert one_line(AssertionError()) == "AssertionError"


def test_printable() -> None:
    assert printable("a\n\x1b[31m\u202e\udcffé b") == r"a\n\x1b[31m\u202e\udcffé b"


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (FormatError("empty file"), FormatError, "x.vq: empty file"),
        (UnknownModelError("made with others"), UnknownModelError, "x.vq: made with others"),
        (MemoryError(), VqcodecError, "x.vq: not enough memory"),
        (WeightsError("w: damaged"), WeightsError, "w: damaged"),
        (ValueError("odd"), ValueError, "odd"),
    ],
)
def test_naming(error: Exception, expected: type[Exception], message: str) -> None:
    with pytest.raises(expected) as caught, naming("x.vq"):
        raise error
    assert (type(caught.value), str(caught.value)) == (expected, message)
