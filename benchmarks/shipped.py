"""Write the files of the repository that the shipped model makes, after a new one was put into ``weights/``.

::

    weights/*.safetensors ─┬─▶ weights/SHA256SUMS
                           └─ Codec ─┬─ parts of examples/*.png ──▶ tests/golden/*.vq, *.png, facts.json
                                     ├─ examples/*.png ──────────▶ web/page/gallery/*.vq
                                     ├─ examples/coffee.png ─────▶ docs/pictures/coffee.png, its figures in README.md
                                     └─ examples/chelsea.png ────▶ what `make demo` prints, in README.md

Run from the repository's root, with one thread:

    python -m benchmarks.shipped

Tests compare with these files; results of measurements are made by the other scripts of this folder.
"""

import contextlib
import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray

from benchmarks import comparison
from vqcodec.cli.main import main as command
from vqcodec.codec import Codec
from vqcodec.config import TUNES
from vqcodec.exact import entropy
from vqcodec.files.atomic import write_atomic
from vqcodec.files.container import pack, parse
from vqcodec.files.images import read_image, write_image
from vqcodec.jsonfile import write_json
from vqcodec.weights import MANIFEST, find_weights

__all__ = [
    "GALLERY",
    "GOLDEN",
    "QUALITIES",
    "README",
    "codes_digest",
    "demo",
    "facts",
    "golden",
    "main",
    "manifest",
    "quoting",
]

WEIGHTS, EXAMPLES = Path("weights"), Path("examples")
GOLDEN, GALLERY = Path("tests", "golden"), Path("web", "page", "gallery")
COFFEE, README = Path("docs", "pictures", "coffee.png"), Path("README.md")
QUALITIES = (20, 60, 95)  # of the gallery
SHOWN, CROP = 40, (150, 60, 450, 300)  # quality of the picture in README, and its part: left, top, right, bottom

Pixels = NDArray[np.uint8]
Facts = tuple[int, float]
"""Bytes of a file, and its PSNR in dB."""


def manifest(folder: Path) -> str:
    """The contents of ``SHA256SUMS`` for the weights in ``folder``."""
    files = sorted(folder.glob("*.safetensors"))
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def golden(codec: Codec, visual: Codec, cat: Pixels, cup: Pixels) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each golden file: upright, grey and tiny pictures, a level without a code, both tunes."""
    portrait = np.ascontiguousarray(cat[100:230, 150:231, 1:2])
    for name, pixels, quality in (
        ("chelsea-q50", cat, 50),
        ("coffee-q95", np.ascontiguousarray(cup[100:260, 200:360]), 95),
        ("portrait-grey-q70", portrait, 70),
        ("one-pixel-q75", np.ascontiguousarray(cat[:1, :1]), 75),
    ):
        yield f"v1-{name}.vq", codec.compress(pixels, quality, effort=0)
    file, codes = codec.read(codec.compress(np.ascontiguousarray(cat[60:188, 100:292]), 5, effort=0))
    codes[-1][:] = 0
    levels = tuple(level.bitstream for level in entropy.encode(codec.prior, codes, file.quality))
    yield "v1-silent-q5.vq", pack(dataclasses.replace(file, levels=levels))
    yield "v1-visual-q50.vq", visual.compress(portrait, 50)


def facts(codec: Codec, data: bytes, picture: str) -> dict[str, object]:
    """What the tests check of a golden file, whose pixels are stored as ``picture``."""
    file, codes = codec.read(data)
    size = {"width": file.width, "height": file.height, "quality": file.quality}
    return size | {"codes": codes_digest(codes), "picture": picture}


def codes_digest(codes: Sequence[NDArray[np.integer]]) -> str:
    """SHA-256, in hex, of codes ``[G_l, H_l, W_l]`` as int64, coarsest level first."""
    return hashlib.sha256(b"".join(grid.astype("<i8").tobytes() for grid in codes)).hexdigest()


def demo(photograph: Path) -> str:
    """What the commands of ``make demo`` print."""
    lines: list[str] = []
    photograph = photograph.absolute()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        name = Path("demo", photograph.stem)
        name.parent.mkdir()
        for arguments in (
            ["encode", str(photograph), "-o", f"{name}.vq", "--psnr"],
            ["info", f"{name}.vq"],
            ["decode", f"{name}.vq", "-o", f"{name}.png"],
        ):
            lines.append(CliRunner().invoke(command, arguments, catch_exceptions=False).stdout)
    return "".join(lines)


def quoting(readme: str, jpeg: Facts, own: Facts, weights_bytes: int, shown: str) -> str:
    """``readme`` with other figures of JPEG and vqcodec for the coffee cup, of the weights, and of ``make demo``."""
    kilobytes = [f"{facts[0] / 1000:.1f}" for facts in (jpeg, own)]
    sentence = f"JPEG needs {kilobytes[0]} kilobytes at {jpeg[1]:.1f} dB, vqcodec {kilobytes[1]} at {own[1]:.1f} dB"
    for pattern, text in (
        (r"JPEG of [\d.]+ kB, vqcodec of [\d.]+ kB", f"JPEG of {kilobytes[0]} kB, vqcodec of {kilobytes[1]} kB"),
        (r"JPEG needs [\d.]+ kilobytes at [\d.]+ dB, vqcodec [\d.]+ at [\d.]+ dB", sentence),
        (r"the weights, [\d.]+ MB", f"the weights, {weights_bytes / 1e6:.1f} MB"),
        (r"(?<=```\n)demo/chelsea\.vq: [^`]*(?=```)", shown),
    ):
        parts = re.split(pattern, readme)
        if len(parts) != 2:
            raise ValueError(f"{README}: {len(parts) - 1} times {pattern!r}, expected once")
        readme = text.join(parts)
    return readme


@click.command(help=__doc__)
def main() -> None:
    write_atomic(WEIGHTS / MANIFEST, manifest(WEIGHTS).encode())
    codec, visual = (Codec.load(tune=tune, device="cpu") for tune in TUNES)
    readers = {each.fingerprint: each for each in (codec, visual)}
    pictures = {path.stem: read_image(path)[0] for path in sorted(EXAMPLES.glob("*.png"))}
    stored: dict[str, object] = {}
    for name, data in golden(codec, visual, pictures["chelsea"], pictures["coffee"]):
        reader, picture = readers[parse(data).fingerprint], Path(name).with_suffix(".png")
        write_atomic(GOLDEN / name, data)
        write_image(GOLDEN / picture, reader.decompress(data))
        stored[name] = facts(reader, data, picture.name)
    write_json(GOLDEN / "facts.json", stored)
    for name, pixels in pictures.items():
        for quality in QUALITIES:
            write_atomic(GALLERY / f"{name}-q{quality}.vq", codec.compress(pixels, quality))
    jpeg, own = comparison.compare(codec, pictures["coffee"], SHOWN, CROP, COFFEE)
    size, shown = find_weights().stat().st_size, demo(EXAMPLES / "chelsea.png")
    write_atomic(README, quoting(README.read_text(encoding="utf-8"), jpeg, own, size, shown).encode())
    click.echo(f"{codec.name} {codec.fingerprint.hex()}: {len(stored)} golden files, the gallery, {COFFEE}, {README}")


if __name__ == "__main__":
    main()
