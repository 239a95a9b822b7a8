"""Code grids ↔ bytes: a range coder driven by the prior's integer frequencies.

::

    codes, coarsest level first ──┐                       ┌──▶ codes
                                  ▼                       │
    FixedPrior ── frequencies ─▶ range encoder ─ bytes ─▶ range decoder ◀─ frequencies ── FixedPrior

Symbols of a level follow each other by wavefront step, then stage, then row, then group. Each level is a
bitstream of its own, so the coarse ones can be read without the fine ones. The only module that knows
constriction (Bamler 2022).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from vqcodec.errors import Cancelled, FormatError
from vqcodec.exact.prior import Codes, FixedPrior
from vqcodec.exact.wavefront import Wavefront

__all__ = ["Coded", "decode", "encode", "stop_if"]

# perfect=False is the quantisation that format.md describes; it has to be named.
_MODEL = constriction.stream.model.Categorical(perfect=False)
_WORD = 4  # bytes


@dataclass(frozen=True)
class Coded:
    """A level's bitstream, and what theory says of it.

    Attributes:
        bitstream: the bytes.
        cross_entropy: Σ −log2(frequency / sum of frequencies) over the level's codes, in bits; a frequency of 0,
            which costs the coder about 24 bits, counts as ½. NaN unless it was asked for.
    """

    bitstream: bytes
    cross_entropy: float


def encode(
    prior: FixedPrior,
    codes: Sequence[NDArray[np.integer[Any]]],
    quality: int,
    *,
    measure: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> list[Coded]:
    """Bitstreams of ``codes``, one ``[G_l, H_l, W_l]`` a level, coarsest first, and if ``measure`` cross-entropies.

    Raises Cancelled when ``cancelled``, which is asked between wavefront steps, says so.
    """
    coded: list[Coded] = []
    state = None
    for index, grid in enumerate(codes):
        _, height, width = grid.shape
        writer = _Writer(grid, Wavefront(height, width), prior.model.levels[index].stages, measure=measure)
        _, state = prior.code_level(
            index, height, width, [quality], state, writer.choose, known=grid[None], poll=partial(stop_if, cancelled)
        )
        coded.append(Coded(writer.bitstream(), writer.cross_entropy))
    return coded


def decode(
    prior: FixedPrior,
    bitstreams: Sequence[Sequence[bytes]],
    shapes: Sequence[tuple[int, int]],
    qualities: Sequence[int],
    *,
    cancelled: Callable[[], bool] | None = None,
) -> list[list[Codes]]:
    """The codes ``[G_l, H_l, W_l]`` of each of B pictures, each level of which has a bitstream, coarsest first.

    Their grids have one size: ``shapes`` are (H_l, W_l). The prior sees to all pictures in one go.

    Raises Cancelled as :func:`encode` does, and FormatError when the bytes cannot be a bitstream of this model;
    damage that still decodes to some codes is for the container's checksums to find.
    """
    codes: list[list[Codes]] = [[] for _ in bitstreams]
    state = None
    for index, (height, width) in enumerate(shapes):
        level = prior.model.levels[index]
        present = list(range(len(bitstreams)))
        if level.pixels and index == len(prior.model.levels) - 1:
            # Of an empty bitstream, only zeros are read, which stand for code 0 whatever the frequencies.
            present = [i for i in present if bitstreams[i][index]]
            if state is not None and len(present) < len(state):
                state = state[present]
        found = iter(())
        if present:
            readers = [_Reader(bitstreams[i][index], f"level {index}") for i in present]
            grids, state = prior.code_level(
                index,
                height,
                width,
                [qualities[i] for i in present],
                state,
                partial(_choose, readers),
                poll=partial(stop_if, cancelled),
            )
            for reader in readers:
                reader.finish()
            found = iter(grids)
        for i, picture in enumerate(codes):
            picture.append(next(found) if i in present else np.zeros((level.groups, height, width), np.int16))
    return codes


def stop_if(cancelled: Callable[[], bool] | None) -> None:
    """Raise Cancelled if ``cancelled`` says so."""
    if cancelled is not None and cancelled():
        raise Cancelled("cancelled")


class _Writer:
    """The encoder's side of :meth:`FixedPrior.code_level`: looks codes up and writes them in wavefront order."""

    def __init__(self, grid: NDArray[np.integer[Any]], wavefront: Wavefront, stages: int, *, measure: bool) -> None:
        self.codes = grid.astype(np.int16, copy=False).reshape(len(grid), -1).T[wavefront.raster]
        self.spans = wavefront.spans
        self.stages = stages
        self.written = 0  # spans
        self.encoder = constriction.stream.queue.RangeEncoder()
        self.measure = measure
        self.cross_entropy = 0.0 if measure else math.nan
        self.pending: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []

    def choose(self, first: int, last: int, stage: int, frequencies: NDArray[np.float64]) -> NDArray[np.int32]:
        count = frequencies.shape[1]
        codes = self.codes[first:last, stage * count : (stage + 1) * count].astype(np.int32)
        self.pending.append((codes.reshape(-1), frequencies.reshape(-1, frequencies.shape[2])))
        if self.measure:
            chosen = np.take_along_axis(frequencies, codes[:, :, None], 2)[:, :, 0]
            self.cross_entropy -= float(np.log2(np.maximum(chosen, 0.5) / frequencies.sum(2)).sum())
        if stage == self.stages - 1:
            self._write(first, last, count)
        return codes

    def _write(self, first: int, last: int, count: int) -> None:
        """Write all stages of rows first..last, ``count`` codes a stage, wavefront step by wavefront step."""
        while self.written < len(self.spans) and self.spans[self.written][0] < last:
            a, b = ((row - first) * count for row in self.spans[self.written])
            self.written += 1
            for codes, table in self.pending:
                self.encoder.encode(codes[a:b], _MODEL, table[a:b])
        self.pending.clear()

    def bitstream(self) -> bytes:
        words: NDArray[np.uint32] = self.encoder.get_compressed()
        # Most significant byte first puts the final word's padding at the end, where it can be left out.
        return words.astype(">u4").tobytes().rstrip(b"\0")


class _Reader:
    """The decoder's side: reads codes from the bitstream of the level ``name``."""

    def __init__(self, bitstream: bytes, name: str) -> None:
        if bitstream.endswith(b"\0"):
            raise FormatError(f"{name} ends with a zero byte, which a writer leaves out")
        padded = bitstream + bytes(-len(bitstream) % _WORD)
        self.decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self.name = name

    def choose(self, first: int, last: int, stage: int, frequencies: NDArray[np.float64]) -> NDArray[np.int32]:
        rows = frequencies.reshape(-1, frequencies.shape[2])
        try:
            symbols: NDArray[np.int32] = self.decoder.decode(_MODEL, rows)
        except AssertionError:  # a point in the sliver that the quantisation leaves over
            raise FormatError(f"{self.name} has a bitstream that stands for no codes") from None
        return symbols.reshape(frequencies.shape[:2])

    def finish(self) -> None:
        if not self.decoder.maybe_exhausted():
            raise FormatError(f"{self.name} has bytes left after its last code")


def _choose(
    readers: Sequence[_Reader], first: int, last: int, stage: int, frequencies: NDArray[np.float64]
) -> NDArray[np.int32]:
    """What each reader reads for its share of the rows."""
    if len(readers) == 1:
        return readers[0].choose(first, last, stage, frequencies)
    shares = frequencies.reshape(len(readers), -1, *frequencies.shape[1:])
    return np.concatenate(
        [reader.choose(first, last, stage, share) for reader, share in zip(readers, shares, strict=True)]
    )
