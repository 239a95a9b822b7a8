"""Golden files: each decodes to the same codes, bit for bit, and to the same picture, within one grey level."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.shipped import codes_digest
from vqcodec import Codec
from vqcodec.files.images import read_image
from vqcodec.metrics import psnr

FOLDER = Path(__file__).parent / "golden"
FACTS = json.loads((FOLDER / "facts.json").read_text())


@pytest.mark.parametrize("name", FACTS)
def test_a_golden_file_decodes_to_its_codes_and_picture(name: str) -> None:
    facts, data = FACTS[name], (FOLDER / name).read_bytes()
    codec = Codec.for_file(data, device="cpu")
    file, codes = codec.read(data)
    assert [file.width, file.height, file.quality] == [facts["width"], facts["height"], facts["quality"]]
    assert codes_digest(codes) == facts["codes"]
    picture, _ = read_image(FOLDER / facts["picture"])
    pixels = codec.decompress(data)
    # Floats may differ in their last bit between machines, and then pixels differ by at most one grey level.
    assert np.abs(pixels.astype(int) - picture).max() <= 1


def test_every_golden_file_is_listed() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.vq")) == sorted(FACTS)


def test_the_golden_photograph_is_still_a_good_likeness() -> None:
    original, _ = read_image(Path(__file__).parents[1] / "examples" / "chelsea.png")
    picture, _ = read_image(FOLDER / FACTS["v1-chelsea-q50.vq"]["picture"])
    assert psnr(original, picture) > 30
