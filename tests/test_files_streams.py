"""Files and standard streams by name; the commands' tests have the rest."""

import io
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from tests.command import fails, vq
from vqcodec.errors import VqcodecError
from vqcodec.files import streams


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG 2000"])
def test_images_are_known_by_how_they_begin(folder: Path, kind: str) -> None:
    Image.new("RGB", (3, 2)).save("x", kind.replace(" ", ""))
    assert streams.mistaken("x", ".png") == f"is a {kind} image, expected a .vq file"
    assert streams.mistaken("x", ".vq") is None


def test_streams_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_FILE_BYTES", 3_000_000)
    fails(vq("info", "-", stdin=b"\x8f" * 3_000_000), "standard input: not a .vq file")
    fails(vq("info", "-", stdin=b"\x8f" * 3_000_001), "standard input: expected at most 3,000,000 bytes")


def test_standard_input_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(VqcodecError, match=r"^standard input: is closed$"):
        streams.read_container("-")


def test_standard_output_that_takes_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pipe may under PYTHONUNBUFFERED."""
    taken = io.BytesIO()

    class Unbuffered:
        def write(self, data: memoryview) -> int:
            return taken.write(data[:3])

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=Unbuffered()))
    streams.write_bytes("-", b"ten bytes!")
    monkeypatch.undo()
    assert taken.getvalue() == b"ten bytes!"
