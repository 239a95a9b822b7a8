"""Where results come from, and that nothing private is published."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from vqcodec.codec import Codec
from vqcodec.rd.provenance import Provenance, command_line, image_facts, provenance, surroundings


@pytest.mark.parametrize(
    ("program", "arguments", "shown"),
    [
        ("/x/benchmarks/speed.py", ["kodak", "-o", "a.json"], "python -m benchmarks.speed kodak -o a.json"),
        ("/x/benchmarks/study/models.py", ["--seed", "1"], "python -m benchmarks.study.models --seed 1"),
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
    assert facts == asdict(Provenance.of(tiny_codec, tiny_weights, threads=3)) | {"machine": facts["machine"]}
    assert list(facts) == ["date", "command", "versions", "machine", "threads", "weights", "device"]
    assert list(surroundings(threads=3)) == list(facts)[:5]
    assert facts["weights"]["fingerprint"] == tiny_codec.fingerprint.hex()
    assert facts["weights"]["bytes"] == tiny_weights.stat().st_size
    encoder = (tiny_weights.parent / "tiny.encoder.safetensors").read_bytes()
    assert facts["weights"]["encoder"] == hashlib.sha256(encoder).hexdigest()[:8]
    assert (facts["threads"], facts["device"]) == (3, "cpu")
    assert {"torch", "pillow", "pillow-jxl-plugin", "pillow-heif", "avif", "jpg_2000"} <= facts["versions"].keys()
    assert str(Path.home()) not in json.dumps(facts)
    image = min((root / "examples").glob("*.png"))
    assert image_facts(image, 4, 3)["name"] == image.name
