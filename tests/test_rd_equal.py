"""Files of a wanted rate: which side of it they are on, and what has none."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.errors import WeightsError
from vqcodec.metrics import bpp
from vqcodec.rd.anchors import ANCHORS, Setting
from vqcodec.rd.equal import WITH_QUALITY, coders, ours, theirs

Picture = NDArray[np.uint8]


def rate(data: bytes | None, picture: Picture) -> float:
    assert data is not None
    return bpp(len(data), picture.shape[1], picture.shape[0])


def test_anchors_without_a_quality_cannot_be_asked() -> None:
    assert set(ANCHORS) - set(WITH_QUALITY) == {"jpeg2000"}


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_an_anchor_is_the_smallest_of_at_least_the_rate(photograph: Picture, name: str) -> None:
    coder = theirs(ANCHORS[name])
    data = coder.compress(photograph, 1.5)
    assert data is not None
    assert rate(data, photograph) >= 1.5
    assert coder.decompress(data).shape == photograph.shape
    options = {key: value for key, value in ANCHORS[name].settings[0].options.items() if key != "quality"}
    sizes = [len(ANCHORS[name].compress(photograph, Setting({**options, "quality": q}))) for q in range(101)]
    assert len(data) == min(size for size in sizes if 8 * size / photograph[:, :, 0].size >= 1.5)


def test_no_anchor_is_as_large_as_asked(photograph: Picture) -> None:
    assert theirs(ANCHORS["webp"]).compress(photograph, 24.0) is None


def test_ours_is_within_the_rate(codec: Codec, photograph: Picture) -> None:
    coder = ours(codec, "vqcodec", effort=0)
    least = rate(codec.compress(photograph, 1, effort=0), photograph)
    most = rate(codec.compress(photograph, 100, effort=0), photograph)
    data = coder.compress(photograph, (least + most) / 2)
    assert least <= rate(data, photograph) <= (least + most) / 2
    assert coder.compress(photograph, least / 2) is None


def test_each_model_is_a_codec(tiny_weights: Path) -> None:
    assert [coder.label for coder in coders([tiny_weights], ["jpeg"], 0)] == ["vqcodec", "JPEG"]
    assert [coder.label for coder in coders([tiny_weights] * 2, [], 0)] == ["vqcodec tiny"] * 2
    with pytest.raises(WeightsError):
        coders([tiny_weights.with_name("none.decoder.safetensors")], [], 0)
