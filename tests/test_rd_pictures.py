"""The pictures of the page: which settings, in which form, within which size."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vqcodec.codec import Codec
from vqcodec.metrics import psnr
from vqcodec.rd.anchors import ANCHORS, OWN
from vqcodec.rd.pictures import choose_settings, gallery
from vqcodec.rd.sources import Image
from vqcodec.rd.store import Measurement


def test_settings_are_spread_over_ours_and_near_them_in_bpp() -> None:
    own = [0.1, 0.13, 0.17, 0.22, 0.29, 0.37, 0.46, 0.55, 0.66, 0.77, 0.89]
    chosen = choose_settings({OWN: own, "jpeg": [0.05, 0.11, 0.3, 0.31, 0.9, 2.0], "webp": [3.0, 4.0]})
    assert chosen[OWN] == [0, 2, 4, 6, 8, 10]
    assert chosen["jpeg"] == [1, 2, 3, 4]
    assert chosen["webp"] == []  # none is near anything of ours


def test_one_setting_of_ours_is_enough() -> None:
    assert choose_settings({OWN: [0.5], "jpeg": [0.2, 0.45, 0.6]}) == {OWN: [0], "jpeg": [1]}


@pytest.fixture
def measured(
    tiny_codec: Codec, photograph: NDArray[np.uint8], folder: Path
) -> tuple[list[Image], dict[tuple[str, str, int], Measurement]]:
    """Two images by vqcodec, JPEG and JPEG 2000."""
    images: list[Image] = []
    parts: dict[tuple[str, str, int], Measurement] = {}
    for name, pixels in (("a.png", photograph[:, :, :1]), ("b.png", photograph[:96])):
        path = folder / name
        PillowImage.fromarray(pixels.squeeze()).save(path)
        images.append(Image(name, pixels.shape[1], pixels.shape[0], name * 5, path))
        files = {OWN: tiny_codec.compress(pixels, 60)}
        files |= {key: ANCHORS[key].compress(pixels, ANCHORS[key].settings[-1]) for key in ("jpeg", "jpeg2000")}
        for codec, data in files.items():
            file = folder / f"{path.stem}-{codec}"
            file.write_bytes(data)
            parts[name, codec, 0] = Measurement(file, len(data), {}, 0.1, 0.1, 1)
    return images, parts


SETTINGS = {OWN: [0], "jpeg": [0], "jpeg2000": [0]}


def test_what_browsers_read_is_stored_as_it_is(
    measured: tuple[list[Image], dict[tuple[str, str, int], Measurement]], tiny_codec: Codec, folder: Path
) -> None:
    images, parts = measured
    found = gallery(images, SETTINGS, parts, tiny_codec, folder / "kept", budget=10**7, quiet=True)
    assert [(one.image, one.codec) for one in found.pictures[:4]] == [
        ("a.png", codec) for codec in ("original", OWN, "jpeg", "jpeg2000")
    ]
    for one in found.pictures:
        if one.codec == "jpeg":
            assert one.data == parts[one.image, "jpeg", 0].file.read_bytes()
            continue
        assert one.mime == "image/avif"
        with PillowImage.open(io.BytesIO(one.data)) as picture:
            seen = np.asarray(picture.convert("RGB"))
        image = next(image for image in images if image.name == one.image)
        truth = np.asarray(PillowImage.open(image.path).convert("RGB"))
        if one.codec == OWN:
            truth = np.broadcast_to(tiny_codec.decompress(parts[one.image, OWN, 0].file.read_bytes()), truth.shape)
        assert psnr(np.ascontiguousarray(truth), seen) > 30
    assert "quality 85" in found.stored
    assert "first" not in found.stored
    # What was made is found again.
    before = {path: path.stat().st_mtime_ns for path in (folder / "kept").iterdir()}
    assert gallery(images, SETTINGS, parts, tiny_codec, folder / "kept", budget=10**7, quiet=True) == found
    assert {path: path.stat().st_mtime_ns for path in (folder / "kept").iterdir()} == before


def test_a_budget_is_kept(
    measured: tuple[list[Image], dict[tuple[str, str, int], Measurement]], tiny_codec: Codec, folder: Path
) -> None:
    images, parts = measured

    def size(budget: int) -> tuple[int, str]:
        found = gallery(images, SETTINGS, parts, tiny_codec, folder / "kept", budget=budget, quiet=True)
        return sum(len(one.data) for one in found.pictures), found.stored

    full, _ = size(10**7)
    less, stored = size(full - 1)
    assert less < full
    assert "quality 75" in stored
    few, stored = size(full // 2)
    assert few <= full // 2
    assert "first 1 of 2 images" in stored
    assert size(0) == (0, size(0)[1])
