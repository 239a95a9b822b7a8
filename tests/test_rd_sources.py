"""The images of a sweep: which are taken, under which names, and which are refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vqcodec.errors import ReportError
from vqcodec.rd.sources import Skipped, gather


def test_gather_takes_files_and_folders(folder: Path, photograph: NDArray[np.uint8]) -> None:
    (folder / "more" / "deep").mkdir(parents=True)
    for name in ("a.png", "more/b.webp", "more/deep/c.png"):
        PillowImage.fromarray(photograph).save(folder / name)
    (folder / "more" / "notes.txt").write_text("not looked at")
    (folder / "more" / "broken.png").write_bytes(b"no picture")
    PillowImage.fromarray(np.dstack([photograph, photograph[:, :, :1]])).save(folder / "more" / "alpha.png")
    (folder / "more" / "report" / "parts").mkdir(parents=True)
    PillowImage.fromarray(photograph).save(folder / "more" / "report" / "parts" / "own.png")
    images, skipped, warnings = gather([folder / "a.png", folder / "more"], beside=folder / "more" / "report")
    assert [image.name for image in images] == ["a.png", "alpha.png", "b.webp", "deep/c.png"]
    assert (images[0].width, images[0].height, len(images[0].sha256)) == (192, 128, 64)
    assert skipped == [Skipped("broken.png", "not an image that Pillow can read")]
    (warning,) = warnings
    assert warning.startswith("alpha.png: transparency")


def test_what_is_said_of_several_images_is_one_warning(folder: Path, photograph: NDArray[np.uint8]) -> None:
    for name in ("a.png", "b.png", "c.png"):
        PillowImage.fromarray(np.dstack([photograph, photograph[:, :, :1]])).save(folder / name)
    _, _, warnings = gather([folder], beside=folder / "report")
    assert [warning.partition(":")[0] for warning in warnings] == ["a.png and 2 more"]


def test_gather_refuses(folder: Path, photograph: NDArray[np.uint8]) -> None:
    with pytest.raises(ReportError, match=r"none: does not exist, expected an image or a folder"):
        gather([folder / "none"], beside=folder / "r")
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(ReportError, match=r"^a\.png: not an image that Pillow can read; there is no other image"):
        gather([folder / "a.png"], beside=folder / "r")
    for name in ("one", "two"):
        (folder / name).mkdir()
        PillowImage.fromarray(photograph).save(folder / name / "a.png")
    with pytest.raises(ReportError, match=r"two/a\.png: has the name of .*one/a\.png"):
        gather([folder / "one", folder / "two"], beside=folder / "r")
    assert len(gather([folder / "one", folder / "one"], beside=folder / "r")[0]) == 1  # the same file twice is one
    assert len(gather([folder / "one", folder / "one" / "a.png"], beside=folder / "r")[0]) == 1
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(ReportError, match=r"pipe\.png: is no regular file"):
        gather([folder / "pipe.png"], beside=folder / "r")
    (folder / "odd").mkdir()
    os.mkfifo(folder / "odd" / "pipe.png")
    (folder / "odd" / "folder.png").mkdir()
    for raw in (b"caf\xe9.png", b"two\nlines.png"):
        with open(os.path.join(os.fsencode(folder / "odd"), raw), "wb") as file:
            PillowImage.fromarray(photograph).save(file, "PNG")
    images, skipped, _ = gather([folder / "odd"], beside=folder / "r")
    assert sorted(image.name for image in images) == ["caf\\udce9.png", "two\\nlines.png"]
    assert skipped == []
    with pytest.raises(ReportError, match=r"one: holds no images other than those of the report in it"):
        gather([folder / "one"], beside=folder)
