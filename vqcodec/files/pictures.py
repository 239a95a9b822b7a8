"""Pillow's images as the pictures that the codec codes, and back.

::

    Image ──from_image──▶ Picture: upright, 8-bit sRGB ──to_code──▶ without what is stripped, hidden colours filled
    Image ◀──to_image──── Picture ◀─ what was decoded

The command, the Pillow plugin and the functions of the package all go this way. Nothing here prints: the caller gets
one-line warnings about what was dropped or converted.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqcodec.errors import ImageError, LimitError
from vqcodec.files.colour import fill, from_srgb, over_white, raw_mode, to_srgb
from vqcodec.files.container import MAX_PIXELS, MAX_SIDE
from vqcodec.files.exif import PREFIX
from vqcodec.files.extras import Extras, Picture
from vqcodec.files.kinds import stripped
from vqcodec.files.metadata import dropped_metadata, take_metadata

__all__ = ["check_size", "from_image", "opaque", "plain_image", "to_code", "to_image"]


def from_image(image: Image.Image, *, max_pixels: int | None = None) -> tuple[Picture, list[str]]:
    """The picture that a viewer would show of the present frame of ``image``, with extras; and warnings.

    ``image`` is loaded if it is not, and otherwise left as it is. Raises ImageError for samples with no agreed range,
    and for no pixels or more than MAX_SIDE on a side; LimitError for more than ``max_pixels``, by default MAX_PIXELS;
    and anything that Pillow raises for a damaged file.
    """
    check_size(*image.size, max_pixels)
    if getattr(image, "tile", None) and getattr(image, "fp", None) is None:
        raise ImageError("the image was verified or closed before it was read; open it again")
    stored_as = raw_mode(image)
    frames, number = getattr(image, "n_frames", 1), image.tell()
    image.load()
    upright, exif, xmp, damaged = take_metadata(image)
    converted = to_srgb(upright, stored_as)
    warnings = converted.warnings
    if frames > 1 and image.format != "PSD":  # Pillow counts a PSD's layers, and reads them merged
        which = f"number {number + 1}" if number else "the first"
        warnings.insert(0, f"{frames} frames or pages, only {which} is kept")
    warnings += damaged + dropped_metadata(image, has_exif=exif is not None)
    alpha = None if converted.alpha is None else np.array(converted.alpha)
    return Picture(_pixels(converted.colours), Extras(alpha, converted.icc, exif, xmp)), warnings


def to_code(picture: Picture, strip: str | Collection[str] = ()) -> Picture:
    """``picture`` as it is coded: without some of all, alpha, exif, gps, icc and xmp that ``strip`` names.

    ``strip`` is a collection of names, or one text such as ``"gps,xmp"``. Without alpha, the picture is laid over
    white; else its colours continue smoothly where it is fully transparent. Raises ValueError for another name.
    """
    strip = stripped(strip)
    extras, alpha = picture.extras.strip(strip), picture.extras.alpha
    if alpha is None:
        return Picture(picture.pixels, extras)
    if "alpha" in strip or "all" in strip:
        return Picture(opaque(picture), replace(extras, alpha=None))
    return Picture(_pixels(fill(plain_image(picture.pixels), Image.fromarray(alpha))), extras)


def to_image(picture: Picture) -> tuple[Image.Image, list[str]]:
    """Pillow's image of ``picture``, of mode L, LA, RGB or RGBA, and warnings.

    Its colours are converted to the picture's ICC profile, except if that cannot be applied. ``info`` has
    ``icc_profile``, ``exif`` and ``xmp`` under Pillow's names.
    """
    image, extras, warnings = plain_image(picture.pixels), picture.extras, list[str]()
    info: dict[str | tuple[int, int], bytes] = {}
    if extras.icc is not None:
        try:
            image = from_srgb(image, extras.icc)
            info["icc_profile"] = extras.icc
        except Exception:  # littlecms has its own errors for every kind of damage
            warnings.append("ICC profile cannot be applied, the colours are in sRGB")
    if extras.alpha is not None:
        image.putalpha(Image.fromarray(extras.alpha))
    if extras.exif is not None:
        info["exif"] = PREFIX + extras.exif
    if extras.xmp is not None:
        info["xmp"] = extras.xmp
    image.info = dict[str | tuple[int, int], Any](info)
    return image, warnings


def opaque(picture: Picture) -> NDArray[np.uint8]:
    """The pixels of ``picture``, over white where it is transparent."""
    if picture.extras.alpha is None:
        return picture.pixels
    return _pixels(over_white(plain_image(picture.pixels), Image.fromarray(picture.extras.alpha)))


def plain_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """The image of mode RGB or L of ``pixels``, ``[H, W, 3]`` or ``[H, W, 1]``."""
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.array(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def check_size(width: int, height: int, max_pixels: int | None = None) -> None:
    """Raise ImageError or LimitError for a picture that :func:`from_image` refuses for its size."""
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    if min(width, height) < 1:
        raise ImageError(f"no pixels: {width}x{height}, expected at least 1 on a side")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"too large: {width}x{height}, the limit is {MAX_SIDE} pixels on a side")
    if width * height > max_pixels:
        raise LimitError(f"too many pixels: {width}x{height} is {width * height}, the limit is {max_pixels}")
