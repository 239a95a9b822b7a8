"""The command line, most of it with a codec that stores the pixels as they are."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import vqcodec
from tests.command import FINGERPRINT, fails, run_module, vq
from vqcodec import metrics, targets
from vqcodec.cli.progress import Progress
from vqcodec.config import DEFAULT_EFFORT
from vqcodec.errors import FormatError, UnknownModelError, VqcodecError, WeightsError
from vqcodec.files import images
from vqcodec.files.container import Chunks, Container, pack, parse

if TYPE_CHECKING:
    from vqcodec.codec import Codec

EXIF = b"MM\0*\0\0\0\x08\0\1\1\x0f\0\2\0\0\0\4Me!\0\0\0\0\0"  # the maker is Me!
CHUNKS = ", without the chunks (transparency, metadata)"


class FakeCodec:
    """A lossless stand-in with one level, which contains the deflated pixels."""

    calls: list[tuple[Any, ...]]
    fault: BaseException | None = None

    @classmethod
    def load(
        cls, weights: str | None = None, *, fingerprint: bytes | None = None, tune: str = "psnr", device: str = "auto"
    ) -> "FakeCodec":
        cls.calls.append(("load" if fingerprint is None else "load named", weights, device))
        return cls()

    def load_encoder(self) -> None:
        pass

    def compress(
        self,
        pixels: NDArray[np.uint8],
        quality: int = 75,
        *,
        effort: int = DEFAULT_EFFORT,
        chunks: Chunks = (),
        check: bool = False,
        max_pixels: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> bytes:
        self.calls += [("effort", effort)] if effort != DEFAULT_EFFORT else []
        self.calls += [("check",)] if check else []
        self.calls += [("max_pixels", max_pixels)] if max_pixels else []
        if self.fault:
            raise self.fault
        height, width, channels = pixels.shape
        levels = (zlib.compress(pixels.tobytes()), b"")
        return pack(Container(width, height, channels == 1, quality, FINGERPRINT, levels, tuple(chunks)))

    def decompress(self, file: bytes | Container, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
        self.calls += [("max_pixels", max_pixels)] if max_pixels else []
        if self.fault:
            raise self.fault
        return self._pixels(file if isinstance(file, Container) else parse(file))

    def decompress_many(self, files: list[Container], *, levels: int | None = None) -> list[NDArray[np.uint8]]:
        self.calls += [("together", len(files))] if len(files) > 1 else []
        self.calls += [("levels", levels)] if levels else []
        return [self.decompress(file) for file in files]

    @staticmethod
    def _pixels(container: Container) -> NDArray[np.uint8]:
        pixels = np.frombuffer(zlib.decompress(container.levels[0]), np.uint8)
        return pixels.reshape(container.height, container.width, -1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeCodec]:
    codec = types.ModuleType("vqcodec.codec")
    codec.Codec = type("Codec", (FakeCodec,), {"calls": []})  # type: ignore[attr-defined]
    monkeypatch.setattr(metrics, "psnr", lambda x, x_hat: 33.118 if np.array_equal(x, x_hat) else 0.0)
    monkeypatch.setitem(sys.modules, "vqcodec.codec", codec)
    return codec.Codec  # type: ignore[no-any-return]


def test_encode_reports_one_line(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    result = vq("encode", "photo.png", "-o", "out.vq")
    size = os.path.getsize("out.vq")
    start = f"out.vq: 12×8, quality 75, {size:,} bytes, {8 * size / 96:.3f} bpp, 0.0"
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(start)
    assert result.stdout.endswith(" s\n")
    assert fake.calls == [("load", None, "auto")]


def test_encode_measures_psnr_on_the_decoded_file(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    assert vq("encode", "photo.png", "--psnr").stdout.endswith(" s, 33.12 dB\n")


def test_encode_checks_its_bytes_when_asked(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    vq("encode", "photo.png")
    assert ("check",) not in fake.calls
    vq("encode", "photo.png", "-f", "--check")
    assert ("check",) in fake.calls


def test_transparency_and_metadata_come_back(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    image = Image.fromarray(np.dstack([picture, picture[:, :, 0]]))
    image.save("photo.png", exif=b"Exif\0\0" + EXIF)
    assert vq("encode", "photo.png").stderr == ""
    assert [tag for tag, _ in parse(Path("photo.vq").read_bytes()).chunks] == [b"Alph", b"exif"]
    assert vq("info", "photo.vq").stdout.startswith("photo.vq: 12×8, RGB with transparency, quality 75, ")
    assert json.loads(vq("info", "photo.vq", "--json").stdout)["alpha"] is True
    assert vq("decode", "photo.vq", "-o", "again.png").stderr == ""
    with Image.open("again.png") as again:
        assert np.array_equal(np.asarray(again)[:, :, 3], picture[:, :, 0])
        assert again.info["exif"] == b"Exif\0\0" + EXIF
    said = "warning: photo.vq: transparency laid over white, JPEG has none\n"
    assert vq("decode", "photo.vq", "-o", "again.jpg").stderr.endswith(said)
    assert vq("encode", "photo.png", "-f", "--strip", "exif, alpha").stderr == ""
    assert parse(Path("photo.vq").read_bytes()).chunks == ()
    result = vq("encode", "photo.png", "-f", "--strip", "exif,all,x")
    assert (result.exit_code, "'x', expected some of all, alpha, exif, gps, icc, xmp" in result.stderr) == (2, True)


def test_salvage_loses_the_opacity_and_says_so(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    Image.fromarray(np.dstack([picture, picture[:, :, 0]])).save("photo.png")
    assert vq("encode", "photo.png").exit_code == 0
    data = Path("photo.vq").read_bytes()
    Path("photo.vq").write_bytes(data[:-1])
    fails(vq("decode", "photo.vq", "-o", "x.png"), "photo.vq: truncated")
    result = vq("decode", "photo.vq", "-o", "x.png", "--salvage")
    assert (result.exit_code, result.stderr.endswith(f"; the picture shows all levels{CHUNKS}\n")) == (1, True)
    with Image.open("x.png") as image:
        assert image.mode == "RGB"


def test_a_malformed_opacity_is_refused_before_the_work(fake: type[FakeCodec], packed: bytes) -> None:
    Path("photo.vq").write_bytes(pack(replace(parse(packed), chunks=((b"Alph", b"\1nonsense"),))))
    fails(vq("decode", "photo.vq", "-o", "x.png"), "photo.vq: the opacity cannot be decompressed")
    assert not fake.calls


def test_large_numbers_are_grouped(fake: type[FakeCodec], folder: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save("photo.png")
    assert ": 64×64, quality 75, 4,1" in vq("encode", "photo.png").stdout


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tar.png"])
def test_default_names(fake: type[FakeCodec], picture: NDArray[np.uint8], suffix: str) -> None:
    Path("sub").mkdir()
    os.rename("photo.png", f"sub/photo{suffix}")
    stem = f"sub/photo{suffix}"[:-4]
    assert vq("encode", f"sub/photo{suffix}").stdout.startswith(f"{stem}.vq: ")
    os.remove(f"sub/photo{suffix}")
    assert vq("decode", f"{stem}.vq").stdout.startswith(f"{stem}.png: 12×8, quality 75, ")
    np.testing.assert_array_equal(np.asarray(Image.open(f"{stem}.png")), picture)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (7, 1, 3), (5, 3, 1)])
def test_pixels_pass_through_unchanged(fake: type[FakeCodec], folder: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels.squeeze(2) if shape[2] == 1 else pixels).save("x.png")
    assert vq("encode", "x.png", "-o", "x.vq").exit_code == 0
    assert parse(Path("x.vq").read_bytes()).grey == (shape[2] == 1)
    assert vq("decode", "x.vq", "-o", "y.png").exit_code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("y.png")).reshape(shape), pixels)


@pytest.mark.parametrize("quality", [1, 37, 100])
def test_options_reach_the_codec(
    fake: type[FakeCodec], picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, quality: int
) -> None:
    threads: list[int] = []
    torch = types.ModuleType("torch")
    torch.set_num_threads = threads.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    options = ["--device", "cpu", "--weights", "w.safetensors", "--threads", "3"]
    assert vq("encode", "photo.png", "-q", str(quality), "--effort", "7", *options).exit_code == 0
    assert parse(Path("photo.vq").read_bytes()).quality == quality
    assert vq("decode", "photo.vq", "-o", "out.png", *options).exit_code == 0
    assert fake.calls == [("load", "w.safetensors", "cpu"), ("effort", 7), ("load", "w.safetensors", "cpu")]
    assert threads == [3, 3]


@pytest.mark.parametrize(
    ("option", "value", "kind", "number"),
    [
        ("--target-size", "50k", "size", 50_000),
        ("--target-size", "1.5MB", "size", 1_500_000),
        ("--target-size", "777", "size", 777),
        ("--target-bpp", "0.25", "bpp", 0.25),
        ("--target-psnr", "35.5", "psnr", 35.5),
        ("--target-ssimulacra2", "70", "ssimulacra2", 70),
    ],
)
def test_targets_reach_the_search_for_a_quality(
    fake: type[FakeCodec],
    picture: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    kind: str,
    number: float,
) -> None:
    def compress_to(codec: FakeCodec, pixels: NDArray[np.uint8], target: targets.Target, **options: Any) -> Any:
        assert (target.kind, target.value, options["effort"]) == (kind, number, 4)
        return targets.Targeted(codec.compress(pixels, 33), 71.239, (5, 2), "all is well")

    monkeypatch.setattr(targets, "compress_to", compress_to)
    result = vq("encode", "photo.png", option, value, "--effort", "4")
    assert result.exit_code == 0
    assert "vqcodec: warning: photo.png: all is well\n" in result.stderr
    assert parse(Path("photo.vq").read_bytes()).quality == 33
    reached = {"psnr": ", 71.24 dB\n", "ssimulacra2": ", SSIMULACRA2 71.24\n"}
    assert result.stdout.endswith(reached.get(kind, " s\n"))
    entry = json.loads(vq("encode", "photo.png", "-f", option, value, "--effort", "4", "--json").stdout)
    assert {name: entry[name] for name in reached} == {name: 71.239 if name == kind else None for name in reached}


def test_targets_that_cannot_be_combined(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    for more in (["-q", "50"], ["--target-bpp", "1"]):
        result = vq("encode", "photo.png", "--target-size", "50k", *more)
        assert result.exit_code == 2
        assert "cannot be combined: each decides the quality" in result.stderr
    for wrong in ("0", "-3", "50q", "k"):
        result = vq("encode", "photo.png", "--target-size", wrong)
        assert result.exit_code == 2
        assert "expected bytes such as 50000, 50k or 1.5M" in result.stderr


@pytest.mark.parametrize(("before", "after"), [(None, "10000"), ("7", "7")])
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(
    fake: type[FakeCodec],
    picture: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    after: str,
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", before or "")
    if before is None:
        del os.environ["GOMP_SPINCOUNT"]
    assert vq("encode", "photo.png").exit_code == 0
    assert os.environ["GOMP_SPINCOUNT"] == after


def test_quiet_says_nothing(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    Image.fromarray(np.full((4, 4), 9999, np.uint16)).save("photo.png")
    assert "warning" in vq("encode", "photo.png").stderr
    for command in (["encode", "photo.png", "--psnr"], ["decode", "photo.vq"]):
        result = vq(*command, "-f", "--quiet")
        assert (result.exit_code, result.output) == (0, "")


def test_a_picture_that_is_not_for_this_codec(fake: type[FakeCodec], folder: Path) -> None:
    Image.new("RGB", (20, 20)).save("black.png")
    Image.new("RGB", (16, 16)).save("tiny.png")
    result = vq("encode", "black.png", "tiny.png")
    assert result.exit_code == 0
    assert result.stderr.startswith("vqcodec: warning: black.png: a PNG without loss takes only ")
    assert result.stderr.count("\n") == 1
    records = vq("encode", "black.png", "tiny.png", "--json", "-f").stdout.splitlines()
    black, tiny = map(json.loads, records)
    assert (black["suited"], len(black["warnings"])) == (False, 1)
    assert (tiny["suited"], tiny["warnings"]) == (True, [])
    assert vq("encode", "black.png", "-f", "--quiet").output == ""


def test_warnings_name_the_image_once_and_do_not_fail(fake: type[FakeCodec], folder: Path) -> None:
    Image.fromarray(np.full((4, 4), 9999, np.uint16)).save("clear.png")
    result = vq("encode", "clear.png", "-o", "out.vq")
    assert result.exit_code == 0
    assert result.stderr.startswith("vqcodec: warning: clear.png: ")
    assert result.stderr.splitlines()[0].count("clear.png") == 1


def test_streams(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    encoded = vq("encode", "-", "-o", "-", stdin=Path("photo.png").read_bytes())
    assert encoded.stderr.startswith("standard output: 12×8, quality 75, ")
    decoded = vq("decode", "-", "-o", "-", stdin=encoded.stdout_bytes)
    assert decoded.stderr.startswith("standard output: 12×8, quality 75, ")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(decoded.stdout_bytes))), picture)
    assert vq("info", "-", stdin=encoded.stdout_bytes).stdout.startswith("standard input: 12×8, RGB")


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_errors_about_streams(fake: type[FakeCodec], folder: Path, command: str) -> None:
    output = "out.vq" if command == "encode" else "out.png"
    fails(vq(command, "-", "-o", output, stdin=b"no such thing"), "standard input: ")
    result = vq(command, "-", stdin=b"")
    assert (result.exit_code, "-o is needed" in result.stderr) == (2, True)
    assert not os.listdir()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_nothing_is_overwritten_without_force(
    fake: type[FakeCodec], picture: NDArray[np.uint8], packed: bytes, command: str
) -> None:
    source, output = ("photo.png", "photo.vq") if command == "encode" else ("photo.vq", "photo.png")
    Path(output).write_bytes(b"mine")
    if command == "encode":
        fails(vq(command, source), output, "exists already; name another with -o, or overwrite with -f")
    else:
        fails(vq(command, source, "-o", output), output, "exists already; name another with -o, or overwrite with -f")
    assert Path(output).read_bytes() == b"mine"
    assert not fake.calls
    assert vq(command, source, "-o", output, "-f").exit_code == 0
    assert Path(output).read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("none/out.vq", "no such folder"),
        ("photo.png/out.vq", "no such folder"),
        ("photo.png", "is the input"),
        ("link.png", "is the input"),
        ("other.png", "has the extension of an image, expected .vq"),
        ("other.AVIF", "has the extension of an image, expected .vq"),
    ],
)
def test_outputs_that_cannot_be(fake: type[FakeCodec], picture: NDArray[np.uint8], output: str, reason: str) -> None:
    os.link("photo.png", "link.png")
    before = Path("photo.png").read_bytes()
    fails(vq("encode", "photo.png", "-o", output, "-f"), output, reason)
    assert Path("photo.png").read_bytes() == before
    assert not fake.calls


def test_inputs_with_the_extension_of_outputs(fake: type[FakeCodec], picture: NDArray[np.uint8], packed: bytes) -> None:
    os.rename("photo.png", "image.vq")
    os.rename("photo.vq", "photo.png")
    fails(vq("decode", "photo.png"), "photo.png: has the output's extension .png itself")
    fails(vq("encode", "image.vq"), "image.vq: has the output's extension .vq itself")
    assert not fake.calls


def test_images_to_decode_and_vq_files_to_encode(
    fake: type[FakeCodec], picture: NDArray[np.uint8], packed: bytes
) -> None:
    image, file = "is a PNG image, expected a .vq file", "is a .vq file, expected an image"
    fails(vq("decode", "photo.png"), f"photo.png: {image}")
    fails(vq("decode", "photo.png", "-o", "x.png"), f"photo.png: {image}")
    fails(vq("decode", "-", "-o", "x.png", stdin=Path("photo.png").read_bytes()), f"standard input: {image}")
    os.link("photo.png", "image.png")
    fails(vq("decode", "image.png", "photo.vq"), f"image.png: {image}")
    fails(vq("info", "photo.png"), f"photo.png: {image}")
    fails(vq("encode", "photo.vq"), f"photo.vq: {file}")
    fails(vq("encode", "photo.vq", "-o", "x.vq"), f"photo.vq: {file}")
    os.link("photo.vq", "file.vq")
    fails(vq("encode", "file.vq", "photo.png"), f"file.vq: {file}")
    assert not fake.calls


def test_devices_are_written_to_as_they_are(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    assert vq("encode", "photo.png", "-o", os.devnull).stdout.startswith(f"{os.devnull}: 12×8")
    assert Path(os.devnull).is_char_device()


def test_an_unknown_image_format_is_refused_before_the_work(fake: type[FakeCodec], packed: bytes) -> None:
    fails(vq("decode", "photo.vq", "-o", "out.xyz"), "out.xyz: unknown image extension")
    assert not fake.calls


def test_a_full_disk_leaves_the_old_file(
    fake: type[FakeCodec], picture: NDArray[np.uint8], packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere.tmp")

    monkeypatch.setattr(Path, "replace", full)
    fails(vq("encode", "photo.png", "-f"), "photo.vq: cannot be written: No space left on device")
    assert Path("photo.vq").read_bytes() == packed


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_inputs_that_are_no_files(fake: type[FakeCodec], folder: Path, command: str) -> None:
    Path("dir").mkdir()
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    fails(vq(command, "missing.x"), "missing.x: cannot be read: No such file or directory")
    fails(vq(command, "dir"), "dir: holds no ")
    fails(vq(command, "pipe"), "pipe: is not a regular file (- reads from standard input)")
    fails(vq(command, "loop"), "loop: cannot be read: ")
    fails(vq(command, "n" * 300), "n" * 300 + ": cannot be read: File name too long")
    fails(vq(command, ""), ": cannot be read: No such file or directory")
    assert not fake.calls


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_text_file_named_png(fake: type[FakeCodec], folder: Path, content: bytes) -> None:
    Path("text.png").write_bytes(content)
    fails(vq("encode", "text.png"), "text.png")
    assert os.listdir() == ["text.png"]
    assert not fake.calls


@pytest.fixture
def pictures(picture: NDArray[np.uint8]) -> list[str]:
    """``photo.png`` in the current folder, and a folder ``in`` with two more."""
    Path("in/more").mkdir(parents=True)
    for name in ("in/a.png", "in/more/b.png"):
        Image.fromarray(picture[:4]).save(name)
    return ["photo.png", "in"]


def test_many_files_and_back(fake: type[FakeCodec], picture: NDArray[np.uint8], pictures: list[str]) -> None:
    result = vq("encode", *pictures, "-o", "out", "-q", "40")
    files = ["out/photo.vq", "out/a.vq", "out/more/b.vq"]
    sizes = [os.path.getsize(name) for name in files]
    assert (result.exit_code, result.stderr) == (0, "")
    *lines, summary = result.stdout.splitlines()
    assert [line.split(" bytes, ")[0] for line in lines] == [
        f"{name}: 12×{height}, quality 40, {size}" for name, height, size in zip(files, (8, 4, 4), sizes, strict=True)
    ]
    rate = 8 * sum(sizes) / (12 * 16)
    assert re.fullmatch(rf"3 files, {sum(sizes)} bytes, {rate:.3f} bpp, 0\.\d s, \d\.\d\d Mpixel/s", summary)

    result = vq("decode", "out", "-o", "back/")
    *lines, summary = result.stdout.splitlines()
    assert [line.rpartition(", ")[0] for line in lines] == [
        "back/a.png: 12×4, quality 40",
        "back/more/b.png: 12×4, quality 40",
        "back/photo.png: 12×8, quality 40",
    ]
    assert summary.startswith(f"3 files, {sum(sizes)} bytes, {rate:.3f} bpp, ")
    np.testing.assert_array_equal(np.asarray(Image.open("back/photo.png")), picture)
    assert fake.calls == [("load", None, "auto"), ("load named", None, "auto"), ("together", 2)]


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["photo.png", "-o", "new/"], "new/photo.vq"),
        (["photo.png", "-o", "in"], "in/photo.vq"),
        (["in/more"], "in/more/b.vq"),
        (["in/more", "-o", "new"], "new/b.vq"),
    ],
)
def test_a_folder_makes_it_many(fake: type[FakeCodec], pictures: list[str], arguments: list[str], output: str) -> None:
    line, summary = vq("encode", *arguments, "--psnr").stdout.splitlines()
    assert line.startswith(f"{output}: 12×")
    assert line.endswith(", 33.12 dB")
    assert summary.startswith("1 file, ")
    assert summary.endswith(" Mpixel/s, 33.12 dB")
    assert Path(output).is_file()


def test_many_files_quietly(fake: type[FakeCodec], pictures: list[str]) -> None:
    Image.fromarray(np.full((4, 4), 9999, np.uint16)).save("in/clear.png")
    result = vq("encode", *pictures, "--quiet", "--psnr")
    assert (result.exit_code, result.output) == (0, "")
    result = vq("encode", *pictures, "-f")
    assert result.stderr == "vqcodec: warning: in/clear.png: 16 bits per sample reduced to 8\n"


def test_files_that_fail_among_others(fake: type[FakeCodec], pictures: list[str]) -> None:
    Path("in/broken.png").write_bytes(b"no image")
    os.mkfifo("pipe")
    result = vq("encode", "gone.png", *pictures, "pipe", "-o", "out")
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:-1]] == [
        "out/photo.vq",
        "out/a.vq",
        "out/more/b.vq",
    ]
    assert result.stdout.splitlines()[-1].startswith("3 files, ")
    assert result.stderr.splitlines() == [
        "vqcodec: error: gone.png: cannot be read: No such file or directory",
        "vqcodec: error: in/broken.png: not an image that Pillow can read",
        "vqcodec: error: pipe: is not a regular file (- reads from standard input)",
        "vqcodec: error: 3 of 6 files failed",
    ]
    for name in ("out/a.vq", "out/photo.vq"):
        Path(name).write_bytes(b"no container")
    result = vq("decode", "out", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 3)
    assert result.stderr.endswith("vqcodec: error: 2 of 3 files failed\n")
    assert Path("out/more/b.png").is_file()


def test_faults_in_the_codec_are_of_one_file(fake: type[FakeCodec], pictures: list[str]) -> None:
    fake.fault = ValueError("odd")
    result = vq("encode", *pictures)
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.partition(" (")[0] for line in result.stderr.splitlines()] == [
        *(f"vqcodec: error: {name}: unexpected ValueError: odd" for name in ("photo.png", "in/a.png", "in/more/b.png")),
        "vqcodec: error: 3 of 3 files failed",
    ]
    fake.fault = KeyboardInterrupt()
    fails(vq("encode", *pictures), "vqcodec: error: interrupted", code=130)


def test_a_model_that_cannot_be_had_is_told_of_once(
    fake: type[FakeCodec], pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise WeightsError("w.safetensors: damaged")

    monkeypatch.setattr(fake, "load", load)
    fails(vq("encode", *pictures, "--weights", "w.safetensors"), "w.safetensors: damaged")


def test_a_full_disk_is_told_of_for_each_file(
    fake: type[FakeCodec], pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere.tmp")

    monkeypatch.setattr(Path, "replace", full)
    result = vq("encode", "in", "-o", "out")
    assert result.stderr.splitlines() == [
        "vqcodec: error: out/a.vq: cannot be written: No space left on device",
        "vqcodec: error: out/more/b.vq: cannot be written: No space left on device",
        "vqcodec: error: 2 of 2 files failed",
    ]


def test_many_files_are_refused_before_the_work(fake: type[FakeCodec], pictures: list[str]) -> None:
    Image.open("photo.png").save("in/photo.png")
    result = vq("encode", *pictures, "-o", "out")
    fails(result, "photo.png and in/photo.png would both be written to out/photo.png.vq")
    result = vq("encode", "in", "-o", "out.vq")
    assert (result.exit_code, "-o out.vq names a file, expected a folder for several" in result.stderr) == (2, True)
    Path("in/more/b.vq").write_bytes(b"mine")
    fails(vq("encode", "in"), "in/more/b.vq: exists already; name a folder with -o, or overwrite with -f")
    result = vq("encode", "in", "-o", "photo.png")
    assert (result.exit_code, "photo.png is a file, expected a folder" in result.stderr) == (2, True)
    assert not fake.calls
    assert not Path("out").exists()
    assert not Path("in/a.vq").exists()
    assert vq("encode", "in", "-f").exit_code == 0
    assert Path("in/more/b.vq").read_bytes() != b"mine"


def test_the_name_of_a_file_is_no_folder(fake: type[FakeCodec], pictures: list[str]) -> None:
    for command, name in (("encode", "all.vq"), ("decode", "all.png"), ("decode", "all.webp"), ("encode", "all.VQ")):
        result = vq(command, "in", "-o", name)
        said = f"-o {name} names a file, expected a folder for several outputs ({name}/ is one)"
        assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True), result.stderr
    assert not fake.calls
    assert vq("encode", "in", "-o", "all.vq/").exit_code == 0
    assert Path("all.vq/a.vq").is_file()


def test_skip_existing(fake: type[FakeCodec], pictures: list[str]) -> None:
    assert vq("encode", "in/a.png").exit_code == 0
    first = Path("in/a.vq").read_bytes()
    result = vq("encode", "in", "--skip-existing")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].startswith("in/more/b.vq: ")
    assert result.stdout.splitlines()[1].startswith("1 file, ")
    assert result.stdout.splitlines()[2] == "1 file skipped, since the outputs exist"
    again = vq("encode", "in", "--skip-existing")
    assert (again.exit_code, again.stdout) == (0, "2 files skipped, since the outputs exist\n")
    assert vq("encode", "in/a.png", "--skip-existing").stdout == "in/a.vq: exists already, skipped\n"
    assert Path("in/a.vq").read_bytes() == first
    entries = [*map(json.loads, vq("encode", "in", "--skip-existing", "--json").stdout.splitlines())]
    assert entries[0] == {"input": "in/a.png", "output": "in/a.vq", "skipped": True}
    assert [entry["skipped"] for entry in entries] == [True, True]
    assert json.loads(vq("encode", "in/a.png", "--skip-existing", "--json").stdout) == entries[0]
    assert vq("encode", "photo.png", "--skip-existing").stdout.startswith("photo.vq: 12×8")
    assert "choose one" in vq("encode", "in", "-f", "--skip-existing").stderr


@pytest.mark.parametrize("junk", [b"", b"mine", "truncated"])
def test_an_output_that_is_none_is_not_skipped(
    fake: type[FakeCodec], picture: NDArray[np.uint8], junk: bytes | str
) -> None:
    assert vq("encode", "photo.png").exit_code == 0
    whole = Path("photo.vq").read_bytes()
    for many in ([], ["-o", "./"]):
        Path("photo.vq").write_bytes(junk if isinstance(junk, bytes) else whole[:-1])
        assert vq("encode", "photo.png", "--skip-existing", *many).exit_code == 0
        assert Path("photo.vq").read_bytes() == whole
    Path("out").mkdir()
    Path("out/photo.png").write_bytes(junk if isinstance(junk, bytes) else b"")
    assert vq("decode", "photo.vq", "-o", "out/", "--skip-existing").exit_code == 0
    assert Path("out/photo.png").read_bytes().startswith(b"\x89PNG")
    assert "skipped" in vq("decode", "photo.vq", "-o", "out/photo.png", "--skip-existing").stdout


@pytest.mark.parametrize(("place", "problem"), [("nope/out.vq", "there is no such folder"), ("link.vq", "in a circle")])
def test_links_that_lead_nowhere_are_refused_before_the_work(
    fake: type[FakeCodec], picture: NDArray[np.uint8], place: str, problem: str
) -> None:
    os.symlink(place, "link.vq")
    fails(vq("encode", "photo.png", "-o", "link.vq"), "link.vq: cannot be written: ", problem)
    os.rename("link.vq", "photo.vq") if place != "link.vq" else os.symlink("photo.vq", "photo.vq")
    fails(vq("encode", "photo.png", "-o", "./"), "photo.vq: cannot be written: ", problem)
    assert not fake.calls


def test_the_share_of_files_done_is_shown(
    fake: type[FakeCodec], pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[tuple[float, int]] = []
    monkeypatch.setattr(Progress, "share", lambda _, done, pixels: shares.append((done, pixels)))
    assert vq("encode", *pictures).exit_code == 0
    assert shares == [(0, 0), (1 / 3, 96), (2 / 3, 96 + 48)]


def test_what_is_passed_over_in_folders(fake: type[FakeCodec], pictures: list[str]) -> None:
    Path("in/notes.txt").touch()
    said = "vqcodec: warning: passed over in folders, since they are no images: 1 .txt\n"
    assert vq("encode", "in").stderr == said
    assert vq("encode", "in", "-f", "--quiet").stderr == ""


def test_the_format_of_decoded_images(fake: type[FakeCodec], picture: NDArray[np.uint8], packed: bytes) -> None:
    assert vq("decode", "photo.vq", "--format", "webp").stdout.startswith("photo.webp: 12×8")
    assert vq("decode", "photo.vq", "-o", "out/", "--format", "tiff").stdout.startswith("out/photo.tiff: 12×8")
    streamed = vq("decode", "photo.vq", "-o", "-", "--format", "bmp").stdout_bytes
    for data in ("photo.webp", "out/photo.tiff", io.BytesIO(streamed)):
        assert np.array_equal(np.asarray(Image.open(data)), picture)
    result = vq("decode", "photo.vq", "-o", "x.png", "--format", "jpg")
    assert (result.exit_code, "-o x.png and --format jpg name two formats" in result.stderr) == (2, True)
    assert vq("decode", "photo.vq", "-o", "x.jpeg", "--format", "jpg").exit_code == 0


def test_results_as_json(fake: type[FakeCodec], pictures: list[str]) -> None:
    Path("in/broken.png").write_bytes(b"no image")
    result = vq("encode", *pictures, "-o", "out", "--json", "--psnr")
    first, second, broken, third = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 1
    assert broken == {"error": "in/broken.png: not an image that Pillow can read"}
    assert [item["output"] for item in (first, second, third)] == ["out/photo.vq", "out/a.vq", "out/more/b.vq"]
    assert {key: first[key] for key in ("input", "width", "height", "quality", "bytes", "psnr", "warnings")} == {
        "input": "photo.png", "width": 12, "height": 8, "quality": 75,
        "bytes": os.path.getsize("out/photo.vq"), "psnr": 33.118, "warnings": [],
    }  # fmt: skip
    decoded = json.loads(vq("decode", "out/photo.vq", "--json", "-o", "x.png").stdout)
    assert (decoded["output"], decoded["preview"], decoded["damage"]) == ("x.png", None, None)
    assert "choose one" in vq("encode", "in", "--json", "--quiet").stderr


def test_verbose_lists_the_parts(fake: type[FakeCodec], picture: NDArray[np.uint8]) -> None:
    Image.fromarray(np.dstack([picture, picture[:, :, 0]])).save("photo.png")
    encoded, decoded = vq("encode", "photo.png", "-v"), vq("decode", "photo.vq", "-o", "x.png", "-v")
    shown = vq("info", "photo.vq").stdout.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [
        ["weights", "c0dec001"], ["level", "0"], ["level", "1"], ["chunk", "Alph"], ["framing", shown[-1].split()[1]],
    ]  # fmt: skip
    for result in (encoded, decoded):
        assert result.stdout.splitlines()[1:] == shown[1:]
    assert vq("encode", "photo.png", "-v", "--json").exit_code == 2


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_an_empty_name_of_the_output(fake: type[FakeCodec], picture: NDArray[np.uint8], command: str) -> None:
    result = vq(command, "photo.png", "-o", "")
    assert (result.exit_code, "-o is empty, expected the name of a file or folder" in result.stderr) == (2, True)


def test_files_without_permission_fail_like_others(
    fake: type[FakeCodec], pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # what click would ask, for one
    assert vq("encode", "photo.png", "in").exit_code == 0
    assert vq("info", "in/a.vq").exit_code == 0
    for arguments in (["inspect", "."], ["rd-curve", "."], ["interpolate", ".", "."], ["train", "photo.png"]):
        result = vq(*arguments, "-o", "in")
        assert (result.exit_code, "is not readable" in result.stderr) == (1, False), result.stderr


def test_closed_files_and_folders_among_others(
    fake: type[FakeCodec], pictures: list[str], bound: None, tmp_path: Path
) -> None:
    Path("in/c.png").touch(mode=0)
    Path("shut").mkdir()
    os.rename("photo.png", "shut/photo.png")
    Path("in/link.png").symlink_to(tmp_path / "shut" / "photo.png")
    Path("in/more").chmod(0)
    Path("shut").chmod(0)
    result = vq("encode", "in")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "vqcodec: error: in/more: cannot be read: Permission denied",
        "vqcodec: error: in/c.png: cannot be read: Permission denied",
        "vqcodec: error: in/link.png: cannot be read: Permission denied",
        "vqcodec: error: 3 of 4 files failed",
    ]
    for path in ("shut", "in/more"):
        Path(path).chmod(0o755)


def test_each_model_is_loaded_once(fake: type[FakeCodec], packed: bytes) -> None:
    container = parse(packed)
    Path("in").mkdir()
    for number in range(6):
        other = replace(container, fingerprint=bytes([number % 2] * 4))
        Path(f"in/{number}.vq").write_bytes(pack(other))
    assert vq("decode", "in", "-o", "out").exit_code == 0
    assert fake.calls == [("load named", None, "auto")] * 2
    assert vq("decode", "in", "-o", "out", "-f", "--weights", "w").exit_code == 0
    assert fake.calls[2:] == [("load", "w", "auto")]


@pytest.mark.parametrize("command", ["decode", "info", "verify"])
def test_every_truncation_and_every_flipped_byte(fake: type[FakeCodec], packed: bytes, command: str) -> None:
    damaged = [packed[:length] for length in range(len(packed))]
    for position in range(len(packed)):
        damaged.append(bytes(byte ^ (0x41 if at == position else 0) for at, byte in enumerate(packed)))
    for data in damaged:
        Path("photo.vq").write_bytes(data)
        fails(vq(command, "photo.vq", *(["-o", "out.png"] if command == "decode" else [])), "photo.vq: ")
    assert not Path("out.png").exists()
    assert not fake.calls


@pytest.mark.parametrize(
    ("arguments", "levels", "said"), [(["--preview"], 1, "s, 1 of 2 levels\n"), (["--levels", "2"], 2, "s\n")]
)
def test_fewer_levels_on_purpose(
    fake: type[FakeCodec], packed: bytes, arguments: list[str], levels: int, said: str
) -> None:
    result = vq("decode", "photo.vq", "-o", "out.png", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith(said)
    assert fake.calls[1:] == [("levels", levels)]


def test_fewer_levels_of_a_file_that_has_not_arrived(fake: type[FakeCodec], packed: bytes) -> None:
    Path("cut.vq").write_bytes(packed[:-25])
    result = vq("decode", "cut.vq", "-o", "out.png", "--preview")
    damage = f"truncated: the file has {len(packed) - 25} bytes, its header says {len(packed)}"
    assert result.stderr == f"vqcodec: warning: cut.vq: {damage}; the levels asked for are intact{CHUNKS}\n"
    assert (result.exit_code, result.stdout[-17:]) == (0, "s, 1 of 2 levels\n")
    assert fake.calls[1:] == [("levels", 1)]
    assert vq("decode", "cut.vq", "-o", "out.png", "-f", "--preview", "--quiet").output == ""
    fails(vq("decode", "cut.vq", "-o", "2.png", "--levels", "2"), f"cut.vq: {damage}")
    assert vq("decode", "-", "-o", "3.png", "--levels", "1", stdin=packed[:-25]).exit_code == 0
    fails(vq("decode", "-", "-o", "4.png", "--levels", "2", stdin=packed[:-25]), f"standard input: {damage}")
    assert sorted(path.name for path in Path().glob("?.png")) == ["3.png"]


def test_salvage(fake: type[FakeCodec], picture: NDArray[np.uint8], packed: bytes) -> None:
    whole = vq("decode", "photo.vq", "-o", "whole.png", "--salvage")
    assert (whole.exit_code, whole.stderr) == (0, "")
    Path("cut.vq").write_bytes(packed[:-25])
    fails(vq("decode", "cut.vq", "-o", "cut.png"), "cut.vq: truncated")
    assert not Path("cut.png").exists()
    result = vq("decode", "cut.vq", "-o", "cut.png", "--salvage")
    assert result.exit_code == 1
    assert result.stdout.startswith("cut.png: 12×8")
    assert result.stderr == (
        f"vqcodec: warning: cut.vq: truncated: the file has {len(packed) - 25} bytes, its header says {len(packed)}; "
        f"the picture shows only 1 of 2 levels{CHUNKS}\n"
    )
    np.testing.assert_array_equal(np.asarray(Image.open("cut.png")), picture)
    # If the coarsest level is damaged, nothing can be salvaged.
    Path("cut.vq").write_bytes(packed[:60])
    fails(vq("decode", "cut.vq", "-o", "none.png", "--salvage"), "cut.vq: truncated: level 0 ends at byte")
    assert not Path("none.png").exists()


def test_max_pixels_of_an_image(fake: type[FakeCodec], folder: Path) -> None:
    Image.new("RGB", (12, 8)).save("photo.png")
    fails(vq("encode", "photo.png", "--max-pixels", "95"), "photo.png: too many pixels: 12x8 is 96, the limit is 95")
    assert vq("encode", "photo.png", "--max-pixels", "96", "--psnr").exit_code == 0
    assert fake.calls[1:] == [("max_pixels", 96), ("max_pixels", 96)]


@pytest.mark.parametrize("command", ["decode", "info", "verify"])
def test_max_pixels(fake: type[FakeCodec], packed: bytes, command: str) -> None:
    out = ["-o", "out.png"] if command == "decode" else []
    fails(vq(command, "photo.vq", *out, "--max-pixels", "95"), "photo.vq: too many pixels: 12x8 is 96, the limit is 95")
    assert vq(command, "photo.vq", *out, "--max-pixels", "96").exit_code == 0
    assert not any(call[0] == "max_pixels" for call in fake.calls)  # the file is checked before the codec gets it


def test_salvage_among_others(fake: type[FakeCodec], packed: bytes) -> None:
    Path("in").mkdir()
    Path("in/a.vq").write_bytes(packed)
    Path("in/b.vq").write_bytes(packed[:-3])
    Path("in/c.vq").write_bytes(packed[:9])
    result = vq("decode", "in", "-o", "out", "--salvage")
    assert result.exit_code == 1
    assert {path.name for path in Path("out").iterdir()} == {"a.png", "b.png"}
    warning, error, total = result.stderr.splitlines()
    assert warning.startswith("vqcodec: warning: in/b.vq: truncated: the file has")
    assert warning.endswith(f"; the picture shows all levels{CHUNKS}")
    assert error.startswith("vqcodec: error: in/c.vq: truncated")
    assert total == "vqcodec: error: 1 of 3 files failed"


def test_damage_within_a_batch(fake: type[FakeCodec], packed: bytes) -> None:
    """Batches are made from headers alone, which do not show damage in the levels."""
    damaged = packed[:-20] + bytes([packed[-20] ^ 1]) + packed[-19:]
    Path("in").mkdir()
    for name, data in (("a", packed), ("b", damaged), ("c", packed)):
        Path(f"in/{name}.vq").write_bytes(data)
    refused = vq("decode", "in", "-o", "strict")
    assert {path.name for path in Path("strict").iterdir()} == {"a.png", "c.png"}
    assert refused.stderr.splitlines()[0].startswith("vqcodec: error: in/b.vq: level 1 damaged: ")
    assert ("together", 3) not in fake.calls
    preview = vq("decode", "in", "-o", "preview", "--preview")
    assert (preview.exit_code, len(list(Path("preview").iterdir()))) == (0, 3)
    assert preview.stderr.startswith("vqcodec: warning: in/b.vq: level 1 damaged: ")
    assert preview.stderr.endswith(f"; the levels asked for are intact{CHUNKS}\n")
    salvaged = vq("decode", "in", "-o", "salvaged", "--salvage")
    assert (salvaged.exit_code, len(list(Path("salvaged").iterdir()))) == (1, 3)
    assert salvaged.stderr.endswith(f"; the picture shows only 1 of 2 levels{CHUNKS}\n")
    assert fake.calls.count(("together", 3)) == 2


def test_names_that_a_terminal_would_act_on(fake: type[FakeCodec], packed: bytes) -> None:
    name, seen = "a\n\x1b[31m\u202eb.vq", r"a\n\x1b[31m\u202eb.vq"
    Path(name).write_bytes(packed)
    assert vq("info", name).stdout.startswith(f"{seen}: 12×8, ")
    assert json.loads(vq("info", name, "--json").stdout)["file"] == name
    assert vq("verify", name).stdout == f"{seen}: whole\n"
    assert vq("decode", name, "-o", f"{name}.png").stdout.startswith(f"{seen}.png: 12×8, ")
    Path(name).write_bytes(b"")
    fails(vq("decode", name, "-o", "x.png"), f"{seen}: empty file")


def test_verify(packed: bytes) -> None:
    Path("b.vq").write_bytes(packed[:-25])
    Path("c.vq").write_bytes(b"")
    result = vq("verify", "photo.vq")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "photo.vq: whole\n", "")
    assert vq("verify", "photo.vq", "--quiet").output == ""
    assert vq("verify", "-", stdin=packed).stdout == "standard input: whole\n"
    result = vq("verify", "b.vq", "photo.vq", "c.vq", "d.vq")
    assert (result.exit_code, result.stdout) == (1, "photo.vq: whole\n")
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("vqcodec: error: b.vq: truncated: the file has")
    assert lines[0].endswith("; 1 of 2 levels intact (decode --salvage shows them)")
    assert lines[1:] == [
        "vqcodec: error: c.vq: empty file, expected a .vq file",
        "vqcodec: error: d.vq: cannot be read: No such file or directory",
        "vqcodec: error: 3 of 4 files are not whole",
    ]


def test_a_huge_file_is_refused_unread(folder: Path) -> None:
    with open("huge.vq", "wb") as file:
        file.truncate(2**40)  # sparse
    start = time.monotonic()
    fails(vq("info", "huge.vq"), "huge.vq: 1,099,511,627,776 bytes, expected a .vq file of at most 536,870,912")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (FormatError("level 1 ends early"), "photo.vq: level 1 ends early"),
        (UnknownModelError("weights c0dec001 are not installed"), "photo.vq: weights c0dec001 are not"),
        (WeightsError("w.safetensors: damaged"), "error: w.safetensors: damaged"),
        (VqcodecError("two\nlines"), "error: two\\nlines"),
        (MemoryError(), "photo.vq: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "photo.vq: not enough memory"),
        (ValueError("odd\nthing"), "error: unexpected ValueError: odd (VQCODEC_DEBUG=1 shows where)"),
        (ValueError(), "error: unexpected ValueError (VQCODEC_DEBUG=1 shows where)"),
    ],
)
def test_faults_in_the_codec_become_one_line(
    fake: type[FakeCodec], packed: bytes, fault: Exception, message: str
) -> None:
    fake.fault = fault
    fails(vq("decode", "photo.vq", "-o", "out.png"), message)
    assert not Path("out.png").exists()


def test_debug_shows_the_traceback(fake: type[FakeCodec], packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQCODEC_DEBUG", "1")
    fake.fault = ValueError("odd")
    result = vq("decode", "photo.vq", "-o", "out.png")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("\nvqcodec: error: unexpected ValueError: odd (VQCODEC_DEBUG=1 shows where)\n")


def test_interrupt(fake: type[FakeCodec], packed: bytes) -> None:
    fake.fault = KeyboardInterrupt()
    fails(vq("decode", "photo.vq", "-o", "out.png"), "vqcodec: error: interrupted", code=130)


def test_info(packed: bytes) -> None:
    size, level = len(packed), len(parse(packed).levels[0])
    framing = size - level - 25
    result = vq("info", "photo.vq")
    assert (result.exit_code, result.stderr) == (0, "")
    head, *rows = result.stdout.splitlines()
    assert head == f"photo.vq: 12×8, RGB, quality 60, {size} bytes, {8 * size / 96:.3f} bpp"
    assert [row.split() for row in rows] == [
        ["weights", "c0dec001"],
        ["level", "0", str(level), "bytes", f"{100 * level / size:.1f}", "%"],
        ["level", "1", "20", "bytes", f"{2000 / size:.1f}", "%"],
        ["chunk", "noTe", "5", "bytes", f"{500 / size:.1f}", "%"],
        ["framing", str(framing), "bytes", f"{100 * framing / size:.1f}", "%"],
    ]


def test_info_as_json(packed: bytes) -> None:
    assert json.loads(vq("info", "photo.vq", "--json").stdout) == {
        "file": "photo.vq",
        "width": 12,
        "height": 8,
        "colours": "RGB",
        "alpha": False,
        "quality": 60,
        "fingerprint": "c0dec001",
        "bytes": len(packed),
        "bpp": 8 * len(packed) / 96,
        "levels": [len(level) for level in parse(packed).levels],
        "chunks": [{"tag": "noTe", "bytes": 5}],
    }


# From here on, with the shipped weights.


@pytest.mark.slow
def test_a_photograph_through_two_processes(codec: "Codec", photograph: NDArray[np.uint8], folder: Path) -> None:
    Image.fromarray(photograph).save("photo.png")
    encoded = run_module("-m", "vqcodec", "encode", "photo.png", "--psnr", stdout=subprocess.PIPE)
    decoded = run_module("-m", "vqcodec", "decode", "photo.vq", "-o", "out.png", stdout=subprocess.PIPE)
    assert (encoded.returncode, encoded.stderr, decoded.returncode, decoded.stderr) == (0, "", 0, "")

    data = Path("photo.vq").read_bytes()
    pixels = np.asarray(Image.open("out.png"))
    psnr = 10 * np.log10(255**2 / np.mean((pixels.astype(float) - photograph) ** 2))
    assert encoded.stdout.startswith(f"photo.vq: 192×128, quality 75, {len(data):,} bytes, ")
    assert float(encoded.stdout.split()[-2]) == pytest.approx(psnr, abs=0.06)
    assert psnr > 27
    assert len(data) * 8 < 3 * 192 * 128
    assert parse(data).fingerprint == codec.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 37, 3), (33, 1, 1), (17, 31, 3)])
def test_odd_sizes_with_the_shipped_model(codec: "Codec", folder: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels.squeeze(2) if shape[2] == 1 else pixels).save("x.png")
    assert vq("encode", "x.png", "-q", "30", "--device", "cpu").exit_code == 0
    assert vq("decode", "x.vq", "-o", "y.png", "--device", "cpu").exit_code == 0
    assert np.asarray(Image.open("y.png")).reshape(shape).dtype == np.uint8


@pytest.mark.slow
def test_a_file_for_other_weights(codec: "Codec", packed: bytes) -> None:
    fails(vq("decode", "photo.vq", "-o", "out.png"), "photo.vq: ", FINGERPRINT.hex())
    assert not Path("out.png").exists()


@pytest.mark.slow
def test_a_bitstream_of_nonsense(codec: "Codec", photograph: NDArray[np.uint8], folder: Path) -> None:
    """A bitstream that the prior never wrote, with correct checksums, gives an error or an image, no traceback."""
    container = parse(codec.compress(photograph, 40))
    noise = np.random.default_rng(0)
    for _ in range(4):
        levels = tuple(noise.bytes(len(level)) for level in container.levels)
        data = pack(Container(container.width, container.height, False, 40, container.fingerprint, levels))
        Path("noise.vq").write_bytes(data)
        result = vq("decode", "noise.vq", "-f", "--device", "cpu")
        if result.exit_code:
            fails(result, "noise.vq: ")
        else:
            assert Image.open("noise.png").size == (192, 128)


@pytest.mark.slow
def test_missing_weights_and_devices(codec: "Codec", photograph: NDArray[np.uint8], folder: Path) -> None:
    Image.fromarray(photograph).save("photo.png")
    Path("bad.safetensors").write_bytes(b"not weights")
    fails(vq("encode", "photo.png", "--weights", "none.safetensors"), "none.safetensors")
    fails(vq("encode", "photo.png", "--weights", "bad.safetensors"), "bad.safetensors")
    assert not Path("photo.vq").exists()


@pytest.fixture
def crops(photograph: NDArray[np.uint8], folder: Path) -> int:
    """The number of crops of a photograph, of several shapes, in the folder ``in``."""
    Path("in/upright").mkdir(parents=True)
    for number, (height, width) in enumerate([(64, 96), (33, 70), (128, 192), (17, 31)]):
        Image.fromarray(photograph[:height, :width]).save(f"in/{number}.png")
    Image.fromarray(photograph[:, :40]).save("in/upright/5.webp", lossless=True)
    return 5


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(codec: "Codec", crops: int) -> None:
    import torch

    Path("in/broken.png").write_bytes(b"no image")
    for jobs in ("1", "2"):
        # Both with the same number of threads, on which the last bits of a feature depend.
        how = ["-j", jobs, "--threads", str(torch.get_num_threads()), "--device", "cpu"]
        encoded = vq("encode", "in", "-o", f"vq{jobs}", *how, "--psnr")
        decoded = vq("decode", f"vq{jobs}", "-o", f"png{jobs}", *how)
        assert encoded.stderr.splitlines() == [
            "vqcodec: error: in/broken.png: not an image that Pillow can read",
            f"vqcodec: error: 1 of {crops + 1} files failed",
        ]
        assert (decoded.exit_code, decoded.stderr) == (0, "")
        names = [line.split(":")[0] for line in encoded.stdout.splitlines()[:-1]]
        assert names == [f"vq{jobs}/{name}.vq" for name in ("0", "1", "2", "3", "upright/5")]
        assert decoded.stdout.splitlines()[-1].startswith(f"{crops} files, ")
    assert contents("vq1") == contents("vq2")
    assert contents("png1") == contents("png2")
    assert len(contents("png2")) == crops


def test_the_tune_names_the_model(
    tiny_weights: Path, tiny_codec: "Codec", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for side in ("decoder", "encoder"):
        shutil.copy(tiny_weights.with_name(f"tiny.{side}.safetensors"), models / f"visual.{side}.safetensors")
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(models))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 30), "teal").save("in.png")
    result = vq("encode", "in.png", "-o", "seen.vq", "--tune", "visual", "--device", "cpu", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert parse(Path("seen.vq").read_bytes()).fingerprint == tiny_codec.fingerprint
    result = vq("encode", "in.png", "-o", "b.vq", "--tune", "visual", "--effort", "2")
    assert result.exit_code == 2
    assert "--effort searches for less squared error, which is not what --tune visual is for" in result.stderr
    result = vq("encode", "in.png", "-o", "b.vq", "--tune", "visual", "--weights", str(tiny_weights))
    assert result.exit_code == 2
    assert "--weights and --tune cannot be combined: each names a model" in result.stderr
    assert not Path("b.vq").exists()


@pytest.mark.slow
def test_files_of_several_models(
    codec: "Codec", crops: int, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQCODEC_WEIGHTS", str(tiny_weights.parent))
    assert vq("encode", "in", "-o", "vq/new", "--device", "cpu").exit_code == 0
    assert vq("encode", "in", "-o", "vq/old", "--device", "cpu", "--weights", str(tiny_weights)).exit_code == 0
    stranger = replace(parse(Path("vq/old/0.vq").read_bytes()), fingerprint=FINGERPRINT)
    Path("vq/stranger.vq").write_bytes(pack(stranger))
    result = vq("decode", "vq", "-o", "png", "--device", "cpu")
    assert result.stdout.splitlines()[-1].startswith(f"{2 * crops} files, ")
    strange, closing = result.stderr.splitlines()
    assert strange.startswith(f"vqcodec: error: vq/stranger.vq: made with weights {FINGERPRINT.hex()}")
    assert closing == f"vqcodec: error: 1 of {2 * crops + 1} files failed"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["the workers start", "files are written"])
def test_an_interrupt_leaves_no_workers_and_no_pieces(
    codec: "Codec", photograph: NDArray[np.uint8], folder: Path, moment: str
) -> None:
    Path("in").mkdir()
    for number in range(200):
        Image.fromarray(photograph).save(f"in/{number:03}.png")
    command = [sys.executable, "-m", "vqcodec", "encode", "in", "-o", "out", "-j", "2", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(vqcodec.__file__).parents[1])}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        ready = "out" if moment == "the workers start" else "out/*.vq"
        while not list(folder.glob(ready)):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "vqcodec: error: interrupted\n")
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("workers outlive their parent")
    for path in folder.glob("out/*"):
        parse(path.read_bytes())


@pytest.mark.slow
def test_a_killed_encode_leaves_the_old_file_or_the_new(
    codec: "Codec", photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    """kill −9 at 50 moments: 40 at random, 10 as soon as the temporary file is there."""
    image, output = tmp_path / "photo.png", tmp_path / "photo.vq"
    Image.fromarray(photograph).save(image)
    old, new = (codec.compress(photograph, quality) for quality in (20, 80))
    command = [sys.executable, "-m", "vqcodec", "encode", str(image), "-o", str(output), "-f", "-q", "80", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(vqcodec.__file__).parents[1])}

    def encode() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*command, "--device", "cpu"], env=environment, cwd=tmp_path)

    begun = time.perf_counter()
    with encode() as whole:
        assert whole.wait(60) == 0
    seconds = time.perf_counter() - begun
    assert output.read_bytes() == new

    killed, seen = 0, []
    moments = [*np.random.default_rng(0).uniform(0, 1.05 * seconds, 40), *[None] * 10]
    for moment in moments:
        output.write_bytes(old)
        begun = time.perf_counter()
        with encode() as process:
            while process.poll() is None and (
                not list(tmp_path.glob(".*")) if moment is None else time.perf_counter() - begun < moment
            ):
                time.sleep(0 if moment is None else 0.001)
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        seen.append(output.read_bytes())
        for piece in tmp_path.glob(".*"):
            piece.unlink()
    assert {*seen} <= {old, new}
    assert killed > 10
    assert old in seen


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no such name here")
def test_standard_output_by_another_name(codec: "Codec", photograph: NDArray[np.uint8], folder: Path) -> None:
    Image.fromarray(photograph).save("photo.png")
    command = [sys.executable, "-m", "vqcodec", "encode", "photo.png", "-o", "/dev/stdout", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(vqcodec.__file__).parents[1])}
    run = subprocess.run(command, env=environment, capture_output=True, check=True)
    parse(run.stdout)
    assert run.stderr.startswith(b"/dev/stdout: 192")


def test_help_lists_the_images_that_are_looked_for_in_folders() -> None:
    (listed,) = re.findall(r"files that end in ([^;]*);", " ".join(vq("encode", "--help").stdout.split()))
    assert {f".{word}" for word in re.split(", | or ", listed)} == images._SUFFIXES
