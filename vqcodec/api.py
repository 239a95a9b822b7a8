"""The functions of the package: pictures of any kind to the bytes of ``.vq`` files, and back.

::

    PIL image, image file ─┐
    uint8 array, tensor ───┴─as_picture─▶ Picture ─ pixels ──Codec.compress────▶ bytes
                                                  └ extras ──to_chunks──────────▶   │
    PIL image ◀────────────────to_image── Picture ◀ pixels ──Codec.decompress──  bytes
                                                  ◀ extras ──from_container─────    ┘

What is lost on the way is told by :class:`VqcodecWarning`. Legend: H and W height and width of the picture in pixels, C
channels: 1 grey, 2 grey and opacity, 3 RGB, 4 RGB and opacity.
"""

import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.config import DEFAULT_EFFORT, DEFAULT_QUALITY, DEFAULT_TUNE, ModelConfig, Tune, check_tune
from vqcodec.errors import ImageError, VqcodecWarning
from vqcodec.files.container import BytesLike, Container, parse
from vqcodec.files.extras import Extras, Picture, from_container, to_chunks
from vqcodec.files.images import ImageFile, pillow_errors, read_picture
from vqcodec.files.pictures import check_size, from_image, to_code, to_image
from vqcodec.files.streams import check_input, read_container

__all__ = ["ImageLike", "as_picture", "compress", "decoded", "decompress", "installed", "levels_for"]

ImageLike = Image.Image | ImageFile | NDArray[np.uint8] | Tensor
"""Everything that :func:`compress` takes for a picture."""

_KINDS = "a PIL image, the name or bytes of an image file, a uint8 array or a tensor"
_ARRAYS = "uint8 [H, W] or [H, W, C], C from 1 to 4"
_TENSORS = "a dense one, uint8 or floats in 0..1, of [H, W] or [C, H, W], C from 1 to 4"
_TENSOR_TYPES = {torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64}

_codecs: dict[tuple[int, bytes | Tune], Codec] = {}  # by process, and fingerprint or tune


def compress(
    image: ImageLike,
    quality: int = DEFAULT_QUALITY,
    *,
    effort: int = DEFAULT_EFFORT,
    tune: Tune = DEFAULT_TUNE,
    strip: str | Collection[str] = (),
    max_pixels: int | None = None,
) -> bytes:
    """The bytes of a ``.vq`` file of ``image``, with opacity and metadata, by the shipped model for ``tune``.

    ``image`` is a PIL image of any mode, the name of an image file, its bytes or an open binary file, an array, uint8
    ``[H, W]`` or ``[H, W, C]``, or a tensor ``[H, W]`` or ``[C, H, W]``, uint8 or floats in 0..1. Images and files are
    turned upright and converted to sRGB, as ``vqcodec encode`` does; their EXIF, XMP and ICC profile are kept.

    ``tune`` is ``"psnr"`` or ``"visual"``: for the least squared error, or for what people see; with the latter
    ``effort`` does nothing. ``quality`` and ``effort`` are those of :meth:`Codec.compress`; ``strip`` leaves out some
    of all, alpha, exif, gps, icc and xmp: their names, or one text such as ``"gps,xmp"``; ``max_pixels`` is MAX_PIXELS
    by default. The model is loaded by the first call in a process, on a GPU if there is one.

    Raises TypeError if ``image`` is of another type, ImageError if it cannot be read or has another shape or range,
    ValueError for another ``tune`` or another name in ``strip``, and what :meth:`Codec.compress` raises.
    """
    check_tune(tune)
    picture, lost = as_picture(image, strip=strip, max_pixels=max_pixels)
    _tell(lost)
    chunks = to_chunks(picture.extras)
    return installed(tune).compress(picture.pixels, quality, effort=effort, chunks=chunks, max_pixels=max_pixels)


def decompress(
    data: BytesLike | str | os.PathLike[str], *, levels: int | None = None, max_pixels: int | None = None
) -> Image.Image:
    """The picture in the bytes of a ``.vq`` file, or in the file of this name, by the model that it names.

    The PIL image has mode L, LA, RGB or RGBA; ``numpy.asarray`` gives its pixels. ``info`` has ``exif``, ``xmp`` and
    ``icc_profile`` if the file does; the colours are those of the profile, and sRGB without one.

    ``levels`` and ``max_pixels`` are those of :class:`Codec`. Each model is loaded by the first call in a process that
    needs it, on a GPU if there is one.

    Raises FormatError or LimitError if ``data`` is not an intact file or its picture is too large, UnknownModelError if
    the model is not installed, VqcodecError if a file cannot be read, and TypeError for other types.
    """
    if isinstance(data, str | os.PathLike):
        check_input(os.fspath(data))  # which knows no standard input
        _, file = read_container(os.fspath(data), max_pixels=max_pixels)
    else:
        file = parse(data, max_pixels=max_pixels)
    image, lost = decoded(installed(file.fingerprint), file, levels=levels)
    _tell(lost)
    return image


def decoded(codec: Codec, file: Container, *, levels: int | None = None) -> tuple[Image.Image, list[str]]:
    """The PIL image of ``file``, decoded by the model that it names, and warnings."""
    extras, malformed = from_container(file)
    image, lost = to_image(Picture(codec.decompress(file, levels=levels), extras))
    return image, malformed + lost


def levels_for(model: ModelConfig, shrink: int) -> int:
    """How many levels a picture needs that is shown ``shrink`` times smaller.

    The coarsest level has nothing finer than its stride, and levels of pixels refine single pixels.
    """
    if shrink >= model.levels[0].stride:
        return 1
    trunk = sum(not level.pixels for level in model.levels)
    return trunk if shrink >= 2 else len(model.levels)


def as_picture(
    image: ImageLike, *, strip: str | Collection[str] = (), max_pixels: int | None = None
) -> tuple[Picture, list[str]]:
    """The picture to code of what :func:`compress` takes, and warnings; raises as it does."""
    if isinstance(image, Image.Image):
        with pillow_errors(max_pixels):
            picture, lost = from_image(image, max_pixels=max_pixels)
        return to_code(picture, strip), lost
    if isinstance(image, Tensor):
        return to_code(_of_tensor(image, max_pixels), strip), []
    if isinstance(image, np.ndarray):
        return to_code(_of_array(image, max_pixels), strip), []
    if isinstance(image, str | os.PathLike):
        check_input(os.fspath(image))
        return read_picture(Path(image), strip=strip, max_pixels=max_pixels)
    if isinstance(image, BytesLike) or hasattr(image, "read"):
        return read_picture(image, strip=strip, max_pixels=max_pixels)
    raise TypeError(f"image is of type {type(image).__name__}, expected {_KINDS}")


def _of_array(array: NDArray[np.uint8], max_pixels: int | None) -> Picture:
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not pixels.size:
        raise ImageError(f"the array is {array.dtype} {list(array.shape)}, expected {_ARRAYS}")
    check_size(pixels.shape[1], pixels.shape[0], max_pixels)  # before anything is copied
    colours = pixels.shape[2] - (1 - pixels.shape[2] % 2)
    alpha = None if colours == pixels.shape[2] or pixels[:, :, -1].min() == 255 else pixels[:, :, -1]
    return Picture(np.ascontiguousarray(pixels[:, :, :colours]), Extras(alpha))


def _of_tensor(tensor: Tensor, max_pixels: int | None) -> Picture:
    if tensor.is_nested or tensor.is_meta or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else f"{tensor.layout} on {tensor.device.type}"
        raise ImageError(f"the tensor is {tensor.dtype}, {kind}, expected {_TENSORS}")
    values = tensor.detach()[None] if tensor.ndim == 2 else tensor.detach()
    right = values.dtype in _TENSOR_TYPES
    if not right or values.ndim != 3 or not 1 <= len(values) <= 4 or not values.numel():
        raise ImageError(f"the tensor is {tensor.dtype} {list(tensor.shape)}, expected {_TENSORS}")
    check_size(values.shape[2], values.shape[1], max_pixels)
    if values.is_floating_point():
        low, high = values.min().item(), values.max().item()
        if not 0 <= low <= high <= 1:  # false for NaN
            raise ImageError(f"the tensor has values from {low:g} to {high:g}, expected 0 to 1; clamp it first")
        values = values.float().mul(255).round().to(torch.uint8)
    return _of_array(values.permute(1, 2, 0).cpu().numpy(), max_pixels)


def installed(model: bytes | Tune) -> Codec:
    """The codec of this process for the installed model with a fingerprint, or for a tune."""
    process = os.getpid()
    if (process, model) not in _codecs:
        codec = Codec.load(fingerprint=model) if isinstance(model, bytes) else Codec.load(tune=model)
        _codecs[process, model] = codec
        _codecs.setdefault((process, codec.fingerprint), codec)
    return _codecs[process, model]


def _tell(lost: Sequence[str]) -> None:
    for line in lost:
        warnings.warn(line, VqcodecWarning, stacklevel=3)
