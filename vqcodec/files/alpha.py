"""The opacity of a picture, without loss: the payload of the chunk ``Alph``. ``docs/format.md`` is normative.

::

    opacity [H, W] ──the same everywhere──▶ one byte
                   └─minus its prediction, modulo 256──▶ LZMA2 ──▶ number of the predictor, compressed bytes

A predictor takes the left neighbour, the upper one, or the plane through three neighbours. Each is undone by running
sums modulo 256, row by row or column by column. One predictor serves the whole picture.

Legend: H, W height and width of the picture in pixels; an opacity is 0..255, 255 for opaque.
"""

import lzma
import zlib

import numpy as np
from numpy.typing import NDArray

from vqcodec.errors import FormatError

__all__ = ["pack_alpha", "unpack_alpha"]

_Alpha = NDArray[np.uint8]
_AXES: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))  # by predictor: none, left, up, plane
_DICTIONARY = 2**20  # bytes; part of the format, since LZMA2 does not state it
_FILTER = {"id": lzma.FILTER_LZMA2, "dict_size": _DICTIONARY}
# LZMA2 states these itself, so a writer may choose them. Opacities have no structure of several bytes.
_WRITER = {**_FILTER, "preset": 9, "lc": 0, "lp": 0, "pb": 0}


def pack_alpha(alpha: _Alpha) -> bytes:
    """The payload for opacities ``[H, W]``, uint8."""
    if alpha.min() == alpha.max():
        return alpha[:1, 0].tobytes()
    residuals = [_residual(alpha, axes) for axes in _AXES]
    # A fast deflate ranks the predictors as LZMA2 would, in a hundredth of the time.
    predictor = min(range(len(_AXES)), key=lambda number: len(zlib.compress(residuals[number], 1)))
    packed = lzma.compress(residuals[predictor], lzma.FORMAT_RAW, filters=[_WRITER])
    return bytes([predictor]) + packed


def unpack_alpha(payload: bytes, height: int, width: int) -> _Alpha:
    """The opacities ``[height, width]`` of ``payload``; raises FormatError for what no writer makes.

    At most height × width bytes and the dictionary are allocated, whatever the payload claims.
    """
    if len(payload) == 1:
        return np.full((height, width), payload[0], np.uint8)
    if not payload or payload[0] >= len(_AXES):
        raise FormatError(f"the opacity starts with {payload[:1].hex() or 'nothing'}, expected a predictor of 0..3")
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_FILTER])
    try:
        residual = decoder.decompress(payload[1:], height * width + 1)
    except lzma.LZMAError as error:
        raise FormatError(f"the opacity cannot be decompressed: {error}") from None
    if len(residual) != height * width or not decoder.eof or decoder.unused_data:
        raise FormatError(f"the opacity does not have exactly {height} × {width} bytes")
    alpha = np.frombuffer(residual, np.uint8).reshape(height, width).copy()
    for axis in _AXES[payload[0]]:
        np.cumsum(alpha, axis, np.uint8, out=alpha)
    return alpha


def _residual(alpha: _Alpha, axes: tuple[int, ...]) -> bytes:
    for axis in axes:
        alpha = np.diff(alpha, axis=axis, prepend=np.uint8(0))
    return alpha.tobytes()
