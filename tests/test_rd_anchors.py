"""The anchors: real files of Pillow's codecs, at the settings that are stated."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from vqcodec.metrics import psnr
from vqcodec.rd.anchors import ANCHORS, Setting
from vqcodec.rd.curves import Point, steps_that_fall


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_give_pictures_that_rise_with_the_setting(name: str, photograph: NDArray[np.uint8]) -> None:
    anchor = ANCHORS[name]
    points: list[Point] = []
    for setting in (anchor.settings[0], anchor.settings[5], anchor.settings[-1]):
        data = anchor.compress(photograph, setting)
        points.append((len(data), psnr(photograph, anchor.decompress(data))))
    assert not steps_that_fall(points)
    assert points[-1][1] > 33
    assert anchor.name == name


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_keep_grey(name: str, photograph: NDArray[np.uint8]) -> None:
    grey, anchor = photograph[:, :, :1], ANCHORS[name]
    back = anchor.decompress(anchor.compress(grey, anchor.settings[-1]), grey=True)
    assert back.shape == grey.shape
    assert psnr(grey, back) > 30


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_say_what_they_are(name: str, photograph: NDArray[np.uint8]) -> None:
    anchor = ANCHORS[name]
    assert features.version(anchor.library)
    with Image.open(io.BytesIO(anchor.compress(photograph, anchor.settings[3]))) as image:
        assert image.format == anchor.settings[3].options["format"]
        assert image.get_format_mimetype() == anchor.mime


def test_jpeg_is_the_one_that_is_stated(photograph: NDArray[np.uint8]) -> None:
    jpeg = ANCHORS["jpeg"]
    data = jpeg.compress(photograph, jpeg.settings[6])
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["progressive"]
        assert [component[1:3] for component in getattr(image, "layer")] == [(2, 2), (1, 1), (1, 1)]  # noqa: B009
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "JPEG", quality=jpeg.settings[6].quality, subsampling=2)
    assert len(data) < len(buffer.getvalue())  # optimize and progressive are in force


@pytest.mark.parametrize(
    ("setting", "label"), [(ANCHORS["jpeg"].settings[3], "quality 20"), (ANCHORS["jpeg2000"].settings[5], "ratio 48:1")]
)
def test_labels(setting: Setting, label: str) -> None:
    assert setting.label == label


def test_only_some_settings_have_a_quality() -> None:
    assert Setting({"quality": 75}).quality == 75
    with pytest.raises(TypeError, match="ratio 48:1: expected a quality"):
        _ = ANCHORS["jpeg2000"].settings[5].quality
