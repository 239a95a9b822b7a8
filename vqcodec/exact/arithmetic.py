r"""Integers held in float32: their limits, the bound that keeps sums exact, and frequencies without a logarithm.

::

    x [n, in] ──▶ x·W + b ──▶ · 2^-shift ──▶ ⌊ ⌋ ──▶ [n, out]       every sum and every part of it stays below 2^24

A float32 holds every integer below 2^24 exactly, and sums of integers that stay below 2^24 are the same in any order,
on any device, with any number of threads. A network of such layers therefore gives the same integers everywhere (the
idea of Ballé et al. 2019, "Integer networks for data compression") at the speed of a float matrix product.
"""

import math

from torch import Tensor

__all__ = [
    "ACTIVATION_LIMIT",
    "ACTIVATION_MAX",
    "EXACT",
    "FRACTION_BITS",
    "FREQUENCIES",
    "SUM_BITS",
    "WEIGHT_MAX",
    "bound",
]

SUM_BITS = 24
EXACT = 1 << SUM_BITS  # sums stay below this
FRACTION_BITS = 6  # activations are multiples of 2^-6 …
ACTIVATION_MAX = 2**10 - 1  # … and, as integers, lie within ±1023
ACTIVATION_LIMIT = ACTIVATION_MAX / (1 << FRACTION_BITS)  # the clamp of activations in the float form
WEIGHT_MAX = 2**7 - 1  # weights lie within ±127

OCTAVE_BITS = FRACTION_BITS  # the frequency table has 2^6 entries for each factor of two: logits are in 64ths too
TOP_BITS = 22  # the likeliest code has the frequency 2^22


def _power_of_two_root(exponent: int) -> int:
    """⌊2^(exponent / 64)⌋ in exact integer arithmetic: six nested integer square roots."""
    value = 1 << exponent
    for _ in range(OCTAVE_BITS):
        value = math.isqrt(value)
    return value


# FREQUENCIES[i] = ⌊2^(22 − i/64)⌋, then one zero for everything less likely than that.
FREQUENCIES: tuple[int, ...] = (*(_power_of_two_root(e) for e in range(TOP_BITS << OCTAVE_BITS, -1, -1)), 0)


def bound(weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """The largest magnitude ``[out]`` that any partial sum of ``x·W + b + 2^(shift − 1)`` can reach.

    Args:
        weight: ``[in, out]``, integers in float64, as the other two.
        bias, shift: ``[out]``.

    Inputs are within ±ACTIVATION_MAX. The layer is exact where the result is below EXACT.
    """
    return weight.abs().sum(0) * ACTIVATION_MAX + bias.abs() + 2 ** (shift - 1)
