"""The float half: tiles without seams, and features in bfloat16."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vqcodec.codec import Codec
from vqcodec.errors import WeightsError
from vqcodec.files.images import read_image
from vqcodec.metrics import psnr
from vqcodec.pixels import TiledVQVAE, assemble
from vqcodec.weights import fill_decoder, load_weights

Pixels = NDArray[np.uint8]


@pytest.mark.parametrize("quality", [1, 60, 100])
def test_decoding_in_tiles_changes_no_pixel_by_more_than_a_level(codec: Codec, quality: int) -> None:
    """The codes are random: what they change spreads further than with those of pictures."""
    one, many = TiledVQVAE(codec.vqvae), TiledVQVAE(codec.vqvae, tile=128)
    height, width, rng = 48, 704, np.random.default_rng(quality)
    sizes = zip(codec.model.levels, one.geometry(height, width).grids, strict=True)
    codes = [rng.integers(0, level.codebook_size, (level.groups, *grid), np.int16) for level, grid in sizes]
    whole, tiled = (vqvae.decode(codes, quality, height, width, grey=False) for vqvae in (one, many))
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_encoding_in_tiles_leaves_no_seam(codec: Codec, root: Path) -> None:
    """The encoder may choose a few other codes, but they must not be worse at the edges."""
    pixels, _ = read_image(min((root / "examples").glob("*.png")))
    pixels = pixels[:256, :384]
    one, many = TiledVQVAE(codec.vqvae), TiledVQVAE(codec.vqvae, tile=128)
    whole, tiled = (one.decode(vqvae.encode(pixels, 60), 60, 256, 384, grey=False) for vqvae in (one, many))
    edges = np.zeros((256, 384), bool)
    edges[120:136] = edges[:, 120:136] = edges[:, 248:264] = True
    assert psnr(pixels[edges], tiled[edges]) > psnr(pixels[edges], whole[edges]) - 0.1


def test_a_tall_picture_in_tiles_is_the_turned_one(tiny_codec: Codec, photograph: Pixels) -> None:
    tiled = TiledVQVAE(tiny_codec.vqvae, tile=64)
    wide = photograph[:100, :150]
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    codes, turned = tiled.encode(wide, 60), tiled.encode(tall, 60)
    assert all(np.array_equal(a, b) for a, b in zip(codes, turned, strict=True))
    pixels = tiled.decode(codes, 60, 100, 150, grey=False)
    np.testing.assert_array_equal(tiled.decode(turned, 60, 150, 100, grey=False).transpose(1, 0, 2), pixels)


def test_memory_follows_the_tile(tiny_codec: Codec) -> None:
    small, large = (TiledVQVAE(tiny_codec.vqvae, tile=tile).memory(4096, 4096) for tile in (256, 2048))
    assert small < large
    assert tiny_codec.memory(4096, 4096) > TiledVQVAE(tiny_codec.vqvae).memory(4096, 4096)


@pytest.mark.slow
def test_codes_chosen_by_rough_features_are_as_good(codec: Codec, photograph: Pixels) -> None:
    bits, decibels = [], []
    for bfloat16 in (False, True):
        tiled = TiledVQVAE(codec.vqvae, bfloat16=bfloat16)
        codes = tiled.encode(photograph, 75)
        bits.append(sum(codec.cross_entropy(codes, 75)))
        decibels.append(psnr(photograph, tiled.decode(codes, 75, *photograph.shape[:2], grey=False)))
    assert bits[1] != bits[0]
    assert bits[1] == pytest.approx(bits[0], rel=0.01)
    assert decibels[1] == pytest.approx(decibels[0], abs=0.05)


def test_assembling_draws_no_random_numbers_and_copies_nothing(tiny_weights: Path) -> None:
    weights = load_weights(tiny_weights)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    vqvae = assemble(weights.model)
    assert all(tensor.is_meta for tensor in vqvae.state_dict().values())
    fill_decoder(vqvae, weights)
    assert torch.equal(torch.rand(3), expected)
    tensors = vqvae.state_dict()
    assert all(tensors[name].data_ptr() == tensor.data_ptr() for name, tensor in weights.vqvae.items())
    assert all(tensor.is_meta == (name not in weights.vqvae) for name, tensor in tensors.items())


def test_tensors_that_do_not_fit(tiny_weights: Path) -> None:
    weights = load_weights(tiny_weights)
    name = min(weights.vqvae)
    for tensors in ({}, weights.vqvae | {name: torch.zeros(1, 2, 3)}, weights.vqvae | {"more": torch.zeros(1)}):
        with pytest.raises(WeightsError, match=r"^tensors do not fit the configuration: "):
            fill_decoder(assemble(weights.model), replace(weights, vqvae=tensors))
