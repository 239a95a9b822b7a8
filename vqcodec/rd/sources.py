"""The images of a sweep: found in files and folders, read once, named without the folders that lead to them.

::

    files and folders ──gather──▶ images that can be read, the others with the reason, warnings
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqcodec.errors import ImageError, LimitError, ReportError
from vqcodec.files.images import image_files, read_image
from vqcodec.rd.provenance import ImageFacts

__all__ = ["Image", "Skipped", "gather"]


@dataclass(frozen=True)
class Image(ImageFacts):
    """An image of the sweep, which could be read; ``path`` is its file."""

    path: Path


@dataclass(frozen=True)
class Skipped:
    """An image that is left out, by its name, and why."""

    name: str
    reason: str


def gather(sources: Sequence[Path], *, beside: Path) -> tuple[list[Image], list[Skipped], list[str]]:
    """The images among ``sources``, files or folders, that can be read; those that cannot; warnings.

    Files in the folder ``beside``, where the report goes, are left out, also if a folder of ``sources`` holds it.

    Raises ReportError if a source does not exist, if two images have one name, or if no image can be read.
    """
    found = _find(sources, beside.resolve())
    images: list[Image] = []
    skipped: list[Skipped] = []
    warned: dict[str, list[str]] = {}  # the images by what is said of them
    for name, path in found.items():
        try:
            pixels, said = read_image(path)
        except (ImageError, LimitError) as error:
            skipped.append(Skipped(name, str(error).removeprefix(f"{path}: ")))
            continue
        height, width, _ = pixels.shape
        for warning in said:
            warned.setdefault(warning, []).append(name)
        images.append(Image(name, width, height, hashlib.sha256(path.read_bytes()).hexdigest(), path))
    if not images:
        raise ReportError(f"{skipped[0].name}: {skipped[0].reason}; there is no other image to measure")
    return images, skipped, [f"{_several(names)}: {warning}" for warning, names in warned.items()]


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _find(sources: Sequence[Path], report: Path) -> dict[str, Path]:
    """The image files among ``sources`` by name, each once."""
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for source in sources:
        if not (os.path.isdir(source) or os.path.isfile(source)):
            fault = "is no regular file" if source.exists() else "does not exist"
            raise ReportError(f"{source}: {fault}, expected an image or a folder of images")
        for path in image_files(source) if os.path.isdir(source) else [source]:
            true = path.resolve()
            if true in seen or (path != source and true.is_relative_to(report)):
                continue
            seen.add(true)
            name = _printable(path.relative_to(source).as_posix() if os.path.isdir(source) else path.name)
            if found.setdefault(name, path) != path:
                raise ReportError(f"{path}: has the name of {found[name]}; expected every image to have its own")
    if not found:
        raise ReportError(f"{sources[0]}: holds no images other than those of the report in it")
    return found


def _printable(name: str) -> str:
    """A file's name on one line; an escape stands for each character that cannot be printed."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
