"""Pillow opens .vq files without decoding them, shows them as the command does, and saves images of every mode."""

import io
import os
import shlex
import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from tests.command import run_module
from tests.pictures import RANDOM, chunk, png
from tests.test_api import ALPHA, EXIF
from tests.test_files_colour import LINEAR_RGB
from tests.test_files_images import XMP
from vqcodec import VqcodecWarning, api, compress, decompress, pillow_plugin
from vqcodec.codec import Codec
from vqcodec.files.container import Chunks, pack, parse
from vqcodec.files.pictures import to_image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def tiny(tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """``tiny_codec`` as the model of the plugin."""
    keys = [(os.getpid(), "psnr"), (os.getpid(), tiny_codec.fingerprint)]
    monkeypatch.setattr(api, "_codecs", dict.fromkeys(keys, tiny_codec))
    return tiny_codec


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def with_chunks(data: bytes, chunks: Chunks) -> bytes:
    return pack(replace(parse(data), chunks=tuple(chunks)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_open_is_lazy_and_load_is_decompress(channels: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    array = np.dstack([RANDOM, ALPHA])[:, :, {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    data = compress(array, effort=0)
    (tmp_path / "x.vq").write_bytes(data)
    with monkeypatch.context() as without:
        without.setattr(api, "decoded", None)  # nothing is decoded yet
        image = Image.open(tmp_path / "x.vq")
        assert (image.format, image.size, image.get_format_mimetype()) == ("VQ", (7, 5), "image/x-vqcodec")
        assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    shown = np.asarray(decompress(data))
    assert np.array_equal(np.asarray(image), shown)
    assert np.array_equal(np.asarray(image.transpose(Image.Transpose.TRANSPOSE)), shown.swapaxes(0, 1))
    with Image.open(tmp_path / "x.vq") as image, image.convert("RGB") as converted:
        assert converted.size == (7, 5)


def test_metadata_are_there_before_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.dstack([RANDOM, ALPHA]))
    image.info.update(exif=EXIF, xmp=XMP, icc_profile=LINEAR_RGB)
    with pytest.warns(VqcodecWarning):
        data = compress(image, effort=0)
    lazy = opened(data)
    before = dict(lazy.info)
    assert before == {"exif": EXIF, "xmp": XMP, "icc_profile": LINEAR_RGB}
    assert lazy.getexif()[ExifTags.Base.Make] == "Me!"
    lazy.load()
    assert lazy.info == before
    assert np.array_equal(np.asarray(lazy), np.asarray(decompress(data)))
    no_profile = opened(with_chunks(data, [(b"iccp", zlib.compress(b"nonsense"))]))
    assert "icc_profile" in no_profile.info
    no_profile.load()
    assert no_profile.info == {}


def test_save(tmp_path: Path) -> None:
    Image.fromarray(RANDOM).save(tmp_path / "x.vq", quality=33, effort=0)
    data = (tmp_path / "x.vq").read_bytes()
    assert data == compress(RANDOM, 33, effort=0)
    with Image.open(tmp_path / "x.vq") as again:
        buffer = io.BytesIO()
        again.save(buffer, "VQ", effort=0)
    assert parse(buffer.getvalue()).quality == 75
    wrong: list[tuple[dict[str, Any], str]] = [({"quality": 0}, "quality is 0"), ({"effort": 10}, "effort is 10")]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            Image.fromarray(RANDOM).save(tmp_path / "y.vq", **options)
        assert not (tmp_path / "y.vq").exists()  # Pillow removes what it began
    with pytest.raises(OSError, match=r"^32-bit float samples, expected 8 or 16 bits$"):
        Image.new("F", (2, 2)).save(tmp_path / "y.vq")


def kept(image: Image.Image, **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "VQ", effort=0, **options)
    return {str(name): data for name, data in opened(buffer.getvalue()).info.items()}


def test_metadata_that_are_saved() -> None:
    image = Image.fromarray(RANDOM)
    image.info.update(exif=EXIF, xmp=XMP)
    assert kept(image) == {"exif": EXIF, "xmp": XMP}
    assert kept(image, exif=None, xmp=b"") == {}
    assert kept(image, strip="exif") == {"xmp": XMP}
    assert kept(image, xmp="<é/>") == {"exif": EXIF, "xmp": "<é/>".encode()}
    wrong: list[dict[str, Any]] = [{"xmp": 5}, {"exif": "text"}, {"icc_profile": 1.5}]
    for options in wrong:
        with pytest.raises(
            TypeError, match=r"^(xmp|exif|icc_profile) is of type (int|str|float), expected bytes or None$"
        ):
            kept(image, **options)
    with pytest.raises(ValueError, match=r"^strip has 'Exif', expected some of all"):
        kept(image, strip=["Exif"])
    assert image.info == {"exif": EXIF, "xmp": XMP}
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation], tags[ExifTags.Base.Make] = 6, "You"
    buffer = io.BytesIO()
    image.save(buffer, "VQ", effort=0, exif=tags)
    turned = opened(buffer.getvalue())
    assert (turned.size, turned.getexif()[ExifTags.Base.Make]) == ((5, 7), "You")
    assert turned.getexif()[ExifTags.Base.Orientation] == 1
    with pytest.warns(VqcodecWarning, match="to sRGB"):
        assert kept(image, icc_profile=LINEAR_RGB, exif=None)["icc_profile"] == LINEAR_RGB
    tiff = io.BytesIO()
    image.save(tiff, "TIFF", exif=tags)
    assert "exif" in kept(opened(tiff.getvalue()), xmp=None)


def _interlaced() -> bytes:
    """A grey PNG of 3×3 pixels with Adam7's order, whose samples are their numbers in reading order."""
    rows = [[0], [2], [6, 8], [1], [7], [3, 4, 5]]  # passes 1, 4, 5 in two rows, 6 in two rows, 7
    data = b"".join(b"\0" + bytes(row) for row in rows)
    header = chunk(b"IHDR", b"\0\0\0\3\0\0\0\3\x08\0\0\0\1")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _with_gamma(gamma: int) -> bytes:
    data = png(2, 1, colour=2, data=bytes([10, 100, 200, 250, 128, 3]))
    return data[:33] + chunk(b"gAMA", gamma.to_bytes(4, "big")) + data[33:]


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))


def _palette(trns: bytes) -> bytes:
    data = png(3, 1, colour=3, data=b"\0\1\2")
    return data[:33] + PALETTE + (chunk(b"tRNS", trns) if trns else b"") + data[33:]


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (png(9, 1, depth=1, data=b"\xa5\x80"), "L"),
        (png(4, 1, depth=2, data=b"\x1b"), "L"),
        (png(4, 1, depth=2, data=b"\x1b", trns=b"\0\2"), "LA"),
        (png(2, 1, depth=4, data=b"\x3c"), "L"),
        (_interlaced(), "L"),
        (_with_gamma(45_455), "RGB"),
        (_with_gamma(100_000), "RGB"),
        (png(2, 1, colour=2, data=bytes(range(6)), trns=b"\0\3\0\4\0\5"), "RGBA"),
        (png(2, 1, colour=4, data=b"\x10\0\x20\x80"), "LA"),
        (png(2, 1, colour=6, data=b"\1\2\3\x40\4\5\6\xff"), "RGBA"),
        (png(2, 1, depth=16, data=b"\x12\x34\xff\xfe"), "L"),
        (png(2, 1, depth=16, data=b"\x12\x34\xff\xfe", trns=b"\x12\x34"), "LA"),
        (png(1, 1, depth=16, colour=2, data=b"\x10\1\x20\2\x30\3"), "RGB"),
        (_palette(b""), "RGB"),
        (_palette(b"\xff\x80"), "RGBA"),
        (_palette(b"\xff\0\xff"), "RGBA"),
    ],
)
def test_pngs_of_all_kinds_look_as_pillow_shows_them(data: bytes, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before coding: what the codec is given is what Pillow shows, over white as over black."""
    with opened(data) as image:
        picture, _ = api.as_picture(image, strip=[])
        shown, _ = to_image(picture)
    assert shown.mode == mode
    with opened(data) as image:
        if image.mode.startswith("I;16"):  # which Pillow's own conversion clips
            alpha = None if "A" not in mode else np.where(np.asarray(image) == image.info["transparency"], 0, 255)
            grey = np.asarray(image).astype(float) / 257
            expected = np.dstack([grey, grey, grey, np.full(grey.shape, 255) if alpha is None else alpha])
        elif "transparency" in image.info and data[24] < 8:  # which Pillow does not scale with the samples
            expected = np.dstack([np.asarray(image.convert("RGB")), np.array([[255, 255, 0, 255]])])
        else:
            expected = np.asarray(image.convert("RGBA")).astype(float)
    found = np.asarray(shown.convert("RGBA")).astype(float)
    visible = expected[:, :, 3] > 0
    assert np.array_equal(found[:, :, 3], expected[:, :, 3])
    assert np.abs(found - expected)[visible].max() <= 1


def test_thumbnails_decode_the_coarse_levels(tiny: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.broadcast_to(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 256, 3))
    data = compress(pixels, effort=0)
    levels: list[int | None] = []
    decoded = api.decoded

    def count(*arguments: Any, **options: Any) -> Any:
        levels.append(options["levels"])
        return decoded(*arguments, **options)

    monkeypatch.setattr(api, "decoded", count)
    for size, expected in ((8, 1), (16, 2), (64, 2), (100, 3), (200, 3)):
        with opened(data) as image:
            image.thumbnail((size, size))
            assert (image.size, levels.pop()) == ((size, size), expected)
    with opened(data) as image:
        assert image.draft(None, (256, 256)) == ("RGB", (0, 0, 256, 256))
        image.draft(None, (32, 8))
        assert (image.size, levels) == ((256, 256), [])
        image.load()
        assert (image.draft(None, (8, 8)), levels) == (None, [2])
        assert np.array_equal(np.asarray(image), tiny.decompress(data, levels=2))


def test_damage(monkeypatch: pytest.MonkeyPatch, tiny: Codec) -> None:
    data = compress(np.dstack([RANDOM, ALPHA]), effort=0)
    with pytest.raises(OSError, match=r"^the quality is 255, expected 1..100$") as caught:
        opened(data[:9] + b"\xff" + data[10:])
    with opened(data[:9] + b"\1" + data[10:]) as image, pytest.raises(OSError, match=r"^header or level 0 damaged: "):
        image.load()
    assert not isinstance(caught.value, UnidentifiedImageError)
    with pytest.raises(UnidentifiedImageError):
        opened(b"\x8fVQ")
    cut = data[:-1]
    with opened(cut) as image:
        assert (image.mode, image.size) == ("RGB", (7, 5))
        with pytest.raises(OSError, match=r"^truncated: the file has"):
            image.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with opened(cut) as image:
        assert np.array_equal(np.asarray(image), tiny.salvage(cut)[0])
    header = replace(parse(data), fingerprint=b"none")
    with opened(pack(header)) as image, pytest.raises(OSError, match="made with weights 6e6f6e65, which are not"):
        image.load()


def test_exif_that_was_changed_is_saved() -> None:
    image = Image.fromarray(RANDOM)
    image.info["exif"] = EXIF
    image.getexif()[ExifTags.Base.Make] = "You"
    for options in ({}, {"xmp": XMP}):
        buffer = io.BytesIO()
        image.save(buffer, "VQ", effort=0, **options)
        assert opened(buffer.getvalue()).getexif()[ExifTags.Base.Make] == "You"
    del image.getexif()[ExifTags.Base.Make]
    assert kept(image) == {}
    assert kept(image, xmp=XMP) == {"xmp": XMP}


def test_too_long_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.vq"
    path.write_bytes(compress(RANDOM, effort=0))
    os.truncate(path, 3 * 2**30)  # which takes no room on the disk
    with pytest.raises(OSError, match=r"^3,221,225,472 bytes, expected a .vq file of at most 536,870,912$"):
        Image.open(path)


def test_verify_and_close(tmp_path: Path) -> None:
    path, data = tmp_path / "x.vq", compress(RANDOM, effort=0)
    path.write_bytes(data)
    image = Image.open(path)
    image.verify()
    with pytest.raises(ValueError, match=r"^Operation on closed image$"):
        image.load()
    image = Image.open(path)
    image.close()
    with pytest.raises(ValueError, match=r"^Operation on closed image$"):
        image.load()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with Image.open(path) as image, pytest.raises(OSError, match=r"^level 2 damaged: its CRC-32 is"):
        image.verify()


def test_importing_and_opening_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "x.vq").write_bytes(compress(RANDOM, effort=0))
    code = (
        "import sys, vqcodec.pillow_plugin; from PIL import Image; vqcodec.pillow_plugin.register();"
        "print(Image.open('x.vq').size, Image.registered_extensions()['.vq'], Image.MIME['VQ'], 'torch' in sys.modules)"
    )
    assert run_module("-c", code, stdout=subprocess.PIPE, cwd=tmp_path).stdout == "(7, 5) VQ image/x-vqcodec False\n"


# The desktop


@pytest.fixture
def thumbnailer() -> list[str]:
    """The words of the thumbnailer's command line."""
    lines = (ROOT / "share" / "thumbnailers" / "vqcodec.thumbnailer").read_text(encoding="utf-8").splitlines()
    entries = dict(line.split("=", 1) for line in lines[1:])
    assert lines[0] == "[Thumbnailer Entry]"
    assert entries["MimeType"] == f"{pillow_plugin.MIME_TYPE};"
    assert shlex.split(entries["Exec"])[0] == entries["TryExec"] == "vqcodec"
    return shlex.split(entries["Exec"])


@pytest.mark.slow
def test_the_thumbnailers_own_command(codec: Codec, thumbnailer: list[str], tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(ROOT / "examples" / "coffee.png").convert("RGB"))
    (tmp_path / "a file.vq").write_bytes(codec.compress(pixels, effort=0))
    values = {"%s": "128", "%i": str(tmp_path / "a file.vq"), "%o": str(tmp_path / "thumbnail-x1")}
    words = ["-m", "vqcodec", *(values.get(word, word) for word in thumbnailer[1:])]
    done = run_module(*words, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Image.open(tmp_path / "thumbnail-x1") as image, Image.open(ROOT / "examples" / "coffee.png") as original:
        assert (image.format, image.size) == ("PNG", (128, 85))
        original.thumbnail((128, 128))
        error = np.asarray(image).astype(float) - np.asarray(original.convert("RGB"))
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 35


@pytest.mark.skipif(not shutil.which("update-mime-database"), reason="needs shared-mime-info")
def test_the_mime_type_is_found(tmp_path: Path) -> None:
    mime = tmp_path / "mime"
    shutil.copytree(ROOT / "share" / "mime", mime)
    subprocess.run(["update-mime-database", str(mime)], check=True, capture_output=True)
    assert f"50:{pillow_plugin.MIME_TYPE}:*.vq\n" in (mime / "globs2").read_text(encoding="utf-8")
    magic = (mime / "magic").read_bytes()
    assert b"[80:image/x-vqcodec]\n>0=\0\x04\x8fVQ\n" in magic
    if shutil.which("xdg-mime") and shutil.which("gio"):  # without gio, xdg-mime asks file, which knows no new types
        (tmp_path / "photo.vq").write_bytes(compress(RANDOM, effort=0))
        environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CURRENT_DESKTOP": "GNOME"}
        command = ["xdg-mime", "query", "filetype", str(tmp_path / "photo.vq")]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == pillow_plugin.MIME_TYPE
