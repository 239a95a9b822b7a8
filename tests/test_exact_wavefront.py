"""The wavefront: its order, its steps, and the places of neighbours."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.exact.wavefront import Wavefront, chunks, merge


@given(height=st.integers(1, 12), width=st.integers(1, 12))
def test_wavefront(height: int, width: int) -> None:
    wave = Wavefront(height, width)
    positions = [(int(i) % width, int(i) // width) for i in wave.raster]
    assert positions == sorted(
        ((x, y) for x in range(width) for y in range(height)), key=lambda p: (p[0] + 2 * p[1], p[1])
    )
    assert [row for first, last in wave.spans for row in range(first, last)] == list(range(height * width))
    # A grid one column wide has nothing at the odd steps.
    assert len(wave.spans) == (width + 2 * (height - 1) if width > 1 else height)
    for first, last in wave.spans:
        assert len({x + 2 * y for x, y in positions[first:last]}) == 1
        before = wave.neighbours[first:last, :4]
        assert ((before < first) | (before == height * width)).all()
    for row, (x, y) in enumerate(positions):
        for tap, (dx, dy) in zip(wave.neighbours[row], [(-1, -1), (0, -1), (1, -1), (-1, 0), (0, 0)], strict=True):
            inside = 0 <= x + dx < width and 0 <= y + dy < height
            assert (positions[tap] == (x + dx, y + dy)) if inside else (tap == height * width)


@given(height=st.integers(1, 7), width=st.integers(1, 7), count=st.integers(1, 4))
def test_several_grids_together(height: int, width: int, count: int) -> None:
    one, wave, size = Wavefront(height, width), Wavefront(height, width, count), height * width
    assert wave.spans == [(count * first, count * last) for first, last in one.spans]
    assert (wave.raster[wave.rank] == np.arange(count * size)).all()
    for (first, last), (a, b) in zip(wave.spans, one.spans, strict=True):
        for i, rows in enumerate(np.split(np.arange(first, last), count)):
            # The rows of a step are those of the first grid, then those of the next …
            assert (wave.raster[rows] == i * size + one.raster[a:b]).all()
            # … and each grid's neighbours are its own.
            outside = one.neighbours[a:b] == size
            assert ((wave.neighbours[rows] == count * size) == outside).all()
            theirs, its_own = wave.neighbours[rows][~outside], one.neighbours[a:b][~outside]
            assert (wave.raster[theirs] == i * size + one.raster[its_own]).all()


@given(counts=st.lists(st.integers(1, 9), min_size=1), size=st.integers(1, 20))
def test_merged_steps(counts: list[int], size: int) -> None:
    ends = [sum(counts[:i]) for i in range(len(counts) + 1)]
    steps = list(itertools.pairwise(ends))
    merged = merge(steps, size)
    assert [row for first, last in merged for row in range(first, last)] == list(range(ends[-1]))
    assert {first for first, _ in merged} <= {first for first, _ in steps}
    assert all(last - first <= size or (first, last) in steps for first, last in merged)
    # Two neighbours together would not have fitted.
    assert all(b[1] - a[0] > size for a, b in itertools.pairwise(merged))


@given(count=st.integers(0, 30), size=st.integers(1, 9))
def test_chunks(count: int, size: int) -> None:
    found = list(chunks(count, size))
    assert [i for first, last in found for i in range(first, last)] == list(range(count))
    assert all(last - first == size for first, last in found[:-1])
