"""The format is what its document says: a reader written from that alone agrees with the codec on all golden files."""

import hashlib
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.plain_reader import Malformed, RangeDecoder, container, read_codes

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
EXAMPLES = [
    bytes.fromhex("".join(line.split("|")[0] for line in block.splitlines()))
    for block in re.findall(r"```hex\n(.*?)```", (ROOT / "docs" / "format.md").read_text(encoding="utf-8"), re.DOTALL)
]


def weights_of(fingerprint: bytes) -> bytes:
    for path in sorted((ROOT / "weights").glob("*.safetensors")):
        data = path.read_bytes()
        if hashlib.sha256(data).digest()[:4] == fingerprint:
            return data
    raise AssertionError(f"no weights {fingerprint.hex()}")


@pytest.mark.parametrize("name", FACTS)
def test_it_agrees_on_a_golden_file(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    codes = read_codes(data, weights_of(container(data).fingerprint))
    digest = hashlib.sha256(b"".join(grid.astype("<i8").tobytes() for grid in codes)).hexdigest()
    assert digest == FACTS[name]["codes"]


def test_the_documents_examples() -> None:
    plain, noted, bitstream = EXAMPLES
    file = container(plain)
    assert (file.width, file.height, file.quality, file.grey, file.chunks) == (300, 200, 75, False, [])
    assert file.bitstreams == [b"\x00\xff\x10", b"\x01\x23\x45\x67\x89"]
    file = container(noted)
    assert (file.grey, file.chunks) == (True, [(b"note", b"hi")])
    decoder = RangeDecoder(bitstream)
    frequencies = np.array([4194304, 2097152, 0, 1])
    assert [decoder.code(frequencies) for _ in range(4)] == [0, 1, 2, 3]
    decoder.finish()


def forged(data: bytes, at: int, value: int) -> bytes:
    """The document's first example with another byte in its header, and the CRC-32 that belongs to it."""
    header = data[:at] + bytes([value]) + data[at + 1 : 17]
    return header + zlib.crc32(header).to_bytes(4, "little") + data[21:]


@pytest.mark.parametrize(
    ("at", "value", "complaint"),
    [
        (0, 0x8E, "no .vq file"),
        (4, 2, "unknown version"),
        (9, 0, "quality"),
        (9, 101, "quality"),
        (12, 0x82, "wrong CRC-32"),  # a width that goes on into the height
        (10, 0x42, "reserved"),
        (10, 0x80 + 2, "reserved"),
        (12, 0, "more bytes than it needs"),
        (15, 4, "another size"),
        (16, 4, "another size"),
    ],
)
def test_it_refuses_what_a_reader_must(at: int, value: int, complaint: str) -> None:
    assert container(forged(EXAMPLES[0], at, EXAMPLES[0][at])).width == 300
    with pytest.raises(Malformed, match=complaint):
        container(forged(EXAMPLES[0], at, value))


def test_it_refuses_any_truncation_and_any_flipped_bit() -> None:
    for data in EXAMPLES[:2]:
        damaged = [data[:length] for length in range(len(data))] + [data + b"\0"]
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            damaged.append(bytes(flipped))
        for bad in damaged:
            with pytest.raises(Malformed):
                container(bad)


def test_it_refuses_bitstreams_that_no_writer_ends_so() -> None:
    with pytest.raises(Malformed, match="zero byte"):
        RangeDecoder(b"\x01\0")
    decoder = RangeDecoder(EXAMPLES[2] + b"\0\0\0\0\x01")
    for _ in range(4):
        decoder.code(np.array([4194304, 2097152, 0, 1]))
    with pytest.raises(Malformed, match="bytes are left"):
        decoder.finish()


def test_it_refuses_weights_whose_sums_may_be_too_large() -> None:
    data = (GOLDEN / "v1-one-pixel-q75.vq").read_bytes()
    weights = bytearray(weights_of(container(data).fingerprint))
    read_codes(data, bytes(weights))
    end = 8 + int.from_bytes(weights[:8], "little")
    entry = json.loads(weights[8:end])["prior.0.first.bias"]
    start = end + entry["data_offsets"][0]
    weights[start : start + 8] = (2**53).to_bytes(8, "little")
    with pytest.raises(Malformed, match="sums"):
        read_codes(data, bytes(weights))
