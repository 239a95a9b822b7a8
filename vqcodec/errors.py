"""The exceptions that vqcodec raises on purpose.

::

    VqcodecError                everything below: one clear line, fit to show a user
    ├── ConfigError             a model or training configuration that cannot work
    ├── Cancelled               work that its caller asked to stop
    ├── DeviceError             a device that this machine does not have
    ├── ImageError              an image file that cannot be read, written or coded
    ├── FormatError             bytes that are not a valid .vq container
    ├── LimitError              a picture with more pixels, or in need of more memory, than allowed
    ├── WeightsError            a weights file that is missing, damaged or beyond the exactness bound
    │   └── UnknownModelError   a .vq file made with weights that are not installed here
    ├── TrainingError           training data or a run directory that cannot be used
    ├── TrainingPaused          training that stopped where it was asked to; it can be resumed
    ├── ReportError             a curve, a report or a folder of results that cannot be used
    └── MissingPackageError     an optional package that is not installed, and how to install it

Each message is one line that says what was found and what was expected. Functions that
work on files put the file's name first: ``photo.png: not an image Pillow can read``. :func:`naming`
does that for errors about what a file holds, :func:`explain` makes one line of any exception, and
:func:`printable` one that a terminal shows as it is.
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
    "TrainingError",
    "TrainingPaused",
    "UnknownModelError",
    "VqcodecError",
    "WeightsError",
    "explain",
    "naming",
    "printable",
]


class VqcodecError(Exception):
    """Base of every error that vqcodec raises on purpose; ``str(error)`` is one line."""


class ConfigError(VqcodecError):
    """A model or training configuration that cannot work."""


class Cancelled(VqcodecError):
    """The caller's ``cancelled`` said so; nothing of the work is left."""


class DeviceError(VqcodecError):
    """A device that this machine does not have."""


class ImageError(VqcodecError):
    """An image file that cannot be read, written or coded."""


class FormatError(VqcodecError):
    """Bytes that are not a valid ``.vq`` container."""


class LimitError(VqcodecError):
    """A picture that has more pixels, or needs more memory, than the caller allows."""


class WeightsError(VqcodecError):
    """A weights file that is missing, damaged, or beyond the exactness bound."""


class UnknownModelError(WeightsError):
    """A ``.vq`` file names weights, by fingerprint, that are not installed here."""


class TrainingError(VqcodecError):
    """Training data or a run directory that cannot be used."""


class TrainingPaused(VqcodecError):
    """Training stopped where it was asked to, with a checkpoint to resume from."""


class ReportError(VqcodecError):
    """A published curve, a report or a folder of results that cannot be used."""


class MissingPackageError(VqcodecError):
    """An optional package that is not installed; the message says how to install it."""


def explain(error: BaseException) -> str:
    """What happened, in one line."""
    if isinstance(error, VqcodecError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _out_of_memory(error):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return ": ".join([*([str(error.filename)] if error.filename else []), error.strerror])
    reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return f"unexpected {reason} (VQCODEC_DEBUG=1 shows where)"


def printable(text: str) -> str:
    """``text`` with escapes for line breaks and whatever else a terminal would act on: names of files hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch says so in ways of its own."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, RuntimeError)
            and any(said in str(error) for said in ("can't allocate memory", "could not create a primitive"))
        )
    )


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors about what the file ``name`` holds start with its name."""
    try:
        yield
    except (FormatError, ImageError, LimitError, UnknownModelError) as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        if not _out_of_memory(error):
            raise
        raise VqcodecError(f"{name}: not enough memory") from error
