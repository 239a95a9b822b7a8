"""Codec: an image to the bytes of a ``.vq`` file, and back.

::

    pixels ─ TiledVQVAE.encode ─▶ codes ─ entropy.encode ─▶ bitstreams ─ pack ──▶ bytes
    pixels ◀ TiledVQVAE.decode ── codes ◀─ entropy.decode ─ bitstreams ◀─ parse ─ bytes
             (floats)                       (exact integers)              (one policy: what must be intact)

Legend: H and W image height and width in pixels; G_l groups and H_l × W_l positions of level l, coarsest first.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from vqcodec.config import DEFAULT_EFFORT, DEFAULT_QUALITY, DEFAULT_TUNE, EFFORT_MAX, QUALITY_MAX, QUALITY_MIN, Tune
from vqcodec.errors import DeviceError, FormatError, ImageError, LimitError, UnknownModelError, WeightsError
from vqcodec.exact import entropy
from vqcodec.exact.prior import BYTES_PER_CHANNEL, FixedPrior
from vqcodec.exact.wavefront import Codes, chunks
from vqcodec.files.container import MAX_PIXELS, MAX_SIDE, BytesLike, Chunks, Container, pack, parse
from vqcodec.forks import fork_safe
from vqcodec.geometry import Geometry, batch_size
from vqcodec.pixels import TiledVQVAE, assemble
from vqcodec.search import Found, Search
from vqcodec.weights import Weights, fill_decoder, fill_encoder, find_weights, load_weights

__all__ = ["Codec", "own_effort", "pick_device"]

_Cancelled = Callable[[], bool] | None
_Progress = Callable[[float], None] | None
_Path = str | Path | None
_Pixels = NDArray[np.uint8]
_File = BytesLike | Container

SURE = 0.98  # a search's estimates of J are off by less than 2 %; with a larger gain, J need not be measured


class Codec:
    """A model, ready to compress and decompress.

    Threads may share one, and so may processes forked after it was made, on a CPU.

    Methods that read a file take its bytes, which must be intact (only :meth:`salvage` accepts damage), or what
    :func:`vqcodec.files.container.parse` made of them, which is decoded as far as it goes. They share these options:
    ``levels``, at least 1, decodes only that many levels, coarsest first, for a preview of the same size;
    ``max_pixels`` is that of ``parse``, for bytes; ``cancelled`` is called between tiles and wavefront steps, must be
    quick, and stops the work by returning True. They raise FormatError if the bytes are not an intact ``.vq`` file,
    UnknownModelError if another model made it, LimitError if the picture is too large or needs more than
    ``max_memory``, Cancelled, and TypeError if the argument is neither bytes nor a Container.

    ``name``, ``fingerprint`` and ``model`` are those of :class:`Weights`; ``vqvae`` maps codes to pixels, and after
    :meth:`load_encoder` pixels to codes; ``prior`` gives the probabilities of codes.

    Args:
        weights: the decoder side, from :func:`load_weights`; the first call that compresses reads the encoder side.
        device: that computes.
        max_memory: in bytes; pictures for which :meth:`memory` is more are refused.

    >>> codec = Codec.load()
    >>> data = codec.compress(pixels, quality=75)
    >>> pixels_hat = codec.decompress(data)
    """

    def __init__(self, weights: Weights, device: torch.device | str = "cpu", *, max_memory: int | None = None) -> None:
        self.device, self.max_memory = torch.device(device), max_memory
        self._process = os.getpid()
        self.name, self.fingerprint, self.model = weights.name, weights.fingerprint, weights.model
        self._weights, self._has_encoder = weights, False
        self.vqvae = assemble(weights.model)
        fill_decoder(self.vqvae, weights, self.device)
        self.prior = FixedPrior(weights.prior_integers, weights.model, weights.prior, self.device)
        self._tiled = TiledVQVAE(self.vqvae)
        self._search = Search(self.vqvae, weights.prior_integers, weights.prior, bfloat16=self._tiled.bfloat16)

    @classmethod
    @fork_safe
    def load(
        cls,
        weights: _Path = None,
        *,
        fingerprint: bytes | None = None,
        tune: Tune = DEFAULT_TUNE,
        device: str = "auto",
        max_memory: int | None = None,
    ) -> Self:
        """The model in the file ``weights``, else the installed one of this ``fingerprint``, else the one for ``tune``.

        ``device`` is ``"cpu"``, ``"cuda"`` or ``"auto"``. Raises WeightsError, UnknownModelError, DeviceError, and
        TypeError for a fingerprint that is not bytes.
        """
        if not isinstance(fingerprint, bytes | None):
            raise TypeError(f"fingerprint is of type {type(fingerprint).__name__}, expected bytes")
        path = find_weights(fingerprint, tune=tune) if weights is None else weights
        contents = load_weights(path)
        try:
            return cls(contents, pick_device(device), max_memory=max_memory)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    @classmethod
    def for_file(
        cls, file: _File, *, weights: _Path = None, device: str = "auto", max_memory: int | None = None
    ) -> Self:
        """The model in the file ``weights``, else the installed one that a ``.vq`` file names, damaged or not.

        Raises UnknownModelError if it is not installed, FormatError if not even level 0 is intact.
        """
        named = _parsed(file, intact=1, max_pixels=MAX_SIDE**2).fingerprint
        return cls.load(weights, fingerprint=named, device=device, max_memory=max_memory)

    @fork_safe
    def load_encoder(self) -> None:
        """Read the encoder side unless that has been done, as all compressing does. Raises WeightsError."""
        if not self._has_encoder:  # threads that get here together assign equal tensors
            fill_encoder(self.vqvae, self._weights, self.device)
            self._has_encoder = True

    @fork_safe
    def compress(
        self,
        pixels: _Pixels,
        quality: int = DEFAULT_QUALITY,
        *,
        effort: int = DEFAULT_EFFORT,
        lambda_scale: float = 1.0,
        chunks: Chunks = (),
        check: bool = False,
        max_pixels: int | None = None,
        cancelled: _Cancelled = None,
        progress: _Progress = None,
    ) -> bytes:
        """The bytes of a ``.vq`` file of ``pixels``: uint8 ``[H, W, 3]``, or ``[H, W, 1]`` or ``[H, W]`` for grey.

        ``quality`` is 1..100, higher for a larger file. ``effort`` is 0..9, higher for a longer search for codes that
        take fewer bits at the same distortion (:mod:`vqcodec.search`), with the quality's λ times ``lambda_scale``;
        ``progress`` is called with the share of it that is done, 0..1. A model that was trained for what people see is
        not searched, whatever the effort is. The file gets ``chunks``, which
        :func:`vqcodec.files.extras.to_chunks` makes of opacity and metadata. With ``check``, the bytes are decoded
        before they are returned, and RuntimeError is raised unless they give the same codes. ``max_pixels`` is
        MAX_PIXELS by default.

        Raises TypeError if ``pixels`` is no array, ImageError if it is an array of another kind, ValueError for
        another quality or effort, or a ``lambda_scale`` that is not above 0 and finite, LimitError if the picture is
        too large or needs more than ``max_memory``, WeightsError if :meth:`load_encoder` does, and Cancelled.
        """
        pixels, quality = _picture(pixels, max_pixels), _whole("quality", quality, QUALITY_MIN, QUALITY_MAX)
        effort = _whole("effort", effort, 0, EFFORT_MAX)
        if not 0 < lambda_scale < math.inf:  # false for NaN
            raise ValueError(f"lambda_scale is {lambda_scale}, expected a finite number above 0")
        height, width, channels = pixels.shape
        effort = own_effort(self, effort)
        _admit(self, height, width, effort)
        codes = self.encode(pixels, quality, cancelled=cancelled)
        if effort == 0:
            levels = _bitstreams(self, codes, quality, cancelled)
        else:
            lmbda = lambda_scale * self.model.lmbda(quality)
            found = self._search(pixels, codes, quality, effort, lmbda=lmbda, cancelled=cancelled, progress=progress)
            codes, levels = _better(self, pixels, codes, found, quality, lmbda, cancelled)
        file = Container(width, height, channels == 1, quality, self.fingerprint, tuple(levels), tuple(chunks))
        if check:
            (again,) = _decode(self, [file], None, cancelled)
            if not all(np.array_equal(a, b) for a, b in zip(codes, again, strict=True)):
                raise RuntimeError("the bitstream does not decode to its own codes; please report this")
        return pack(file)

    def decompress(
        self, file: _File, *, levels: int | None = None, max_pixels: int | None = None, cancelled: _Cancelled = None
    ) -> _Pixels:
        """Pixels ``[H, W, 3]``, or ``[H, W, 1]`` for grey, of a ``.vq`` file, without its opacity and metadata."""
        return self.decompress_many([file], levels=levels, max_pixels=max_pixels, cancelled=cancelled)[0]

    @fork_safe
    def decompress_many(
        self,
        files: Sequence[_File],
        *,
        levels: int | None = None,
        max_pixels: int | None = None,
        cancelled: _Cancelled = None,
    ) -> list[_Pixels]:
        """The pixels of each of ``files``, as :meth:`decompress` gives them; raises the error of the first that fails.

        The prior decodes pictures of the same size, upright or not, together, which takes less time.
        """
        accepted = [_accept(self, file, levels, max_pixels) for file in files]
        kinds = [(*self._tiled.geometry(f.height, f.width).padded, len(f.levels[:levels])) for f in accepted]
        pixels: dict[int, _Pixels] = {}
        for batch in _batches(kinds, self.memory, self.max_memory):
            for i, codes in zip(batch, _decode(self, [accepted[i] for i in batch], levels, cancelled), strict=True):
                f = accepted[i]
                pixels[i] = self.decode(codes, f.quality, f.height, f.width, grey=f.grey, cancelled=cancelled)
        return [pixels[i] for i in range(len(files))]

    def salvage(
        self, file: _File, *, levels: int | None = None, max_pixels: int | None = None, cancelled: _Cancelled = None
    ) -> tuple[_Pixels, str | None]:
        """The picture of the levels before the first damage, and the damage; FormatError if no level is intact."""
        file = _parsed(file, intact=1, max_pixels=max_pixels)
        return self.decompress(file, levels=levels, cancelled=cancelled), file.damage

    @fork_safe
    def read(
        self, file: _File, *, levels: int | None = None, max_pixels: int | None = None, cancelled: _Cancelled = None
    ) -> tuple[Container, list[Codes]]:
        """The contents of a ``.vq`` file, and its code grids ``[G_l, H_l, W_l]``."""
        file = _accept(self, file, levels, max_pixels)
        return file, _decode(self, [file], levels, cancelled)[0]

    @fork_safe
    def encode(self, pixels: _Pixels, quality: int, *, cancelled: _Cancelled = None) -> list[Codes]:
        """int16 grids ``[G_l, H_l, W_l]`` of ``pixels [H, W, C]``; of the transposed picture if it is upright.

        Raises as :meth:`compress` does.
        """
        quality = _whole("quality", quality, QUALITY_MIN, QUALITY_MAX)
        self.load_encoder()
        return self._tiled.encode(_picture(pixels, MAX_SIDE**2), quality, cancelled=cancelled)

    @fork_safe
    def decode(
        self,
        codes: Sequence[Codes],
        quality: int,
        height: int,
        width: int,
        *,
        grey: bool,
        cancelled: _Cancelled = None,
    ) -> _Pixels:
        """Pixels ``[height, width, C]`` of the grids of some levels, coarsest first; ValueError if they do not fit.

        ``quality`` is 1..100, ``height`` and ``width`` 1..65535; ValueError for others.
        """
        quality = _whole("quality", quality, QUALITY_MIN, QUALITY_MAX)
        height, width = _whole("height", height, 1, MAX_SIDE), _whole("width", width, 1, MAX_SIDE)
        return self._tiled.decode(codes, quality, height, width, grey=grey, cancelled=cancelled)

    @fork_safe
    def cross_entropy(self, codes: Sequence[Codes], quality: int) -> list[float]:
        """Bits of each level under the prior's integer frequencies."""
        quality = _whole("quality", quality, QUALITY_MIN, QUALITY_MAX)
        return [level.cross_entropy for level in entropy.encode(self.prior, codes, quality, measure=True)]

    def memory(self, height: int, width: int, effort: int = 0) -> int:
        """Bytes that compressing or decompressing a picture of this size needs at most, beyond model and pixels.

        An estimate on the safe side. The networks work on tiles; grids and the prior's state are held whole. With an
        ``effort`` above 0, compressing needs more. Raises ValueError for sides other than 1..65535.
        """
        height, width = _whole("height", height, 1, MAX_SIDE), _whole("width", width, 1, MAX_SIDE)
        rows, columns = Geometry(height, width, self.model.strides).grids[-1]
        networks = self._tiled.memory(height, width)
        if effort > 0:
            networks = max(networks, self._search.memory(height, width))
        return networks + rows * columns * _prior_bytes(self.prior)


def pick_device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is one; DeviceError if there is no such device."""
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device is {name!r}, expected 'auto', 'cpu' or 'cuda'")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda was asked for, and this machine has none that torch can use")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _accept(codec: Codec, file: _File, levels: int | None, max_pixels: int | None) -> Container:
    """The contents of ``file``, which this model can decode."""
    if levels is not None and levels < 1:
        raise ValueError(f"levels is {levels}, expected at least 1")
    file = _parsed(file, max_pixels=max_pixels)
    _check_model(file, codec)
    _admit(codec, file.height, file.width)
    return file


def own_effort(codec: Codec, effort: int) -> int:
    """``effort``, but 0 for a model trained for what people see: a search would lower the squared error at its cost."""
    codec.load_encoder()
    return effort if codec.vqvae.distortion == "mse" else 0


def _admit(codec: Codec, height: int, width: int, effort: int = 0) -> None:
    """Raise LimitError or DeviceError if a picture of this size cannot be worked on here."""
    if codec.max_memory is not None and (needed := codec.memory(height, width, effort)) > codec.max_memory:
        limit = f"the limit is {codec.max_memory:,}"
        raise LimitError(f"{width}×{height} pixels take {needed:,} bytes of memory, {limit}")
    if codec.device.type == "cuda" and codec._process != os.getpid():
        raise DeviceError("a forked process cannot use the parent's CUDA: load the model in each process")


def _batches(
    kinds: Sequence[tuple[int, int, int]], memory: Callable[[int, int], int], max_memory: int | None
) -> Iterator[list[int]]:
    """Indices of files of one kind, (H', W') and levels to decode; each batch fits ``max_memory``."""
    alike: dict[tuple[int, int, int], list[int]] = {}
    for i, kind in enumerate(kinds):
        alike.setdefault(kind, []).append(i)
    for (height, width, _), members in alike.items():
        together = batch_size(height, width)
        if max_memory is not None:
            together = min(together, max_memory // memory(height, width))
        for first, last in chunks(len(members), together):
            yield members[first:last]


def _check_model(file: Container, codec: Codec) -> None:
    """Raise UnknownModelError or FormatError if a model other than that of ``codec`` made ``file``."""
    if file.fingerprint != codec.fingerprint:
        raise UnknownModelError(f"made with weights {file.fingerprint.hex()}, these are {codec.fingerprint.hex()}")
    if file.level_count != len(codec.model.levels):
        raise FormatError(f"{file.level_count} levels, expected {len(codec.model.levels)} of model {codec.name}")


def _decode(codec: Codec, files: Sequence[Container], levels: int | None, cancelled: _Cancelled) -> list[list[Codes]]:
    """Code grids of each of ``files``, which have one size."""
    bitstreams, qualities = [file.levels[:levels] for file in files], [file.quality for file in files]
    strides = codec.model.strides
    shapes = Geometry(files[0].height, files[0].width, strides).grids[: len(bitstreams[0])]
    return entropy.decode(codec.prior, bitstreams, shapes, qualities, cancelled=cancelled)


def _prior_bytes(prior: FixedPrior) -> int:
    """Bytes that the prior needs at most for each position of the finest grid."""
    numbers = prior.config.channels * BYTES_PER_CHANNEL
    return numbers + 4 * prior.model.levels[-1].groups + 200


def _parsed(file: _File, *, intact: int | None = None, max_pixels: int | None = None) -> Container:
    """What :func:`parse` accepts, or has accepted."""
    return file if isinstance(file, Container) else parse(file, intact=intact, max_pixels=max_pixels)


def _whole(name: str, value: int, smallest: int, largest: int) -> int:
    """``value`` as Python's int, which may be one of NumPy's; raises ValueError."""
    if value not in range(smallest, largest + 1):
        raise ValueError(f"{name} is {value!r}, expected a whole number from {smallest} to {largest}")
    return int(value)


def _bitstreams(codec: Codec, codes: Sequence[Codes], quality: int, cancelled: _Cancelled) -> list[bytes]:
    """The bitstream of each level."""
    return [level.bitstream for level in entropy.encode(codec.prior, codes, quality, cancelled=cancelled)]


def _better(
    codec: Codec,
    pixels: _Pixels,
    codes: list[Codes],
    found: Found,
    quality: int,
    lmbda: float,
    cancelled: _Cancelled,
) -> tuple[list[Codes], list[bytes]]:
    """The codes of a search, or ``codes`` if theirs is the smaller J; and the bitstreams."""
    levels = _bitstreams(codec, found.codes, quality, cancelled)
    if _bits(levels) + found.distortion < SURE * found.before:
        return found.codes, levels
    without = _bitstreams(codec, codes, quality, cancelled)
    cost = partial(_cost, codec, pixels, quality, lmbda)
    return (found.codes, levels) if cost(found.codes, levels) < cost(codes, without) else (codes, without)


def _bits(levels: Sequence[bytes]) -> int:
    return 8 * sum(map(len, levels))


def _cost(
    codec: Codec, pixels: _Pixels, quality: int, lmbda: float, codes: Sequence[Codes], levels: Sequence[bytes]
) -> float:
    """J = bits + λ·255²·MSE·pixels of a file, by its real bytes and the pixels that it decodes to."""
    height, width, channels = pixels.shape
    seen = codec.decode(codes, quality, height, width, grey=channels == 1)
    error = np.subtract(pixels, seen, dtype=np.float32)
    distortion = float(np.vdot(error, error)) / channels
    return float(_bits(levels) + lmbda * distortion)


def _picture(pixels: object, max_pixels: int | None) -> _Pixels:
    """``pixels`` as ``[H, W, 3]`` or ``[H, W, 1]``; raises TypeError, ImageError and LimitError."""
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels)
        raise TypeError(f"pixels are of type {kind.__module__}.{kind.__qualname__}, expected a numpy array")
    picture = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3) or not picture.size:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        expected = "uint8 [H, W, 3], or [H, W, 1] or [H, W] for grey, H and W at least 1"
        raise ImageError(f"pixels are {found}, expected {expected}")
    height, width, _ = picture.shape
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if height * width > limit or max(height, width) > MAX_SIDE:
        raise LimitError(f"{width}×{height} pixels, expected at most {limit} and {MAX_SIDE} a side")
    return picture
