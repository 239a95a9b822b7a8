"""Pictures pass through .vq chunks and image files with their opacity, profile, EXIF and XMP."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from tests.pictures import RANDOM, png
from tests.test_files_colour import BLACK_INK_ONLY, LINEAR_GREY, LINEAR_RGB, SRGB, palette
from tests.test_files_images import UPRIGHT, XMP, exif
from vqcodec.files.container import Container, pack, parse
from vqcodec.files.exif import PREFIX
from vqcodec.files.extras import Extras, Picture, from_container, to_chunks
from vqcodec.files.images import encode_picture, read_picture
from vqcodec.files.pictures import from_image

ALPHA = np.random.default_rng(3).integers(0, 256, RANDOM.shape[:2], np.uint8)
TRANSPARENT = Image.fromarray(np.dstack([RANDOM, ALPHA]))


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def through(picture: Picture) -> Picture:
    """``picture`` with the extras that a .vq file gives back; its pixels stand for decoded ones."""
    height, width = picture.pixels.shape[:2]
    chunks = tuple(to_chunks(picture.extras))
    data = pack(Container(width, height, False, 50, b"1234", (b"level",), chunks))
    extras, warnings = from_container(parse(data))
    assert warnings == []
    return Picture(picture.pixels, extras)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_opacity_is_exact(name: str, grey: bool) -> None:
    image = TRANSPARENT.convert("LA") if grey else TRANSPARENT
    data = saved(image, name, lossless=True, exact=True, quality=100)
    picture, warnings = read_picture(data)
    assert warnings == []
    with Image.open(io.BytesIO(data)) as shown:
        expected = np.asarray(shown.convert("RGBA"))[:, :, 3]
    assert np.array_equal(through(picture).extras.alpha, expected)  # type: ignore[arg-type]
    if name != "AVIF":
        assert np.array_equal(expected, ALPHA)
    again = Image.open(io.BytesIO(encode_picture(through(picture), ".png")[0]))
    assert again.mode == ("LA" if grey and name in ("PNG", "TIFF") else "RGBA")
    assert np.array_equal(np.asarray(again)[:, :, -1], expected)
    assert np.array_equal(np.asarray(again)[:, :, :-1], picture.pixels)


@pytest.mark.parametrize(
    ("extension", "kept"), [(".png", 1), (".tif", 1), (".webp", 1), (".avif", 1), (".jpg", 0), (".ppm", 0)]
)
def test_formats_without_opacity_say_so(extension: str, kept: bool) -> None:
    picture, _ = read_picture(saved(TRANSPARENT, "PNG"))
    data, warnings = encode_picture(picture, extension)
    with Image.open(io.BytesIO(data)) as image:
        assert image.has_transparency_data == kept
    assert [warning.split(",")[0] for warning in warnings] == ([] if kept else ["transparency laid over white"])


@pytest.mark.parametrize(
    ("data", "alpha"),
    [
        (saved(palette(255, 0, 51), "PNG"), [255, 0, 51]),
        (saved(palette(), "GIF", transparency=1), [255, 0, 255]),
        (png(2, 1, depth=2, data=b"\x60", trns=b"\0\1"), [0, 255]),
        (png(2, 1, depth=16, data=b"\x12\x34\x12\x35", trns=b"\x12\x34"), [0, 255]),
        (png(1, 1, depth=16, colour=4, data=b"\x12\x34\x80\x80"), [0x80]),
    ],
)
def test_opacity_of_all_kinds(data: bytes, alpha: list[int]) -> None:
    found = read_picture(data)[0].extras.alpha
    assert found is not None
    assert found.tolist() == [alpha]


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_written_back_as_1(name: str, orientation: int) -> None:
    tags = exif(Orientation=orientation, Make="Maker")
    picture, warnings = read_picture(saved(TRANSPARENT, name, exif=tags, lossless=True, exact=True))
    assert warnings == []
    assert picture.extras.alpha is not None
    assert np.array_equal(picture.extras.alpha, UPRIGHT[orientation](ALPHA))
    with Image.open(io.BytesIO(encode_picture(through(picture), ".png")[0])) as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert image.getexif()[ExifTags.Base.Make] == "Maker"
        assert np.array_equal(np.asarray(image)[:, :, 3], UPRIGHT[orientation](ALPHA))


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_exif_and_xmp_are_the_same_bytes(source: str, extension: str) -> None:
    block = exif(Make="Maker", Software="é").tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options = {"pnginfo": text} if source == "PNG" else {"xmp": XMP}
    picture, warnings = read_picture(saved(Image.fromarray(RANDOM), source, exif=block, **options))
    assert warnings == []
    assert (picture.extras.exif, picture.extras.xmp) == (block.removeprefix(PREFIX), XMP)
    data, warnings = encode_picture(through(picture), extension)
    assert warnings == []
    again, _ = read_picture(data)
    assert (again.extras.exif, again.extras.xmp) == (picture.extras.exif, XMP)


def test_metadata_of_tiff() -> None:
    data = saved(Image.fromarray(RANDOM), "TIFF", exif=exif(Make="Maker"), dpi=(300, 300))
    picture, warnings = read_picture(data)
    assert (warnings, len(picture.extras.exif or b"") < 120) == ([], True)
    written, warnings = encode_picture(Picture(picture.pixels, Extras(exif=picture.extras.exif, xmp=XMP)), ".tif")
    with Image.open(io.BytesIO(written)) as image:
        assert image.getexif()[ExifTags.Base.Make] == "Maker"
        assert image.info["xmp"] == XMP
    assert warnings == []


@pytest.mark.parametrize(("pixels", "profile"), [(RANDOM, LINEAR_RGB), (RANDOM[:, :, 0], LINEAR_GREY)])
def test_another_profile_comes_back(pixels: Any, profile: bytes) -> None:
    picture, warnings = read_picture(saved(Image.fromarray(pixels), "PNG", icc_profile=profile))
    assert len(warnings) == 1
    assert picture.extras.icc == profile
    with Image.open(io.BytesIO(encode_picture(through(picture), ".png")[0])) as image:
        assert image.info["icc_profile"] == profile
        bright = pixels > 60  # dark levels of linear light are coarser in sRGB
        assert np.abs(np.asarray(image).astype(int) - pixels)[bright].max() <= 2


def test_an_srgb_profile_costs_nothing_and_one_of_cmyk_is_not_kept() -> None:
    assert read_picture(saved(Image.fromarray(RANDOM), "PNG", icc_profile=SRGB))[0].extras == Extras()
    picture, warnings = read_picture(saved(Image.new("CMYK", (2, 2)), "TIFF", icc_profile=BLACK_INK_ONLY))
    assert picture.extras == Extras()
    assert warnings == ["converted from Black ink to sRGB"]


def test_strip() -> None:
    data = saved(TRANSPARENT, "PNG", exif=exif(Make="Maker"), icc_profile=LINEAR_RGB)
    assert read_picture(data, strip=["all"])[0].extras == Extras()
    opaque = read_picture(data, strip=["alpha"])[0]
    assert (opaque.extras.alpha, opaque.extras.icc) == (None, LINEAR_RGB)
    assert (read_picture(data, strip=["exif", "icc"])[0].extras.exif, read_picture(data)[0].extras.exif is None) == (
        None,
        False,
    )


def test_hidden_colours_continue_the_visible_ones() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    pixels[:, :, 3], pixels[10:20, 10:20] = 0, (200, 100, 50, 255)
    picture, _ = read_picture(saved(Image.fromarray(pixels), "PNG"))
    assert np.abs(picture.pixels.astype(int) - [200, 100, 50]).max() <= 3
    picture, _ = read_picture(saved(Image.fromarray(pixels[30:]), "PNG"))
    assert np.unique(picture.pixels).tolist() == [128]


def test_what_is_dropped_is_said(tmp_path: Path) -> None:
    image = Image.fromarray(RANDOM)
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "me")
    assert read_picture(saved(image, "PNG", pnginfo=text, dpi=(300, 300)))[1] == ["text and resolution dropped"]
    assert read_picture(saved(image, "JPEG", comment=b"me"))[1] == ["text dropped"]
    assert read_picture(saved(image, "JPEG", dpi=(72, 72)))[1] == []


@pytest.mark.parametrize(
    ("extension", "said"),
    [(".bmp", ["ICC and EXIF metadata dropped, BMP has none"]), (".jpg", ["metadata that JPEG cannot hold dropped"])],
)
def test_formats_that_cannot_hold_the_metadata(extension: str, said: list[str]) -> None:
    picture = Picture(RANDOM, Extras(icc=LINEAR_RGB, exif=bytes(70_000)))
    data, warnings = encode_picture(picture, extension)
    assert warnings == said
    with Image.open(io.BytesIO(data)) as image:
        assert ("icc_profile" in image.info) == (extension == ".jpg")


def test_a_damaged_profile_in_a_file_costs_a_warning() -> None:
    data, warnings = encode_picture(Picture(RANDOM, Extras(icc=b"nonsense")))
    assert warnings == ["ICC profile cannot be applied, the colours are in sRGB"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), RANDOM)


def test_nested_exif_survives_every_format() -> None:
    tags = exif(Make="Maker", Orientation=6)
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "Lens"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    data = saved(Image.fromarray(RANDOM), "JPEG", exif=tags)
    for strip, gps in (([], {ExifTags.GPS.GPSLatitudeRef: "N"}), (["gps"], {})):
        picture, _ = read_picture(data, strip=strip)
        for extension in (".png", ".jpg", ".webp", ".tif", ".avif"):
            written, warnings = encode_picture(through(picture), extension)
            assert warnings == []
            with Image.open(io.BytesIO(written)) as image:
                found = image.getexif()
                assert found[ExifTags.Base.Make] == "Maker"
                assert found.get(ExifTags.Base.Orientation, 1) == 1
                assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "Lens"
                assert found.get_ifd(ExifTags.IFD.GPSInfo) == gps


@given(
    st.none() | st.binary(max_size=40).map(lambda noise: LINEAR_RGB[: 400 - len(noise)] + noise),
    st.none() | st.binary(max_size=40).map(lambda noise: b"II*\0\x08\0\0\0\2\0" + noise),
    st.none() | st.binary(max_size=20),
    st.sampled_from([".png", ".jpg", ".webp", ".tif", ".avif", ".bmp"]),
)
def test_hostile_metadata_cost_a_warning_at_most(
    icc: bytes | None, block: bytes | None, xmp: bytes | None, extension: str
) -> None:
    data, warnings = encode_picture(Picture(RANDOM, Extras(ALPHA, icc, block, xmp)), extension)
    assert read_picture(data)[0].pixels.shape == RANDOM.shape
    assert all(warning.isprintable() for warning in warnings)


def with_exif() -> bytes:
    tags = exif(Make="Maker")
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return tags.tobytes()


def test_changed_exif_wins() -> None:
    image = Image.open(io.BytesIO(saved(Image.fromarray(RANDOM), "PNG", exif=with_exif())))
    assert from_image(image)[0].extras.exif == with_exif().removeprefix(PREFIX)
    assert ExifTags.IFD.GPSInfo in image.getexif()
    del image.getexif()[ExifTags.IFD.GPSInfo]
    again = Image.Exif()
    again.load(from_image(image)[0].extras.exif or b"")
    assert (again[ExifTags.Base.Make], ExifTags.IFD.GPSInfo in again) == ("Maker", False)
    image.getexif().clear()
    assert from_image(image)[0].extras.exif is None


def test_a_change_within_a_directory_wins() -> None:
    image = Image.fromarray(RANDOM)
    image.info["exif"] = with_exif()
    image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "S"
    again = Image.Exif()
    again.load(from_image(image)[0].extras.exif or b"")
    assert again.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "S"}


def test_exif_that_info_was_given_later_wins() -> None:
    image = Image.fromarray(RANDOM)
    image.info["exif"] = with_exif()
    image.getexif()
    image.info["exif"] = exif(Make="Other").tobytes()
    assert from_image(image)[0].extras.exif == exif(Make="Other").tobytes().removeprefix(PREFIX)
    del image.info["exif"]
    assert from_image(image)[0].extras.exif is None


@pytest.mark.parametrize(
    ("xmp", "kept", "said"), [("<é/>", "<é/>".encode(), []), (5, None, ["damaged XMP metadata dropped"])]
)
def test_exif_stays_beside_odd_xmp(xmp: Any, kept: bytes | None, said: list[str]) -> None:
    image = Image.fromarray(RANDOM)
    block = exif(Make="Maker", Orientation=6).tobytes()
    image.info.update(exif=block, xmp=xmp)
    picture, warnings = from_image(image)
    assert (picture.extras.xmp, warnings) == (kept, said)
    assert picture.extras.exif is not None
    assert len(picture.extras.exif) == len(block) - len(PREFIX)
    assert picture.pixels.shape == (7, 5, 3)


@pytest.mark.parametrize("resolution", [(0, 0), (1, 0)])
def test_a_resolution_that_is_no_number(resolution: tuple[int, int]) -> None:
    tags = exif()
    tags[ExifTags.Base.XResolution] = tags[ExifTags.Base.YResolution] = TiffImagePlugin.IFDRational(*resolution)
    tags[ExifTags.Base.ResolutionUnit] = 2
    picture, warnings = read_picture(saved(Image.fromarray(RANDOM), "TIFF", exif=tags))
    assert np.array_equal(picture.pixels, RANDOM)
    assert warnings == ["resolution dropped"]


@pytest.mark.parametrize("dpi", [(math.inf, 3), (math.nan, math.nan), ("a", 3), (None, None)])
def test_odd_resolutions_in_info(dpi: Any) -> None:
    image = Image.fromarray(RANDOM)
    image.info["dpi"] = dpi
    picture, warnings = from_image(image)
    assert np.array_equal(picture.pixels, RANDOM)
    assert warnings == ["resolution dropped"]
