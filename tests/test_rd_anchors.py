"""The anchors: real files of the codecs of Pillow and of its plugins, at the settings that are stated."""

import importlib.metadata
import io
import sys
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from vqcodec.errors import MissingPackageError
from vqcodec.metrics import psnr
from vqcodec.rd.anchors import ANCHORS, Anchor, Plugin, Setting, installed_anchors, require_anchors
from vqcodec.rd.curves import Point, steps_that_fall

PLUGINS = [name for name, anchor in ANCHORS.items() if isinstance(anchor.library, Plugin)]


@pytest.fixture
def anchor(name: str) -> Anchor:
    """The anchor ``name``; skips the test where its plugin is not installed."""
    found = ANCHORS[name]
    if isinstance(found.library, Plugin):
        pytest.importorskip(found.library.module)
    return found


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_give_pictures_that_rise_with_the_setting(
    name: str, anchor: Anchor, photograph: NDArray[np.uint8]
) -> None:
    points: list[Point] = []
    for setting in (anchor.settings[0], anchor.settings[5], anchor.settings[-1]):
        data = anchor.compress(photograph, setting)
        points.append((len(data), psnr(photograph, anchor.decompress(data))))
    assert not steps_that_fall(points)
    assert points[-1][1] > 33
    assert anchor.name == name


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_keep_grey(anchor: Anchor, photograph: NDArray[np.uint8]) -> None:
    grey = photograph[:, :, :1]
    back = anchor.decompress(anchor.compress(grey, anchor.settings[-1]), grey=True)
    assert back.shape == grey.shape
    assert psnr(grey, back) > 30


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_say_what_they_are(anchor: Anchor, photograph: NDArray[np.uint8]) -> None:
    if isinstance(anchor.library, Plugin):
        assert importlib.metadata.version(anchor.library.package)
    else:
        assert features.version(anchor.library)
    with Image.open(io.BytesIO(anchor.compress(photograph, anchor.settings[3]))) as image:
        assert image.format == anchor.settings[3].options["format"]
        assert image.get_format_mimetype() == anchor.mime


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_cover_low_and_high_rates(anchor: Anchor, photograph: NDArray[np.uint8]) -> None:
    for pixels in (photograph[:, :96], photograph[:, 96:]):
        files = [anchor.compress(pixels, setting) for setting in anchor.settings]
        rates = [8 * len(data) / pixels[:, :, 0].size for data in files]
        assert all(low < high for low, high in pairwise(rates))
        assert rates[0] < 0.6  # headers alone are 0.3 bpp of so small a picture
        assert rates[-1] > 1.5
        errors = [psnr(pixels, anchor.decompress(data)) for data in files]
        assert all(low < high for low, high in pairwise(errors))


@pytest.mark.parametrize(
    ("name", "default"), [("jpegxl", {}), ("heif", {"enc_params": {"preset": "slow", "tune": "ssim"}})]
)
def test_plugins_have_the_defaults_that_are_stated(
    anchor: Anchor, default: dict[str, object], photograph: NDArray[np.uint8]
) -> None:
    setting = anchor.settings[6]
    data = anchor.compress(photograph, setting)
    options = {key: value for key, value in setting.options.items() if key != "effort"}  # JPEG XL's is the default
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, **options | default)  # type: ignore[arg-type]
    assert data == buffer.getvalue()


@pytest.mark.parametrize("name", ["heif"])
def test_heif_is_not_subsampled(anchor: Anchor, photograph: NDArray[np.uint8]) -> None:
    with Image.open(io.BytesIO(anchor.compress(photograph, anchor.settings[3]))) as image:
        assert image.info["chroma"] == 444


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jpegxl", "JPEG XL is not installed: pip install pillow-jxl-plugin"),
        ("heif", "HEIF is not installed: pip install pillow-heif"),
    ],
)
def test_a_plugin_that_is_missing_is_not_offered(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ANCHORS[name].library
    assert isinstance(library, Plugin)
    monkeypatch.setitem(sys.modules, library.module.partition(".")[0], None)
    assert name not in installed_anchors()
    assert installed_anchors()[:4] == ["jpeg", "webp", "avif", "jpeg2000"]
    with pytest.raises(MissingPackageError) as caught:
        require_anchors(["jpeg", name])
    assert str(caught.value) == said


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_that_is_installed_is_offered(name: str, anchor: Anchor) -> None:
    assert name in installed_anchors()
    require_anchors([name])


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
