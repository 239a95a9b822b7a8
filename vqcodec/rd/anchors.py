"""Anchors: codecs of Pillow and of its plugins, at settings that people use, to compare vqcodec with.

::

    pixels ──Pillow, a setting──▶ bytes of a whole file ──Pillow──▶ pixels
"""

import importlib
import importlib.util
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqcodec.errors import MissingPackageError

__all__ = ["ANCHORS", "OWN", "Anchor", "Option", "Plugin", "Setting", "installed_anchors", "require_anchors"]

OWN = "vqcodec"
"""The name of our own codec among the codecs."""

Option = bool | int | str | list[int]
"""A value of one of a codec's options."""


@dataclass(frozen=True)
class Setting:
    """One point of a codec's curve.

    Attributes:
        options: in JSON's words; ``{"quality": 75, "effort": 2}`` for vqcodec, and all that ``Image.save`` gets for
            an anchor.
    """

    options: Mapping[str, Option]

    @property
    def label(self) -> str:
        """The setting in a few words: ``quality 20``, or ``ratio 48:1`` of JPEG 2000."""
        ratios = self.options.get("quality_layers")
        return f"ratio {ratios[0]:g}:1" if isinstance(ratios, list) else f"quality {self.options['quality']}"

    @property
    def quality(self) -> int:
        """vqcodec's quality, 1 to 100. Raises TypeError for the settings of a codec that has no such number."""
        quality = self.options.get("quality")
        if not isinstance(quality, int):
            raise TypeError(f"{self.label}: expected a quality")
        return quality

    @property
    def effort(self) -> int:
        """vqcodec's effort, 0 to 9."""
        effort = self.options.get("effort", 0)
        if not isinstance(effort, int):
            raise TypeError(f"{self.label}: expected a whole number as effort")
        return effort


@dataclass(frozen=True)
class Plugin:
    """A package that adds a codec to Pillow.

    Attributes:
        package: by pip's name.
        module: whose import adds the codec.
    """

    package: str
    module: str


@dataclass(frozen=True)
class Anchor:
    """A codec of Pillow or of a plugin, and the settings that make its curve.

    Attributes:
        name: as in JSON and on the command line.
        label: as in tables and plots.
        library: the library behind it, by Pillow's name for it, or the plugin that brings its own.
        suffix: of its files.
        mime: the type of its files.
        about: what the settings have in common, in a few words.
        settings: from the smallest file to the largest.
    """

    name: str
    label: str
    library: str | Plugin
    suffix: str
    mime: str
    about: str
    settings: tuple[Setting, ...]

    @property
    def installed(self) -> bool:
        """Whether the codec is there; imports nothing."""
        if isinstance(self.library, str):
            return True
        return importlib.util.find_spec(self.library.module.partition(".")[0]) is not None

    def compress(self, pixels: NDArray[np.uint8], setting: Setting) -> bytes:
        """The bytes of a file of ``pixels``, uint8 ``[H, W, 3]`` or ``[H, W, 1]``."""
        self._load()
        options = dict(setting.options)
        form = str(options.pop("format"))
        buffer = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, form, **options)
        return buffer.getvalue()

    def decompress(self, data: bytes, *, grey: bool = False) -> NDArray[np.uint8]:
        """Pixels, uint8 ``[H, W, 3]``, or ``[H, W, 1]`` if ``grey``, which not every format remembers."""
        self._load()
        with Image.open(io.BytesIO(data)) as image:
            pixels: NDArray[np.uint8] = np.array(image.convert("L" if grey else "RGB"))
        return pixels.reshape(*pixels.shape[:2], -1)

    def _load(self) -> None:
        if isinstance(self.library, Plugin):
            importlib.import_module(self.library.module)


def _settings(common: Mapping[str, Option], key: str, values: Iterable[Option]) -> tuple[Setting, ...]:
    return tuple(Setting({**common, key: value}) for value in values)


# The settings are what people get. So libavif may share its work out over the processors, although its files then
# differ by about one per cent from machine to machine.
# People use JPEG and WebP at 4:2:0 (WebP has nothing else); AVIF has the best PSNR over RGB at 4:4:4.
# JPEG 2000 takes a compression ratio: 24 bits divided by the bpp aimed at.
# JPEG XL is at libjxl's default effort, 7. Its lowest quality, 0, gives .13 to .24 bpp of photographs. Below quality 20
# libjxl halves the resolution: files of quality 15 to 19 are worse and often larger than those of 20, so they are left
# out.
# HEIF is at 4:4:4, as AVIF is: 4:2:0 takes 1 % less at equal PSNR over RGB but gains little quality above 2 bpp.
# x265 is at libheif's defaults, preset slow and tune ssim; tune psnr gives the same rate at equal PSNR.
ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor(
            name="jpeg",
            label="JPEG",
            library="libjpeg_turbo",
            suffix=".jpg",
            mime="image/jpeg",
            about="4:2:0, optimised, progressive",
            settings=_settings(
                {"format": "JPEG", "optimize": True, "progressive": True, "subsampling": 2},
                "quality",
                [5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90],
            ),
        ),
        Anchor(
            name="webp",
            label="WebP",
            library="webp",
            suffix=".webp",
            mime="image/webp",
            about="4:2:0, method 6",
            settings=_settings({"format": "WEBP", "method": 6}, "quality", [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
        ),
        Anchor(
            name="avif",
            label="AVIF",
            library="avif",
            suffix=".avif",
            mime="image/avif",
            about="4:4:4, speed 4",
            settings=_settings(
                {"format": "AVIF", "speed": 4, "subsampling": "4:4:4"},
                "quality",
                [10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80],
            ),
        ),
        Anchor(
            name="jpeg2000",
            label="JPEG 2000",
            library="jpg_2000",
            suffix=".jp2",
            mime="image/jp2",
            about="9/7 wavelet, colour transform",
            settings=_settings(
                {"format": "JPEG2000", "quality_mode": "rates", "irreversible": True, "mct": 1},
                "quality_layers",
                [[240], [160], [120], [80], [60], [48], [32], [24], [16], [12]],
            ),
        ),
        Anchor(
            name="jpegxl",
            label="JPEG XL",
            library=Plugin("pillow-jxl-plugin", "pillow_jxl"),
            suffix=".jxl",
            mime="image/jxl",
            about="VarDCT, effort 7",
            settings=_settings({"format": "JXL", "effort": 7}, "quality", [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
        ),
        Anchor(
            name="heif",
            label="HEIF",
            library=Plugin("pillow-heif", "pillow_heif.HeifImagePlugin"),
            suffix=".heic",
            mime="image/heic",
            about="HEVC by x265, 4:4:4, preset slow, tune ssim",
            settings=_settings(
                {"format": "HEIF", "chroma": "444"}, "quality", [10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60]
            ),
        ),
    )
}


def installed_anchors() -> list[str]:
    """Names of the anchors whose codecs are installed, in the order of tables."""
    return [name for name, anchor in ANCHORS.items() if anchor.installed]


def require_anchors(names: Iterable[str]) -> None:
    """Raise MissingPackageError if the codec of one of ``names`` is not installed."""
    for name in names:
        anchor = ANCHORS[name]
        if isinstance(anchor.library, Plugin) and not anchor.installed:
            raise MissingPackageError(f"{anchor.label} is not installed: pip install {anchor.library.package}")
