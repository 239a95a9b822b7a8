"""The pixels of any image that Pillow reads, as a viewer would show them: 8 bits, sRGB, and opacity.

::

    I;16, PPM … ──to the nearest level──▶ 8 bits ──▶ colours ──ICC profile──▶ sRGB, L or RGB ──over_white─▶ opaque
                                                │                              ▲        └──fill──▶ smooth where
                                                │                              │                   nothing shows
                                                └──▶ opacity               from_srgb: back to the profile

What is lost on the way comes back as a list of one-line warnings.
"""

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from vqcodec.errors import ImageError, one_line

if TYPE_CHECKING:
    from PIL import ImageCms

__all__ = ["Converted", "fill", "from_srgb", "over_white", "raw_mode", "to_srgb"]

_GREY_MODES = {"1", "L", "LA"}
_GREY_TOPS = {"L;2": 3, "L;4": 15, "L": 255}  # raw mode of grey ──▶ largest sample that the file can hold
_PROBE = (255 * np.linspace(0, 1, 9) ** 2).astype(np.uint8)  # levels of each channel, denser where curves differ
_SRGB_TOLERANCE = 3  # grey levels; sRGB profiles of different makers differ by as much, other spaces by far more


class Converted(NamedTuple):
    """An image in 8-bit sRGB.

    Attributes:
        colours: of mode L if the image is grey, else RGB.
        alpha: opacity, of mode L; None for an opaque image.
        icc: the profile that the colours were converted from, if :func:`from_srgb` can undo it; else None.
        warnings: what was lost or changed, one line each.
    """

    colours: Image.Image
    alpha: Image.Image | None
    icc: bytes | None
    warnings: list[str]


def raw_mode(image: Image.Image) -> str:
    """How the file of a freshly opened ``image`` stores samples, in Pillow's words, such as ``"RGB;16B"``.

    Empty if Pillow does not say; once the image is loaded, it no longer does.
    """
    tiles = getattr(image, "tile", [])
    if not tiles:
        return ""
    arguments = tiles[0][3]
    if not isinstance(arguments, tuple):
        return str(arguments)
    if image.format == "PPM" and arguments[1] > 255:  # the largest sample, which the mode does not show
        return f"{arguments[0]};16"
    return str(arguments[0])


def to_srgb(image: Image.Image, stored_as: str) -> Converted:
    """A loaded ``image`` in 8-bit sRGB.

    ``stored_as`` is its :func:`raw_mode`. Raises ImageError for a palette image without a palette, and for samples
    with no agreed range.
    """
    if image.mode in ("P", "PA") and image.palette is None:
        raise ImageError("damaged image: a palette image without its palette")
    warnings = []
    if image.mode in ("La", "RGBa"):  # with colours multiplied by the opacity, which Pillow converts to nothing else
        image = image.convert(image.mode.upper())
    image = _scale_transparency(image, stored_as)
    eight_bit = _eight_bit(image, stored_as)
    # Pillow itself has reduced wide colour samples; BGR;16 is 16 bits for the three together.
    if eight_bit is not image or (";16" in stored_as and not stored_as.startswith("BGR")):
        warnings.append("16 bits per sample reduced to 8")
    grey = eight_bit.mode in _GREY_MODES or stored_as.startswith("LA;")  # Pillow reads 16-bit grey with alpha as RGBA
    colours, alpha = _split_alpha(eight_bit, grey)
    colours, icc, conversions = _convert(colours, image.info.get("icc_profile"))
    return Converted(colours, alpha, icc, warnings + conversions)


def from_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """``image``, in sRGB of mode L or RGB, converted to the profile ``icc`` for the same mode.

    Raises ValueError for a profile of another mode, and an error of Pillow for one that cannot be converted to.
    """
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    if _profile_mode(profile) != image.mode:
        raise ValueError(f"a profile for {_profile_mode(profile)} on an image of mode {image.mode}")
    # As in _apply_profile, what littlecms precomputes is too coarse in the shadows.
    flags = ImageCms.Flags.NOOPTIMIZE
    convert = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", image.mode, flags=flags)
    return convert.apply(image.convert("RGB"))


def over_white(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """``colours`` laid over white."""
    return Image.composite(colours, Image.new(colours.mode, colours.size, "white"), alpha)


def fill(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """``colours`` with a smooth continuation where ``alpha`` is 0, which takes few bits and shows nowhere.

    Each coarser picture averages the visible ones of four pixels, until all of its pixels are visible; on the way back
    it fills the gaps of the finer one.
    """
    visible = alpha.point(lambda opacity: 255 if opacity else 0)
    least, most = visible.getextrema()
    if least == 255:
        return colours
    if most == 0:
        return Image.new(colours.mode, colours.size, (128,) * len(colours.mode) if colours.mode == "RGB" else 128)
    coarse = colours.copy()
    coarse.putalpha(visible)
    coarse = coarse.reduce(2)
    below = fill(coarse.convert(colours.mode), coarse.getchannel("A"))
    return Image.composite(colours, below.resize(colours.size, Image.Resampling.BILINEAR), visible)


def _scale_transparency(image: Image.Image, stored_as: str) -> Image.Image:
    """``image`` with the transparent level of a grey PNG scaled as Pillow scales samples; Pillow leaves it as it is.

    Only the low bits of the stored number count (PNG specification, 11.3.2.1).
    """
    level = image.info.get("transparency")
    if isinstance(level, int) and stored_as in _GREY_TOPS and image.mode == "L":
        top = _GREY_TOPS[stored_as]
        image = image.copy()  # the caller's keeps its own
        image.info["transparency"] = (level & top) * (255 // top)
    return image


def _eight_bit(image: Image.Image, stored_as: str) -> Image.Image:
    """``image`` with its samples scaled to the nearest level of 0..255, if Pillow has left them wider."""
    if image.mode.startswith("I;16"):
        top = 0xFFF if stored_as == "I;12" else 0xFFFF
    elif image.mode == "I" and image.format == "PPM":  # Pillow scales every range to 16 bits
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
    """The colours of ``image``, of mode L if ``grey``, else CMYK or RGB; and its opacity, of mode L, None if opaque."""
    if image.mode == "CMYK":
        return image, None
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha = None
    return image.convert("L" if grey else "RGB"), alpha


def _convert(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None, list[str]]:
    """``image``, of mode L, RGB or CMYK, as sRGB of mode L or RGB; the profile that was undone; and warnings."""
    warnings = []
    if icc:
        try:
            converted, name = _apply_profile(image, icc)
        except Exception:  # a damaged profile must not cost the picture
            warnings.append("ICC profile cannot be applied and is dropped")
        else:
            if not name:
                return converted, None, []
            return converted, icc if _can_undo(converted.mode, icc) else None, [f"converted from {name} to sRGB"]
    if image.mode == "CMYK":
        warnings.append("converted from CMYK to RGB without a profile, colours are approximate")
        image = image.convert("RGB")
    return image, None, warnings


def _can_undo(mode: str, icc: bytes) -> bool:
    """Whether :func:`from_srgb` accepts ``icc`` for images of ``mode``; a scanner's profile may go one way only."""
    try:
        from_srgb(Image.new(mode, (1, 1)), icc)
    except Exception:
        return False
    return True


def _profile_mode(profile: "ImageCms.ImageCmsProfile") -> str:
    """The mode of the images that ``profile`` describes; KeyError for any but L, RGB and CMYK."""
    return {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}[profile.profile.xcolor_space.strip()]


def _apply_profile(image: Image.Image, icc: bytes) -> tuple[Image.Image, str]:
    """``image`` converted from its ICC profile to sRGB, and the profile's name, which is empty if it is sRGB itself."""
    from PIL import ImageCms  # littlecms, which most images do not need

    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    mode = _profile_mode(profile)
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
