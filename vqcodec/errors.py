"""The exceptions that vqcodec raises on purpose.

::

    VqcodecError                everything below: one clear line, fit to show a user
    ├── ConfigError             a model or training configuration that cannot work
    ├── ImageError              an image file that cannot be read, written or coded
    ├── FormatError             bytes that are not a valid .vq container
    ├── WeightsError            a weights file that is missing, damaged or beyond the exactness bound
    │   └── UnknownModelError   a .vq file made with weights that are not installed here
    ├── TrainingError           training data or a run directory that cannot be used
    ├── TrainingPaused          training that stopped where it was asked to; it can be resumed
    ├── ReportError             a curve, a report or a folder of results that cannot be used
    └── MissingPackageError     an optional package that is not installed, and how to install it

Each message is one line that says what was found and what was expected. Functions that
work on files put the file's name first: ``photo.png: not an image Pillow can read``.
"""

__all__ = [
    "ConfigError",
    "FormatError",
    "ImageError",
    "MissingPackageError",
    "ReportError",
    "TrainingError",
    "TrainingPaused",
    "UnknownModelError",
    "VqcodecError",
    "WeightsError",
]


class VqcodecError(Exception):
    """Base of every error that vqcodec raises on purpose; ``str(error)`` is one line."""


class ConfigError(VqcodecError):
    """A model or training configuration that cannot work."""


class ImageError(VqcodecError):
    """An image file that cannot be read, written or coded."""


class FormatError(VqcodecError):
    """Bytes that are not a valid ``.vq`` container."""


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
