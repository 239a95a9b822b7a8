"""Code grids ↔ bitstreams: a range coder driven by the prior's integer frequencies.

::

    codes, coarsest level first ──┐                       ┌──▶ codes
                                  ▼                       │
    FixedPrior ── frequencies ─▶ range encoder ─ bytes ─▶ range decoder ◀─ frequencies ── FixedPrior

The symbols of a level are ordered by wavefront step, then stage, then row, then group. Each level is a bitstream of its
own, so the coarse levels can be read without the fine ones. This is the only module that imports constriction (Bamler
2022).

Legend: B pictures of one size, G groups, K codewords, S stages, H × W positions, n rows of a step.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import constriction
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.errors import Cancelled, FormatError
from vqcodec.exact.memory import Frequencies
from vqcodec.exact.prior import FixedPrior
from vqcodec.exact.wavefront import CodeArray, Codes, Wavefront

__all__ = ["CodedLevel", "SymbolReader", "SymbolWriter", "decode", "encode", "stop_if"]

# perfect=False is the quantisation that docs/format.md describes; constriction wants it stated.
_MODEL = constriction.stream.model.Categorical(perfect=False)
_WORD = 4  # bytes


@dataclass(frozen=True)
class CodedLevel:
    """A level's bitstream and its theoretical length.

    Attributes:
        bitstream: the bytes.
        bits: −log2(frequency / sum of frequencies) of each code, ``[G, H, W]``. A frequency of 0, for which the coder
            spends about 24 bits, counts as ½. None if it was not measured.
    """

    bitstream: bytes
    bits: NDArray[np.float64] | None = None

    @property
    def cross_entropy(self) -> float:
        """Bits of all codes of the level; NaN if they were not measured."""
        return math.nan if self.bits is None else float(self.bits.sum())


def encode(
    prior: FixedPrior,
    codes: Sequence[CodeArray],
    quality: int,
    *,
    measure: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> list[CodedLevel]:
    """The bitstream of each level of ``codes``, one ``[G_l, H_l, W_l]`` a level, coarsest first.

    With ``measure``, the bits of each code are computed too. Raises Cancelled if ``cancelled``, which is called between
    steps of the prior, returns True.
    """
    coded: list[CodedLevel] = []
    states: list[Tensor] = []
    for index, grid in enumerate(codes):
        wavefront = Wavefront(*grid.shape[1:])
        writer = SymbolWriter(grid, wavefront, prior.model.levels[index].stages, measure=measure)
        states = prior.evaluate(
            index, wavefront, grid[None], [quality], states, writer.write, poll=partial(stop_if, cancelled)
        )
        coded.append(writer.finish())
    return coded


def decode(
    prior: FixedPrior,
    bitstreams: Sequence[Sequence[bytes]],
    shapes: Sequence[tuple[int, int]],
    qualities: Sequence[int],
    *,
    cancelled: Callable[[], bool] | None = None,
) -> list[list[Codes]]:
    """The code grids ``[G_l, H_l, W_l]`` of each of B pictures of one size, which the prior decodes together.

    Args:
        prior: of the model that made the bitstreams.
        bitstreams: of each picture's levels, coarsest first.
        shapes: ``(H_l, W_l)`` of each level's grids.
        qualities: of the pictures, 1..100.
        cancelled: as for :func:`encode`.

    Raises Cancelled as :func:`encode` does, and FormatError if the bytes cannot be a bitstream of this model. Other
    damage decodes to wrong codes; the container's checksums find it.
    """
    poll = partial(stop_if, cancelled)
    codes: list[list[Codes]] = [[] for _ in bitstreams]
    states: dict[int, Tensor] = {}  # of the level before, by picture
    for index, (height, width) in enumerate(shapes):
        level = prior.model.levels[index]
        # An empty bitstream is read as zeros, which decode to code 0 for all frequencies (docs/format.md).
        coded = [i for i, levels in enumerate(bitstreams) if levels[index]]
        before, states = states, {}
        if coded:
            wavefront = Wavefront(height, width, len(coded))
            readers = [SymbolReader(bitstreams[i][index], f"level {index}") for i in coded]
            grids, found = prior.decode(
                index,
                wavefront,
                [qualities[i] for i in coded],
                [before.pop(i) for i in coded if before],
                partial(_read_all, readers),
                poll=poll,
            )
            for reader in readers:
                reader.finish()
            states.update(zip(coded, found, strict=False))  # the finest level has no state
        for i, levels in enumerate(bitstreams):
            if levels[index]:
                codes[i].append(grids[coded.index(i)])
                continue
            codes[i].append(np.zeros((level.groups, height, width), np.int16))
            if any(levels[index + 1 : len(shapes)]):
                states[i] = prior.zero_state(index, height, width, qualities[i], before.get(i), poll=poll)
    return codes


def stop_if(cancelled: Callable[[], bool] | None) -> None:
    """Raise Cancelled if ``cancelled`` is given and returns True."""
    if cancelled is not None and cancelled():
        raise Cancelled("cancelled")


class SymbolWriter:
    """Writes the codes of one level with the frequencies that :meth:`FixedPrior.evaluate` shows.

    Args:
        grid: the codes ``[G, H, W]``.
        wavefront: of the grid.
        stages: S.
        measure: whether to compute the bits of each code.
    """

    def __init__(self, grid: CodeArray, wavefront: Wavefront, stages: int, *, measure: bool) -> None:
        self._codes, self._wavefront = wavefront.to_rows(grid[None]), wavefront
        self._stages = stages
        self._written = 0  # spans
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._bits = np.zeros(self._codes.shape) if measure else None
        self._pending: list[tuple[NDArray[np.int32], Frequencies]] = []

    def write(self, first: int, last: int, stage: int, frequencies: Frequencies) -> None:
        """Write the codes of a stage at rows ``first..last − 1``, given their frequencies ``[n, G/S, K]``.

        The codes are kept and written at the last stage of these rows. ``frequencies`` must stay unchanged until then.
        """
        count = frequencies.shape[1]
        codes = self._codes[first:last, stage * count : (stage + 1) * count].astype(np.int32)
        self._pending.append((codes.reshape(-1), frequencies.reshape(-1, frequencies.shape[2])))
        if self._bits is not None:
            chosen = np.take_along_axis(frequencies, codes[:, :, None], 2)[:, :, 0]
            share = np.maximum(chosen, 0.5) / frequencies.sum(2)
            self._bits[first:last, stage * count : (stage + 1) * count] = -np.log2(share)
        if stage == self._stages - 1:
            self._flush(first, last, count)

    def _flush(self, first: int, last: int, count: int) -> None:
        """Write all stages of rows ``first..last − 1``, ``count`` codes a stage, one wavefront step after another."""
        while self._written < len(self._wavefront.spans) and self._wavefront.spans[self._written][0] < last:
            a, b = ((row - first) * count for row in self._wavefront.spans[self._written])
            self._written += 1
            for codes, frequencies in self._pending:
                self._encoder.encode(codes[a:b], _MODEL, frequencies[a:b])
        self._pending.clear()

    def finish(self) -> CodedLevel:
        """The bitstream of all codes that were written."""
        words: NDArray[np.uint32] = self._encoder.get_compressed()
        # Most significant byte first puts the final word's padding at the end, where it can be left out.
        bitstream = words.astype(">u4").tobytes().rstrip(b"\0")
        return CodedLevel(bitstream, None if self._bits is None else self._wavefront.to_grids(self._bits)[0])


class SymbolReader:
    """Reads the codes of one level from its bitstream, with the frequencies that :meth:`FixedPrior.decode` gives.

    Args:
        bitstream: the bytes.
        name: of the level, for errors.

    All methods raise FormatError, as the constructor does, if the bytes cannot come from a writer.
    """

    def __init__(self, bitstream: bytes, name: str) -> None:
        if bitstream.endswith(b"\0"):
            raise FormatError(f"{name} ends with a zero byte, which a writer leaves out")
        padded = bitstream + bytes(-len(bitstream) % _WORD)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._name = name

    def read(self, frequencies: Frequencies) -> NDArray[np.int32]:
        """The next codes ``[n, G/S]``, given their frequencies ``[n, G/S, K]``."""
        rows = frequencies.reshape(-1, frequencies.shape[2])
        try:
            symbols: NDArray[np.int32] = self._decoder.decode(_MODEL, rows)
        except AssertionError:  # a point in the small interval that the quantisation assigns to no symbol
            raise FormatError(f"{self._name} has a bitstream that stands for no codes") from None
        return symbols.reshape(frequencies.shape[:2])

    def finish(self) -> None:
        """Check that the bitstream is used up."""
        if not self._decoder.maybe_exhausted():
            raise FormatError(f"{self._name} has bytes left after its last code")


def _read_all(
    readers: Sequence[SymbolReader], first: int, last: int, stage: int, frequencies: Frequencies
) -> NDArray[np.int32]:
    """The next codes from each reader, for its share of the rows."""
    if len(readers) == 1:
        return readers[0].read(frequencies)
    shares = frequencies.reshape(len(readers), -1, *frequencies.shape[1:])
    return np.concatenate([reader.read(share) for reader, share in zip(readers, shares, strict=True)])
