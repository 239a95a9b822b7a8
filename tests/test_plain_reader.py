"""docs/format.md is complete: a reader written from it alone reads the codec's files and refuses malformed ones."""

import ast
import dataclasses
import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.shipped import codes_digest
from tests import plain_reader
from tests.plain_reader import A, FormatError, RangeDecoder, Weights, parse, quantise, read_codes
from vqcodec import Codec
from vqcodec.config import Config
from vqcodec.exact import entropy
from vqcodec.exact.prior import FixedPrior
from vqcodec.files.container import Container, pack
from vqcodec.networks.fixed_point import fixed_point
from vqcodec.networks.pixelcnn import PixelCNN
from vqcodec.networks.vqvae import VQVAE
from vqcodec.weights import save_weights

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
MODELS = {
    hashlib.sha256(path.read_bytes()).digest()[:4]: path for path in (ROOT / "weights").glob("*.decoder.safetensors")
}
# The blocks of hexadecimal text in the document, without the notes to the right of the bars.
BLOCKS = (ROOT / "docs" / "format.md").read_text().split("```hex\n")[1:]
COLOUR, GREY, STREAM = (
    bytes.fromhex(" ".join(line.split("|")[0] for line in block.split("```")[0].splitlines())) for block in BLOCKS
)
LEVELS = (bytes.fromhex("00ff10"), bytes.fromhex("0123456789"))


def sealed(data: bytes) -> bytes:
    """``data`` and its CRC-32."""
    return data + zlib.crc32(data).to_bytes(4, "little")


def vq(
    *,
    version: str = "01",
    fingerprint: str = "1a2bc3d4",
    quality: str = "4b",
    layout: str = "02",
    size: str = "ac02 c801",
    lengths: str = "03 05",
    levels: tuple[bytes, ...] = LEVELS,
    chunks: bytes = b"",
) -> bytes:
    """The document's example with other fields, given in hexadecimal, and correct CRC-32s."""
    header = bytes.fromhex(f"8f56510a {version} {fingerprint} {quality} {layout} {size} {lengths}")
    return b"".join(map(sealed, [header + levels[0], *levels[1:]])) + chunks


def with_chunks(length: str, chunks: bytes) -> bytes:
    """The example with ``chunks`` of the stated ``length``."""
    return vq(layout="22", lengths=f"03 05 {length}", chunks=chunks)


@pytest.mark.parametrize("name", FACTS)
def test_a_golden_file_gives_the_codes_of_the_codec(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    codes = read_codes(data, MODELS[parse(data).fingerprint].read_bytes())
    _, expected = Codec.for_file(data, device="cpu").read(data)
    assert [grid.shape for grid in codes] == [grid.shape for grid in expected]
    assert all(np.array_equal(*pair) for pair in zip(codes, expected, strict=True))
    # The codec itself must not change either.
    assert codes_digest(codes) == FACTS[name]["codes"]


def test_clamps_that_no_golden_file_reaches(tiny_config: Config, tmp_path: Path) -> None:
    """Random codes under tables full of ±A, so that every sum of two or more entries exceeds ±A in places."""
    model = tiny_config.model
    model = dataclasses.replace(model, levels=(*model.levels[:2], dataclasses.replace(model.levels[2], stages=3)))
    rng = np.random.default_rng(24)
    torch.manual_seed(24)
    tensors = fixed_point(PixelCNN(model, tiny_config.prior))
    for name, tensor in tensors.items():
        if name.endswith(("embed", "inner", "quality")):
            tensors[name] = torch.from_numpy(rng.choice([-1, 0, 1], tuple(tensor.shape)) * A).to(tensor.dtype)
    path = tmp_path / "full.decoder.safetensors"
    fingerprint = save_weights(path, "full", VQVAE(model), tiny_config.prior, tensors)[:4]
    grids = [(level.groups, 48 // level.stride, 80 // level.stride) for level in model.levels]
    codes = [rng.integers(0, level.codebook_size, grid) for level, grid in zip(model.levels, grids, strict=True)]
    levels = entropy.encode(FixedPrior(tensors, model, tiny_config.prior), codes, 40)
    data = pack(Container(80, 48, False, 40, fingerprint, levels=tuple(level.bitstream for level in levels)))
    back = read_codes(data, path.read_bytes())
    assert all(np.array_equal(*pair) for pair in zip(codes, back, strict=True))


def test_the_golden_files_cover_every_model() -> None:
    assert {parse((GOLDEN / name).read_bytes()).fingerprint for name in FACTS} == set(MODELS)


def test_the_reader_is_independent() -> None:
    tree = ast.parse(Path(plain_reader.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy"}


def test_the_examples_of_files_parse_as_the_document_says() -> None:
    assert len(COLOUR) == 33
    assert vq() == COLOUR
    colour, grey = parse(COLOUR), parse(GREY)
    for file in (colour, grey):
        assert (file.fingerprint.hex(), file.quality, file.width, file.height) == ("1a2bc3d4", 75, 300, 200)
        assert tuple(file.levels) == LEVELS
    assert (colour.grey, colour.chunks) == (False, [])
    assert (grey.grey, grey.chunks) == (True, [(b"note", b"hi")])


def test_the_example_of_a_bitstream_decodes_as_the_document_says() -> None:
    frequencies = [4194304, 2097152, 0, 1]
    assert set(frequencies) <= set(plain_reader.F.tolist())
    L = quantise(np.array(frequencies)).tolist()
    assert L == [0, 11184807, 16777211, 16777212, 16777216]
    decoder = RangeDecoder(STREAM)
    assert [decoder.code(L) for _ in range(4)] == [0, 1, 2, 3]
    decoder.end()


def test_the_frequencies_are_those_of_the_document() -> None:
    F = plain_reader.F.tolist()
    assert [*F[:3], F[64], F[1408], F[1409]] == [4194304, 4149123, 4104428, 2097152, 1, 0]
    assert (len(F), sum(F)) == (1410, 389370650)


def test_every_beginning_and_every_flipped_bit_of_a_file_is_refused() -> None:
    for length in range(len(GREY)):
        with pytest.raises(FormatError):
            parse(GREY[:length])
    for bit in range(8 * len(GREY)):
        damaged = bytearray(GREY)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            parse(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        vq(size="01 01"),
        vq(size="ffff03 ffff03", quality="64"),
        vq(layout="0f", lengths="00" * 15, levels=(b"",) * 15),
        with_chunks("c004", 64 * sealed(b"note\0")),
        with_chunks("09", sealed(b"nOTE\0")),
    ],
)
def test_an_unusual_file_is_read(data: bytes) -> None:
    parse(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (COLOUR + b"\0", "17 bytes after the header, not 16"),
        (COLOUR[:-1], "15 bytes after the header, not 16"),
        (COLOUR[:16], "ends too early"),
        (b"\x89" + COLOUR[1:], "not a .vq file"),
        (vq(version="02"), "version 2"),
        (vq(version="00"), "version 0"),
        (vq(quality="00"), "quality"),
        (vq(quality="65"), "quality"),
        (vq(layout="00", lengths=""), "no levels"),
        (vq(layout="42"), "reserved"),
        (vq(layout="82"), "reserved"),
        (vq(size="00 c801"), "width"),
        (vq(size="ac02 808004"), "height"),
        (vq(size="ac8200 c801"), "more bytes than it needs"),
        (vq(lengths="8300 05"), "more bytes than it needs"),
        (vq(lengths="81808001 05"), "bytes after the header"),
        (vq(lengths="8180808001 05"), "level length is not within"),
        (vq(lengths="8380808010 05"), "level length is not within"),
        (vq(lengths="838080808001 05"), "level length is not within"),
        (vq(layout="22", lengths="03 05 00"), "length of chunks"),
        (COLOUR[:9] + b"\1" + COLOUR[10:], "the header or level 0 is damaged"),
        (COLOUR[:19] + b"\1" + COLOUR[20:], "the header or level 0 is damaged"),
        (COLOUR[:-9] + b"\0" + COLOUR[-8:], "level 1 is damaged"),
        (GREY[:-1] + b"\0", "chunk b'note' is damaged"),
        (with_chunks("09", sealed(b"Note\0")), "critical"),
        (with_chunks("09", sealed(b"not1\0")), "ASCII letters"),
        (with_chunks("0a", sealed(b"note\x80\0")), "more bytes than it needs"),
        (with_chunks("09", sealed(b"note\1")), "ends too early"),
        (with_chunks("0b", sealed(b"note\0") + b"no"), "ends too early"),
        (with_chunks("0c", sealed(b"note\x81\x80\x80\x08")), "length of a chunk"),
        (with_chunks("c904", 65 * sealed(b"note\0")), "more than 64 chunks"),
    ],
)
def test_a_file_against_the_rules_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse(data)


def test_a_bitstream_must_not_end_with_a_zero_byte() -> None:
    RangeDecoder(b"").end()
    for bitstream in (b"\0", b"\1\0", STREAM + b"\0"):
        with pytest.raises(FormatError, match="zero byte"):
            RangeDecoder(bitstream)


def test_a_bitstream_must_be_used_up() -> None:
    RangeDecoder((2**33 - 2).to_bytes(8, "big")).end()
    for bitstream in ((2**33 - 1).to_bytes(8, "big"), bytes(8) + b"\1"):
        with pytest.raises(FormatError, match="goes on"):
            RangeDecoder(bitstream).end()


def test_a_bitstream_must_not_go_beyond_the_last_code() -> None:
    L = [0, 2**23, 2**24]
    limit = (2**40 - 1) * 2**24
    assert RangeDecoder((limit - 1).to_bytes(8, "big")).code(L) == 1
    with pytest.raises(FormatError, match="beyond the last code"):
        RangeDecoder((limit + 1).to_bytes(8, "big")).code(L)


@pytest.mark.parametrize(("tail", "message"), [(b"\0", "zero byte"), (b"\0" * 8 + b"\1", "goes on")])
def test_a_whole_file_with_such_a_bitstream_is_refused(tail: bytes, message: str) -> None:
    file = parse((GOLDEN / "v1-one-pixel-q75.vq").read_bytes())
    for level in range(len(file.levels)):
        levels = tuple(bitstream + tail * (i == level) for i, bitstream in enumerate(file.levels))
        lengths, layout = bytes(map(len, levels)).hex(), f"{len(levels):02x}"
        data = vq(fingerprint=file.fingerprint.hex(), layout=layout, size="01 01", lengths=lengths, levels=levels)
        with pytest.raises(FormatError, match=message):
            read_codes(data, MODELS[file.fingerprint].read_bytes())


def test_a_file_is_read_with_its_own_weights_and_all_their_levels(tiny_weights: Path) -> None:
    weights = tiny_weights.read_bytes()
    with pytest.raises(FormatError, match="needs weights 1a2bc3d4"):
        read_codes(COLOUR, weights)
    with pytest.raises(FormatError, match="2 levels, the weights have 3"):
        read_codes(vq(fingerprint=hashlib.sha256(weights).digest()[:4].hex()), weights)


def tiny_weights(weight: int, bias: int, shift: int) -> Weights:
    """Weights with a linear map ``m`` from two numbers to one, and a table ``t``."""
    tensors = {"m.weight": [[weight], [1]], "m.bias": [bias], "m.shift": [shift], "t": [weight]}
    config = {"model": {"levels": []}, "prior": {"channels": 1}}
    header: dict[str, object] = {"__metadata__": {"format": "vqcodec-decoder-1", "config": json.dumps(config)}}
    body = b""
    for name, values in tensors.items():
        tensor = np.array(values, "<i8")
        offsets = [len(body), len(body) + tensor.nbytes]
        header[name] = {"dtype": "I64", "shape": list(tensor.shape), "data_offsets": offsets}
        body += tensor.tobytes()
    text = json.dumps(header).encode()
    return Weights(len(text).to_bytes(8, "little") + text + body)


def test_weights_within_their_bounds_are_read() -> None:
    # 1023·(1 + 1) + 2^15 + the bias is one less than 2^24.
    linear = tiny_weights(1, 2**24 - 1 - 2**15 - 2046, 16).linear("m", 2, 1)
    assert linear(np.array([[1023, 1023], [0, 0]])).tolist() == [[255], [255]]
    assert tiny_weights(-3, 1, 1).linear("m", 2, 1)(np.array([[1, 0], [1, 1], [0, 0]])).tolist() == [[-1], [0], [1]]
    for entry in (1023, -1023):
        assert tiny_weights(entry, 0, 1).table("t", [1]).tolist() == [entry]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("weight", "bias", "shift", "message"),
    [
        (1, 2**24 - 2**15 - 2046, 16, "sums of 2"),
        (1, 2**63 - 1, 16, "sums of 2"),
        (2**63 - 1, 0, 1, "sums of 2"),
        (2**15, 0, 1, "sums of 2"),
        (1, 0, 32, "sums of 2"),
        (1, 0, 33, "shift is not"),
        (1, 0, 0, "shift is not"),
    ],
)
def test_linear_maps_beyond_their_bounds_are_refused(
    weight: int, bias: int, shift: int, message: str, sign: int
) -> None:
    with pytest.raises(FormatError, match=message):
        tiny_weights(sign * weight, sign * bias, shift).linear("m", 2, 1)


@pytest.mark.parametrize("entry", [1024, -1024])
def test_table_entries_beyond_their_bounds_are_refused(entry: int) -> None:
    with pytest.raises(FormatError, match="beyond ±1023"):
        tiny_weights(entry, 0, 1).table("t", [1])
