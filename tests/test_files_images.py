"""Image files: first frame, orientation and metadata, one line for every bad file, and writing."""

import concurrent.futures
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from tests.pictures import RANDOM, Pixels, png, read, refuse
from vqcodec.errors import ImageError, LimitError, VqcodecError
from vqcodec.files import images, pictures
from vqcodec.files.container import Container, pack
from vqcodec.files.images import encode_image, image_files, output_format, read_image, write_image
from vqcodec.metrics import psnr

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_public_names() -> None:
    assert set(images.__all__) == {
        "ImageFile", "encode_image", "encode_picture", "has_image_extension", "image_files", "is_image_name",
        "output_format", "pillow_errors", "read_image", "read_picture", "write_image",
    }  # fmt: skip


# Reading


def test_bytes_and_file_objects(tmp_path: Path) -> None:
    data = encoded("PNG")
    expected = np.tile(RANDOM, (9, 9, 1))
    (tmp_path / "x.png").write_bytes(data)
    with (tmp_path / "x.png").open("rb") as file:
        file.read(3)  # from its start all the same
        for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), file):
            pixels, notes = read_image(source)
            assert np.array_equal(pixels, expected)
            assert notes == []
        assert not file.closed
    for bad, message in [(b"", "empty file"), (b"text", "not an image that Pillow can read")]:
        with pytest.raises(ImageError, match=f"^{message}$"):
            read_image(bad)
    with pytest.raises(LimitError, match=r"^too many pixels: 63x45 is 2835, the limit is 9$"):
        read_image(data, max_pixels=9)


def test_a_vq_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(pack(Container(1, 1, False, 50, b"1234", (b"",))))
    refuse(tmp_path / "x.png", "is a .vq file, expected an image")


def test_memory_that_runs_out_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "from_image", fail)
    (tmp_path / "x.png").write_bytes(encoded("PNG"))
    with pytest.raises(VqcodecError, match=r"x\.png: not enough memory$"):
        read_image(tmp_path / "x.png")


def test_the_array_is_the_callers_own(tmp_path: Path) -> None:
    Image.fromarray(RANDOM).save(tmp_path / "x.png")
    pixels, _ = read_image(str(tmp_path / "x.png"))
    pixels += 1
    assert np.array_equal(pixels, RANDOM + 1)


# Reading: frames, orientation, metadata


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.tif"])
def test_the_first_frame_is_kept(tmp_path: Path, name: str) -> None:
    first, *others = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime", "blue")]
    pixels, notes = read(first, tmp_path / name, save_all=True, append_images=others, lossless=True)
    assert pixels == [[[255, 0, 0]] * 2] * 2
    assert notes == ["3 frames or pages, only the first is kept"]


def test_layers_are_no_frames(tmp_path: Path) -> None:
    layers = struct.pack(">h", 2) + bytes(34) * 2
    sections = bytes(8) + struct.pack(">II", 4 + len(layers), len(layers)) + layers
    psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 1, 1, 8, 3) + sections + bytes([0, 0, 1, 2, 3])
    path = tmp_path / "x.psd"
    assert read(psd, path) == ([[[1, 2, 3]]], [])
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 0) == 2


def exif(**tags: Any) -> Image.Exif:
    result = Image.Exif()
    for tag, value in tags.items():
        result[ExifTags.Base[tag]] = value
    return result


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
    9: lambda a: a,  # no such orientation
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
def test_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    tags = exif(Orientation=orientation)
    pixels, notes = read(Image.fromarray(RANDOM), tmp_path / name, exif=tags, lossless=True)
    assert pixels == UPRIGHT[orientation](RANDOM).tolist()
    assert notes == []


@pytest.mark.parametrize("name", ["x.jpg", "x.avif"])
@pytest.mark.parametrize("grey", [False, True])
def test_orientation_of_lossy_formats(tmp_path: Path, name: str, grey: bool) -> None:
    image = Image.new("L" if grey else "RGB", (16, 8))
    image.paste("white", (0, 0, 8, 8))
    image.save(tmp_path / name, exif=exif(Orientation=6), quality=95)
    pixels, notes = read_image(tmp_path / name)
    assert pixels.shape[:2] == (16, 8)
    assert pixels[:7].min() > 230
    assert pixels[9:].max() < 25
    assert notes == []


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


@pytest.mark.parametrize("name", ["x.jpg", "x.tif", "x.webp", "x.png"])
@pytest.mark.parametrize(
    ("metadata", "notes"),
    [
        ({}, []),
        ({"dpi": (72, 72)}, []),
        ({"exif": exif(Orientation=3, XResolution=72.0, YCbCrPositioning=1)}, []),
        ({"exif": exif(Make="Maker")}, ["EXIF metadata dropped"]),
    ],
)
def test_metadata_is_missed_only_if_a_user_would(
    tmp_path: Path, name: str, metadata: dict[str, Any], notes: list[str]
) -> None:
    assert read(Image.new("RGB", (8, 8)), tmp_path / name, **metadata)[1] == notes


@pytest.mark.parametrize("name", ["x.jpg", "x.webp"])
def test_xmp_is_missed(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (8, 8))
    assert read(image, tmp_path / name, xmp=XMP)[1] == ["XMP metadata dropped"]
    assert read(image, tmp_path / name, xmp=XMP, exif=exif(Make="x"))[1] == ["EXIF and XMP metadata dropped"]


def test_xmp_of_png_is_missed(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    assert read(Image.new("L", (1, 1)), tmp_path / "x.png", pnginfo=text)[1] == ["XMP metadata dropped"]


@pytest.mark.parametrize(
    ("damaged", "notes"),
    [(b"II*\0\x08\0\0\0\xff\xff", []), (b"nonsense", ["damaged EXIF metadata dropped"])],
)
def test_damaged_metadata_does_not_cost_the_picture(tmp_path: Path, damaged: bytes, notes: list[str]) -> None:
    image = Image.fromarray(RANDOM)
    options = {"exif": b"Exif\0\0" + damaged, "lossless": True}
    assert read(image, tmp_path / "x.webp", **options) == (RANDOM.tolist(), notes)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.png")), ids=lambda path: path.name)
def test_the_examples_are_colour_photographs(path: Path) -> None:
    pixels, notes = read_image(path)
    assert notes == []
    assert pixels.shape[2] == 3
    assert pixels.std() > 20
    assert path.stat().st_size < 600_000
    assert f"`{path.name}`" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


# Reading: bad files


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RANDOM, (9, 9, 1))).save(buffer, name)
    return buffer.getvalue()


def test_what_is_no_image_file(tmp_path: Path) -> None:
    refuse(tmp_path / "missing.png", "cannot be read: No such file or directory")
    refuse(tmp_path, "cannot be read: Is a directory")
    for data, expected in [
        (b"", "empty file"),
        (b"This is text.\n", "not an image that Pillow can read"),
        (bytes(1000), "not an image that Pillow can read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS is a program that draws, .*"),
    ]:
        (tmp_path / "x.png").write_bytes(data)
        refuse(tmp_path / "x.png", expected)


def test_a_file_without_permission(bound: None, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch(mode=0)
    refuse(tmp_path / "x.png", "cannot be read: Permission denied")


def test_a_subfolder_without_permission_is_not_passed_over(bound: None, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "sub").mkdir(mode=0)
    with pytest.raises(ImageError, match=r"sub: cannot be read: Permission denied$"):
        image_files(tmp_path)
    (tmp_path / "sub").chmod(0o755)
    assert image_files(tmp_path) == [tmp_path / "x.png"]


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "AVIF", "JPEG2000", "TGA"])
def test_truncated_files(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    path, data = tmp_path / "x", encoded(name)
    for size in (len(data) // 20, len(data) // 2, len(data) * 4 // 5):
        path.write_bytes(data[:size])
        refuse(path, "(damaged image: .+|not an image that Pillow can read)")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (11_586, 11_585, r"too many pixels: 11586x11585 is 134223810, the limit is 134217728"),
        (12_000, 12_000, r"too many pixels: 12000x12000 .*"),  # of which Pillow warns
        (60_000, 60_000, r"too many pixels, the limit is 134217728"),  # which Pillow refuses
        (65_536, 1, r"too large: 65536x1, the limit is 65535 pixels on a side"),
        (1, 65_536, r"too large: 1x65536, .*"),
    ],
)
def test_too_large_by_the_header(tmp_path: Path, width: int, height: int, expected: str) -> None:
    (tmp_path / "x.png").write_bytes(png(width, height))
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        refuse(tmp_path / "x.png", expected)
    assert leaked == []


def test_the_limit_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RANDOM).save(tmp_path / "x.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 35)
    assert read_image(tmp_path / "x.png")[0].shape == (5, 7, 3)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 34)
    refuse(tmp_path / "x.png", "too many pixels: 7x5 is 35, the limit is 34")


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    Image.fromarray(RANDOM).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", max_pixels=35)[0].shape == (5, 7, 3)
    with pytest.raises(LimitError, match="too many pixels: 7x5 is 35, the limit is 34"):
        read_image(tmp_path / "x.png", max_pixels=34)
    (tmp_path / "y.png").write_bytes(png(60_000, 60_000))
    with pytest.raises(LimitError, match="too many pixels, the limit of Pillow is 178956970"):
        read_image(tmp_path / "y.png", max_pixels=2**32)


def test_an_icon_cannot_understate_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = io.BytesIO()
    Image.new("RGB", (200, 200)).save(inside, "PNG")
    data = inside.getvalue()
    monkeypatch.setattr(pictures, "MAX_PIXELS", 200 * 200 - 1)
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 4, 4, 0, 0, 1, 24, len(data), 22)  # of 4x4
    (tmp_path / "x.ico").write_bytes(header + data)
    refuse(tmp_path / "x.ico", "too many pixels: 200x200 .*")


def test_warnings_of_pillow_are_silenced_here_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    Image.fromarray(RANDOM).save(tmp_path / "x.webp", lossless=True, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        Image.open(tmp_path / "x.webp").getexif()
        assert leaked, "this file no longer makes Pillow warn"
        leaked.clear()
        read_image(tmp_path / "x.webp")
    assert leaked == []
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
    assert capfd.readouterr() == ("", "")


def test_threads_that_read_together_leave_the_warnings_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("first.png", "second.png")]
    for path in paths:
        path.write_bytes(png(12_000, 12_000))  # Pillow warns
    both_inside, first_left, open_image = threading.Barrier(2), threading.Event(), Image.open

    def interleaved(file: BinaryIO) -> Image.Image:
        both_inside.wait(5)
        if file.name == str(paths[1]):
            assert first_left.wait(5)
        return open_image(file)

    def read_refused(path: Path) -> str:
        with pytest.raises(LimitError) as caught:
            read_image(path)
        if path == paths[0]:
            first_left.set()
        return str(caught.value)

    monkeypatch.setattr(Image, "open", interleaved)
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        messages = list(pool.map(read_refused, paths))
    assert all("too many pixels" in message for message in messages)  # no warning made an error by pytest's filter
    assert list(warnings.filters) == before


HOSTILE = [encoded(name) for name in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TGA", "ICO")]


@settings(deadline=None)
@given(data=st.data())
def test_hostile_bytes_give_pixels_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    hostile = bytearray(data.draw(st.sampled_from(HOSTILE)))
    for position in data.draw(st.lists(st.integers(0, min(len(hostile), 300) - 1), max_size=8)):
        hostile[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "hostile"
    path.write_bytes(hostile[: data.draw(st.integers(0, len(hostile)))])
    try:
        pixels, notes = read_image(path)
    except ImageError as error:
        pixels, notes = RANDOM, [str(error)]
    assert pixels.dtype == np.uint8
    assert pixels.size
    assert all(note.isprintable() and len(note) < 150 + len(str(path)) for note in notes)


# Writing


@pytest.mark.parametrize("extension", ["png", "PNG", "bmp", "tif", "tiff", "ppm", "pgm", "webp"])
@pytest.mark.parametrize("pixels", [RANDOM, RANDOM[:, :, :1], RANDOM[1::2, ::-1], RANDOM[:1, :1]])
def test_lossless_formats(tmp_path: Path, extension: str, pixels: Pixels) -> None:
    path = tmp_path / f"x.{extension}"
    if extension == "pgm":
        pixels = pixels[:, :, :1]
    write_image(path, pixels)
    result, notes = read_image(path)
    if extension == "webp":  # a format without grey
        pixels = np.broadcast_to(pixels, result.shape)
    assert np.array_equal(result, pixels)
    assert notes == []
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "avif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_are_close(tmp_path: Path, extension: str, channels: int) -> None:
    path = tmp_path / f"x.{extension}"
    pixels = np.zeros((64, 64, channels), np.uint8)
    pixels[:, ::2, 0] = 200  # lines a pixel wide: their colour does not survive subsampling
    write_image(path, pixels)
    with Image.open(path) as image:
        assert image.format == output_format(path)
        if isinstance(image, JpegImagePlugin.JpegImageFile) and channels == 3:
            assert JpegImagePlugin.get_sampling(image) == 0
    assert psnr(read_image(path)[0][:, :, :channels], pixels) > 35


def test_encode_image() -> None:
    data = encode_image(RANDOM)
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(read_image(data)[0], RANDOM)
    assert encode_image(RANDOM, ".BMP").startswith(b"BM")
    with pytest.raises(ImageError, match=r"^unknown image extension \.gif, expected one of "):
        encode_image(RANDOM, ".gif")
    with pytest.raises(ImageError, match=r"^pixels are uint8 \[5, 7\], expected "):
        encode_image(RANDOM[:, :, 0])


def test_output_format() -> None:
    assert output_format("a/b.c.PnG") == "PNG"
    assert output_format(Path("x.jpeg")) == "JPEG"
    known = r"expected one of \.png \.bmp .*\.avif"
    with pytest.raises(ImageError, match=rf"^out\.gif: unknown image extension \.gif, {known}$"):
        output_format("out.gif")
    with pytest.raises(ImageError, match=rf"^out: no image extension, {known}$"):
        output_format("out")


def test_a_pillow_without_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE, "AVIF")
    with pytest.raises(ImageError, match=r"x\.avif: the Pillow installed here cannot write AVIF$"):
        write_image(tmp_path / "x.avif", RANDOM)


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("x.png", RANDOM[:, :, 0], r"pixels are uint8 \[5, 7\], expected uint8 \[H, W, 3\] or \[H, W, 1\]"),
        ("x.png", RANDOM[:, :, :2], r"pixels are uint8 \[5, 7, 2\], expected .*"),
        ("x.png", RANDOM.astype(np.float32), r"pixels are float32 \[5, 7, 3\], expected .*"),
        ("x.png", RANDOM[:0], r"pixels are uint8 \[0, 7, 3\], expected .*"),
        ("x.pgm", RANDOM, r"a \.pgm file holds grey images only, use \.ppm for colour"),
        ("x.jpg", np.zeros((1, 65_501, 1), np.uint8), r"too large: 65501x1, JPEG holds at most 65500 pixels on a side"),
        ("x.webp", np.zeros((16_384, 1, 1), np.uint8), r"too large: 1x16384, WEBP holds at most 16383 .*"),
        ("x.png", np.zeros((65_536, 1, 1), np.uint8), r"too large: 1x65536, PNG holds at most 65535 .*"),
        ("x.txt", RANDOM, r"unknown image extension \.txt, .*"),
        ("no/x.png", RANDOM, r"cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, pixels: Any, expected: str
) -> None:
    with pytest.raises(ImageError) as caught:
        write_image(tmp_path / name, pixels)
    assert re.fullmatch(f"{re.escape(str(tmp_path / name))}: {expected}", str(caught.value))
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_an_encoder_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("encoder error\n-2")

    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError, match=r"x\.png: cannot be written as PNG: encoder error -2$"):
        write_image(path, RANDOM)
    assert path.read_bytes() == b"old"


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=r"folder\.png: cannot be written: Is a directory$"):
        write_image(tmp_path / "folder.png", RANDOM)
    assert os.listdir(tmp_path) == ["folder.png"]


def test_image_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("b.PNG", "a.jpg", "more/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    assert images.image_files(tmp_path) == [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "more" / "c.webp"]
    with pytest.raises(ImageError, match=r"a\.jpg: not a folder; expected a folder of images$"):
        images.image_files(tmp_path / "a.jpg")
