"""The metadata of an image that Pillow has opened.

::

    image ─┬─ take_metadata ────▶ the image upright; EXIF and XMP as the file has them, but with orientation 1
           └─ dropped_metadata ─▶ warnings: text, IPTC, dpi
"""

from typing import Any

from PIL import ExifTags, Image

from vqcodec.files.exif import PREFIX, upright, upright_xmp

__all__ = ["current_exif", "dropped_metadata", "take_metadata"]

_TURNS = {  # orientation ──▶ what makes the image upright
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
    ExifTags.Base.XMLPacket,  # XMP, which has its own check
    ExifTags.Base.InterColorProfile,
}

_RESOLUTION_TAGS = {ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit}
_USUAL_DPI = {1, 72, 96}  # what programs write when nobody chose a resolution; 1 is an aspect ratio
_TEXT_IN_INFO = {"comment", "Comment"}


def take_metadata(image: Image.Image) -> tuple[Image.Image, bytes | None, bytes | None, list[str]]:
    """A loaded ``image`` turned upright; EXIF without its prefix and XMP, with orientation 1; and warnings.

    EXIF is that of ``image.getexif()`` where the caller has changed it, else the bytes in ``info``. EXIF that only
    describes how the pixels were stored is left out: None. ``image`` itself is not changed.
    """
    upright_image, exif, damaged = image, None, list[str]()
    try:
        tags, changed = current_exif(image)
        orientation = tags.get(ExifTags.Base.Orientation)
        if orientation in _TURNS:
            upright_image = image.transpose(_TURNS[orientation])
        if set(tags) - _LAYOUT_TAGS:
            stored = image.info.get("exif")
            if changed or not isinstance(stored, bytes):  # old PNGs have hexadecimal text
                stored = _without_layout(tags)
            exif = upright(stored.removeprefix(PREFIX))
    except Exception:  # damaged EXIF must not cost the picture
        damaged.append("damaged EXIF metadata dropped")
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "replace")
    if not isinstance(xmp, bytes | None):
        xmp = None
        damaged.append("damaged XMP metadata dropped")
    return upright_image, exif, upright_xmp(xmp) if xmp else None, damaged


def current_exif(image: Image.Image) -> tuple[Image.Exif, bool]:
    """The EXIF tags of ``image``, and whether they differ from what its ``info`` holds; raises if they are damaged.

    ``info`` counts if it was given other EXIF, or lost its own, after ``image.getexif()`` had read it.
    """
    reference = Image.new("1", (1, 1))
    reference.info = dict(image.info)
    stored, tags = _tags(reference), _tags(image)
    if getattr(tags, "_loaded_exif", None) != getattr(stored, "_loaded_exif", None):  # what each has read
        return stored, False
    return tags, set(tags) != set(stored) or _block(tags) != _block(stored)


def _tags(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except TypeError:
        if isinstance(image.info.get("xmp"), bytes | None):
            raise
        # Pillow has read the EXIF, and then failed to look for an orientation in XMP that is not bytes.
        return image.getexif()


def _block(tags: Image.Exif) -> bytes | None:
    """``tags`` as bytes; None if some cannot be written."""
    try:
        return tags.tobytes()
    except Exception:  # Pillow has no error of its own for this
        return None


def _without_layout(tags: Image.Exif) -> bytes:
    """EXIF without the tags that describe how pixels are stored: a TIFF has both in one."""
    kept = Image.Exif()
    kept.load(tags.tobytes())  # a copy, for the image keeps its own
    for tag in _LAYOUT_TAGS - _RESOLUTION_TAGS:
        kept.pop(tag, None)
    return kept.tobytes()


def dropped_metadata(image: Image.Image, *, has_exif: bool) -> list[str]:
    """Warnings about what a ``.vq`` file cannot hold: texts, IPTC, and a resolution that EXIF does not state."""
    kinds = []
    texts = getattr(image, "text", {})
    if any(key not in ("XML:com.adobe.xmp", "Raw profile type exif") for key in texts) or _TEXT_IN_INFO & set(
        image.info
    ):
        kinds.append("text")
    if "photoshop" in image.info or any(isinstance(key, tuple) for key in image.info):
        kinds.append("IPTC")
    dpi = image.info.get("dpi")
    if not has_exif and isinstance(dpi, tuple) and not all(map(_usual, dpi)):
        kinds.append("resolution")
    return [f"{' and '.join(kinds)} dropped"] if kinds else []


def _usual(dpi: Any) -> bool:
    try:
        return round(float(dpi)) in _USUAL_DPI
    except (ArithmeticError, TypeError, ValueError):  # infinite, no number, or 0/0
        return False
