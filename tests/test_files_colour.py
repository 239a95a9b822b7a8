"""Every mode, depth and profile is converted to 8-bit sRGB, as in a viewer."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.pictures import OVER_WHITE, RANDOM, REDUCED, png, read, refuse
from vqcodec.files.images import read_image

NAIVE_CMYK = "converted from CMYK to RGB without a profile, colours are approximate"
BAD_ICC = "ICC profile cannot be applied and is dropped"


def tiff(width: int, bits: int, data: bytes) -> bytes:
    """A little-endian TIFF of one grey row, black is zero."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def icc(space: bytes, tags: dict[bytes, bytes], name: bytes = b"Test") -> bytes:
    """A version 2 profile over PCS XYZ, or Lab if ``tags`` has a table."""
    description = b"desc" + struct.pack(">II", 0, len(name) + 1) + name + bytes(79)
    tags = {b"desc": description, b"wtpt": xyz(0.9642, 1.0, 0.8249), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += padded
    kind = (b"prtr", b"Lab ") if b"A2B0" in tags else (b"mntr", b"XYZ ")
    header = struct.pack(">I4sI", 132 + len(table) - 4 + len(body), b"", 0x02400000) + kind[0] + space + kind[1]
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    return header + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *[round(value * 65536) for value in values])


LINEAR = b"curv" + bytes(8)  # the identity
PRIMARIES = {  # those of sRGB
    b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
    b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
    b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
}
CURVES = dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], LINEAR)
LINEAR_RGB = icc(b"RGB ", PRIMARIES | CURVES, b"Linear\n\x1b[31mRGB" + b"!" * 200)
LINEAR_GREY = icc(b"GRAY", {b"kTRC": LINEAR}, b"Linear grey")
SWAPPED_RGB = icc(
    b"RGB ", {b"rXYZ": PRIMARIES[b"gXYZ"], b"gXYZ": PRIMARIES[b"rXYZ"], b"bXYZ": PRIMARIES[b"bXYZ"]} | CURVES
)
RAMP = bytes(range(256))
BLACK_INK_ONLY = icc(  # lightness is 1 − K for all values of the other inks
    b"CMYK",
    {
        b"A2B0": b"mft1"
        + bytes(4)
        + bytes([4, 3, 2, 0])
        + struct.pack(">9i", *[65536 * (i % 4 == 0) for i in range(9)])
        + RAMP * 4
        + bytes([255, 128, 128, 0, 128, 128]) * 8
        + RAMP * 3
    },
    b"Black ink",
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb(linear: int) -> float:
    """The sRGB level of a linear one, both 0..255."""
    v = linear / 255
    return 255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055)


def in_mode(mode: str, *values: Any) -> Image.Image:
    """One row of pixels."""
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def palette(*transparency: int) -> Image.Image:
    image = in_mode("P", 0, 1, 2)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    if transparency:
        image.info["transparency"] = bytes(transparency)
    return image


@pytest.mark.parametrize(
    ("image", "name", "row", "notes"),
    [
        (in_mode("1", 0, 255), "x.png", [[0], [255]], []),
        (in_mode("L", 3, 200), "x.png", [[3], [200]], []),
        (in_mode("LA", (3, 255), (200, 255)), "x.png", [[3], [200]], []),
        (in_mode("LA", (0, 0), (0, 51), (7, 255)), "x.png", [[255], [204], [7]], [OVER_WHITE]),
        (in_mode("RGB", (9, 9, 9), (5, 5, 5)), "x.png", [[9, 9, 9], [5, 5, 5]], []),
        (in_mode("RGBA", (1, 2, 3, 255)), "x.png", [[1, 2, 3]], []),
        (in_mode("RGBA", (9, 9, 9, 0), (0, 255, 50, 51)), "x.webp", [[255] * 3, [204, 255, 214]], [OVER_WHITE]),
        (palette(), "x.png", [[255, 0, 0], [0, 255, 0], [0, 0, 255]], []),
        (palette(), "x.gif", [[255, 0, 0], [0, 255, 0], [0, 0, 255]], []),
        (palette(255, 0, 51), "x.png", [[255, 0, 0], [255, 255, 255], [204, 204, 255]], [OVER_WHITE]),
        (palette(255, 255, 255), "x.png", [[255, 0, 0], [0, 255, 0], [0, 0, 255]], []),
        (in_mode("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)), "x.tif",
         [[255, 255, 255], [0, 255, 255], [0, 0, 0]], [NAIVE_CMYK]),
        (in_mode("YCbCr", (0, 128, 128), (255, 128, 128), (76, 85, 255)), "x.tif",
         [[0, 0, 0], [255, 255, 255], [254, 0, 0]], []),
    ],
)  # fmt: skip
def test_modes(tmp_path: Path, image: Image.Image, name: str, row: Any, notes: list[str]) -> None:
    assert read(image, tmp_path / name, lossless=True, exact=True, compression="tiff_lzw") == ([row], notes)


def test_lab(tmp_path: Path) -> None:
    image = in_mode("LAB", (0, 128, 128), (255, 128, 128), (136, 208, 195))  # the last is L* 53, a* 80, b* 67
    pixels, notes = read(image, tmp_path / "x.tif")
    assert np.abs(np.array(pixels) - [[0, 0, 0], [255, 255, 255], [255, 0, 0]]).max() <= 12  # eight bits of Lab
    assert notes == []


@pytest.mark.parametrize(
    ("mode", "key", "row"),
    [("L", 7, [[255], [8]]), ("1", 0, [[255], [255]]), ("RGB", (7, 0, 1), [[255] * 3, [8, 0, 1]])],
)
def test_a_transparent_colour(tmp_path: Path, mode: str, key: Any, row: Any) -> None:
    image = in_mode(mode, *{"L": (7, 8), "1": (0, 255), "RGB": ((7, 0, 1), (8, 0, 1))}[mode])
    assert read(image, tmp_path / "x.png", transparency=key) == ([row], [OVER_WHITE])


def test_a_transparent_gif(tmp_path: Path) -> None:
    expected = [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    assert read(palette(), tmp_path / "x.gif", transparency=1) == (expected, [OVER_WHITE])


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_16_bit_grey_is_scaled_to_the_nearest_level(tmp_path: Path, name: str) -> None:
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / name)
    pixels, notes = read_image(tmp_path / name)
    assert np.array_equal(pixels[:, :, 0], np.rint(values / 257))
    assert notes == [REDUCED]


def test_grey_of_other_depths_reaches_white(tmp_path: Path) -> None:
    pgm = b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023)
    assert read(pgm, tmp_path / "x.pgm") == ([[[0], [128], [255]]], [REDUCED])
    assert read(tiff(2, 12, b"\xff\xf8\x00"), tmp_path / "x.tif") == ([[[255], [128]]], [REDUCED])


@pytest.mark.parametrize(
    ("colour", "samples", "row", "notes"),
    [
        (2, [0x1234, 0xFFFF, 0x00FE], [[0x12, 0xFF, 0]], [REDUCED]),
        (4, [0x1234, 0xFFFF], [[0x12]], [REDUCED]),
        (4, [0x1234, 0x0000], [[255]], [REDUCED, OVER_WHITE]),
        (6, [0x1234, 0xFFFF, 0x00FE, 0xFFFF], [[0x12, 0xFF, 0]], [REDUCED]),
    ],
)
def test_16_bit_png(tmp_path: Path, colour: int, samples: list[int], row: Any, notes: list[str]) -> None:
    data = struct.pack(f">{len(samples)}H", *samples)
    assert read(png(1, 1, depth=16, colour=colour, data=data), tmp_path / "x.png") == ([row], notes)


def test_16_bit_transparent_grey_is_told_from_its_neighbours(tmp_path: Path) -> None:
    data = png(2, 1, depth=16, data=struct.pack(">2H", 0x1234, 0x1235), trns=b"\x12\x34")
    assert read(data, tmp_path / "x.png") == ([[[255], [18]]], [REDUCED, OVER_WHITE])


@pytest.mark.parametrize(
    ("depth", "data", "transparent", "row"),
    [
        (1, b"\x40", 1, [0, 255]),
        (1, b"\x40", 0, [255, 255]),
        (2, b"\x60", 1, [255, 170]),  # samples 1 and 2 of 0..3
        (2, b"\x60", 2, [85, 255]),
        (4, b"\x5e", 5, [255, 238]),
        (4, b"\x5e", 0x105, [255, 238]),  # only the low bits count
        (4, b"\x0e", 0, [255, 238]),
        (8, b"\x05\x06", 5, [255, 6]),
    ],
)
def test_a_transparent_grey_level_of_all_depths(
    tmp_path: Path, depth: int, data: bytes, transparent: int, row: list[int]
) -> None:
    trns = struct.pack(">H", transparent)
    expected = [[[value] for value in row]]
    assert read(png(2, 1, depth=depth, data=data, trns=trns), tmp_path / "x.png") == (expected, [OVER_WHITE])


@pytest.mark.parametrize("transparent", [3, 85])
def test_a_transparent_grey_level_that_is_not_there(tmp_path: Path, transparent: int) -> None:
    data = png(2, 1, depth=4, data=b"\x5e", trns=struct.pack(">H", transparent * 0x100 + 3))
    assert read(data, tmp_path / "x.png") == ([[[85], [238]]], [])


@pytest.mark.parametrize(("depth", "data"), [(8, b"\0\1"), (4, b"\1")])
@pytest.mark.parametrize("trns", [b"", b"\0"])
def test_a_palette_image_without_a_palette(tmp_path: Path, depth: int, data: bytes, trns: bytes) -> None:
    (tmp_path / "x.png").write_bytes(png(2, 1, depth=depth, colour=3, data=data, trns=trns))
    refuse(tmp_path / "x.png", "damaged image: a palette image without its palette")


def test_16_bits_of_a_whole_pixel_are_not_a_deep_image(tmp_path: Path) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    bmp = b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + header + struct.pack("<HH", 0xF800, 0x1F)  # 5-6-5
    assert read(bmp, tmp_path / "x.bmp") == ([[[255, 0, 0], [0, 0, 255]]], [])


@pytest.mark.parametrize(
    ("ppm", "notes"),
    [
        (b"P6 1 1 65535\n\x12\x34\xff\xff\0\x12", [REDUCED]),
        (b"P6 1 1 1023\n\0\x49\x03\xff\0\0", [REDUCED]),
        (b"P3 1 1 1023\n73 1023 0", [REDUCED]),
        (b"P6 1 1 255\n\x12\xff\0", []),
        (b"P6 1 1 14\n\1\x0e\0", []),
    ],
)
def test_colour_ppm_of_all_depths(tmp_path: Path, ppm: bytes, notes: list[str]) -> None:
    assert read(ppm, tmp_path / "x.ppm") == ([[[18, 255, 0]]], notes)


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "integer"), (np.float32, "float")])
def test_samples_without_an_agreed_range_are_refused(tmp_path: Path, dtype: type, kind: str) -> None:
    Image.fromarray(np.zeros((2, 2), dtype)).save(tmp_path / "x.tif")
    refuse(tmp_path / "x.tif", f"32-bit {kind} samples, expected 8 or 16 bits")


def test_an_srgb_profile_changes_and_tells_nothing(tmp_path: Path) -> None:
    assert read(Image.fromarray(RANDOM), tmp_path / "x.png", icc_profile=SRGB) == (RANDOM.tolist(), [])
    grey = Image.fromarray(RANDOM[:, :, 0])
    assert read(grey, tmp_path / "x.png", icc_profile=SRGB) == (RANDOM[:, :, :1].tolist(), [])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_coarse_srgb_profile_is_srgb_but_a_gamma_is_not(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RANDOM).convert(mode)
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.linspace(0, 1, 26).tolist()]
    table = struct.pack(">I26H", 26, *[round(v * 65_535) for v in linear])
    for curve, expected in [(table, []), (struct.pack(">IH", 1, 563), ["converted from Test to sRGB"])]:  # 2.2
        profile = icc(b"RGB ", PRIMARIES | dict.fromkeys(CURVES, b"curv" + bytes(4) + curve))
        assert read(image, tmp_path / "x.png", icc_profile=profile)[1] == expected


@pytest.mark.parametrize(
    ("mode", "profile", "name"),
    [
        ("RGB", LINEAR_RGB, "Linear [31mRGB" + "!" * 85 + "…"),  # 100 characters, no control codes
        ("L", LINEAR_RGB, "Linear [31mRGB" + "!" * 85 + "…"),
        ("L", LINEAR_GREY, "Linear grey"),
    ],
)
def test_tone_curves_become_those_of_srgb(tmp_path: Path, mode: str, profile: bytes, name: str) -> None:
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert(mode)
    levels.save(tmp_path / "x.png", icc_profile=profile)
    pixels, notes = read_image(tmp_path / "x.png")
    assert pixels.shape == (16, 16, len(mode))
    expected = np.array([srgb(v) for v in range(256)]).reshape(16, 16, 1)
    assert np.abs(pixels - expected).max() <= 1.5
    assert notes == [f"converted from {name} to sRGB"]


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp", "x.jpg"])
def test_primaries_become_those_of_srgb(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (16, 16), "red")
    options = {"lossless": True} if name == "x.webp" else {}
    pixels, notes = read(image, tmp_path / name, icc_profile=SWAPPED_RGB, **options)
    assert np.abs(np.array(pixels) - [0, 255, 0]).max() <= 25  # black in linear light is soft: 1 level becomes 13
    assert notes == ["converted from Test to sRGB"]


def test_white_shows_through_after_the_profile(tmp_path: Path) -> None:
    image = in_mode("RGBA", (55, 55, 55, 0), (55, 55, 55, 255))
    (transparent, opaque), *_ = read(image, tmp_path / "x.png", icc_profile=LINEAR_RGB)[0]
    assert transparent == [255, 255, 255]
    assert opaque == pytest.approx([srgb(55)] * 3, abs=1.5)


def test_a_palette_goes_through_its_profile(tmp_path: Path) -> None:
    pixels, notes = read(palette(), tmp_path / "x.png", icc_profile=SWAPPED_RGB)
    assert np.abs(np.array(pixels) - [[0, 255, 0], [255, 0, 0], [0, 0, 255]]).max() <= 13
    assert notes == ["converted from Test to sRGB"]


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    image = in_mode("CMYK", (255, 255, 0, 0), (0, 0, 0, 255))
    pixels, notes = read(image, tmp_path / "x.tif", icc_profile=BLACK_INK_ONLY)
    assert np.abs(np.array(pixels) - [[[255] * 3, [0] * 3]]).max() <= 2  # without it, the first is blue
    assert notes == ["converted from Black ink to sRGB"]


@pytest.mark.parametrize("profile", [b"nonsense", LINEAR_RGB[:200], LINEAR_GREY, BLACK_INK_ONLY])
def test_a_profile_that_does_not_fit_is_dropped(tmp_path: Path, profile: bytes) -> None:
    assert read(Image.fromarray(RANDOM), tmp_path / "x.png", icc_profile=profile) == (RANDOM.tolist(), [BAD_ICC])
    image = Image.new("CMYK", (1, 1))
    if profile != BLACK_INK_ONLY:
        assert read(image, tmp_path / "x.tif", icc_profile=profile)[1] == [BAD_ICC, NAIVE_CMYK]
