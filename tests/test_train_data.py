"""Photographs in memory: crops, centres, what is left out and held out."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train_support import CPU
from vqcodec.errors import TrainingError
from vqcodec.files.images import image_files
from vqcodec.train.data import Photographs


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Images whose red is the row, green the column and blue the image: 40×70, 70×40, and 64×64 in grey."""
    for i, (height, width) in enumerate([(40, 70), (70, 40)]):
        y, x = np.mgrid[:height, :width].astype(np.uint8)
        Image.fromarray(np.stack([y, x, np.full_like(x, i)], 2)).save(tmp_path / f"{i}.png")
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(tmp_path / "grey.PNG")
    return tmp_path


def photographs(folder: Path, **settings: Any) -> Photographs:
    return Photographs(image_files(folder), CPU, **{"smallest": 32} | settings)


def test_crops_are_windows_turned_or_mirrored(maps: Path) -> None:
    (maps / "grey.PNG").unlink()
    data = photographs(maps)
    crops = data.crops(64, 32, random.Random(0))
    assert (crops.shape, crops.dtype) == ((64, 3, 32, 32), torch.float32)
    pixels = (crops * 255).round().long()
    kinds = set()
    for row, column, image in pixels:
        (number,) = image.unique().tolist()
        height, width = data.images[number].shape[1:]
        assert int(row.max()) < height
        assert int(column.max()) < width
        assert len(row.unique()) == len(column.unique()) == 32
        turned = bool(row[0, 0] == row[1, 0])
        mirrored = bool(column.flatten()[0] > column.flatten()[-1])
        kinds.add((number, turned, mirrored))
        assert torch.equal(row.diff(dim=1 if turned else 0).abs(), torch.ones_like(row.diff(dim=1 if turned else 0)))
    assert len(kinds) == 8  # both images, turned or not, mirrored or not
    assert torch.equal(data.crops(64, 32, random.Random(0)), crops)
    assert not torch.equal(data.crops(64, 32, random.Random(1)), crops)


def test_shrunk_crops_show_more_of_the_image(maps: Path) -> None:
    data = photographs(maps, downscale_share=1.0)
    crops = data.crops(64, 32, random.Random(0)) * 255
    assert crops.shape == (64, 3, 32, 32)
    assert crops.min() >= 0
    assert crops.max() < 70
    spans = (crops[:, :2].amax((2, 3)) - crops[:, :2].amin((2, 3))).amax(1)
    assert spans.max() > 36
    assert (
        not photographs(maps)
        .crops(64, 32, random.Random(0))
        .mul(255)
        .frac()
        .gt(1e-3)
        .logical_and(photographs(maps).crops(64, 32, random.Random(0)).mul(255).frac().lt(1 - 1e-3))
        .any()
    )


def test_centres(maps: Path) -> None:
    centres = list(photographs(maps).centres())
    assert [tile.shape for tile in centres] == [(1, 3, 32, 32)] * 3
    wide, tall, grey = ((tile[0] * 255).round().long() for tile in centres)
    assert (int(wide[0, 0, 0]), int(wide[1, 0, 0])) == (4, 19)
    assert (int(tall[0, 0, 0]), int(tall[1, 0, 0])) == (19, 4)
    assert torch.equal(grey[0], grey[1])  # grey files have three equal channels
    assert int(grey[0, 0, 0]) == 16


def test_unusable_images_are_listed(maps: Path) -> None:
    (maps / "deeper").mkdir()
    (maps / "deeper" / "x.jpg").write_bytes(b"\xff\xd8\xff but no more")
    (maps / "0.png").write_bytes((maps / "0.png").read_bytes()[:60])
    (maps / "notes.txt").write_text("not an image by its name")
    data = photographs(maps, smallest=48)
    assert len(data.images) == 1
    for line, name, reason in zip(
        data.skipped, ("0.png", "deeper/x.jpg", "1.png"), ("", "", "smaller than 48 pixels"), strict=True
    ):
        assert line.startswith(f"{maps / name}: {reason}")


def test_crops_that_most_images_are_too_small_for_shrink_to_fit(maps: Path) -> None:
    data = photographs(maps, smallest=64, stride=16)  # 40, 40 and 64 pixels
    assert data.smallest == 32
    assert len(data.images) == 3
    assert photographs(maps, smallest=32, stride=8).smallest == 32
    Image.new("RGB", (9, 80)).save(maps / "narrow.png")
    data = photographs(maps, smallest=64, stride=8)
    assert data.smallest == 40
    assert [line.partition(": ")[2] for line in data.skipped] == ["smaller than 40 pixels"]


def test_reading_ends_with_the_time_for_it(maps: Path) -> None:
    data = photographs(maps, seconds=-1.0)
    assert len(data.images) == 1
    assert [line.partition(": ")[2] for line in data.skipped] == ["not read, for lack of time"] * 2


def test_hold_out(maps: Path) -> None:
    data = photographs(maps, downscale_share=0.5)
    held_out = data.hold_out(2, 40)
    assert [image.shape[1:] for image in held_out.images] == [(40, 70), (64, 64)]
    assert [image.shape[1:] for image in data.images] == [(70, 40)]
    assert {tile.shape for tile in held_out.centres()} == {(1, 3, 40, 40)}
    data = photographs(maps)
    assert [image.shape[1:] for image in data.hold_out(20, 64).images] == [(64, 64)]  # the small ones cannot serve
    assert len(data.images) == 2
    with pytest.raises(TrainingError, match="none of 2 images has 64 pixels a side to validate with"):
        data.hold_out(20, 64)
    lone = data.hold_out(1, 32)
    assert len(lone.images) == len(data.images) == 2


def test_grain_is_noise_of_whole_levels_that_photographs_alone_get(maps: Path) -> None:
    plain, grainy = photographs(maps), photographs(maps, grain=2.0)
    torch.manual_seed(0)
    difference = (grainy.crops(1, 32, random.Random(3)) - plain.crops(1, 32, random.Random(3))).mul(255)
    assert float(difference.abs().max()) > 0
    assert torch.allclose(difference, difference.round(), atol=1e-3)


def test_a_share_of_the_crops_are_drawings(maps: Path) -> None:
    drawn = photographs(maps, drawn_share=1.0, grain=5.0).crops(2, 32, random.Random(0))
    assert drawn.shape == (2, 3, 32, 32)
    assert torch.equal(drawn, photographs(maps, drawn_share=1.0).crops(2, 32, random.Random(0)))
