"""The exceptions that vqcodec raises on purpose.

::

    VqcodecError                base class: each message is one line for the user
    ├── ConfigError             a model or training configuration that cannot work
    ├── Cancelled               work stopped at the caller's request
    ├── DeviceError             a device that this machine does not have
    ├── ImageError              an image file that cannot be read, written or coded
    ├── FormatError             bytes that are not a valid .vq container
    ├── LimitError              a picture that has more pixels, or needs more memory, than allowed
    ├── WeightsError            a weights file that is missing, damaged or beyond the exactness bound
    │   └── UnknownModelError   a .vq file made with weights that are not installed here
    ├── TargetError             a size or a distortion that no quality reaches
    ├── TrainingError           training data or a run directory that cannot be used
    ├── TrainingPaused          training stopped at the requested minute; it can be resumed
    ├── ReportError             a curve, a report or a folder of results that cannot be used
    └── MissingPackageError     an optional package that is not installed

    VqcodecWarning              what a function dropped or converted, by the module warnings

Each message is one line that says what was found and what was expected. Functions that work on files put the file's
name first: ``photo.png: not an image that Pillow can read``. Four functions help to write such messages::

    naming      puts a file's name before the errors of a block
    explain     any exception ──▶ one line for a user
    one_line    a library's message, or text from a file ──▶ one line of bounded length
    printable   a file's name ──▶ the same, with escapes for what a terminal would act on
"""

import contextlib
from collections.abc import Iterator

__all__ = [
    "Cancelled",
    "ConfigError",
    "DeviceError",
    "FormatError",
    "ImageError",
    "LimitError",
    "MissingPackageError",
    "ReportError",
    "TargetError",
    "TrainingError",
    "TrainingPaused",
    "UnknownModelError",
    "VqcodecError",
    "VqcodecWarning",
    "WeightsError",
    "explain",
    "naming",
    "one_line",
    "printable",
]


class VqcodecError(Exception):
    """Base of every error that vqcodec raises on purpose; ``str(error)`` is one line."""


class ConfigError(VqcodecError):
    """A model or training configuration that cannot work."""


class Cancelled(VqcodecError):
    """The caller's function ``cancelled`` returned True; the work leaves no files behind."""


class DeviceError(VqcodecError):
    """A device that this machine does not have."""


class ImageError(VqcodecError):
    """An image file that cannot be read, written or coded."""


class FormatError(VqcodecError):
    """Bytes that are not a valid ``.vq`` container."""


class LimitError(VqcodecError):
    """A picture that has more pixels, or needs more memory, than allowed."""


class WeightsError(VqcodecError):
    """A weights file that is missing, damaged, or beyond the exactness bound."""


class UnknownModelError(WeightsError):
    """A ``.vq`` file names weights, by fingerprint, that are not installed here."""


class TargetError(VqcodecError):
    """A size or a distortion that no quality of the model reaches."""


class TrainingError(VqcodecError):
    """Training data or a run directory that cannot be used."""


class TrainingPaused(VqcodecError):
    """Training stopped at the requested minute and wrote a checkpoint from which it can be resumed."""


class ReportError(VqcodecError):
    """A published curve, a report or a folder of results that cannot be used."""


class MissingPackageError(VqcodecError):
    """An optional package that is not installed; the message says how to install it."""


class VqcodecWarning(UserWarning):
    """What a picture lost: metadata that was dropped, samples or colours that were converted."""


def explain(error: BaseException) -> str:
    """One line that tells a user what ``error`` is about."""
    if isinstance(error, VqcodecError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _out_of_memory(error):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return ": ".join([*([str(error.filename)] if error.filename else []), error.strerror])
    message = one_line(str(error).strip().partition("\n")[0])  # torch appends stack traces to its messages
    reason = ": ".join(filter(None, [type(error).__name__, message]))
    return f"unexpected {reason} (VQCODEC_DEBUG=1 shows where)"


def one_line(text: object, limit: int = 200) -> str:
    """``str(text)`` on one line of at most ``limit`` printable characters, cut with ``…``.

    Use it for messages of libraries and texts from files, which may be long and contain line breaks or control
    characters. For an exception without a message, the line is the name of its type.
    """
    printing = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    line = " ".join(printing.split())
    if not line and isinstance(text, BaseException):
        return type(text).__name__
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def printable(text: str) -> str:
    """``text`` with escapes for line breaks and other control characters, all of which file names may contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out; torch has its own errors for this."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, RuntimeError)
            and any(sign in str(error) for sign in ("can't allocate memory", "could not create a primitive"))
        )
    )


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Put ``name`` and a colon before the message of an error about the content of the file ``name``.

    If memory runs out, raise a VqcodecError that names the file. Any other exception passes through.
    """
    try:
        yield
    except (FormatError, ImageError, LimitError, TargetError, UnknownModelError) as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        if not _out_of_memory(error):
            raise
        raise VqcodecError(f"{name}: not enough memory") from error
