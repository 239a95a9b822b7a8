"""Where results come from: nothing private is published, and JSON is exact."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vqcodec.codec import Codec
from vqcodec.rd.provenance import command_line, image_facts, provenance, write_json


def test_json_is_exact_and_compact(folder: Path) -> None:
    contents: dict[str, Any] = {"a": [1.5, -2e-7, 0.1], "b": [[1, 2], [3]], "c": ["1", "[\n1]"], "d": [], "é": None}
    write_json(folder / "r.json", contents)
    text = (folder / "r.json").read_text(encoding="utf-8")
    assert json.loads(text) == contents
    assert ' "a": [1.5, -2e-07, 0.1],\n' in text
    assert "é" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(folder / "r.json", {"psnr": math.inf})


@pytest.mark.parametrize(
    ("program", "arguments", "shown"),
    [
        ("/x/benchmarks/speed.py", ["kodak", "-o", "a.json"], "python -m benchmarks.speed kodak -o a.json"),
        ("/usr/bin/vqcodec", ["rd-curve", "/home/me/my pictures"], "vqcodec rd-curve 'my pictures'"),
        ("/x/vqcodec/__main__.py", ["rd-curve", "../elsewhere/kodak"], "vqcodec rd-curve kodak"),
        (
            "vqcodec",
            ["rd-curve", "a", "--weights=/home/me/w.safetensors"],
            "vqcodec rd-curve a --weights=w.safetensors",
        ),
    ],
)
def test_the_command_names_no_private_folder(program: str, arguments: list[str], shown: str) -> None:
    assert command_line([program, *arguments]) == shown


def test_a_path_below_the_working_directory_is_kept(folder: Path) -> None:
    assert command_line(["vqcodec", "info", str(folder / "new" / "a.vq")]) == "vqcodec info new/a.vq"


def test_facts(tiny_codec: Codec, tiny_weights: Path, root: Path) -> None:
    facts = provenance(tiny_codec, tiny_weights, threads=3)
    assert facts["weights"]["fingerprint"] == tiny_codec.fingerprint.hex()
    assert facts["weights"]["bytes"] == tiny_weights.stat().st_size
    assert (facts["threads"], facts["device"]) == (3, "cpu")
    assert {"torch", "pillow", "avif", "jpg_2000"} <= facts["versions"].keys()
    assert str(Path.home()) not in json.dumps(facts)
    image = min((root / "examples").glob("*.png"))
    assert image_facts(image, 4, 3)["name"] == image.name
