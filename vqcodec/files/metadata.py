"""The metadata of an image that Pillow has opened.

::

    image ─┬─ take_metadata ────▶ the image upright; EXIF and XMP as the file has them, but with orientation 1
           └─ dropped_metadata ─▶ warnings: text, IPTC, dpi
"""

from PIL import ExifTags, Image, ImageOps

from vqcodec.files.exif import PREFIX, upright, upright_xmp

__all__ = ["dropped_metadata", "take_metadata"]

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

    EXIF that only describes how the pixels were stored is left out: None. ``image`` itself is not changed.
    """
    stored, xmp = image.info.get("exif"), image.info.get("xmp")
    xmp = upright_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp)) if xmp else None
    try:
        tags = image.getexif()
        turned = image if tags.get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)
        if not set(tags) - _LAYOUT_TAGS:
            return turned, None, xmp, []
        if not isinstance(stored, bytes):  # old PNGs have hexadecimal text
            stored = _without_layout(tags)
        return turned, upright(stored.removeprefix(PREFIX)), xmp, []
    except Exception:  # damaged EXIF must not cost the picture
        return image, None, xmp, ["damaged EXIF metadata dropped"]


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
    if not has_exif and isinstance(dpi, tuple) and {round(float(value)) for value in dpi} - _USUAL_DPI:
        kinds.append("resolution")
    return [f"{' and '.join(kinds)} dropped"] if kinds else []
