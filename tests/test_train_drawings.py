"""Drawings made at random."""

import random

import pytest
import torch

from vqcodec.errors import MissingPackageError
from vqcodec.train.drawings import KINDS, _colour, draw


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_every_kind_has_the_size_that_was_asked_for_and_more_than_one_picture(kind: object) -> None:
    assert callable(kind)
    pictures = [kind(random.Random(seed), 96).convert("RGB") for seed in range(4)]
    assert {picture.size for picture in pictures} == {(96, 96)}
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_the_same_seed_gives_the_same_drawing() -> None:
    first = draw(7, 64)
    assert (first.shape, first.dtype) == ((3, 64, 64), torch.uint8)
    assert torch.equal(first, draw(7, 64))
    assert not torch.equal(first, draw(8, 64))


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"^drawings need the package matplotlib: pip install"):
        draw(0, 32)


def test_one_colour_in_three_is_grey() -> None:
    rng = random.Random(0)
    colours = [_colour(rng) for _ in range(3000)]
    grey = [colour for colour in colours if len(set(colour)) == 1]
    assert len(grey) / len(colours) == pytest.approx(1 / 3, abs=0.04)
    assert {(0, 0, 0), (255, 255, 255)} <= set(grey)
