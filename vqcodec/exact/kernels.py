r"""Fast matrix products, each proved against the plain one, and the number of threads that compute them.

::

    rows of x         ≤ 192            more             where neither is proved
    product       FBGEMM, float16   oneDNN, packed      torch.addmm, the reference
    weights

This is the only module that calls private parts of torch. A kernel is used only if it multiplies a *probe* exactly: a
product of integers whose sums come as close to 2^24 as any layer's. Where it does not, or is missing, ``torch.addmm``
takes its place, with the same integers as result.
"""

import contextlib
import ctypes
import functools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vqcodec.errors import VqcodecError
from vqcodec.exact.arithmetic import ACTIVATION_MAX, EXACT

__all__ = [
    "ADDMM",
    "FBGEMM",
    "ONEDNN",
    "SMALL_ROWS",
    "Kernel",
    "Linear",
    "Probe",
    "few_threads",
    "has_onednn",
    "multiplies_bfloat16",
    "one_thread",
    "padded_rows",
]

SMALL_ROWS = 192  # up to here FBGEMM is faster than oneDNN, both on one thread
ALIGN = 32  # rows
PROBE_INPUTS, PROBE_OUTPUTS = 512, 16


@dataclass(frozen=True)
class Kernel:
    """One way to compute ``x·W + b`` in float32.

    Attributes:
        name: of the library.
        most_rows: rows of x up to which it is the fastest.
        pack: ``weight [in, out]`` in the layout that the product wants, or None where the kernel cannot take it.
        product: ``(x [n, in], packed weight, bias [out]) -> [n, out]``, a new tensor.
    """

    name: str
    most_rows: float
    pack: Callable[[Tensor], Tensor | None]
    product: Callable[[Tensor, Tensor, Tensor], Tensor]


def has_onednn() -> bool:
    """Whether this torch has oneDNN's product with packed weights, which torch's compiler uses for constant weights."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _pack_onednn(weight: Tensor) -> Tensor | None:
    if weight.device.type != "cpu" or not has_onednn():
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.T.contiguous(), None)
    return packed


def _multiply_onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


@functools.cache
def _has_fbgemm() -> bool:
    if not hasattr(torch, "fbgemm_linear_fp16_weight") or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    ones = torch.ones(16, 16)
    with warnings.catch_warnings():
        # Torch warns, once, that it may remove this kernel; then oneDNN takes its place, with the same results.
        warnings.simplefilter("ignore")
        torch.fbgemm_linear_fp16_weight(ones, torch.fbgemm_pack_gemm_matrix_fp16(ones), ones[0])
    return True


def _pack_fbgemm(weight: Tensor) -> Tensor | None:
    # The kernel is not for weights that float16 rounds.
    if weight.device.type != "cpu" or not _has_fbgemm() or not torch.equal(weight.half().float(), weight):
        return None
    return torch.fbgemm_pack_gemm_matrix_fp16(weight.T.contiguous())


ADDMM = Kernel("addmm", math.inf, lambda weight: weight, lambda x, weight, bias: torch.addmm(bias, x, weight))
FBGEMM = Kernel("FBGEMM", SMALL_ROWS, _pack_fbgemm, getattr(torch, "fbgemm_linear_fp16_weight", ADDMM.product))
ONEDNN = Kernel("oneDNN", math.inf, _pack_onednn, _multiply_onednn)


@dataclass(frozen=True)
class Linear:
    """``x ↦ ⌊x·W + b⌋`` of integers in float32, where W and b are integers over a power of two for each output.

    Args:
        weight: ``[in, out]``.
        bias: ``[out]``, with the ½ that makes the floor a rounding.
        kernels: to choose from by the number of rows, the first that fits; ADDMM where none does.
    """

    weight: Tensor
    bias: Tensor
    kernels: Sequence[Kernel] = ()
    _packed: list[tuple[Kernel, Tensor]] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        for kernel in (*self.kernels, ADDMM):
            packed = kernel.pack(self.weight)
            if packed is not None:
                self._packed.append((kernel, packed))

    def product(self, x: Tensor) -> Tensor:
        """``x·W + b`` of ``x [n, in]``, a new tensor."""
        rows = x.shape[0]
        for kernel, packed in self._packed:
            if rows <= kernel.most_rows:
                return kernel.product(x, packed, self.bias)
        raise AssertionError("ADDMM takes any number of rows")

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x).floor_()


class Probe:
    """A product of known result whose sums come as close to the bound as any layer's.

    Args:
        device: that multiplies.
        kernels: candidates, in the order of preference.

    Attributes:
        kernels: those of the candidates that multiply the probe exactly.
    """

    def __init__(self, device: torch.device, kernels: Sequence[Kernel] = (FBGEMM, ONEDNN)) -> None:
        largest = float(EXACT // (PROBE_INPUTS * ACTIVATION_MAX))
        self._weight = torch.full((PROBE_INPUTS, PROBE_OUTPUTS), largest, device=device)
        self._bias = torch.ones(PROBE_OUTPUTS, device=device)
        # One odd sum, which arithmetic of less precision would round.
        self._expected = PROBE_INPUTS * ACTIVATION_MAX * largest + 1
        self.kernels = self._proved(kernels)
        self._layer = Linear(self._weight, self._bias, self.kernels)

    def check(self) -> None:
        """Raise VqcodecError where torch multiplies with less precision than the integers need.

        Torch's precision is a global setting, so this is asked before each use.
        """
        if not self._multiplies(self._layer):
            raise VqcodecError(
                "torch multiplies matrices with less than their precision here, which codes cannot bear; "
                'torch.set_float32_matmul_precision("highest") mends that'
            )

    def _proved(self, kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
        layers = ((kernel, Linear(self._weight, self._bias, [kernel])) for kernel in kernels)
        return tuple(kernel for kernel, layer in layers if self._multiplies(layer, kernel.most_rows))

    def _multiplies(self, layer: Linear, most_rows: float = math.inf) -> bool:
        for rows in (n for n in (2, SMALL_ROWS + 1) if n <= most_rows):
            x = self._weight.new_full((rows, PROBE_INPUTS), ACTIVATION_MAX)
            if not bool((layer.product(x) == self._expected).all()):
                return False
        return True


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; without them, bfloat16 is slower than float32.

    Asked by the float half, which may be inexact; it stands here with the other private calls.
    """
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def padded_rows(rows: int) -> int:
    """How many rows a product of ``rows`` rows is computed with.

    oneDNN prepares a product for every number of rows that occurs, which takes a millisecond and most of a megabyte.
    """
    return rows if rows <= SMALL_ROWS else -(-rows // ALIGN) * ALIGN


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with the calling thread alone.

    A team of threads gains nothing where operations are small: it meets at a barrier after each of them. Beside a busy
    process it loses much, since the threads that spin at a barrier keep the last one from its processor.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    set_threads = _set_own_threads() or torch.set_num_threads
    set_threads(1)
    try:
        yield
    finally:
        set_threads(threads)


def few_threads() -> contextlib.AbstractContextManager[None]:
    """For operations on about a thousand rows: one thread if OpenMP's threads sleep at barriers, all if they spin.

    To wake threads for such an operation takes as long as the operation. OpenMP's threads spin by default, and sleep
    at once with OMP_WAIT_POLICY=PASSIVE.
    """
    sleep = os.environ.get("OMP_WAIT_POLICY", "").strip().upper() == "PASSIVE"
    return one_thread() if sleep else contextlib.nullcontext()


@functools.cache
def _set_own_threads() -> Callable[[int], object] | None:
    """OpenMP's ``omp_set_num_threads``, for the calling thread only; None if torch does not follow it.

    ``torch.set_num_threads`` would also set the default of all threads that start to use torch meanwhile.
    """
    try:
        set_threads = ctypes.CDLL(torch._C.__file__).omp_set_num_threads
    except (AttributeError, OSError):
        return None
    threads = torch.get_num_threads()
    set_threads(threads + 1)
    follows = torch.get_num_threads() == threads + 1
    set_threads(threads)
    return set_threads if follows else None
