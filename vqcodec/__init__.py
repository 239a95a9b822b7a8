"""vqcodec: a learned image codec whose codes decode bit for bit on every machine, and pixels within one grey level.

::

    from vqcodec import compress, decompress

    data = compress("photo.png", quality=75)  # the bytes of a .vq file; also of a PIL image, an array or a tensor
    image = decompress(data)                  # a PIL image
    image.save("decoded.png")

:class:`Codec` codes arrays with a model, a device and limits of the caller's choice, and gives their code grids. Every
error that vqcodec raises on purpose is a :class:`VqcodecError`; :mod:`vqcodec.errors` draws their tree.

The functions and Codec are imported at their first use, because they need torch or numpy: torch takes seconds.
"""

import importlib
from typing import TYPE_CHECKING

from vqcodec.errors import (
    Cancelled,
    ConfigError,
    DeviceError,
    FormatError,
    ImageError,
    LimitError,
    MissingPackageError,
    ReportError,
    TargetError,
    TrainingError,
    TrainingPaused,
    UnknownModelError,
    VqcodecError,
    VqcodecWarning,
    WeightsError,
)

if TYPE_CHECKING:
    from vqcodec.api import compress, decompress
    from vqcodec.codec import Codec
    from vqcodec.files.images import read_image, write_image

__all__ = [
    "Cancelled",
    "Codec",
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
    "__version__",
    "compress",
    "decompress",
    "read_image",
    "write_image",
]

__version__ = "0.1.0"

_LAZY = {
    "Codec": "vqcodec.codec",
    "compress": "vqcodec.api",
    "decompress": "vqcodec.api",
    "read_image": "vqcodec.files.images",
    "write_image": "vqcodec.files.images",
}


def __dir__() -> list[str]:
    return list(__all__)


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
