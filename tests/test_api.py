"""The functions of the package take pictures of every kind, and give PIL images back with all that was kept."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import RANDOM
from tests.test_files_colour import LINEAR_RGB
from tests.test_files_images import XMP
from vqcodec import ImageError, LimitError, VqcodecError, VqcodecWarning, api, compress, decompress
from vqcodec.codec import Codec
from vqcodec.files.container import parse
from vqcodec.weights import Weights, load_weights

ALPHA = np.random.default_rng(3).integers(0, 256, RANDOM.shape[:2], np.uint8)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x0f\0\2\0\0\0\4Me!\0\0\0\0\0"  # the maker is Me!
QUICK: dict[str, Any] = {"effort": 0}


@pytest.fixture
def tiny(tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """``tiny_codec`` as the model of the functions."""
    keys = [(os.getpid(), "psnr"), (os.getpid(), tiny_codec.fingerprint)]
    monkeypatch.setattr(api, "_codecs", dict.fromkeys(keys, tiny_codec))
    return tiny_codec


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_picture_in_every_form_gives_one_file(tiny: Codec, tmp_path: Path, channels: int) -> None:
    array = np.dstack([RANDOM, ALPHA])[:, :, {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    image = Image.fromarray(array.squeeze())
    image.save(tmp_path / "x.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    data = compress(array, 60, **QUICK)
    forms: list[Any] = [image, tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()]
    forms += [memoryview(bytes(b for byte in forms[3] for b in (byte, 0)))[::2]]
    forms += [tensor, tensor / 255, tensor.double().div(255).requires_grad_(), array[::1, ::1]]
    forms += [array[:, :, 0], tensor[0], tensor[0].half() / 255] if channels == 1 else []
    for form in [*forms, Image.open(tmp_path / "x.png"), io.BytesIO(forms[3])]:
        assert compress(form, 60, **QUICK) == data
    back = decompress(data)
    assert back.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert back.size == (7, 5)
    if channels in (2, 4):
        assert np.array_equal(np.asarray(back)[:, :, -1], ALPHA)
    assert compress(np.asarray(back), **QUICK) == compress(back, **QUICK)
    path = tmp_path / "x.vq"
    path.write_bytes(data)
    for source in (path, str(path), bytearray(data)):
        assert np.array_equal(np.asarray(decompress(source)), np.asarray(back))


def test_an_opaque_alpha_costs_nothing(tiny: Codec) -> None:
    array = np.dstack([RANDOM, np.full_like(ALPHA, 255)])
    assert compress(array, **QUICK) == compress(RANDOM, **QUICK)


def test_metadata_pass_through(tiny: Codec) -> None:
    image = Image.fromarray(np.dstack([RANDOM, ALPHA]))
    image.info.update(exif=EXIF, xmp=XMP, icc_profile=LINEAR_RGB)
    with pytest.warns(VqcodecWarning, match=r"^converted from .* to sRGB$") as told:
        data = compress(image, **QUICK)
    assert [Path(warning.filename).name for warning in told] == ["test_api.py"]
    back = decompress(data)
    assert (back.info["exif"], back.info["xmp"], back.info["icc_profile"]) == (EXIF, XMP, LINEAR_RGB)
    pixels = tiny.decompress(data)
    assert not np.array_equal(np.asarray(back)[:, :, :3], pixels)  # in the profile's colours
    with pytest.warns(VqcodecWarning):
        plain = compress(image, strip=["exif", "xmp", "icc"], **QUICK)
    assert decompress(plain).info == {}
    assert np.array_equal(np.asarray(decompress(plain))[:, :, :3], pixels)
    with pytest.warns(VqcodecWarning):
        bare = compress(image, strip=["all"], **QUICK)
    assert parse(bare).chunks == ()
    assert decompress(bare).mode == "RGB"
    with pytest.warns(VqcodecWarning):
        assert compress(image, strip="all", **QUICK) == bare
    with pytest.raises(ValueError, match=r"^strip has 'gpsxmp', expected some of all"):
        compress(RANDOM, strip="gpsxmp", **QUICK)


def test_what_is_lost_is_told(tiny: Codec, tmp_path: Path) -> None:
    frames = [Image.new("L", (9, 9), level) for level in (10, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(VqcodecWarning, match="2 frames or pages, only the first is kept"):
        compress(tmp_path / "x.gif", **QUICK)
    wide = Image.fromarray(np.full((3, 3), 30_000, np.uint16))
    with pytest.warns(VqcodecWarning, match="16 bits per sample reduced to 8"):
        compress(wide, **QUICK)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), ImageError, r"the array is uint8 \[4, 4, 5\], expected uint8 \[H, W\]"),
        (np.zeros((4, 4, 3), np.float32), ImageError, r"the array is float32 \[4, 4, 3\], expected uint8"),
        (np.zeros((0, 4), np.uint8), ImageError, r"the array is uint8 \[0, 4\]"),
        (torch.zeros(5, 4, 3), ImageError, r"tensor is torch.float32 \[5, 4, 3\], expected .* \[C, H, W\]"),
        (torch.zeros(1, 3, 4, 4), ImageError, r"the tensor is torch.float32 \[1, 3, 4, 4\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), ImageError, r"the tensor is torch.int64 \[3, 4, 4\]"),
        (torch.full((3, 2, 2), 200.0), ImageError, "values from 200 to 200, expected 0 to 1; clamp it first"),
        (torch.full((3, 2, 2), torch.nan), ImageError, "values from nan to nan, expected 0 to 1"),
        (torch.zeros(3, 2, 2).to(torch.float8_e4m3fn), ImageError, r"the tensor is torch.float8_e4m3fn \[3, 2, 2\]"),
        (
            torch.zeros(3, 2, 2, device="meta"),
            ImageError,
            "the tensor is torch.float32, torch.strided on meta, expected a",
        ),
        (
            torch.zeros(3, 2, 2).to_sparse(),
            ImageError,
            "the tensor is torch.float32, torch.sparse_coo on cpu, expected",
        ),
        (torch.zeros(3, 2, 2).to_mkldnn(), ImageError, "the tensor is torch.float32, torch._mkldnn on cpu, expected"),
        (
            torch.nested.nested_tensor([torch.zeros(2, 2)], layout=torch.jagged),
            ImageError,
            "the tensor is torch.float32, nested, expected",
        ),
        (
            np.broadcast_to(np.uint8(7), (25_000, 25_000, 3)),
            LimitError,
            "25000x25000 is 625000000, the limit is 134217728",
        ),
        (torch.zeros(3, 1, 1).expand(3, 25_000, 25_000), LimitError, "too many pixels: 25000x25000"),
        (
            np.broadcast_to(np.uint8(7), (1, 70_000)),
            ImageError,
            "^too large: 70000x1, the limit is 65535 pixels on a side",
        ),
        (Image.new("RGB", (0, 5)), ImageError, "^no pixels: 0x5, expected at least 1 on a side$"),
        ("a\0b", VqcodecError, r"^a\\x00b: cannot be read: embedded null byte$"),
        (torch.zeros(3, 0, 4), ImageError, r"the tensor is torch.float32 \[3, 0, 4\]"),
        ([[1, 2]], TypeError, "image is of type list, expected a PIL image, the name or bytes"),
        (None, TypeError, "image is of type NoneType"),
        ("missing.png", VqcodecError, r"^missing.png: cannot be read: No such file or directory$"),
        ("/dev/null", VqcodecError, "^/dev/null: is not a regular file"),
        (b"no image", ImageError, "^not an image that Pillow can read$"),
        (Image.new("F", (2, 2)), ImageError, "^32-bit float samples, expected 8 or 16 bits$"),
    ],
)
def test_what_is_no_picture(tiny: Codec, image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compress(image)


def test_a_damaged_image_and_limits(tiny: Codec, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RANDOM).save(buffer, "JPEG")
    with pytest.raises(ImageError, match=r"^damaged image: .*truncated"):
        compress(Image.open(io.BytesIO(buffer.getvalue()[:-40])))
    for image in (RANDOM, Image.fromarray(RANDOM), torch.from_numpy(RANDOM).permute(2, 0, 1)):
        with pytest.raises(LimitError):
            compress(image, max_pixels=34)
    data = compress(RANDOM, max_pixels=35, **QUICK)
    with pytest.raises(LimitError):
        decompress(data, max_pixels=34)
    for bad in (3, None):
        with pytest.raises(TypeError, match="expected the bytes"):
            decompress(bad)  # type: ignore[arg-type]
    with pytest.raises(VqcodecError, match=r"x.vq: cannot be read: No such file"):
        decompress(tmp_path / "x.vq")
    preview = decompress(data, levels=1)
    assert np.array_equal(np.asarray(preview), tiny.decompress(data, levels=1))


def test_each_model_is_loaded_once(tiny_codec: Codec, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_codec.compress(RANDOM, effort=0)
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(tiny_weights.parent))
    monkeypatch.setattr(api, "_codecs", {})
    loaded: list[Path] = []

    def count(path: Path) -> Weights:
        loaded.append(path)
        return load_weights(path)

    monkeypatch.setattr("vqcodec.codec.load_weights", count)
    for _ in range(2):
        assert np.array_equal(np.asarray(decompress(data)), tiny_codec.decompress(data))
    assert [path.name for path in loaded] == ["tiny.decoder.safetensors"]
    other = compress(RANDOM, effort=0)
    assert parse(other).quality == 75
    with pytest.raises(ValueError, match=r"^tune is 'best', expected 'psnr' or 'visual'$"):
        compress(RANDOM, tune="best")  # type: ignore[arg-type]
    assert compress(RANDOM, quality=75, effort=0) == other
    assert decompress(other).size == (7, 5)
    assert [path.name for path in loaded] == ["tiny.decoder.safetensors", "compact.decoder.safetensors"]
