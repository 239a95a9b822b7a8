"""Pillow's images become pictures without a change to them, and come back with mode, opacity and metadata."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from tests.pictures import RANDOM, png
from tests.test_files_colour import LINEAR_RGB
from vqcodec.errors import ImageError, LimitError
from vqcodec.files.exif import PREFIX
from vqcodec.files.extras import Extras, Picture
from vqcodec.files.pictures import from_image, to_code, to_image

ALPHA = np.random.default_rng(5).integers(0, 255, RANDOM.shape[:2], np.uint8)
GREY = RANDOM[:, :, :1]


@pytest.mark.parametrize(
    ("pixels", "alpha", "mode"),
    [(GREY, None, "L"), (GREY, ALPHA, "LA"), (RANDOM, None, "RGB"), (RANDOM, ALPHA, "RGBA")],
)
def test_modes_come_back(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, mode: str) -> None:
    image, warnings = to_image(Picture(pixels, Extras(alpha)))
    assert (image.mode, image.info, warnings) == (mode, {}, [])
    shown = np.dstack([pixels] if alpha is None else [pixels, alpha]).squeeze()
    assert np.array_equal(np.asarray(image), shown)
    picture, warnings = from_image(image)
    assert warnings == []
    assert np.array_equal(picture.pixels, pixels)
    found = picture.extras.alpha
    assert (None if found is None else found.tolist()) == (None if alpha is None else alpha.tolist())


def test_the_callers_image_stays_as_it_is() -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation], tags[ExifTags.Base.Make] = 6, "Me"
    buffer = io.BytesIO()
    Image.fromarray(RANDOM).save(buffer, "TIFF", exif=tags)
    upright = Image.fromarray(RANDOM)
    upright.getexif().update({ExifTags.Base.Orientation: 6, ExifTags.Base.Make: "Me"})
    grey = Image.open(io.BytesIO(png(1, 1, depth=2, data=b"\x40", trns=b"\0\1")))
    for image in (Image.open(buffer), upright, grey):
        image.load()
        before, size, seen = dict(image.info), image.size, dict(image.getexif())
        picture, _ = from_image(image)
        assert (dict(image.info), image.size, dict(image.getexif())) == (before, size, seen)
        again, _ = from_image(image)
        assert np.array_equal(picture.pixels, again.pixels)
        assert picture.extras.exif == again.extras.exif
    assert from_image(upright)[0].pixels.shape == (7, 5, 3)


def test_metadata_lie_in_info_and_colours_in_the_profile() -> None:
    exif = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
    image, _ = to_image(Picture(RANDOM, Extras(icc=LINEAR_RGB, exif=exif, xmp=b"<x/>")))
    assert image.info == {"icc_profile": LINEAR_RGB, "exif": PREFIX + exif, "xmp": b"<x/>"}
    assert np.abs(np.asarray(image).astype(int) - RANDOM).max() > 20
    picture, _ = from_image(image)
    assert np.abs(picture.pixels.astype(int) - RANDOM).max() < 20  # 8 linear bits are coarse in the shadows
    image, warnings = to_image(Picture(RANDOM, Extras(icc=b"nonsense")))
    assert (image.info, warnings) == ({}, ["ICC profile cannot be applied, the colours are in sRGB"])


def test_the_present_frame_is_taken() -> None:
    frames = [Image.new("L", (2, 2), level) for level in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    image = Image.open(buffer)
    for number, said in ((0, "the first"), (1, "number 2")):
        image.seek(number)
        picture, warnings = from_image(image)
        assert picture.pixels.max() == frames[number].getpixel((0, 0))
        assert warnings == [f"2 frames or pages, only {said} is kept"]


def test_sizes_are_limited_before_the_pixels_are_read() -> None:
    lazy = Image.open(io.BytesIO(png(70_000, 1)))
    with pytest.raises(ImageError, match="too large: 70000x1"):
        from_image(lazy)
    with pytest.raises(LimitError, match="too many pixels: 300x200 is 60000, the limit is 59999"):
        from_image(Image.open(io.BytesIO(png(300, 200))), max_pixels=59_999)
    assert isinstance(lazy, PngImagePlugin.PngImageFile)


def test_images_that_were_closed_before_they_were_read() -> None:
    image = Image.open(io.BytesIO(png(3, 2)))
    image.verify()
    with pytest.raises(ImageError, match=r"^the image was verified or closed before it was read; open it again$"):
        from_image(image)
    for size in ((0, 3), (3, 0)):
        with pytest.raises(ImageError, match=r"^no pixels: \dx\d, expected at least 1 on a side$"):
            from_image(Image.new("L", size))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_colours_that_are_multiplied_by_the_opacity(mode: str) -> None:
    colours = (200, 128) if mode == "LA" else (200, 100, 50, 128)
    image = Image.new(mode, (2, 2), colours)
    found, _ = from_image(image.convert(mode[:-1] + "a"))
    assert found.extras.alpha is not None
    assert (found.extras.alpha == 128).all()
    assert np.abs(found.pixels.astype(int) - colours[:-1]).max() <= 2


def test_what_is_stripped() -> None:
    picture = Picture(np.zeros((2, 2, 3), np.uint8), Extras(np.zeros((2, 2), np.uint8), exif=b"x"))
    assert to_code(picture, ["alpha"]).pixels.min() == 255
    assert to_code(picture, ["alpha"]).extras == Extras(exif=b"x")
    assert to_code(picture, ["all"]).extras == Extras()
    assert to_code(picture).pixels.min() == to_code(picture).pixels.max() == 128
    assert to_code(picture, "alpha,exif").extras == Extras()
    with pytest.raises(ValueError, match=r"^strip has 'EXIF', expected some of all, alpha"):
        to_code(picture, ["EXIF"])
