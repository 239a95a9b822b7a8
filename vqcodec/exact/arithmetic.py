r"""Integers held in floats: how large they may be, exact products of them, and frequencies without a logarithm.

::

    x [n, in] ──▶ x·W + b ──▶ · 2^-shift ──▶ ⌊ ⌋ ──▶ [n, out]       every sum and part of one stays below 2^24 or 2^53

A float holds every integer below a power of two exactly, and sums of integers below it are the same in any order, on
any device, with any number of threads. So a network of such layers gives the same integers everywhere (the idea of
Ballé et al. 2019, "Integer networks for data compression"), at the speed of a matrix product in floats.
"""

import functools
import math
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

__all__ = ["ARITHMETIC", "FREQUENCIES", "OCTAVE_BITS", "Arithmetic", "Linear"]


@dataclass(frozen=True)
class Arithmetic:
    """Integers in floats: how large they may be.

    Attributes:
        dtype: it holds every integer below ``exact``, so that sums below it are exact in any order.
        fraction_bits: activations are multiples of 2^-fraction_bits …
        activation_max: … and, as integers, lie within ±activation_max.
        weight_max: weights lie within ±weight_max,
        stored: and are kept in files as this.
    """

    dtype: torch.dtype
    exact: float
    fraction_bits: int
    activation_max: int
    weight_max: int
    stored: torch.dtype

    @property
    def limit(self) -> float:
        """The clamp of activations in the float form."""
        return math.ldexp(self.activation_max, -self.fraction_bits)


ARITHMETIC = {
    24: Arithmetic(torch.float32, 2.0**24, 6, 2**10 - 1, 2**7 - 1, torch.int8),
    53: Arithmetic(torch.float64, 2.0**53, 10, 2**15 - 1, 2**15 - 1, torch.int16),
}
"""By ``PriorConfig.sum_bits``."""

ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
FEW = 64  # rows

OCTAVE_BITS = 6  # the frequency table has 2^6 entries for each factor of two
TOP_BITS = 22  # the likeliest code has the frequency 2^22


def _power_of_two_root(exponent: int) -> int:
    """⌊2^(exponent / 64)⌋ in exact integer arithmetic: six nested integer square roots."""
    value = 1 << exponent
    for _ in range(OCTAVE_BITS):
        value = math.isqrt(value)
    return value


# FREQUENCIES[i] = ⌊2^(22 − i/64)⌋, then one zero for everything less likely than that.
FREQUENCIES: tuple[int, ...] = (*(_power_of_two_root(e) for e in range(TOP_BITS << OCTAVE_BITS, -1, -1)), 0)


@functools.cache
def _fbgemm() -> bool:
    """Whether torch has FBGEMM's product of floats with weights in float16 here, and it sums in float32."""
    if not hasattr(torch, "fbgemm_linear_fp16_weight") or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    inputs, arithmetic = 512, ARITHMETIC[24]
    x = torch.full((2, inputs), float(arithmetic.activation_max))
    weight = torch.full((16, inputs), float(arithmetic.exact // (inputs * arithmetic.activation_max)))
    bias = torch.ones(16)
    with warnings.catch_warnings():
        # That it may go one day: oneDNN then does all products, with the same results.
        warnings.simplefilter("ignore")
        product = torch.fbgemm_linear_fp16_weight(x, torch.fbgemm_pack_gemm_matrix_fp16(weight), bias)
    return torch.equal(product, inputs * x[0, 0] * weight[:, 0].expand(2, -1) + bias)


@dataclass(frozen=True)
class Linear:
    """``x ↦ ⌊x·W + b⌋`` of integers held in floats, where W and b are integers over a power of two for each output."""

    weight: Tensor  # [in, out]
    bias: Tensor  # [out], with the ½ that makes the floor a rounding
    packed: Tensor | None = field(init=False, default=None, repr=False)  # weight as oneDNN likes it best
    halves: Tensor | None = field(init=False, default=None, repr=False)  # and as FBGEMM does, in float16

    def __post_init__(self) -> None:
        if self.weight.device.type != "cpu" or self.weight.dtype != torch.float32:
            return
        weight = self.weight.T.contiguous()
        if ONEDNN:
            # What torch's compiler does with constant weights; twice as fast as addmm.
            object.__setattr__(self, "packed", torch.ops.mkldnn._reorder_linear_weight(weight, None))
        if _fbgemm() and torch.equal(weight.half().float(), weight):
            object.__setattr__(self, "halves", torch.fbgemm_pack_gemm_matrix_fp16(weight))

    def product(self, x: Tensor) -> Tensor:
        """x·W + b, a new tensor."""
        if self.halves is not None and x.shape[0] <= FEW:
            # A call costs a tenth of what one of oneDNN's does, but it has one thread only.
            return torch.fbgemm_linear_fp16_weight(x, self.halves, self.bias)
        if self.packed is None:
            return torch.addmm(self.bias, x, self.weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def __call__(self, x: Tensor) -> Tensor:
        out = self.product(x)
        if x.shape[0] > FEW or self.halves is None:
            return out.floor_()
        # Torch would wake its threads for so little.
        array = out.numpy()
        np.floor(array, out=array)
        return out
