"""vqcodec: a learned image codec that decodes bit for bit everywhere.

::

    from vqcodec import Codec

    codec = Codec.load()
    data = codec.compress(pixels, quality=75)  # uint8 [H, W, 3] or [H, W, 1] -> bytes of a .vq file
    pixels = Codec.for_file(data).decompress(data)

:class:`Codec` is imported when it is first asked for, since it brings torch, which takes seconds.
"""

from typing import TYPE_CHECKING, Any

from vqcodec.errors import (
    Cancelled,
    ConfigError,
    FormatError,
    ImageError,
    LimitError,
    TrainingError,
    UnknownModelError,
    VqcodecError,
    WeightsError,
)

if TYPE_CHECKING:
    from vqcodec.codec import Codec

__all__ = [
    "Cancelled",
    "Codec",
    "ConfigError",
    "FormatError",
    "ImageError",
    "LimitError",
    "TrainingError",
    "UnknownModelError",
    "VqcodecError",
    "WeightsError",
    "__version__",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Codec":
        from vqcodec.codec import Codec

        return Codec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
