r"""The prior in integers: the form that codes files, the same on every device.

::

    coarser level's state ── context layers ── spread ──▶ c [N, C] ┐  in chunks
    quality ───────────────────── table ────────▶ q [C] ───────────┤
                                                                   ▼          one wavefront step after another:
    codes ── embed ──▶ v ── gather 4 taps, first ──▶ h_0 ── gather 5 taps, layer ── + ──▶ h_L ── hidden ──▶ z_s
      ▲                                                                                                      │
      └─────────── bitstream ◀── frequencies [n, G/S, K] ◀── table ◀── heads ◀── + earlier groups' inner ◀───┘

Legend: B pictures of one size, N = H·W positions each, C channels, G groups, K codewords, S stages, n rows of a step,
f the ratio of the coarser level's stride to this level's. The network is that of :mod:`vqcodec.networks.pixelcnn`; its
layers are those of :mod:`vqcodec.exact.kernels`, proved exact by :mod:`vqcodec.exact.integers`. Rows are in the order
of :mod:`vqcodec.exact.wavefront`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.config import QUALITY_MIN, ModelConfig, PriorConfig
from vqcodec.exact.arithmetic import ACTIVATION_MAX
from vqcodec.exact.integers import Level, load_levels
from vqcodec.exact.kernels import FBGEMM, ONEDNN, Kernel, Linear, Probe, few_threads, one_thread, padded_rows
from vqcodec.exact.memory import Frequencies, FrequencyBuffer, Step, plan
from vqcodec.exact.wavefront import CodeArray, Codes, Wavefront, chunks, merge

__all__ = ["BYTES_PER_CHANNEL", "Choose", "FixedPrior", "Observe"]

CHUNK = 1024  # rows computed together where all codes are known; bounds memory
STATE = torch.int16  # holds every activation in half the memory of a float32
BYTES_PER_CHANNEL = torch.float32.itemsize + STATE.itemsize  # that the context and the state of a position take

Choose = Callable[[int, int, int, Frequencies], CodeArray]
"""``choose(first row, last row + 1, stage, frequencies [n, G/S, K]) -> codes [n, G/S]``."""

Observe = Callable[[int, int, int, Frequencies], None]
"""``observe(first row, last row + 1, stage, frequencies [n, G/S, K])``."""


def _never() -> None:
    pass


class FixedPrior:
    """The exact integer form of a prior, which :func:`vqcodec.networks.fixed_point.fixed_point` makes.

    Levels are visited one by one, coarsest first, by :meth:`evaluate` where codes are known, by :meth:`decode` where
    they come from a bitstream, or by :meth:`zero_state` where all of them are 0. Each returns the states of the level,
    one ``[H, W, C]`` for each picture, and the next level's call uses them up.

    Args:
        tensors: integers by name, as ``fixed_point`` returns them.
        model, config: to which they belong.
        device: any; the integers that come out are the same.
        kernels: candidates for products, in the order of preference.

    Attributes:
        model, config, device: the same.
        chunk: rows that :meth:`evaluate` computes together; no integer depends on it.

    Raises WeightsError as :func:`vqcodec.exact.integers.load_levels` does. All methods raise VqcodecError where torch
    multiplies with less precision than the integers need. Errors that ``poll``, called every few milliseconds,
    raises pass through.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        model: ModelConfig,
        config: PriorConfig,
        device: torch.device | str = "cpu",
        *,
        kernels: Sequence[Kernel] = (FBGEMM, ONEDNN),
    ) -> None:
        self.model, self.config, self.device = model, config, torch.device(device)
        self.chunk = CHUNK
        self._probe = Probe(self.device, kernels)
        self._levels = load_levels(tensors, model, config, self.device, self._probe.kernels)

    def evaluate(
        self,
        index: int,
        wavefront: Wavefront,
        codes: CodeArray,
        qualities: Sequence[int],
        coarser: Sequence[Tensor],
        observe: Observe,
        *,
        poll: Callable[[], None] = _never,
    ) -> list[Tensor]:
        """Show the frequencies of all codes of a level to ``observe``, row after row and stage after stage.

        All codes are known, so many wavefront steps are computed together.

        Args:
            index: of the level; 0 is the coarsest.
            wavefront: of the level's grids.
            codes: ``[B, G, H, W]``.
            qualities: of the B pictures, 1..100.
            coarser: the states of the level before; empty for level 0.
            observe: sees frequencies that are overwritten after the call for the last stage of these rows.

        Returns the states; none for the finest level.
        """
        level, rows = self._levels[index], wavefront.to_rows(codes)

        def look_up(first: int, last: int, stage: int, frequencies: Frequencies) -> Codes:
            observe(first, last, stage, frequencies)
            return rows[first:last, level.groups_of[stage]]

        with self._exactly(), few_threads():
            context = self._context(level, wavefront, qualities, coarser, poll)
            run = _Run(level, wavefront, merge(wavefront.spans, self.chunk), context)
            for step in run.steps:
                poll()
                run.embed(step, rows[step.rows])
                run.codes(step, look_up)
                run.add_embedding(step)
            return self._states(index, wavefront, context, poll)

    def decode(
        self,
        index: int,
        wavefront: Wavefront,
        qualities: Sequence[int],
        coarser: Sequence[Tensor],
        choose: Choose,
        *,
        poll: Callable[[], None] = _never,
    ) -> tuple[Codes, list[Tensor]]:
        """Learn the codes of a level from ``choose``, one wavefront step after another.

        Args:
            choose: returns the codes of a stage at some rows, given their frequencies, which are overwritten after
                the call for the last stage of these rows.
            index, wavefront, qualities, coarser, poll: as for :meth:`evaluate`.

        Returns the codes ``[B, G, H, W]`` and the states.
        """
        level = self._levels[index]
        rows = np.empty((len(wavefront.raster), level.groups), np.int16)
        with self._exactly(), one_thread():
            context = self._context(level, wavefront, qualities, coarser, poll)
            run = _Run(level, wavefront, wavefront.spans, context)
            for step in run.steps:
                poll()
                rows[step.rows] = run.codes(step, choose)
                run.embed(step, rows[step.rows])
                run.add_embedding(step)
            return wavefront.to_grids(rows), self._states(index, wavefront, context, poll)

    def zero_state(
        self,
        index: int,
        height: int,
        width: int,
        quality: int,
        coarser: Tensor | None,
        *,
        poll: Callable[[], None] = _never,
    ) -> Tensor:
        """The state ``[H, W, C]`` of one picture's level in which all codes are 0; no frequency is computed.

        ``coarser`` is the state of the level before, which is used up; None for level 0.
        """
        level = self._levels[index]
        with self._exactly(), one_thread():
            embedded = level.embed(np.zeros((1, level.groups), np.int16))
            state = torch.empty(height * width, self.config.channels, dtype=STATE, device=self.device)
            for positions, context in _contexts(level, height, width, quality, coarser, poll):
                state[positions] = context.add_(embedded).clamp_(-ACTIVATION_MAX, ACTIVATION_MAX).to(STATE)
            return state.view(height, width, -1)

    @contextlib.contextmanager
    def _exactly(self) -> Iterator[None]:
        # A caller's autocast would round the integers.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            self._probe.check()
            yield

    def _context(
        self,
        level: Level,
        wavefront: Wavefront,
        qualities: Sequence[int],
        coarser: Sequence[Tensor],
        poll: Callable[[], None],
    ) -> Tensor:
        """The context ``[B·N, C]`` of all pictures, in coding order."""
        ranks = torch.from_numpy(wavefront.rank).to(self.device).view(wavefront.count, -1)
        context = level.quality.new_empty(ranks.numel(), self.config.channels)
        for i, (rank, quality) in enumerate(zip(ranks, qualities, strict=True)):
            state = coarser[i] if coarser else None
            for positions, values in _contexts(level, wavefront.height, wavefront.width, quality, state, poll):
                context[rank[positions]] = values
        return context

    def _states(self, index: int, wavefront: Wavefront, context: Tensor, poll: Callable[[], None]) -> list[Tensor]:
        """The states of a level's pictures, of which ``context`` has the sums; none for the finest level."""
        if index + 1 == len(self._levels):
            return []
        state = torch.empty(context.shape, dtype=STATE, device=self.device)
        raster = torch.from_numpy(wavefront.raster).to(self.device)
        for first, last in chunks(len(raster), CHUNK):
            poll()
            sums = context[first:last].clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)
            state[raster[first:last]] = sums.to(STATE)
        return list(state.view(wavefront.count, wavefront.height, wavefront.width, -1).unbind())


class _Run:
    """One pass over a level in coding order, with the buffers that it needs.

    Args:
        level: its integers.
        wavefront: of the level's grids.
        spans: the rows of each step.
        context: ``[B·N, C]``, in coding order.
    """

    def __init__(self, level: Level, wavefront: Wavefront, spans: list[tuple[int, int]], context: Tensor) -> None:
        self._level, self._context = level, context
        ring = plan(wavefront, spans, padded_rows, context.device)
        self.steps = ring.steps
        self._embedded = ring.buffer(context)
        self._hidden = [ring.buffer(context) for _ in level.layers]
        self._frequencies = FrequencyBuffer(
            level.stages, level.groups_per_stage, level.codebook_size, ring.longest, context.device
        )

    def embed(self, step: Step, codes: Codes) -> None:
        """Keep the embedding of a step's codes ``[n, G]`` for the steps that follow."""
        self._embedded[step.slot] = self._level.embed(codes)

    def add_embedding(self, step: Step) -> None:
        """Turn a step's context, which is not needed any more, into its state before the clamp."""
        self._context[step.rows].add_(self._embedded[step.slot])

    def codes(self, step: Step, choose: Choose) -> Codes:
        """The codes ``[n, G]`` of a step, which ``choose`` gives stage by stage."""
        level = self._level
        stages = level.hidden(self._last_layer(step)).chunk(level.stages, 1)
        codes = np.empty((step.count, level.groups), np.int16)
        earlier: Tensor | None = None  # [padded, C], what the codes of earlier stages add
        for stage, (z, head) in enumerate(zip(stages, level.heads, strict=True)):
            if earlier is not None:
                z = z + earlier
            logits = head(z.clamp(0, ACTIVATION_MAX))[: step.count]
            frequencies = self._frequencies.fill(stage, logits)
            chosen = codes[:, level.groups_of[stage]]
            chosen[:] = choose(step.rows.start, step.rows.stop, stage, frequencies)
            if stage + 1 < level.stages:
                inner = level.inner[stage](chosen)
                if step.padded > step.count:
                    inner = F.pad(inner, (0, 0, 0, step.padded - step.count))
                earlier = inner if earlier is None else earlier.add_(inner)
        return codes

    def _last_layer(self, step: Step) -> Tensor:
        """h_L ``[padded, C]``."""
        x = self._embedded.index_select(0, step.before).view(step.padded, -1)
        h = self._level.first(x)
        h[: step.count].add_(self._context[step.rows])
        h.clamp_(0, ACTIVATION_MAX)
        for layer, buffer in zip(self._level.layers, self._hidden, strict=True):
            buffer[step.slot] = h[: step.count]
            x = buffer.index_select(0, step.around).view(step.padded, -1)
            h = layer(x).add_(h).clamp_(0, ACTIVATION_MAX)
        return h


def _contexts(
    level: Level, height: int, width: int, quality: int, coarser: Tensor | None, poll: Callable[[], None]
) -> Iterator[tuple[slice, Tensor]]:
    """Positions of one picture, in raster order, and their context ``[n, C]``.

    ``coarser [H/f, W/f, C]`` is the state of the level before, which is used up; None for level 0.
    """
    own = level.quality[quality - QUALITY_MIN]
    if coarser is None:
        for first, last in chunks(height * width, CHUNK):
            yield slice(first, last), own.repeat(last - first, 1)
        return
    assert level.spread is not None
    for layer in level.context:
        _convolve(layer, coarser, poll)
    factor, columns = level.factor, width // level.factor
    row = width * factor  # positions that one row of the coarser grid becomes
    for first, last in chunks(height // factor, max(1, CHUNK // columns)):
        poll()
        spread = level.spread(coarser[first:last].flatten(0, 1).to(own.dtype))
        spread = spread.view(last - first, columns, -1, factor, factor).permute(0, 3, 1, 4, 2)
        yield slice(first * row, last * row), spread.reshape(-1, len(own)) + own


def _convolve(layer: Linear, x: Tensor, poll: Callable[[], None]) -> None:
    """A 3×3 layer and its clamp on ``x [H, W, C]``, in place."""
    height, width, _ = x.shape
    above = torch.zeros_like(x[:1])  # the row before the next one, as it was
    # A few grid rows at a time: the nine shifted copies are nine times the grid.
    for first, last in chunks(height, max(1, CHUNK // width)):
        poll()
        below = x[last : last + 1] if last < height else torch.zeros_like(above)
        padded = F.pad(torch.cat([above, x[first:last], below]), (0, 0, 1, 1))
        above = x[last - 1 : last].clone()
        taps = [padded[i : i + last - first, j : j + width] for i in range(3) for j in range(3)]
        rows = layer(torch.cat(taps, 2).flatten(0, 1).to(layer.weight.dtype))
        x[first:last] = rows.clamp_(0, ACTIVATION_MAX).view(last - first, width, -1)
