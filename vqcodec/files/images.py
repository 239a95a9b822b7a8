"""Read and write image files: every image that Pillow can read becomes plain uint8 pixels, and extras.

::

    file ──Pillow──▶ Image, its first frame ──vqcodec.files.pictures──▶ Picture
    file ◀──write_atomic── bytes ◀──Pillow, by the file's extension── Image ◀── Picture, or pixels alone

``read_picture`` and ``encode_picture`` keep opacity and metadata; ``read_image`` lays pictures over white.
Pixels are uint8 arrays ``[H, W, 3]`` in sRGB, or ``[H, W, 1]`` for a grey image; H, W ≥ 1. Nothing
here prints: the caller gets a list of one-line warnings about what was dropped or converted.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from vqcodec.errors import ImageError, LimitError, naming, one_line
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import MAGIC, MAX_PIXELS, MAX_SIDE, BytesLike
from vqcodec.files.exif import PREFIX
from vqcodec.files.extras import Picture
from vqcodec.files.pictures import from_image, opaque, plain_image, to_code, to_image

__all__ = [
    "ImageFile",
    "encode_image",
    "encode_picture",
    "has_image_extension",
    "image_files",
    "is_image_name",
    "output_format",
    "pillow_errors",
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

ImageFile = str | os.PathLike[str] | BytesLike | BinaryIO
"""The name of an image file, its bytes, or a binary file object that can seek."""

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
    """Every image file under ``folder``, in sorted order; raises ImageError if there are none.

    Raises ImageError for a folder below it that cannot be read, too: what it holds must not be missed in silence.
    """
    if not os.path.isdir(folder):
        raise ImageError(f"{folder}: not a folder; expected a folder of images")
    found = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=_refuse) for name in names)
    files = sorted(path for path in found if is_image_name(path) and os.path.isfile(path))
    if not files:
        raise ImageError(f"{folder}: holds no images; expected files such as .png, .jpg or .avif")
    return files


def _refuse(error: OSError) -> None:
    raise ImageError(f"{error.filename}: cannot be read: {error.strerror}") from error


def is_image_name(path: Path) -> bool:
    """Whether a file in a folder is taken for an image, by its extension."""
    return path.suffix.lower() in _SUFFIXES


def read_image(source: ImageFile, *, max_pixels: int | None = None) -> tuple[NDArray[np.uint8], list[str]]:
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
    source: ImageFile, *, strip: str | Collection[str] = (), max_pixels: int | None = None
) -> tuple[Picture, list[str]]:
    """The picture in an image file, with opacity and metadata, and warnings.

    Otherwise like :func:`read_image`. ``strip`` is that of :func:`vqcodec.files.pictures.to_code`.
    """
    picture, warnings = _read_source(source, max_pixels)
    return to_code(picture, strip), warnings


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
    return _save(plain_image(pixels), extension, {})


def encode_picture(picture: Picture, extension: str = ".png") -> tuple[bytes, list[str]]:
    """The bytes of an image file with opacity and metadata, and warnings about what the format cannot hold.

    Colours are converted to the picture's ICC profile. A TIFF with EXIF is not compressed. Raises as
    :func:`encode_image` does.
    """
    name = _check_pixels(picture.pixels, extension)
    fitting, lost = _fitting(picture, name)
    image, warnings = to_image(fitting)
    try:
        return _save(image, extension, _metadata_options(image.info, name)), lost + warnings
    except ImageError:
        if fitting.extras.exif is None and fitting.extras.xmp is None:
            raise
    without = Picture(picture.pixels, replace(picture.extras, exif=None, xmp=None))
    data, warnings = encode_picture(without, extension)
    return data, [*warnings, f"metadata that {name} cannot hold dropped"]


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


def _read_source(source: ImageFile, max_pixels: int | None) -> tuple[Picture, list[str]]:
    if isinstance(source, BytesLike):
        return _read(io.BytesIO(bytes(source)), max_pixels)
    if not isinstance(source, str | os.PathLike):
        return _read(source, max_pixels)
    path = Path(source)
    with naming(str(path)):
        try:
            file = path.open("rb")
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error
        with file:
            return _read(file, max_pixels)


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


def _fitting(picture: Picture, name: str) -> tuple[Picture, list[str]]:
    """``picture`` without what Pillow's format ``name`` cannot hold, and warnings."""
    extras, lost = picture.extras, list[str]()
    if extras.alpha is not None and name not in _WITH_ALPHA:
        picture = Picture(opaque(picture), replace(extras, alpha=None))
        lost.append(f"transparency laid over white, {name} has none")
    kinds = [kind.upper() for kind in ("icc", "exif", "xmp") if getattr(extras, kind) is not None]
    if kinds and name not in _WITH_METADATA:
        picture = Picture(picture.pixels, picture.extras.strip(["all"]))
        lost.append(f"{' and '.join(kinds)} metadata dropped, {name} has none")
    return picture, lost


def _metadata_options(info: dict[str | tuple[int, int], Any], name: str) -> dict[str, object]:
    """Pillow's options that write the metadata of ``info`` in the format ``name``."""
    options: dict[str, object] = {key: info[key] for key in ("icc_profile", "exif") if key in info}
    if name == "TIFF" and "exif" in info:  # libtiff, which compresses, cannot write what the tags of EXIF point to
        options["compression"] = None
    if "xmp" not in info:
        return options
    if name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", info["xmp"].decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif name == "TIFF":  # where all metadata are tags
        tags = Image.Exif()
        with contextlib.suppress(Exception):  # a damaged block has no tags
            tags.load(info.get("exif", PREFIX))
        tags[ExifTags.Base.XMLPacket] = info["xmp"]
        options["exif"] = tags
    else:
        options["xmp"] = info["xmp"]
    return options


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


def _read(file: BinaryIO, max_pixels: int | None) -> tuple[Picture, list[str]]:
    """The picture in an open file, before its hidden colours are filled."""
    with pillow_errors(max_pixels):
        file.seek(0)
        if not (start := file.read(len(MAGIC))):
            raise ImageError("empty file")
        if start == MAGIC:  # which Pillow reads, too, once it has our plugin
            raise ImageError("is a .vq file, expected an image")
        try:
            image = Image.open(file)
        except UnidentifiedImageError as error:
            raise ImageError("not an image that Pillow can read") from error
        if image.format == "EPS":  # Pillow would run Ghostscript on it
            raise ImageError("EPS is a program that draws, not an image; convert it to PNG first")
        return from_image(image, max_pixels=max_pixels)


@contextlib.contextmanager
def pillow_errors(max_pixels: int | None = None) -> Iterator[None]:
    """While Pillow opens or loads an image, every error is one of ours, or a MemoryError; its warnings are silenced.

    ``max_pixels`` is the limit that a LimitError names.
    """
    with _without_warnings:
        try:
            yield
        except (ImageError, LimitError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            limit = MAX_PIXELS if max_pixels is None else max_pixels
            pillows = 2 * (Image.MAX_IMAGE_PIXELS or limit)
            which = f"the limit is {limit}" if limit <= pillows else f"the limit of Pillow is {pillows}"
            raise LimitError(f"too many pixels, {which}") from error
        except Exception as error:  # on damaged files, Pillow's plugins raise nearly every type there is
            raise ImageError(f"damaged image: {one_line(error, 100)}") from error
