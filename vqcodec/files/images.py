"""Image files in and out: whatever Pillow reads becomes plain uint8 pixels, as a viewer would show them.

::

    file ──header──▶ size check ──first frame──▶ 8 bits ──ICC──▶ sRGB ──▶ over white ──EXIF──▶ upright ──▶ pixels
    file ◀──write_atomic── bytes ◀──Pillow, by the file's extension── pixels ◀──crop── … ◀──pad_to_multiple── pixels

Pixels are uint8 arrays ``[H, W, 3]`` in sRGB, or ``[H, W, 1]`` for a grey image; H, W ≥ 1. Nothing
here prints: what was dropped or converted on the way comes back as a list of one-line warnings.
"""

import io
import os
import threading
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from vqcodec.errors import ImageError, LimitError, one_line
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import MAX_PIXELS, MAX_SIDE

__all__ = [
    "crop",
    "has_image_extension",
    "image_files",
    "output_format",
    "pad_to_multiple",
    "read_image",
    "write_image",
]

_LOSSY = {"quality": 95, "subsampling": "4:4:4"}
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {  # extension -> Pillow's name and options
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

_SUFFIXES = {".avif", ".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}  # looked for in folders

_GREY_MODES = {"1", "L", "LA"}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Tags that describe how pixels are stored or scanned. Losing them loses nothing a user wrote; a TIFF has them always.
_LAYOUT_TAGS = {
    ExifTags.Base.NewSubfileType,
    ExifTags.Base.SubfileType,
    ExifTags.Base.ImageWidth,
    ExifTags.Base.ImageLength,
    ExifTags.Base.BitsPerSample,
    ExifTags.Base.Compression,
    ExifTags.Base.PhotometricInterpretation,
    ExifTags.Base.FillOrder,
    ExifTags.Base.StripOffsets,
    ExifTags.Base.Orientation,
    ExifTags.Base.SamplesPerPixel,
    ExifTags.Base.RowsPerStrip,
    ExifTags.Base.StripByteCounts,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.PlanarConfiguration,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.TransferFunction,
    ExifTags.Base.Predictor,
    ExifTags.Base.ColorMap,
    ExifTags.Base.TileWidth,
    ExifTags.Base.TileLength,
    ExifTags.Base.TileOffsets,
    ExifTags.Base.TileByteCounts,
    ExifTags.Base.ExtraSamples,
    ExifTags.Base.SampleFormat,
    ExifTags.Base.JPEGTables,
    ExifTags.Base.YCbCrSubSampling,
    ExifTags.Base.YCbCrPositioning,
    ExifTags.Base.ReferenceBlackWhite,
    ExifTags.Base.XMLPacket,  # XMP, which is looked for by itself
    ExifTags.Base.InterColorProfile,
}

_PROBE = (255 * np.linspace(0, 1, 9) ** 2).astype(np.uint8)  # levels of each channel, denser where curves differ
_SRGB_TOLERANCE = 3  # grey levels; sRGB profiles of different makers differ by as much, other spaces by far more


def image_files(folder: Path) -> list[Path]:
    """Every image file under ``folder``, in sorted order; ImageError when there is none."""
    if not folder.is_dir():
        raise ImageError(f"{folder}: not a folder; expected a folder of images")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not files:
        raise ImageError(f"{folder}: holds no images; expected files such as .png, .jpg or .avif")
    return files


def read_image(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels of an image file and what was lost in reading them.

    Only the first frame is read; EXIF orientation is applied; an embedded ICC profile is converted to sRGB;
    transparent images are laid over white; samples of 16 bits are scaled to 8. A bilevel or grey file gives
    ``[H, W, 1]``, any other ``[H, W, 3]``, even if its channels are equal. The array is the caller's own.

    Each warning is one line without the file's name, such as ``"EXIF metadata dropped"``.

    Raises ImageError, with the file's name, for a file that cannot be opened, is no image, is damaged or cut
    short, has samples with no agreed range, or has more than MAX_SIDE pixels on a side, and LimitError for one with
    more than ``max_pixels`` pixels, by default MAX_PIXELS.
    """
    path = Path(path)
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    with file, _without_warnings:
        try:
            if not file.peek(1):
                raise ImageError("empty file")
            return _decode(file, limit)
        except (ImageError, LimitError) as error:
            raise type(error)(f"{path}: {error}") from error
        except UnidentifiedImageError as error:
            raise ImageError(f"{path}: not an image that Pillow can read") from error
        except Image.DecompressionBombError as error:
            pillows = 2 * (Image.MAX_IMAGE_PIXELS or limit)
            which = f"the limit is {limit}" if limit <= pillows else f"the limit of Pillow is {pillows}"
            raise LimitError(f"{path}: too many pixels, {which}") from error
        except Exception as error:  # on damaged files, Pillow's plugins raise nearly every type there is
            raise ImageError(f"{path}: damaged image: {one_line(error, 100)}") from error


def write_image(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write ``pixels``, uint8 ``[H, W, 3]`` or ``[H, W, 1]``, in the format that the file's extension names.

    Lossless but for JPEG and AVIF, which are written at quality 95 without chroma subsampling. A file of the
    same name is replaced once the new one is complete, else left as it was.

    Raises ImageError, with the file's name, for an unknown extension, for pixels of another type or shape or
    that the format cannot hold, and if the file cannot be written.
    """
    path = Path(path)
    name = output_format(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise ImageError(f"{path}: pixels are {found}, expected uint8 [H, W, 3] or [H, W, 1]")
    height, width, channels = pixels.shape
    if channels == 3 and path.suffix.lower() == ".pgm":
        raise ImageError(f"{path}: a .pgm file holds grey images only, use .ppm for colour")
    limit = _SIDE_LIMITS.get(name, MAX_SIDE)
    if max(height, width) > limit:
        raise ImageError(f"{path}: too large: {width}x{height}, {name} holds at most {limit} pixels on a side")

    encoded = io.BytesIO()
    try:
        image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
        image.save(encoded, name, **_FORMATS[path.suffix.lower()][1])
    except Exception as error:  # Pillow's plugins raise OSError, ValueError, SystemError and others
        raise ImageError(f"{path}: cannot be written as {name}: {one_line(error, 100)}") from error
    write_atomic(path, encoded.getvalue())


def output_format(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that ``write_image`` would write to ``path``, to be asked before any work.

    Raises ImageError for an extension that is unknown, missing, or not supported by the Pillow installed here.
    """
    path = Path(path)
    if (extension := path.suffix.lower()) not in _FORMATS:
        found = f"unknown image extension {extension}" if extension else "no image extension"
        raise ImageError(f"{path}: {found}, expected one of {' '.join(_FORMATS)}")
    name = _FORMATS[extension][0]
    Image.init()
    if name not in Image.SAVE:
        raise ImageError(f"{path}: the Pillow installed here cannot write {name}")
    return name


def has_image_extension(path: str | os.PathLike[str]) -> bool:
    """Whether a file of that name would be taken for an image."""
    return Path(path).suffix.lower() in _FORMATS


def pad_to_multiple(pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """``[H, W, C]`` grown at the bottom and right to multiples of ``multiple``, by repeating the last row and column.

    Raises ValueError if ``multiple`` is below 1 or there is no pixel to repeat.
    """
    if multiple < 1:
        raise ValueError(f"multiple is {multiple}, expected at least 1")
    height, width, _ = pixels.shape
    if not height or not width:
        raise ValueError(f"no pixel to repeat in {width}x{height}")
    return np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def crop(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The top left ``[height, width, C]`` of ``[H, W, C]``, a view: what ``pad_to_multiple`` added is gone.

    Raises ValueError unless 1 ≤ height ≤ H and 1 ≤ width ≤ W.
    """
    if not (1 <= height <= pixels.shape[0] and 1 <= width <= pixels.shape[1]):
        raise ValueError(f"cannot crop {pixels.shape[1]}x{pixels.shape[0]} pixels to {width}x{height}")
    return pixels[:height, :width]


class _WithoutWarnings:
    """No warnings of Pillow: they tell of sizes below our limit, and of damaged metadata that is not kept anyway.

    Unlike ``warnings.catch_warnings``, threads may be inside together: the first one in sets the filter, the
    last one out restores what was there.
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


def _decode(file: BinaryIO, max_pixels: int) -> tuple[NDArray[np.uint8], list[str]]:
    """``read_image`` without the file's name; raises whatever Pillow raises."""
    notes: list[str] = []
    image = Image.open(file)
    if image.format == "EPS":  # Pillow would run Ghostscript on it
        raise ImageError("EPS is a program that draws, not an image; convert it to PNG first")
    _check_size(image, max_pixels)
    stored_as = _raw_mode(image)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "PSD":  # Pillow counts a PSD's layers, and reads them merged
        notes.append(f"{frames} frames or pages, only the first is kept")
    image.load()

    eight_bit = _eight_bit(image, stored_as)
    # Pillow itself has reduced wide colour samples; BGR;16 is 16 bits for the three together.
    if eight_bit is not image or (";16" in stored_as and not stored_as.startswith("BGR")):
        notes.append("16 bits per sample reduced to 8")
    grey = eight_bit.mode in _GREY_MODES or stored_as.startswith("LA;")  # Pillow reads 16-bit grey with alpha as RGBA
    colours, alpha = _split_alpha(eight_bit, grey)
    colours, colour_notes = _srgb(colours, image.info.get("icc_profile"))
    notes += colour_notes
    if alpha is not None:
        colours = Image.composite(colours, Image.new(colours.mode, colours.size, "white"), alpha)
        notes.append("transparency dropped, laid over white")

    orientation, metadata = _metadata(image)
    if metadata:
        notes.append(f"{' and '.join(metadata)} metadata dropped")
    if orientation in _UPRIGHT:
        colours = colours.transpose(_UPRIGHT[orientation])
    pixels = np.array(colours)
    return pixels.reshape(*pixels.shape[:2], -1), notes


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"too large: {width}x{height}, the limit is {MAX_SIDE} pixels on a side")
    if width * height > max_pixels:
        raise LimitError(f"too many pixels: {width}x{height} is {width * height}, the limit is {max_pixels}")


def _raw_mode(image: Image.Image) -> str:
    """How the file stores samples, in Pillow's words (``"RGB;16B"``); empty where a plugin does not say."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _eight_bit(image: Image.Image, stored_as: str) -> Image.Image:
    """``image``, its samples scaled to 0..255 if Pillow has left them wider, to the nearest level."""
    if image.mode.startswith("I;16"):
        top = 0xFFF if stored_as == "I;12" else 0xFFFF
    elif image.mode == "I" and image.format == "PPM":  # which Pillow scales to 16 bits, whatever its range
        top = 0xFFFF
    elif image.mode in ("I", "F"):
        raise ImageError(f"32-bit {'float' if image.mode == 'F' else 'integer'} samples, expected 8 or 16 bits")
    else:
        return image
    wide = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((wide * 255 + top // 2) // top).astype(np.uint8))
    if "transparency" in image.info:
        visible = Image.fromarray(np.where(wide == image.info["transparency"], 0, 255).astype(np.uint8))
        grey = Image.merge("LA", (grey, visible))
    return grey


def _split_alpha(image: Image.Image, grey: bool) -> tuple[Image.Image, Image.Image | None]:
    """The colours of ``image``, of mode L if grey, CMYK or RGB, and its opacity, of mode L, or None if opaque."""
    if image.mode == "CMYK":
        return image, None
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha = None
    return image.convert("L" if grey else "RGB"), alpha


def _srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, list[str]]:
    """``image``, of mode L, RGB or CMYK, as sRGB of mode L or RGB, and the warnings this calls for."""
    notes = []
    if icc:
        try:
            converted, name = _apply_profile(image, icc)
        except Exception:  # a damaged profile must not cost the picture
            notes.append("ICC profile cannot be applied and is dropped")
        else:
            return converted, [f"converted from {name} to sRGB"] if name else []
    if image.mode == "CMYK":
        notes.append("converted from CMYK to RGB without a profile, colours are approximate")
        image = image.convert("RGB")
    return image, notes


def _apply_profile(image: Image.Image, icc: bytes) -> tuple[Image.Image, str]:
    """``image`` taken from its ICC profile to sRGB, and the profile's name; no name if it was sRGB all along."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    space = profile.profile.xcolor_space.strip()
    mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}[space]
    if mode != image.mode and (image.mode, mode) != ("L", "RGB"):
        raise ValueError(f"a profile for {mode} on an image of mode {image.mode}")
    # What littlecms precomputes for grey is too coarse in the shadows, by up to ten levels for a linear profile.
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
    to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)

    if mode != "CMYK":
        channels = len(mode)
        samples = np.stack(np.meshgrid(*[_PROBE] * channels), axis=-1).reshape(1, -1, channels)
        probe = Image.fromarray(samples if channels == 3 else samples[:, :, 0])
        moved = np.asarray(to_srgb.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= _SRGB_TOLERANCE:
            return image, ""
    converted = to_srgb.apply(image.convert(mode)).convert("L" if image.mode == "L" else "RGB")
    return converted, one_line(profile.profile.profile_description or f"an unnamed {mode} profile", 100)


def _metadata(image: Image.Image) -> tuple[int, list[str]]:
    """The EXIF orientation, 1 if there is none, and which kinds of metadata a loaded image carries besides."""
    kinds = []
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        if set(exif) - _LAYOUT_TAGS:
            kinds.append("EXIF")
    except Exception:  # damaged EXIF must not cost the picture
        orientation = 1
        kinds.append("damaged EXIF")
    if image.info.get("xmp"):
        kinds.append("XMP")
    return orientation, kinds
