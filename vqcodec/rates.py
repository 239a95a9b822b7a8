"""Rates of codes under models simpler than the PixelCNN: what a prior is worth.

::

    counts [G, K] of a level ─┬─ uniform_bits ─▶ log2 K bits each: a fixed-length code
                              └─ static_bits ──▶ −log2 of how often each codeword occurs: a Huffman code's limit

Both bound the rate from above, and so does the PixelCNN's cross-entropy. The better the prior, the tighter the bound.

Legend: G groups, K codewords.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["static_bits", "uniform_bits"]

Counts = NDArray[np.int64]


def uniform_bits(counts: Counts) -> float:
    """Bits of the codes that ``counts [G, K]`` counts, at log2 K each."""
    return float(counts.sum()) * math.log2(counts.shape[1])


def static_bits(counts: Counts, pooled: Counts) -> NDArray[np.float64]:
    """Bits of each group's codes, ``[G]``, at the frequencies that ``pooled [G, K]`` has, whose table is not counted.

    ``pooled`` counts at least the codes of ``counts [G, K]``. With ``pooled = counts`` it is their empirical entropy.
    """
    share = pooled / np.maximum(pooled.sum(1, keepdims=True), 1)
    lengths = np.where(pooled > 0, -np.log2(np.where(pooled > 0, share, 1.0)), 0.0)
    bits: NDArray[np.float64] = (counts * lengths).sum(1)
    return bits
