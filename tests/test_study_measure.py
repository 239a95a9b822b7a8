"""What codes cost, and maps of it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.files.container import parse
from vqcodec.geometry import Geometry
from vqcodec.study.measure import Coded, bit_map, code_picture, codebooks, figures, neutral, without_group

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def coded(tiny_codec: Codec, photograph: Pixels) -> list[Coded]:
    upright = np.ascontiguousarray(photograph.swapaxes(0, 1)[5:, :90])
    return [Coded.of(tiny_codec, "a.png", photograph, 60), Coded.of(tiny_codec, "b.png", upright, 60)]


def test_it_is_the_file_that_compress_writes(tiny_codec: Codec, coded: list[Coded]) -> None:
    for one in coded:
        data = tiny_codec.compress(one.pixels, 60)
        assert one.size == len(data)
        assert one.level_bytes == [len(level) for level in parse(data).levels]
        assert [float(bits.sum()) for bits in one.bits] == tiny_codec.cross_entropy(one.codes, 60)


def test_the_maps_sum_to_the_cross_entropy(tiny_codec: Codec, coded: list[Coded]) -> None:
    for one in coded:
        height, width, _ = one.pixels.shape
        geometry = Geometry(height, width, tiny_codec.model.strides)
        theory = tiny_codec.cross_entropy(one.codes, 60)
        for bits, stride, total in zip(one.bits, geometry.strides, theory, strict=True):
            found = bit_map(bits, geometry, stride)
            assert found.shape == (height, width)
            assert found.sum() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (9, 17), (17, 9), (1, 1), (3, 40)])
def test_a_map_has_each_position_where_its_pixels_are(height: int, width: int) -> None:
    geometry = Geometry(height, width, (16, 8))
    rows, columns = geometry.grids[1]
    bits = np.random.default_rng(0).random((2, rows, columns))
    found = bit_map(bits, geometry, 8)
    assert found.shape == (height, width)
    assert found.sum() == pytest.approx(bits.sum())
    if min(height, width) >= 16:
        assert found[0, 0] == pytest.approx(bits[:, 0, 0].sum() / 64)
        first = found[8, 0] if geometry.upright else found[0, 8]
        assert first == pytest.approx(bits[:, 0, 1].sum() / 64)
    colours = np.arange(3 * 5, dtype=np.uint8).reshape(5, 3)
    picture = code_picture(np.zeros((rows, columns), np.int16), colours, geometry, 8)
    assert picture.shape == (-(-height // 8), -(-width // 8), 3)


def test_figures(tiny_codec: Codec, coded: list[Coded]) -> None:
    pixels = sum(one.pixels.shape[0] * one.pixels.shape[1] for one in coded)
    for index, (found, level) in enumerate(zip(figures(tiny_codec, coded), tiny_codec.model.levels, strict=True)):
        theory = sum(tiny_codec.cross_entropy(one.codes, 60)[index] for one in coded)
        assert found.prior * pixels == pytest.approx(theory)
        assert sum(found.group_rate) == pytest.approx(found.prior)
        codes = sum(one.codes[index].size for one in coded)
        assert found.uniform * pixels == pytest.approx(codes * np.log2(level.codebook_size))
        assert 0 <= found.static <= found.uniform
        assert found.counts.sum() == codes
        for group in range(level.groups):
            used = np.unique(np.concatenate([one.codes[index][group].ravel() for one in coded]))
            assert found.dead[group] == level.codebook_size - len(used)
            values = codebooks(tiny_codec.vqvae)[index][group]
            sent = np.concatenate([values[one.codes[index][group].ravel()] for one in coded])
            assert found.live[group] == (sent.std(0) > 0.25).sum()


def test_without_a_group_the_others_stay(tiny_codec: Codec, coded: list[Coded]) -> None:
    code = int(neutral(tiny_codec.vqvae)[1][2])
    changed = without_group(coded[0].codes, 1, 2, code)
    assert (changed[1][2] == code).all()
    changed[1][2] = coded[0].codes[1][2]
    assert all(np.array_equal(a, b) for a, b in zip(changed, coded[0].codes, strict=True))
