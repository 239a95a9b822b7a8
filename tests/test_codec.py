"""The codec: pixels to the bytes of a file and back, with a tiny trained model."""

import dataclasses
import hashlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vqcodec.codec import Codec, pick_device
from vqcodec.errors import Cancelled, DeviceError, FormatError, ImageError, LimitError, UnknownModelError, VqcodecError
from vqcodec.exact import entropy
from vqcodec.exact import prior as fixed_prior
from vqcodec.files.container import MAX_PIXELS, MAX_SIDE, PIXELS_A_BYTE, Container, pack, parse
from vqcodec.geometry import Geometry
from vqcodec.metrics import psnr
from vqcodec.weights import encoder_path, load_weights, save_encoder

Pixels = NDArray[np.uint8]
SIDES = st.one_of(st.integers(1, 3), st.integers(1, 70))


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    """Small images of any shape: noise on a gradient, in colour or grey."""
    height, width, channels = draw(SIDES), draw(SIDES), draw(st.sampled_from([1, 3]))
    noise = np.random.default_rng(draw(st.integers(0, 99))).normal(0, draw(st.sampled_from([0, 20, 200])), 3)
    ramp = np.add.outer(np.arange(height), np.arange(width))[:, :, None] * 3.0
    return (ramp + noise[:channels] * np.sin(ramp)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def small(tiny_codec: Codec, photograph: Pixels) -> bytes:
    """A file of 24×16 pixels."""
    return tiny_codec.compress(photograph[:16, :24], 90)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """A function that sets torch's number of threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def forge(data: bytes, **fields: Any) -> bytes:
    """The file ``data`` with other contents and matching checksums."""
    return pack(dataclasses.replace(parse(data), **fields))


@settings(max_examples=60)
@given(pixels=pictures(), quality=st.integers(1, 100))
def test_any_shape_comes_back(tiny_codec: Codec, pixels: Pixels, quality: int) -> None:
    data = tiny_codec.compress(pixels, quality)
    back = tiny_codec.decompress(data)
    assert (back.shape, back.dtype) == (pixels.shape, np.dtype(np.uint8))
    assert back.flags.c_contiguous
    height, width, channels = pixels.shape
    stated = parse(data)
    assert (stated.height, stated.width, stated.grey, stated.quality) == (height, width, channels == 1, quality)
    assert stated.fingerprint == tiny_codec.fingerprint
    assert tiny_codec.compress(pixels, quality) == data
    assert np.array_equal(tiny_codec.decompress(data), back)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (1, 300, 3), (300, 1, 1), (17, 31, 3), (16, 16, 1)])
def test_extreme_shapes(tiny_codec: Codec, shape: tuple[int, int, int]) -> None:
    dark, light = (tiny_codec.decompress(tiny_codec.compress(np.full(shape, v, np.uint8), 50)) for v in (30, 220))
    assert dark.shape == light.shape == shape
    assert dark.mean() + 20 < light.mean()


def test_it_is_a_picture_of_the_input(tiny_codec: Codec, photograph: Pixels) -> None:
    back = tiny_codec.decompress(tiny_codec.compress(photograph, 80))
    flat = np.broadcast_to(photograph.mean((0, 1)).round().astype(np.uint8), photograph.shape)
    assert psnr(photograph, back) > psnr(photograph, flat) + 2


@settings(max_examples=20)
@given(pixels=pictures(), quality=st.integers(1, 100))
def test_portrait_is_landscape_turned(tiny_codec: Codec, pixels: Pixels, quality: int) -> None:
    assume(pixels.shape[0] != pixels.shape[1])  # a square is not turned
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    one, other = tiny_codec.compress(pixels, quality), tiny_codec.compress(turned, quality)
    assert parse(one).levels == parse(other).levels
    assert np.array_equal(tiny_codec.decompress(one).transpose(1, 0, 2), tiny_codec.decompress(other))


def test_grey_is_the_mean_of_what_its_codes_show_in_colour(tiny_codec: Codec, photograph: Pixels) -> None:
    grey = photograph[:, :, 1:2]
    data = tiny_codec.compress(grey, 60, effort=0)  # a search would count the errors of hue
    as_colour = tiny_codec.compress(np.repeat(grey, 3, 2), 60, effort=0)
    assert parse(data).levels == parse(as_colour).levels
    mean = tiny_codec.decompress(as_colour).mean(2, keepdims=True)
    assert np.abs(tiny_codec.decompress(data) - mean).max() <= 1


def test_the_caller_keeps_the_pixels(tiny_codec: Codec, photograph: Pixels) -> None:
    """Read-only input, any memory order, and no view of it in the output."""
    pixels = photograph[:40, :56].copy()
    pixels.flags.writeable = False
    before = pixels.copy()
    data = tiny_codec.compress(pixels, 70)
    assert np.array_equal(pixels, before)
    assert tiny_codec.compress(np.asfortranarray(pixels), 70) == data
    assert tiny_codec.compress(photograph[:40, :56], 70) == data
    assert tiny_codec.compress(pixels[::-1], 70) == tiny_codec.compress(pixels[::-1].copy(), 70)


def test_more_quality_gives_more_bits(codec: Codec, photograph: Pixels) -> None:
    sizes = [len(codec.compress(photograph, quality, effort=0)) for quality in (1, 35, 70, 100)]
    assert sizes == sorted(set(sizes))


def test_quality_75_unless_told_otherwise(tiny_codec: Codec, photograph: Pixels) -> None:
    assert tiny_codec.compress(photograph[:9, :9]) == tiny_codec.compress(photograph[:9, :9], 75)


@pytest.mark.parametrize("quality", [0, -1, 101, 1000])
def test_quality_bounds(tiny_codec: Codec, photograph: Pixels, quality: int) -> None:
    with pytest.raises(ValueError, match=rf"^quality is {quality}, expected a whole number from 1 to 100$"):
        tiny_codec.compress(photograph, quality)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4,), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint16),
    ],
)
def test_arrays_that_are_no_image(tiny_codec: Codec, pixels: Pixels) -> None:
    with pytest.raises(
        ImageError, match=r"^pixels are u?\w+ \[.*\], expected uint8 \[H, W, 3\], or \[H, W, 1\] or \[H, W\]"
    ):
        tiny_codec.compress(pixels)


def test_two_dimensions_are_grey(tiny_codec: Codec, photograph: Pixels) -> None:
    grey = photograph[:40, :56, 1]
    data = tiny_codec.compress(grey, 60)
    assert data == tiny_codec.compress(grey[:, :, None], 60)
    assert tiny_codec.decompress(data).shape == (40, 56, 1)


@pytest.mark.parametrize("pixels", [None, [[1, 2]], Image.new("RGB", (4, 4)), torch.zeros(4, 4, 3, dtype=torch.uint8)])
def test_what_is_no_array(tiny_codec: Codec, pixels: Any) -> None:
    kind = f"{type(pixels).__module__}.{type(pixels).__name__}"
    with pytest.raises(TypeError, match=f"^pixels are of type {kind}, expected a numpy array$"):
        tiny_codec.compress(pixels)


@pytest.mark.parametrize("data", ["photo.vq", Path("photo.vq"), None, 5])
def test_what_are_no_bytes(tiny_codec: Codec, data: Any) -> None:
    message = rf"^expected the bytes of a \.vq file, a bytes-like object, found {type(data).__name__}$"
    for read in (tiny_codec.decompress, tiny_codec.salvage, tiny_codec.read, Codec.for_file):
        with pytest.raises(TypeError, match=message):
            read(data)


@pytest.mark.parametrize("shape", [(MAX_SIDE + 1, 1, 3), (1, MAX_SIDE + 1, 1), (2**13, 2**14 + 1, 3)])
def test_too_many_pixels_are_refused_before_any_work(
    tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(tiny_codec, "encode", None)
    pixels = np.broadcast_to(np.uint8(0), shape)  # one byte of memory
    with pytest.raises(
        LimitError, match=f"^{shape[1]}×{shape[0]} pixels, expected at most {MAX_PIXELS} and {MAX_SIDE}"
    ):
        tiny_codec.compress(pixels)


def test_too_many_pixels_in_a_file_are_refused_before_any_work(tiny_codec: Codec, small: bytes) -> None:
    for size in ({"width": MAX_SIDE, "height": MAX_SIDE}, {"width": 2**14 + 1, "height": 2**13}):
        with pytest.raises(LimitError, match="too many pixels"):
            tiny_codec.decompress(forge(small, **size))


def test_a_file_of_another_model(tiny_codec: Codec, tiny_weights: Path, small: bytes) -> None:
    foreign = forge(small, fingerprint=b"\1\2\3\4")
    message = f"made with weights 01020304, these are {tiny_codec.fingerprint.hex()}"
    with pytest.raises(UnknownModelError, match=f"^{message}$"):
        tiny_codec.decompress(foreign)
    with pytest.raises(UnknownModelError, match=r"^made with weights 01020304, which are not installed here; known: "):
        Codec.for_file(foreign, device="cpu")
    with pytest.raises(UnknownModelError, match=message):
        Codec.for_file(foreign, weights=tiny_weights, device="cpu").decompress(foreign)


def test_the_model_that_a_file_names_is_found(
    tiny_codec: Codec, tiny_weights: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(tiny_weights.parent))
    codec = Codec.for_file(small, device="cpu")
    assert (codec.fingerprint, codec.name) == (tiny_codec.fingerprint, "tiny")
    assert np.array_equal(codec.decompress(small), tiny_codec.decompress(small))
    with pytest.raises(FormatError, match=r"^not a \.vq file"):
        Codec.for_file(b"not a file at all", device="cpu")


@pytest.mark.parametrize("count", [1, 2, 4, 15])
def test_wrong_level_count(tiny_codec: Codec, small: bytes, count: int) -> None:
    levels = (parse(small).levels * 8)[:count]
    with pytest.raises(FormatError, match=f"^{count} levels, expected 3 of model tiny$"):
        tiny_codec.decompress(forge(small, levels=levels))


def test_every_truncation_and_every_changed_byte(tiny_codec: Codec, small: bytes) -> None:
    assert len(small) < 200
    damaged = [small[:end] for end in range(len(small))] + [small + b"\0"]
    for at, byte in enumerate(small):
        damaged += [small[:at] + bytes([byte ^ flip]) + small[at + 1 :] for flip in (1, 0x80, 0xFF)]
    for data in damaged:
        with pytest.raises(VqcodecError) as caught:
            tiny_codec.decompress(data)
        assert "\n" not in str(caught.value)


@given(
    levels=st.tuples(st.binary(max_size=60), st.binary(max_size=60)),
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    quality=st.integers(1, 100),
    grey=st.booleans(),
)
def test_bits_that_no_one_wrote(
    tiny_codec: Codec, levels: tuple[bytes, bytes], width: int, height: int, quality: int, grey: bool
) -> None:
    """Random bytes with correct checksums give some image or a FormatError, and nothing else."""
    data = pack(Container(width, height, grey, quality, tiny_codec.fingerprint, levels))
    try:
        pixels = tiny_codec.decompress(data)
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017 - not every forgery fails
    else:
        assert pixels.shape == (height, width, 1 if grey else 3)


@given(cut=st.integers(1, 8), level=st.integers(0, 1), tail=st.binary(max_size=8))
def test_bitstreams_cut_and_mended(tiny_codec: Codec, small: bytes, cut: int, level: int, tail: bytes) -> None:
    levels = list(parse(small).levels)
    levels[level] = levels[level][:-cut] + tail
    data = forge(small, levels=tuple(levels))
    try:
        pixels = tiny_codec.decompress(data)
    except FormatError:
        return
    assert pixels.shape == (16, 24, 3)


def test_compress_checks_its_own_bytes(tiny_codec: Codec, photograph: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = entropy.decode

    def off_by_one(*arguments: Any, **options: Any) -> list[list[NDArray[np.int16]]]:
        (codes,) = honest(*arguments, **options)
        codes[-1][-1, -1, -1] ^= 1
        return [codes]

    monkeypatch.setattr(entropy, "decode", off_by_one)
    with pytest.raises(RuntimeError, match="does not decode to its own codes"):
        tiny_codec.compress(photograph, 50, check=True)


def test_threads_and_batches_change_no_code(
    tiny_codec: Codec, photograph: Pixels, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = tiny_codec.encode(photograph[:64, :80], 75)
    threads(1)
    bitstreams = [level.bitstream for level in entropy.encode(tiny_codec.prior, codes, 75)]
    for count, chunk in ((1, 2048), (2, 2048), (2, 5)):
        threads(count)
        monkeypatch.setattr(fixed_prior, "CHUNK", chunk)  # how many positions the encoder computes in one go
        assert [level.bitstream for level in entropy.encode(tiny_codec.prior, codes, 75)] == bitstreams
        (back,) = entropy.decode(tiny_codec.prior, [bitstreams], [(4, 5), (8, 10), (8, 10)], [75])
        assert all(np.array_equal(a, b) for a, b in zip(codes, back, strict=True))


def test_a_file_made_here_is_read_by_another_process_with_plain_arithmetic(
    tiny_codec: Codec, tiny_weights: Path, photograph: Pixels, folder: Path, root: Path
) -> None:
    photograph = photograph[:64, :96]
    data = tiny_codec.compress(photograph, 75, effort=0)
    Path("photo.vq").write_bytes(data)
    code = (
        "import sys, numpy, torch; from pathlib import Path\n"
        "from vqcodec.codec import Codec; from vqcodec.exact import entropy\n"
        "from vqcodec.files.container import parse; from vqcodec.geometry import Geometry\n"
        "data = Path('photo.vq').read_bytes()\n"
        "codec = Codec.load(sys.argv[1], device='cpu'); file = parse(data)\n"
        "shapes = Geometry(file.height, file.width, codec.model.strides).grids\n"
        "numpy.savez('codes', *entropy.decode(codec.prior, [file.levels], shapes, [file.quality])[0])\n"
        "numpy.save('pixels', codec.decompress(data)); print(torch.backends.cpu.get_cpu_capability())"
    )
    environment = {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": str(root), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tiny_weights)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() in ("DEFAULT", "NO AVX")
    there = np.load("codes.npz")
    for name, grid in zip(there.files, tiny_codec.encode(photograph, 75), strict=True):
        assert np.array_equal(there[name], grid)
    # Floats may differ in their last bits, which changes a pixel by at most one grey level.
    assert np.abs(np.load("pixels.npy").astype(int) - tiny_codec.decompress(data)).max() <= 1


def test_the_first_levels_alone_give_a_preview(tiny_codec: Codec, photograph: Pixels) -> None:
    codes = tiny_codec.encode(photograph, 80)
    height, width, _ = photograph.shape
    whole = tiny_codec.decode(codes, 80, height, width, grey=False)
    preview = tiny_codec.decode(codes[:1], 80, height, width, grey=False)
    assert np.array_equal(whole, tiny_codec.decompress(tiny_codec.compress(photograph, 80)))
    assert preview.shape == whole.shape
    assert 8 < psnr(photograph, preview) < psnr(photograph, whole)


def test_files_are_as_long_as_theory_says(tiny_codec: Codec, photograph: Pixels) -> None:
    for quality in (1, 50, 100):
        codes = tiny_codec.encode(photograph, quality)
        file = parse(tiny_codec.compress(photograph, quality))
        for level, bits, grid in zip(file.levels, tiny_codec.cross_entropy(codes, quality), codes, strict=True):
            assert len(level) <= 1.005 * bits / 8 + 8
            # If every code is 0, the coder's point is 0 and its bytes are zeros, which a writer leaves out.
            assert len(level) >= math.floor(bits / 8) - 4 or not grid.any()
        framing = len(tiny_codec.compress(photograph, quality)) - sum(map(len, file.levels))
        assert framing <= 15 + 6 * len(file.levels)


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_no_cuda_where_there_is_none(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"^device is 'cuda:1', expected 'auto', 'cpu' or 'cuda'$"):
        pick_device("cuda:1")
    with pytest.raises(DeviceError, match=r"^device cuda was asked for, and this machine has none"):
        Codec.load(tiny_weights, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_read_each_others_files(tiny_codec: Codec, tiny_weights: Path, photograph: Pixels) -> None:
    gpu = Codec(load_weights(tiny_weights), "cuda")
    for writer, reader in ((gpu, tiny_codec), (tiny_codec, gpu)):
        data = writer.compress(photograph, 80)
        file = parse(data)
        shapes = Geometry(file.height, file.width, reader.model.strides).grids
        (there,) = entropy.decode(reader.prior, [file.levels], shapes, [80])
        assert all(np.array_equal(a, b) for a, b in zip(writer.encode(photograph, 80), there, strict=True))
        assert np.abs(reader.decompress(data).astype(int) - writer.decompress(data)).max() <= 1


def test_loading_and_coding_import_no_compiler(root: Path) -> None:
    """Torch's compiler takes longer to import than torch, and a single wrong call imports it."""
    script = (
        "import sys, numpy as np\n"
        "from vqcodec.codec import Codec\n"
        "codec = Codec.load(device='cpu')\n"
        "codec.decompress(codec.compress(np.zeros((20, 30, 3), np.uint8)))\n"
        "sys.exit(', '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fewer_levels_and_salvage(tiny_codec: Codec, photograph: Pixels) -> None:
    data = tiny_codec.compress(photograph, 60)
    file, codes = tiny_codec.read(data)
    size = file.height, file.width
    for levels in (1, 2, 3, 9):
        part, some = tiny_codec.read(data, levels=levels)
        assert part == file
        assert len(some) == min(levels, len(codes))
        assert all(np.array_equal(a, b) for a, b in zip(some, codes, strict=False))
        preview = tiny_codec.decompress(data, levels=levels)
        np.testing.assert_array_equal(preview, tiny_codec.decode(some, 60, *size, grey=False))
    whole, damage = tiny_codec.salvage(data)
    assert damage is None
    np.testing.assert_array_equal(whole, tiny_codec.decompress(data))
    for cut, levels in ((1, 2), (len(file.levels[2]) + 5, 1)):
        left, damage = tiny_codec.salvage(data[:-cut])
        assert damage is not None
        assert damage.startswith("truncated: ")
        np.testing.assert_array_equal(left, tiny_codec.decompress(data, levels=levels))
    for levels in (1, 2, 9):
        left, damage = tiny_codec.salvage(data[:-1], levels=levels)
        assert damage is not None
        np.testing.assert_array_equal(left, tiny_codec.decompress(data, levels=min(levels, 2)))
    with pytest.raises(ValueError, match="levels is 0"):
        tiny_codec.salvage(data, levels=0)
    with pytest.raises(FormatError, match="truncated: level 0 ends at byte"):
        tiny_codec.salvage(data[: -sum(len(level) + 4 for level in file.levels)])
    with pytest.raises(FormatError, match="2 levels, expected 3"):
        tiny_codec.salvage(pack(dataclasses.replace(file, levels=file.levels[:2])))


def test_the_model_of_a_damaged_file_is_found(tiny_codec: Codec, small: bytes, tiny_weights: Path) -> None:
    codec = Codec.for_file(small[:-1], weights=tiny_weights, device="cpu")
    assert codec.fingerprint == Codec.for_file(parse(small), weights=tiny_weights, device="cpu").fingerprint
    assert codec.salvage(small[:-1])[1] is not None
    with pytest.raises(FormatError, match="truncated"):
        Codec.for_file(small[:19], weights=tiny_weights, device="cpu")


def test_work_can_be_cancelled_anywhere(tiny_codec: Codec, photograph: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_codec.compress(photograph, 60)

    def after(count: int) -> Callable[[], bool]:
        left = iter(range(count))
        return lambda: next(left, None) is None

    for work in (
        lambda cancelled: tiny_codec.compress(photograph, 60, check=True, cancelled=cancelled),
        lambda cancelled: tiny_codec.decompress(data, cancelled=cancelled),
        lambda cancelled: tiny_codec.salvage(data[:-1], cancelled=cancelled),
    ):
        asked = 0

        def count() -> bool:
            nonlocal asked
            asked += 1
            return False

        work(count)
        for stop in (0, 1, asked // 2, asked - 1):
            with pytest.raises(Cancelled, match="cancelled"):
                work(after(stop))
        work(after(asked))
    # ``cancelled`` is called at each wavefront step, and outside the steps at each chunk: here, a row or position.
    monkeypatch.setattr(fixed_prior, "CHUNK", 1)
    asked = 0
    tiny_codec.read(data, cancelled=count)
    grids = [grid.shape[1:] for grid in tiny_codec.read(data)[1]]
    steps = sum(width + 2 * (height - 1) for height, width in grids)
    assert asked == steps + sum(2 * height + height * width for height, width in grids[:-1])


def test_many_pictures_at_once(tiny_codec: Codec, photograph: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several sizes, upright and not, grey and in colour, with and without codes at the level of pixels."""
    grey = photograph[:, :, :1]
    pictures = [
        *(photograph[top : top + 40, :56] for top in range(0, 60, 10)),
        photograph[:56, 60:100],
        grey[:40, 80:136],
        photograph[:33, 40:95],
        photograph[:17, :31],
        np.full((40, 56, 3), 99, np.uint8),
    ]
    qualities = [1, 20, 40, 60, 80, 100, 50, 70, 90, 30, 10]
    files = [tiny_codec.compress(np.ascontiguousarray(p), q) for p, q in zip(pictures, qualities, strict=True)]
    for i in (1, 4, 7):
        codes = tiny_codec.encode(pictures[i], qualities[i])
        codes[-1][:] = 0
        levels = entropy.encode(tiny_codec.prior, codes, qualities[i])
        files[i] = forge(files[i], levels=tuple(level.bitstream for level in levels))
    assert [not parse(data).levels[-1] for data in files].count(True) == 3
    together: list[int] = []
    honest = entropy.decode

    def count(prior: Any, bitstreams: list[Any], *others: Any, **options: Any) -> Any:
        together.append(len(bitstreams))
        return honest(prior, bitstreams, *others, **options)

    for only in (None, 1, 2):
        monkeypatch.setattr(entropy, "decode", honest)
        expected = [tiny_codec.decompress(data, levels=only) for data in files]
        monkeypatch.setattr(entropy, "decode", count)
        found = tiny_codec.decompress_many(files, levels=only)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert together == [10, 1] * 3  # 33×55 and 40×56 have grids of one size
    assert tiny_codec.decompress_many([]) == []
    assert np.array_equal(tiny_codec.decompress_many([memoryview(files[0])])[0], tiny_codec.decompress(files[0]))
    together.clear()
    monkeypatch.setattr(tiny_codec, "max_memory", 3 * tiny_codec.memory(40, 56) + 1)
    tiny_codec.decompress_many(files[:7])
    assert together == [3, 3, 1]


def test_parsed_files_are_decoded_as_far_as_they_go(tiny_codec: Codec, photograph: Pixels) -> None:
    data = tiny_codec.compress(photograph, 60)
    lost = len(parse(data).levels[2]) + 5
    files = [parse(data), parse(data[:-1], intact=2), parse(data[:-lost], intact=1), parse(data)]
    for levels in (None, 1, 2):
        found = tiny_codec.decompress_many(files, levels=levels)
        for pixels, file in zip(found, files, strict=True):
            count = min(levels or 3, len(file.levels))
            assert np.array_equal(pixels, tiny_codec.decompress(data, levels=count))
            assert np.array_equal(pixels, tiny_codec.decompress(file, levels=levels))
    for file in files:
        same, codes = tiny_codec.read(file)
        assert (same, len(codes)) == (file, len(file.levels))
        assert tiny_codec.salvage(file)[1] == file.damage


def test_one_of_many_that_is_wrong(tiny_codec: Codec, small: bytes, photograph: Pixels) -> None:
    foreign, cut = forge(small, fingerprint=b"\1\2\3\4"), small[:-1]
    odd = forge(small, levels=(*parse(small).levels[:1], b"\1" * 40, b""))
    for wrong, refusal in ((foreign, UnknownModelError), (cut, FormatError), (odd, FormatError)):
        with pytest.raises(refusal):
            tiny_codec.decompress_many([small, wrong, small])
    with pytest.raises(Cancelled):
        tiny_codec.decompress_many([small, small], cancelled=lambda: True)
    with pytest.raises(LimitError, match="too many pixels"):
        tiny_codec.decompress_many([small], max_pixels=1)
    with pytest.raises(ValueError, match="levels is 0"):
        tiny_codec.decompress_many([small], levels=0)


def test_pictures_beyond_the_memory_limit_are_refused(tiny_weights: Path, photograph: Pixels) -> None:
    codec = Codec.load(tiny_weights, device="cpu")
    data = codec.compress(photograph, 50, effort=0)
    needed = codec.memory(*photograph.shape[:2])
    codec = Codec.for_file(data, weights=tiny_weights, device="cpu", max_memory=needed)
    assert codec.compress(photograph, 50, effort=0) == data
    assert codec.decompress(data).shape == photograph.shape
    codec = Codec.load(tiny_weights, device="cpu", max_memory=needed - 1)
    message = f"^192×128 pixels take {needed:,} bytes of memory, the limit is {needed - 1:,}$"
    with pytest.raises(LimitError, match=message):
        codec.compress(photograph, 50, effort=0)
    for work in (codec.decompress, codec.salvage):
        with pytest.raises(LimitError, match=message):
            work(data)


def test_memory_grows_with_the_grids_once_there_are_tiles(tiny_codec: Codec) -> None:
    sizes = [tiny_codec.memory(side, side) for side in (1, 256, 1024, 4096, 8192, 16384)]
    assert sizes == sorted(sizes)
    assert tiny_codec.memory(300, 5000) == tiny_codec.memory(5000, 300)
    a_pixel = (sizes[-1] - sizes[-2]) / (16384**2 - 8192**2)
    assert 9 < a_pixel < 20


PEAK = r"""
import re, sys
from pathlib import Path
import numpy as np
from vqcodec import Codec
from vqcodec.files.images import read_image
def peak(): return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
pixels, _ = read_image(sys.argv[1])
pixels = np.tile(pixels, (4, 4, 1))
codec = Codec.load(device="cpu")
before = peak()
effort = int(sys.argv[2])
data = codec.compress(pixels, 75, effort=effort)
after = peak()
codec.decompress(data)
print(codec.memory(*pixels.shape[:2], effort), after - before, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("effort", [0, 2])
def test_memory_is_an_estimate_on_the_safe_side(root: Path, effort: int) -> None:
    """Two megapixels in a new process, so that the peak is due to the codec alone."""
    command = [sys.executable, "-c", PEAK, str(root / "examples" / "chelsea.png"), str(effort)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    estimate, *peaks = map(int, run.stdout.split())
    # Linux counts memory for each thread and adds up late: the second peak can be some kilobytes below the first.
    assert max(peaks) <= estimate < 3 * max(peaks)


TOGETHER = """
import concurrent.futures, os, sys
import numpy as np
import torch
from vqcodec import Codec
from vqcodec.files.images import read_image

whole, _ = read_image(sys.argv[1])
rng = np.random.default_rng(1)
pictures = []
for _ in range(200):
    height, width = rng.integers(1, 80, 2)
    top, left = (rng.integers(0, side - 80) for side in whole.shape[:2])
    pictures.append(np.ascontiguousarray(whole[top : top + height, left : left + width]))
qualities = rng.integers(1, 101, 200).tolist()
codec = Codec.load(sys.argv[2], device="cpu")

def work(index):
    data = codec.compress(pictures[index], qualities[index], effort=index % 20 == 0)
    return data, codec.decompress(data).tobytes()

serial = [work(index) for index in range(200)]
children = []
for child in range(4):
    process = os.fork()
    if not process:
        same = all(work(index) == serial[index] for index in range(child, 200, 4))
        counts = set()
        own = Codec.load(sys.argv[2], device="cpu")
        own.compress(pictures[child], cancelled=lambda: counts.add(torch.get_num_threads()))
        os._exit(0 if same and max(counts) == int(os.environ["OMP_NUM_THREADS"]) else 3)
    children.append(process)
with concurrent.futures.ThreadPoolExecutor(8) as threads:
    assert list(threads.map(work, range(200))) == serial
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
print("all the same")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_forked_processes_share_a_codec(root: Path, tiny_weights: Path, threads: int) -> None:
    """200 pictures by eight threads, and by four processes that were forked after OpenMP had started its threads."""
    run = subprocess.run(
        # Python 3.12 warns if a process with threads, such as OpenMP's, forks.
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            TOGETHER,
            str(root / "examples" / "chelsea.png"),
            str(tiny_weights),
        ],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("all the same\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 120, 128, 255])
def test_a_plain_surface_has_bytes_enough_to_be_trusted(codec: Codec, level: int) -> None:
    """Nothing takes fewer, and a reader's limit leaves room below."""
    for quality in (1, 30):
        data = codec.compress(np.full((2048, 2048, 3), level, np.uint8), quality, effort=0)
        assert 2048**2 / sum(map(len, parse(data).levels)) < PIXELS_A_BYTE / 2


def test_grids_that_do_not_fit(tiny_codec: Codec, photograph: Pixels) -> None:
    codes = tiny_codec.encode(photograph[:, :, 0], 60)
    assert tiny_codec.decode(codes, 60, 128, 192, grey=True).shape == (128, 192, 1)
    assert [grid.dtype for grid in codes] == [np.dtype(np.int16)] * 3
    for wrong, message in (
        ([], "0 grids of codes, expected 1 to 3"),
        ([*codes, codes[0]], "4 grids of codes, expected 1 to 3"),
        ([codes[0][:, 1:]], r"level 0 are int16 \[2, 7, 12\], expected 0 to 15 in integers \[2, 8, 12\]"),
        ([codes[0].astype(float)], r"level 0 are float64 \[2, 8, 12\], expected"),
        ([codes[0], codes[1] + 16], r"level 1 are \d+ to \d+, expected 0 to 15"),
        ([codes[0] - 16], r"level 0 are -\d+ to -\d+, expected 0 to 15"),
        ([codes[0].tolist()], "the codes of level 0 are of type list, expected 0 to 15 in integers"),
        ("abc", "the codes of level 0 are of type str, expected"),
        ([torch.from_numpy(codes[0])], "the codes of level 0 are of type Tensor, expected"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_codec.decode(wrong, 60, 128, 192, grey=True)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"pixels are float64 \[128, 192\], expected uint8"):
        tiny_codec.encode(np.zeros((128, 192)), 60)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pixels are of type PIL\.Image\.Image, expected a numpy array"):
        tiny_codec.compress(Image.fromarray(photograph))  # type: ignore[arg-type]


@pytest.mark.parametrize("quality", [0, -5, 101, 10**6, math.nan, "75"])
def test_qualities_of_codes(tiny_codec: Codec, photograph: Pixels, quality: Any) -> None:
    codes = tiny_codec.encode(photograph[:16, :24], 60)
    for wrong in (
        lambda: tiny_codec.encode(photograph[:16, :24], quality),
        lambda: tiny_codec.decode(codes, quality, 16, 24, grey=False),
        lambda: tiny_codec.cross_entropy(codes, quality),
    ):
        with pytest.raises(ValueError, match=r"^quality is .*, expected a whole number from 1 to 100$"):
            wrong()


def test_other_numbers_out_of_range(tiny_codec: Codec, photograph: Pixels) -> None:
    for scale in (math.nan, math.inf, -1, 0):
        with pytest.raises(ValueError, match=r"^lambda_scale is .*, expected a finite number above 0$"):
            tiny_codec.compress(photograph, effort=0, lambda_scale=scale)
    for height, width in ((0, 0), (1, 65_536), (1.5, 2)):
        with pytest.raises(ValueError, match=r"^(height|width) is .*, expected a whole number from 1 to 65535$"):
            tiny_codec.memory(height, width)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^fingerprint is of type str, expected bytes$"):
        Codec.load(fingerprint="abcd")  # type: ignore[arg-type]


def test_arguments_of_another_kind(tiny_codec: Codec, small: bytes, photograph: Pixels) -> None:
    for quality in (0, 101, 75.5, "75"):
        with pytest.raises(ValueError, match=r"quality is .*, expected a whole number from 1 to 100"):
            tiny_codec.compress(photograph, quality)  # type: ignore[arg-type]
    assert tiny_codec.compress(photograph[:16, :24], np.int64(90)) == small  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="levels is 0, expected at least 1"):
        tiny_codec.decompress(small, levels=0)


def test_a_model_trained_for_what_people_see_is_not_searched(tiny_weights: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_weights, tmp_path / "seen.decoder.safetensors"))
    codec = Codec.load(tiny_weights, device="cpu")
    codec.load_encoder()
    codec.vqvae.distortion = "visual"
    save_encoder(encoder_path(path), "seen", codec.vqvae, hashlib.sha256(path.read_bytes()).digest())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    seen, plain = (Codec.load(each, device="cpu") for each in (path, tiny_weights))
    assert seen.compress(pixels, 60, effort=5) == plain.compress(pixels, 60, effort=0)
    assert seen.vqvae.distortion == "visual"
