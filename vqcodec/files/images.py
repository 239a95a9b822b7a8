"""Read and write image files: every image that Pillow can read becomes plain uint8 pixels, and extras.

::

    file ──header──▶ size check ──first frame──▶ EXIF ──▶ upright ──vqcodec.files.colour──▶ 8-bit sRGB ──▶ Picture
    file ◀──write_atomic── bytes ◀──Pillow, by the file's extension── Picture, or pixels alone

``read_picture`` and ``encode_picture`` keep opacity and metadata; ``read_image`` lays pictures over white.
Pixels are uint8 arrays ``[H, W, 3]`` in sRGB, or ``[H, W, 1]`` for a grey image; H, W ≥ 1. Nothing
here prints: the caller gets a list of one-line warnings about what was dropped or converted.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from vqcodec.errors import ImageError, LimitError, naming, one_line
from vqcodec.files.atomic import write_atomic
from vqcodec.files.colour import fill, from_srgb, over_white, raw_mode, to_srgb
from vqcodec.files.container import MAGIC, MAX_PIXELS, MAX_SIDE, BytesLike
from vqcodec.files.exif import PREFIX
from vqcodec.files.extras import Extras, Picture
from vqcodec.files.metadata import dropped_metadata, take_metadata

__all__ = [
    "encode_image",
    "encode_picture",
    "has_image_extension",
    "image_files",
    "is_image_name",
    "opaque",
    "output_format",
    "read_image",
    "read_picture",
    "write_image",
]

_LOSSY: dict[str, object] = {"quality": 95, "subsampling": "4:4:4"}
_FORMATS: dict[str, tuple[str, dict[str, object]]] = {  # extension -> Pillow's name and options
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": ("JPEG", _LOSSY),
    ".jpeg": ("JPEG", _LOSSY),
    ".avif": ("AVIF", _LOSSY),
}
_SIDE_LIMITS = {"JPEG": 65_500, "WEBP": 16_383}  # pixels, where a format holds less than MAX_SIDE

_WITH_ALPHA = {"PNG", "TIFF", "WEBP", "AVIF"}
_WITH_METADATA = {*_WITH_ALPHA, "JPEG"}

_Source = str | os.PathLike[str] | BytesLike | BinaryIO

_SUFFIXES = {  # looked for in folders
    *(
        ".apng",
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".ico",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pcx",
    ),
    *(".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
}


def image_files(folder: Path) -> list[Path]:
    """Every image file under ``folder``, in sorted order; raises ImageError if there are none."""
    if not folder.is_dir():
        raise ImageError(f"{folder}: not a folder; expected a folder of images")
    files = sorted(path for path in folder.rglob("*") if is_image_name(path) and path.is_file())
    if not files:
        raise ImageError(f"{folder}: holds no images; expected files such as .png, .jpg or .avif")
    return files


def is_image_name(path: Path) -> bool:
    """Whether a file in a folder is taken for an image, by its extension."""
    return path.suffix.lower() in _SUFFIXES


def read_image(source: _Source, *, max_pixels: int | None = None) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels of an image and warnings about what was lost in reading it.

    ``source`` is the name of a file, the bytes of one, or a binary file object that can seek, which is read from its
    start. Only the first frame is read; EXIF orientation is applied; an embedded ICC profile is converted to sRGB;
    transparent images are laid over white; samples of 16 bits are scaled to 8. A bilevel or grey image gives
    ``[H, W, 1]``, any other ``[H, W, 3]``, even if its channels are equal. The array is the caller's own.

    Each warning is one line without the file's name, such as ``"EXIF metadata dropped"``.

    Raises ImageError for a file that cannot be opened, is not an image, is damaged or cut short, has samples with no
    agreed range, or has more than MAX_SIDE pixels on a side; LimitError for an image with more than ``max_pixels``
    pixels, by default MAX_PIXELS. The message starts with the file's name if ``source`` is one.
    """
    picture, warnings = _read_source(source, max_pixels)
    if picture.extras.alpha is not None:
        warnings.append("transparency dropped, laid over white")
    kinds = [kind.upper() for kind in ("exif", "xmp") if getattr(picture.extras, kind) is not None]
    if kinds:
        warnings.append(f"{' and '.join(kinds)} metadata dropped")
    return opaque(picture), warnings


def read_picture(
    source: _Source, *, strip: Collection[str] = (), max_pixels: int | None = None
) -> tuple[Picture, list[str]]:
    """The picture in an image file, with opacity and metadata, and warnings.

    Otherwise like :func:`read_image`. ``strip`` leaves out some of all, alpha, exif, gps, icc and xmp. If alpha is
    left out, the picture is laid over white; else its colours continue smoothly where it is fully transparent.
    """
    picture, warnings = _read_source(source, max_pixels)
    extras, alpha = picture.extras.strip(strip), picture.extras.alpha
    if alpha is None:
        return Picture(picture.pixels, extras), warnings
    if "alpha" in strip or "all" in strip:
        return Picture(opaque(picture), replace(extras, alpha=None)), warnings
    filled = _array(fill(_image(picture.pixels), Image.fromarray(alpha)))
    return Picture(filled, extras), warnings


def write_image(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write ``pixels``, uint8 ``[H, W, 3]`` or ``[H, W, 1]``, in the format that the file's extension names.

    Lossless, except for JPEG and AVIF, which are written at quality 95 without chroma subsampling. A file of the
    same name is replaced once the new one is complete; until then it stays as it was.

    Raises ImageError, with the file's name, for an unknown extension, for pixels of another type or shape or
    that the format cannot hold, and if the file cannot be written.
    """
    path = Path(path)
    with naming(str(path)):
        data = encode_image(pixels, path.suffix)
    write_atomic(path, data)


def encode_image(pixels: NDArray[np.uint8], extension: str = ".png") -> bytes:
    """The bytes that :func:`write_image` writes to a file with ``extension``; raises as it does."""
    _check_pixels(pixels, extension)
    return _save(_image(pixels), extension, {})


def encode_picture(picture: Picture, extension: str = ".png") -> tuple[bytes, list[str]]:
    """The bytes of an image file with opacity and metadata, and warnings about what the format cannot hold.

    Colours are converted to the picture's ICC profile. A TIFF with EXIF is not compressed. Raises as
    :func:`encode_image` does.
    """
    name = _check_pixels(picture.pixels, extension)
    image, metadata, warnings = _with_extras(picture, name)
    try:
        return _save(image, extension, metadata), warnings
    except ImageError:
        if not metadata.keys() - {"icc_profile"}:
            raise
    profile = {key: value for key, value in metadata.items() if key == "icc_profile"}
    return _save(image, extension, profile), [*warnings, f"metadata that {name} cannot hold dropped"]


def output_format(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that :func:`write_image` would write to ``path``, for a check before any work.

    Raises ImageError for an extension that is unknown, missing, or not supported by the Pillow installed here.
    """
    path = Path(path)
    with naming(str(path)):
        return _format(path.suffix)[0]


def has_image_extension(path: str | os.PathLike[str]) -> bool:
    """Whether :func:`write_image` knows the extension of ``path``."""
    return Path(path).suffix.lower() in _FORMATS


def _read_source(source: _Source, max_pixels: int | None) -> tuple[Picture, list[str]]:
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(source, BytesLike):
        return _read(io.BytesIO(source), limit)
    if not isinstance(source, str | os.PathLike):
        return _read(source, limit)
    path = Path(source)
    with naming(str(path)):
        try:
            file = path.open("rb")
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error
        with file:
            return _read(file, limit)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])


def _array(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.array(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def opaque(picture: Picture) -> NDArray[np.uint8]:
    """The pixels of ``picture``, over white where it is transparent."""
    if picture.extras.alpha is None:
        return picture.pixels
    return _array(over_white(_image(picture.pixels), Image.fromarray(picture.extras.alpha)))


def _check_pixels(pixels: object, extension: str) -> str:
    """Pillow's name of the format; raises TypeError or ImageError for pixels that it cannot hold."""
    name, _ = _format(extension)
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"pixels are of type {type(pixels).__name__}, expected a numpy array")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise ImageError(f"pixels are {found}, expected uint8 [H, W, 3] or [H, W, 1]")
    height, width, channels = pixels.shape
    if channels == 3 and extension.lower() == ".pgm":
        raise ImageError("a .pgm file holds grey images only, use .ppm for colour")
    limit = _SIDE_LIMITS.get(name, MAX_SIDE)
    if max(height, width) > limit:
        raise ImageError(f"too large: {width}x{height}, {name} holds at most {limit} pixels on a side")
    return name


def _with_extras(picture: Picture, name: str) -> tuple[Image.Image, dict[str, object], list[str]]:
    """The image to save as Pillow's format ``name``, options that hold its metadata, and warnings."""
    image, extras, lost = _image(picture.pixels), picture.extras, list[str]()
    if extras.alpha is not None and name not in _WITH_ALPHA:
        image = over_white(image, Image.fromarray(extras.alpha))
        lost.append(f"transparency laid over white, {name} has none")
    kinds = [kind.upper() for kind in ("icc", "exif", "xmp") if getattr(extras, kind) is not None]
    if kinds and name not in _WITH_METADATA:
        return image, {}, [*lost, f"{' and '.join(kinds)} metadata dropped, {name} has none"]
    metadata = _metadata_options(extras, name)
    if extras.icc is not None:
        try:
            image = from_srgb(image, extras.icc)
            metadata["icc_profile"] = extras.icc
        except Exception:  # littlecms has its own errors for every kind of damage
            lost.append("ICC profile cannot be applied, the colours are in sRGB")
    if extras.alpha is not None and name in _WITH_ALPHA:
        image.putalpha(Image.fromarray(extras.alpha))
    return image, metadata, lost


def _metadata_options(extras: Extras, name: str) -> dict[str, object]:
    """Pillow's options that write EXIF and XMP in the format ``name``."""
    metadata: dict[str, object] = {}
    if extras.exif is not None:
        metadata["exif"] = PREFIX + extras.exif
        if name == "TIFF":  # libtiff, which compresses, cannot write the parts of EXIF that tags point to
            metadata["compression"] = None
    if extras.xmp is None:
        return metadata
    if name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", extras.xmp.decode("utf-8", "replace"))
        metadata["pnginfo"] = text
    elif name == "TIFF":  # where all metadata are tags
        tags = Image.Exif()
        with contextlib.suppress(Exception):  # a damaged block has no tags
            tags.load(PREFIX + (extras.exif or b""))
        tags[ExifTags.Base.XMLPacket] = extras.xmp
        metadata["exif"] = tags
    else:
        metadata["xmp"] = extras.xmp
    return metadata


def _save(image: Image.Image, extension: str, metadata: dict[str, object]) -> bytes:
    name, options = _format(extension)
    encoded = io.BytesIO()
    try:
        image.save(encoded, name, **(options | metadata))
    except Exception as error:  # Pillow's plugins raise OSError, ValueError, SystemError and others
        raise ImageError(f"cannot be written as {name}: {one_line(error, 100)}") from error
    return encoded.getvalue()


class _WithoutWarnings:
    """Silences Pillow's warnings, which are about sizes below our limit and about damaged metadata, dropped anyway.

    Unlike with ``warnings.catch_warnings``, several threads may be inside at once: the first one in sets the filter,
    the last one out restores the earlier ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_without_warnings = _WithoutWarnings()


def _format(extension: str) -> tuple[str, dict[str, object]]:
    """Pillow's name of a format, and its options for saving; raises ImageError."""
    if (known := extension.lower()) not in _FORMATS:
        found = f"unknown image extension {known}" if known else "no image extension"
        raise ImageError(f"{found}, expected one of {' '.join(_FORMATS)}")
    name, options = _FORMATS[known]
    Image.init()
    if name not in Image.SAVE:
        raise ImageError(f"the Pillow installed here cannot write {name}")
    return name, options


def _read(file: BinaryIO, max_pixels: int) -> tuple[Picture, list[str]]:
    """The picture in an open file; every error is one of ours, or a MemoryError."""
    with _without_warnings:
        try:
            file.seek(0)
            if not file.read(1):
                raise ImageError("empty file")
            return _decode(file, max_pixels)
        except (ImageError, LimitError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            file.seek(0)
            ours = file.read(len(MAGIC)) == MAGIC
            raise ImageError(
                "is a .vq file, expected an image" if ours else "not an image that Pillow can read"
            ) from error
        except Image.DecompressionBombError as error:
            pillows = 2 * (Image.MAX_IMAGE_PIXELS or max_pixels)
            which = f"the limit is {max_pixels}" if max_pixels <= pillows else f"the limit of Pillow is {pillows}"
            raise LimitError(f"too many pixels, {which}") from error
        except Exception as error:  # on damaged files, Pillow's plugins raise nearly every type there is
            raise ImageError(f"damaged image: {one_line(error, 100)}") from error


def _decode(file: BinaryIO, max_pixels: int) -> tuple[Picture, list[str]]:
    """The picture in an open file, before its hidden colours are filled; errors of Pillow pass through."""
    image = Image.open(file)
    if image.format == "EPS":  # Pillow would run Ghostscript on it
        raise ImageError("EPS is a program that draws, not an image; convert it to PNG first")
    _check_size(image, max_pixels)
    stored_as = raw_mode(image)
    frames = getattr(image, "n_frames", 1)
    image.load()
    exif, xmp, damaged = take_metadata(image)
    converted = to_srgb(image, stored_as)
    warnings = converted.warnings
    if frames > 1 and image.format != "PSD":  # Pillow counts a PSD's layers, and reads them merged
        warnings.insert(0, f"{frames} frames or pages, only the first is kept")
    warnings += damaged + dropped_metadata(image, has_exif=exif is not None)
    alpha = None if converted.alpha is None else np.array(converted.alpha)
    extras = Extras(alpha, converted.icc, exif, xmp)
    return Picture(_array(converted.colours), extras), warnings


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"too large: {width}x{height}, the limit is {MAX_SIDE} pixels on a side")
    if width * height > max_pixels:
        raise LimitError(f"too many pixels: {width}x{height} is {width * height}, the limit is {max_pixels}")
