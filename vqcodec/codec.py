"""Codec: an image to the bytes of a ``.vq`` file, and back.

::

    pixels ─ landscape, pad ─▶ x ─ VQVAE.encode ─▶ codes ─ entropy.encode ─▶ bitstreams ─ pack ─▶ bytes
    pixels ◀ crop, turn back ─ x_hat ◀─ VQVAE.decode ─ codes ◀─ entropy.decode ─ bitstreams ◀─ parse ─ bytes

Legend: H and W image height and width; floats live only left of the codes, integers only right of them.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vqcodec.config import QUALITY_MAX, QUALITY_MIN, LevelConfig
from vqcodec.errors import DeviceError, FormatError, ImageError, LimitError, UnknownModelError, WeightsError, one_line
from vqcodec.exact import entropy
from vqcodec.exact.arithmetic import ARITHMETIC
from vqcodec.exact.prior import STATE, Codes, FixedPrior
from vqcodec.exact.wavefront import chunks
from vqcodec.files import container
from vqcodec.files.container import BytesLike, Container
from vqcodec.files.images import crop, pad_to_multiple
from vqcodec.geometry import Tile, batch_size, tiles
from vqcodec.networks.vqvae import TRAINING_ONLY, VQVAE
from vqcodec.weights import Weights, find_weights, load_weights

__all__ = ["DEFAULT_QUALITY", "Codec", "pick_device"]

DEFAULT_QUALITY = 75
TILE = 1088  # pixels a side that the float half takes at a time
HALO = 6  # positions of the coarsest grid around a tile that are computed with it
_PROCESS = os.getpid()  # that imported torch
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _fork_safe(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function``, called in a thread of its own where the process was forked.

    OpenMP's threads stay behind in a fork, and the thread that came along would wait for them without end. A new one
    starts as many again: with fewer, sums are taken in another order, and a pixel may come out one level off.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if os.getpid() == _PROCESS or threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return call


class _ShapesOnly(TorchFunctionMode):
    """Leaves out what gives tensors their first values, as on the device "meta" there are none.

    Torch would import its compiler to find out, which takes longer than torch itself.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.randn, torch.eye):
            return torch.empty(args, device="meta")
        if func in (Tensor.normal_, Tensor.uniform_, Tensor.mul, Tensor.div):
            return args[0]
        return func(*args, **(kwargs or {}))


class Codec:
    """A model, ready to compress and decompress.

    Threads may share one, and so may processes forked after it was made, on a CPU.

    Args:
        weights: as :func:`load_weights` returns them.
        device: that computes.
        max_memory: in bytes; pictures for which :meth:`memory` is more are refused.

    Attributes:
        name, fingerprint, model: of the weights; see :class:`Weights`.
        vqvae: pixels ↔ codes.
        prior: how probable codes are.

    >>> codec = Codec.load()
    >>> data = codec.compress(pixels, quality=75)
    >>> pixels_hat = codec.decompress(data)
    """

    def __init__(self, weights: Weights, device: torch.device | str = "cpu", *, max_memory: int | None = None) -> None:
        self.device, self.max_memory = torch.device(device), max_memory
        self._process = os.getpid()
        self.name, self.fingerprint, self.model = weights.name, weights.fingerprint, weights.model
        with _ShapesOnly(), torch.device("meta"):  # no memory, and no draw from the caller's random numbers
            self.vqvae = VQVAE(weights.model)
        unused = {k: torch.zeros(v.shape) for k, v in self.vqvae.state_dict().items() if k.endswith(TRAINING_ONLY)}
        try:
            self.vqvae.load_state_dict(weights.vqvae | unused, assign=True)
        except RuntimeError as error:
            raise WeightsError(f"tensors do not fit the configuration: {one_line(error, 300)}") from None
        self.vqvae.eval().requires_grad_(False).to(self.device)
        self._bfloat16 = self.device.type == "cpu" and _multiplies_bfloat16()
        self.prior = FixedPrior(weights.prior_integers, weights.model, weights.prior, self.device)

    @classmethod
    def load(cls, weights: str | Path | None = None, *, device: str = "auto", max_memory: int | None = None) -> Self:
        """The shipped model, or the one in the file ``weights``, on ``"cpu"``, ``"cuda"`` or whichever is there."""
        return cls._open(find_weights() if weights is None else weights, device, max_memory)

    @classmethod
    def for_file(
        cls,
        data: BytesLike,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        max_memory: int | None = None,
    ) -> Self:
        """The model that a ``.vq`` file names, even if only some of its levels are whole.

        Raises UnknownModelError when it is not installed, FormatError if not even level 0 is whole.
        """
        fingerprint = container.salvage(data, max_pixels=container.MAX_SIDE**2).container.fingerprint
        return cls.for_fingerprint(fingerprint, weights=weights, device=device, max_memory=max_memory)

    @classmethod
    def for_fingerprint(
        cls,
        fingerprint: bytes,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        max_memory: int | None = None,
    ) -> Self:
        """The model of that name, or the one in the file ``weights``; raises as :meth:`for_file` does."""
        return cls._open(find_weights(fingerprint) if weights is None else weights, device, max_memory)

    @classmethod
    @_fork_safe
    def _open(cls, path: str | Path, device: str, max_memory: int | None) -> Self:
        weights, place = load_weights(path), pick_device(device)
        try:
            return cls(weights, place, max_memory=max_memory)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    @_fork_safe
    def compress(
        self,
        pixels: NDArray[np.uint8],
        quality: int = DEFAULT_QUALITY,
        *,
        check: bool = False,
        max_pixels: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> bytes:
        """The bytes of a ``.vq`` file of ``pixels`` ``[H, W, 3]``, or ``[H, W, 1]`` for grey, at quality 1..100.

        With ``check`` they are decoded again before they are returned: they give the same codes, or RuntimeError.
        ``max_pixels`` is MAX_PIXELS by default. ``cancelled`` is asked between tiles and between wavefront steps
        whether to stop, and must be quick.
        Raises ValueError for another quality, ImageError for an array that is no such image, LimitError if it is too
        large or needs more than ``max_memory``, and Cancelled.
        """
        if quality not in range(QUALITY_MIN, QUALITY_MAX + 1):
            raise ValueError(f"quality is {quality}, expected {QUALITY_MIN}..{QUALITY_MAX}")
        quality = int(quality)  # of whatever kind of number
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            found = f"{pixels.dtype} {list(pixels.shape)}"
            raise ImageError(f"pixels are {found}, expected uint8 [H, W, 3] or [H, W, 1], H and W at least 1")
        height, width, channels = pixels.shape
        limit = container.MAX_PIXELS if max_pixels is None else max_pixels
        if height * width > limit or max(height, width) > container.MAX_SIDE:
            raise LimitError(f"{width}×{height} pixels, expected at most {limit} and {container.MAX_SIDE} a side")
        self._prepare(height, width)
        codes = self.codes(pixels, quality, cancelled=cancelled)
        bitstreams = [level.bitstream for level in entropy.encode(self.prior, codes, quality, cancelled=cancelled)]
        if check:
            shapes = self._shapes(height, width)
            (again,) = entropy.decode(self.prior, [bitstreams], shapes, [quality], cancelled=cancelled)
            if not all(np.array_equal(a, b) for a, b in zip(codes, again, strict=True)):
                raise RuntimeError("the bitstream does not decode to its own codes; please report this")
        return container.pack(
            Container(width, height, channels == 1, quality, self.fingerprint, levels=tuple(bitstreams))
        )

    @_fork_safe
    def decompress(
        self,
        data: BytesLike,
        *,
        levels: int | None = None,
        max_pixels: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> NDArray[np.uint8]:
        """Pixels ``[H, W, 3]``, or ``[H, W, 1]`` for grey, of the bytes of a ``.vq`` file.

        With ``levels`` at least 1, only so many are decoded, coarsest first: a preview of the same size.
        ``max_pixels`` is that of :func:`vqcodec.files.container.parse`, ``cancelled`` that of :meth:`compress`.
        Raises FormatError if the bytes are not a ``.vq`` file, UnknownModelError if another model made it, LimitError
        if it is too large or needs more than ``max_memory``, and Cancelled.
        """
        file, codes = self.read(data, levels=levels, max_pixels=max_pixels, cancelled=cancelled)
        return self._reconstruct(codes, file, cancelled)

    @_fork_safe
    def decompress_many(
        self,
        files: Sequence[BytesLike],
        *,
        levels: int | None = None,
        max_pixels: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[NDArray[np.uint8]]:
        """What :meth:`decompress` gives for each of ``files``, in less time where pictures have the same size.

        The prior decodes them together then, upright ones and others. Raises as :meth:`decompress` does if a file
        does.
        """
        opened = [self._open_file(data, levels, max_pixels) for data in files]
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for i, file in enumerate(opened):
            alike.setdefault(tuple(self._shapes(file.height, file.width)), []).append(i)
        pixels: dict[int, NDArray[np.uint8]] = {}
        for members in alike.values():
            height, width = opened[members[0]].height, opened[members[0]].width
            together = batch_size(height, width)
            if self.max_memory is not None:
                together = min(together, self.max_memory // self.memory(height, width))
            for first, last in chunks(len(members), together):
                batch = members[first:last]
                decoded = self._decode([opened[i] for i in batch], levels, cancelled)
                for i, codes in zip(batch, decoded, strict=True):
                    pixels[i] = self._reconstruct(codes, opened[i], cancelled)
        return [pixels[i] for i in range(len(files))]

    @_fork_safe
    def salvage(
        self,
        data: BytesLike,
        *,
        levels: int | None = None,
        max_pixels: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[NDArray[np.uint8], str | None]:
        """The picture as far as the levels before the first damage go, and what is damaged; None if nothing is.

        With ``levels``, no more than so many are decoded, as of a file whose end has not arrived yet.
        Raises as :meth:`decompress` does, FormatError where not even the coarsest level is left.
        """
        _check_levels(levels)
        left = container.salvage(data, max_pixels=max_pixels)
        self._check(left.container, left.level_count)
        (codes,) = self._decode([left.container], levels, cancelled)
        return self._reconstruct(codes, left.container, cancelled), left.damage

    @_fork_safe
    def read(
        self,
        data: BytesLike,
        *,
        levels: int | None = None,
        max_pixels: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Container, list[Codes]]:
        """What a ``.vq`` file says, and its code grids ``[G_l, H_l, W_l]``; as :meth:`decompress` otherwise."""
        file = self._open_file(data, levels, max_pixels)
        (codes,) = self._decode([file], levels, cancelled)
        return file, codes

    def _open_file(self, data: BytesLike, levels: int | None, max_pixels: int | None) -> Container:
        _check_levels(levels)
        file = container.parse(data, max_pixels=max_pixels)
        self._check(file, len(file.levels))
        return file

    def _check(self, file: Container, level_count: int) -> None:
        """Whether this model can decode ``file``, which was written with so many levels."""
        if file.fingerprint != self.fingerprint:
            raise UnknownModelError(f"made with weights {file.fingerprint.hex()}, these are {self.fingerprint.hex()}")
        if level_count != len(self.model.levels):
            raise FormatError(f"{level_count} levels, expected {len(self.model.levels)} of model {self.name}")
        self._prepare(file.height, file.width)

    def _decode(
        self, files: Sequence[Container], levels: int | None, cancelled: Callable[[], bool] | None
    ) -> list[list[Codes]]:
        """Code grids of the first ``levels`` of files of one size."""
        bitstreams, qualities = [file.levels[:levels] for file in files], [file.quality for file in files]
        shapes = self._shapes(files[0].height, files[0].width)[: len(bitstreams[0])]
        return entropy.decode(self.prior, bitstreams, shapes, qualities, cancelled=cancelled)

    def _reconstruct(
        self, codes: list[Codes], file: Container, cancelled: Callable[[], bool] | None
    ) -> NDArray[np.uint8]:
        return self.reconstruct(codes, file.quality, file.height, file.width, grey=file.grey, cancelled=cancelled)

    @_fork_safe
    def codes(
        self, pixels: NDArray[np.uint8], quality: int, *, cancelled: Callable[[], bool] | None = None
    ) -> list[Codes]:
        """Code grids ``[G_l, H_l, W_l]``, coarsest first, of ``pixels``; of the transposed image if it is upright."""
        height, width, _ = pixels.shape
        if height > width:
            # Landscape takes the fewest wavefront steps.
            pixels = pixels.transpose(1, 0, 2)
        padded = pad_to_multiple(pixels, self.vqvae.stride)
        codes = [np.empty((level.groups, *shape), np.int16) for level, shape in self._grids(*padded.shape[:2])]
        for tile in self._tiles(*padded.shape[:2]):
            entropy.stop_if(cancelled)
            part = np.ascontiguousarray(padded[None, tile.rows.computed(), tile.columns.computed()])
            x = torch.from_numpy(part).to(self.device).permute(0, 3, 1, 2)
            # Convolutions follow the layout of the image: with channels last, they take half the time on a CPU.
            x = x.expand(-1, 3, -1, -1).float().div(255).contiguous(memory_format=torch.channels_last)
            grids = self.vqvae.encode(x, self._lmbda(quality), bfloat16=self._bfloat16)
            for whole, grid, level in zip(codes, grids, self.model.levels, strict=True):
                inside = grid[0, :, tile.rows.inside(level.stride), tile.columns.inside(level.stride)]
                whole[:, tile.rows.kept(level.stride), tile.columns.kept(level.stride)] = inside.cpu().numpy()
        return codes

    @_fork_safe
    def reconstruct(
        self,
        codes: Sequence[NDArray[np.integer[Any]]],
        quality: int,
        height: int,
        width: int,
        *,
        grey: bool,
        cancelled: Callable[[], bool] | None = None,
    ) -> NDArray[np.uint8]:
        """Pixels ``[height, width, 3 or 1]`` of code grids, coarsest first; with fewer levels, a preview."""
        stride = self.model.levels[0].stride
        rows, columns = (side * stride for side in codes[0].shape[1:])
        pixels = np.empty((rows, columns, 1 if grey else 3), np.uint8)
        for tile in self._tiles(rows, columns):
            entropy.stop_if(cancelled)
            grids: list[Tensor] = []
            for grid, level in zip(codes, self.model.levels, strict=False):
                part = grid[:, tile.rows.computed(level.stride), tile.columns.computed(level.stride)]
                grids.append(torch.from_numpy(np.ascontiguousarray(part))[None].to(self.device, torch.int64))
            x_hat = self.vqvae.decode(grids, self._lmbda(quality))[0, :, tile.rows.inside(), tile.columns.inside()]
            if grey:
                x_hat = x_hat.mean(0, keepdim=True)
            seen = x_hat.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            pixels[tile.rows.kept(), tile.columns.kept()] = seen
        if height > width:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(crop(pixels, height, width))

    def memory(self, height: int, width: int) -> int:
        """Bytes that a picture of this size takes at most, compressed or decompressed, on top of model and pixels.

        An estimate on the safe side. The image is worked on in tiles; grids and what the prior knows are held whole.
        """
        stride = self.vqvae.stride
        height, width = (-(-side // stride) * stride for side in (height, width))
        tile = max(tile.rows.extent * tile.columns.extent for tile in self._tiles(*sorted((height, width))))
        strides = [self.model.patch << stage for stage in range(len(self.model.widths))]
        features = sum(4 * channels / at**2 for channels, at in zip(self.model.widths, strides, strict=True))
        choices = max(4 * level.groups * level.codebook_size / level.stride**2 for level in self.model.levels)
        codes = sum(4 * level.groups / level.stride**2 for level in self.model.levels)
        finest = self.model.levels[-1]
        numbers = self.prior.config.channels * (ARITHMETIC[self.prior.config.sum_bits].dtype.itemsize + STATE.itemsize)
        known = (numbers + 4 * finest.groups + 200) / finest.stride**2
        return round(2**27 + tile * (8 * features + 1.5 * choices) + height * width * (known + codes + 9))

    @_fork_safe
    def cross_entropy(self, codes: Sequence[NDArray[np.integer[Any]]], quality: int) -> list[float]:
        """Bits of each level under the prior's integer frequencies."""
        return [level.cross_entropy for level in entropy.encode(self.prior, codes, quality, measure=True)]

    def _prepare(self, height: int, width: int) -> None:
        """What is due before work on a picture of this size."""
        if self.max_memory is not None and (needed := self.memory(height, width)) > self.max_memory:
            raise LimitError(
                f"{width}×{height} pixels take {needed:,} bytes of memory, the limit is {self.max_memory:,}"
            )
        if self.device.type == "cuda" and self._process != os.getpid():
            raise DeviceError("a forked process cannot use the parent's CUDA: load the model in each process")

    def _shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Grid height and width of each level for an image of this size, as it lies after padding."""
        short, long = (-(-side // self.vqvae.stride) * self.vqvae.stride for side in sorted((height, width)))
        return [shape for _, shape in self._grids(short, long)]

    def _grids(self, height: int, width: int) -> list[tuple[LevelConfig, tuple[int, int]]]:
        """Each level, and its grid's height and width for a picture whose sides are multiples of the stride."""
        return [(level, (height // level.stride, width // level.stride)) for level in self.model.levels]

    def _tiles(self, height: int, width: int) -> Iterator[Tile]:
        halo = HALO * self.vqvae.stride
        return tiles(
            height,
            width,
            largest=max(TILE // self.vqvae.stride, 1) * self.vqvae.stride,
            halo=halo,
            multiple=self.vqvae.stride,
        )

    def _lmbda(self, quality: int) -> Tensor:
        return torch.tensor([self.model.lmbda(quality)], device=self.device)


def _check_levels(levels: int | None) -> None:
    if levels is not None and levels < 1:
        raise ValueError(f"levels is {levels}, expected at least 1")


def _multiplies_bfloat16() -> bool:
    """Whether the processor does; without such instructions, bfloat16 is slower than float32."""
    # Torch has no public name for the question.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def pick_device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is one; raises DeviceError where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda was asked for, and this machine has none that torch can use")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
