"""The codecs whose speed is compared, behind one interface.

::

    name, Settings ──open_coder──▶ Coder ┬─ encode:  pixels ──▶ coded ─┐
                                         ├─ decode:  pixels ◀── coded ◀┘
                                         └─ macs:    pixels ──▶ multiply–adds of encoder, prior and decoder

torch is imported by the codecs that need it and not by this module, so that a process that runs another codec does not
load it.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqcodec.rd.anchors import ANCHORS

__all__ = ["AGAINST", "COMPRESSAI", "PILLOW", "Coder", "Settings", "VqcodecCoder", "open_coder", "why_no_compressai"]

COMPRESSAI = ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor")
PILLOW = ("avif", "webp")
AGAINST = (*COMPRESSAI, *PILLOW)
"""The codecs with which vqcodec can be compared."""

_STRIDE = 64  # CompressAI's models need sides that are multiples of this


@dataclass(frozen=True)
class Settings:
    """How codecs are opened; picklable, for other processes.

    Attributes:
        weights, device: of vqcodec; CompressAI's models get the same device.
        quality: of vqcodec, 1..100.
        compressai_quality: 1..6, which determines the width of CompressAI's models.
        threads: number of threads of each codec that can use more than one.
    """

    weights: Path
    device: str
    quality: int
    compressai_quality: int
    threads: int


class Coder(ABC):
    """A loaded codec.

    Attributes:
        label: its name in tables.
        about: its settings, in a few words.
        untrained: whether its weights are random; then its rate means nothing, but its time and memory do.
    """

    label: str
    about: str
    untrained = False

    @abstractmethod
    def encode(self, pixels: NDArray[np.uint8]) -> Any:
        """The picklable input of :meth:`decode`: the ``bytes`` of a file, if the codec has a file format."""

    @abstractmethod
    def decode(self, coded: Any) -> NDArray[np.uint8]:
        """Pixels ``[H, W, 3]``, or ``[H, W, 1]`` for a grey image if the codec supports these."""

    def macs(self, pixels: NDArray[np.uint8]) -> dict[str, int] | None:
        """Multiply–adds by part: ``encoder``, ``prior`` and ``decoder``; None for a codec without networks."""
        return None


class VqcodecCoder(Coder):
    """vqcodec; its encoder part chooses the codes, and its prior part is the same in both directions."""

    label = "vqcodec"

    def __init__(self, settings: Settings) -> None:
        from vqcodec.codec import Codec

        _set_threads(settings.threads)
        self.codec = Codec.load(settings.weights, device=settings.device)
        self.quality = settings.quality
        self.about = f"{self.codec.name} {self.codec.fingerprint.hex()}, quality {settings.quality}"

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        return self.codec.compress(pixels, self.quality, effort=0)

    def decode(self, coded: bytes) -> NDArray[np.uint8]:
        return self.codec.decompress(coded)

    def macs(self, pixels: NDArray[np.uint8]) -> dict[str, int]:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from vqcodec.exact.kernels import has_onednn

        def linear(x: tuple[int, int], weight: tuple[int, int], *_: object, **__: object) -> int:
            return 2 * x[0] * x[1] * weight[0]

        def packed(x: tuple[int, int], weight: object, bias: tuple[int], *_: object, **__: object) -> int:
            return 2 * x[0] * x[1] * bias[0]

        # Products that torch's counter does not count.
        own: dict[Any, Callable[..., int]] = {torch.ops.mkldnn._linear_pointwise: linear} if has_onednn() else {}
        if hasattr(torch.ops.aten, "fbgemm_linear_fp16_weight"):
            own[torch.ops.aten.fbgemm_linear_fp16_weight] = packed
        height, width, channels = pixels.shape
        with FlopCounterMode(display=False) as encoder:
            codes = self.codec.encode(pixels, self.quality)
        with FlopCounterMode(display=False, custom_mapping=own) as prior:
            self.codec.cross_entropy(codes, self.quality)
        with FlopCounterMode(display=False) as decoder:
            self.codec.decode(codes, self.quality, height, width, grey=channels == 1)
        counters = {"encoder": encoder, "prior": prior, "decoder": decoder}
        return {part: counter.get_total_flops() // 2 for part, counter in counters.items()}


@dataclass(frozen=True)
class _Strings:
    """The output of a CompressAI model, and the size of the image before padding."""

    strings: list[list[bytes]]
    shape: tuple[int, int]
    height: int
    width: int


class CompressAICoder(Coder):
    """A model of CompressAI with random weights, used as in its own evaluation script.

    The sizes of the networks and the number of symbols do not depend on the weights. Only symbols outside the entropy
    coder's tables take it longer, and with trained weights there may be more of these.
    """

    untrained = True

    def __init__(self, name: str, settings: Settings) -> None:
        import torch

        from vqcodec.codec import pick_device

        _set_threads(settings.threads)
        self.label = f"{name} (untrained)"
        self.about = f"CompressAI, quality {settings.compressai_quality}, untrained weights"
        self.device = pick_device(settings.device)
        torch.manual_seed(0)  # so that the decoding process has the same weights as the encoding one
        model = _image_models()[name](quality=settings.compressai_quality, pretrained=False)
        self.model = model.eval().to(self.device)
        self.model.update()  # tables of its entropy coder

    def encode(self, pixels: NDArray[np.uint8]) -> _Strings:
        import torch

        height, width, _ = pixels.shape
        with torch.no_grad():
            out = self.model.compress(self._padded(pixels))
        return _Strings(out["strings"], tuple(out["shape"]), height, width)

    def decode(self, coded: _Strings) -> NDArray[np.uint8]:
        import torch
        import torch.nn.functional as F
        from compressai.ops import compute_padding

        _, unpad = compute_padding(coded.height, coded.width, min_div=_STRIDE)
        with torch.no_grad():
            x_hat = self.model.decompress(coded.strings, coded.shape)["x_hat"]
            x_hat = F.pad(x_hat, unpad)[0].mul(255).round().to(torch.uint8)
        pixels: NDArray[np.uint8] = np.ascontiguousarray(x_hat.permute(1, 2, 0).cpu().numpy())
        return pixels

    def macs(self, pixels: NDArray[np.uint8]) -> dict[str, int]:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        # One parallel pass has the same sums as all sequential steps, for which counting would take minutes.
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.model(self._padded(pixels))
        counts = counter.get_flop_counts()
        parts = {  # only autoregressive models have all of these
            "encoder": ("g_a", "h_a"),
            "prior": ("h_s", "context_prediction", "entropy_parameters"),
            "decoder": ("g_s",),
        }
        whole = type(self.model).__name__
        return {
            part: sum(sum(counts.get(f"{whole}.{module}", {}).values()) for module in modules) // 2
            for part, modules in parts.items()
        }

    def _padded(self, pixels: NDArray[np.uint8]) -> Any:
        import torch
        import torch.nn.functional as F
        from compressai.ops import compute_padding

        height, width, _ = pixels.shape
        pad, _ = compute_padding(height, width, min_div=_STRIDE)
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(2, 0, 1)[None]
        return F.pad(x.expand(-1, 3, -1, -1).float().div(255), pad)


class PillowCoder(Coder):
    """An anchor of ``vqcodec rd-curve`` at the median of its settings."""

    def __init__(self, name: str, settings: Settings) -> None:
        from PIL import AvifImagePlugin

        # Otherwise Pillow uses all processors, also for reading; it has no other setting.
        AvifImagePlugin.DEFAULT_MAX_THREADS = settings.threads
        self.anchor = ANCHORS[name]
        self.setting = self.anchor.settings[len(self.anchor.settings) // 2]
        self.label = self.anchor.label
        self.about = f"{self.anchor.about}, {self.setting.label}"

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        return self.anchor.compress(pixels, self.setting)

    def decode(self, coded: bytes) -> NDArray[np.uint8]:
        return self.anchor.decompress(coded)


def open_coder(name: str, settings: Settings) -> Coder:
    """``"vqcodec"`` or one of :data:`AGAINST`."""
    if name == "vqcodec":
        return VqcodecCoder(settings)
    return CompressAICoder(name, settings) if name in COMPRESSAI else PillowCoder(name, settings)


def why_no_compressai() -> str | None:
    """Why CompressAI cannot be measured here; None if it can."""
    try:
        _image_models()
    except ImportError as error:
        return f'CompressAI is left out ({error}): pip install -c constraints.txt -e ".[speed]"'
    return None


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


_operators: Any = None  # the operators exist as long as this library object


def _image_models() -> dict[str, Any]:
    """CompressAI's image models by name."""
    global _operators
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CompressAI and its dependencies use deprecated functions of torch
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            # CompressAI imports torchvision. With a torch for the CPU, torchvision's CUDA wheels cannot load their
            # operators, and the import fails. No image model calls these operators, so declaring them is enough.
            _operators = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            for operator in ("nms", "qnms"):
                _operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from compressai.zoo import image_models
    models: dict[str, Any] = image_models
    return models
