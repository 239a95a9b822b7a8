"""The container: literal bytes, round trips, and an error for every kind of malformed file."""

import re
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.errors import FormatError, LimitError
from vqcodec.files import container
from vqcodec.files.container import BytesLike, Container, pack, parse, parse_header

FORMAT = Path(__file__).parents[1] / "docs" / "format.md"
SAMPLE = Container(
    width=300,
    height=200,
    grey=False,
    quality=75,
    fingerprint=bytes.fromhex("1a2bc3d4"),
    levels=(bytes.fromhex("00ff10"), bytes.fromhex("0123456789")),
)
NOTED = replace(SAMPLE, grey=True, chunks=((b"note", b"hi"),))
VARIED = replace(SAMPLE, levels=(b"", b"\0" * 130), chunks=((b"aaaa", b""), (b"aaaa", b"\0" * 3), (b"zZZZ", b"\n")))

tags = st.from_regex(rb"\A[a-z][A-Za-z]{3}\Z")
containers = st.builds(
    Container,
    width=st.integers(1, container.MAX_SIDE),
    height=st.integers(1, container.SMALL_PIXELS // container.MAX_SIDE),
    grey=st.booleans(),
    quality=st.integers(1, 100),
    fingerprint=st.binary(min_size=4, max_size=4),
    levels=st.lists(st.binary(max_size=300), min_size=1, max_size=container.MAX_LEVELS).map(tuple),
    chunks=st.lists(st.tuples(tags, st.binary(max_size=300)), max_size=container.MAX_CHUNKS).map(tuple),
)


def sealed(part: bytes) -> bytes:
    return part + zlib.crc32(part).to_bytes(4, "little")


def file(
    *,
    version: bytes = b"\x01",
    quality: int = 75,
    layout: int = 0x01,
    width: bytes = b"\x08",
    height: bytes = b"\x08",
    lengths: bytes = b"\x02",
    chunks: bytes = b"",
    level: bytes = b"hi",
    rest: bytes = b"",
) -> bytes:
    """A file built field by field with correct CRC-32s, so that only the field under test is wrong."""
    fields = [container.MAGIC, version, b"\0\0\0\0", bytes([quality, layout]), width, height, lengths, chunks]
    return sealed(b"".join(fields) + level) + rest


def varint(value: int) -> bytes:
    """LEB128 by its definition, without the writer's help."""
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def chunked(body: bytes) -> bytes:
    """A file whose header declares the correct size of ``body``, which is in the place of the chunks."""
    return file(layout=0x21, chunks=varint(len(body)), rest=body)


# The format


@pytest.mark.parametrize(("number", "expected"), [(0, SAMPLE), (1, NOTED)])
def test_examples_of_format_md(number: int, expected: Container) -> None:
    example = re.findall(r"```hex\n(.*?)```", FORMAT.read_text(encoding="utf-8"), re.DOTALL)[number]
    data = bytes.fromhex(" ".join(line.split("|")[0] for line in example.splitlines()))
    assert pack(expected) == data
    assert parse(data) == expected


@pytest.mark.parametrize(
    ("limit", "phrase"),
    [
        (container.MAX_LEVELS, "level count n, 1..{};"),
        (container.MAX_SIDE, "width | number | of the picture in pixels, 1..{} |"),
        (container.MAX_SIDE, "height | number | of the picture in pixels, 1..{} |"),
        (container.MAX_PIXELS, "by default the reference reader accepts at most {} pixels"),
        (container.SMALL_PIXELS, "and above {} pixels at most"),
        (container.PIXELS_A_BYTE, "pixels at most {} for each\nbyte of the intact levels"),
        (container.MAX_LEVEL_BYTES, "without its CRC-32, coarsest first, each at most {} |"),
        (container.MAX_CHUNKS, "NOT have more than {} chunks"),
        (container.MAX_CHUNK_BYTES, "bytes of the payload, at most {} |"),
    ],
)
def test_limits_of_format_md(limit: int, phrase: str) -> None:
    power = "2" + str(limit.bit_length() - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    number = power if limit.bit_count() == 1 and limit > 2**16 else str(limit)
    assert phrase.format(number) in FORMAT.read_text(encoding="utf-8")


def test_overhead_stays_small() -> None:
    big = Container(width=16383, height=16383, grey=False, quality=100, fingerprint=b"\xff" * 4, levels=(b"",))
    length_and_crc = 1 + 4
    assert len(pack(big)) - length_and_crc == 15


@given(containers)
def test_round_trip(original: Container) -> None:
    assert parse(pack(original)) == original


def test_largest_values_survive() -> None:
    largest = Container(65535, 65535, True, 100, b"\xff" * 4, (b"x" * 40_000,) * 15, ((b"zzzz", b"y"),) * 64)
    assert parse(pack(largest), max_pixels=65535**2) == largest


# Damage


@pytest.mark.parametrize("sample", [SAMPLE, NOTED, VARIED], ids=["plain", "chunk", "varied"])
def test_every_truncation_and_extension_is_refused(sample: Container) -> None:
    data = pack(sample)
    for length in range(1, len(data)):
        with pytest.raises(FormatError, match="truncated"):
            parse(data[:length])
    for extra in (b"\0", b"\n", data, sealed(b"note\x00")):
        with pytest.raises(FormatError, match="too long"):
            parse(data + extra)


@pytest.mark.parametrize("sample", [SAMPLE, NOTED, VARIED], ids=["plain", "chunk", "varied"])
def test_every_change_of_one_byte_is_refused(sample: Container) -> None:
    data = pack(sample)
    for at in range(len(data)):
        for change in range(1, 256):
            damaged = bytearray(data)
            damaged[at] ^= change
            with pytest.raises(FormatError):
                parse(bytes(damaged))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (5, "header or level 0 damaged: its CRC-32 is [0-9a-f]{8}, the file says 55d4a2b9"),  # fingerprint
        (16, "header or level 0 damaged"),  # the length of level 1; the size is right, but the header no longer says so
        (18, "header or level 0 damaged"),  # level 0
        (22, "header or level 0 damaged"),  # its CRC-32
        (25, "level 1 damaged"),
        (34, "chunk 0 damaged"),  # tag: 'note' becomes 'Note', critical, but damage is what there is to report
        (40, "chunk 0 damaged"),  # payload
        (44, "chunk 0 damaged"),  # its CRC-32
    ],
)
def test_damage_is_named(at: int, message: str) -> None:
    damaged = bytearray(pack(NOTED))
    damaged[at] ^= 0x20
    with pytest.raises(FormatError, match=f"^{message}"):
        parse(bytes(damaged))


@given(st.binary(max_size=80), st.sampled_from([b"", container.MAGIC, container.MAGIC + b"\x01"]))
def test_noise_is_refused(noise: bytes, start: bytes) -> None:
    with pytest.raises(FormatError):
        parse(start + noise)


@given(containers, st.integers(4, 30), st.integers(0, 2), st.binary(max_size=2) | st.just(b"\x80\x00"))
def test_forged_headers_are_refused_or_canonical(c: Container, at: int, removed: int, inserted: bytes) -> None:
    data = pack(c)
    end = next(end for end in range(len(data)) if data.startswith(sealed(data[:end])))
    header = end - len(c.levels[0])
    start = data[: min(at, header)] + inserted + data[min(at + removed, header) : end]
    forged = sealed(start) + data[end + 4 :]
    try:
        parsed = parse(forged)
    except (FormatError, LimitError):
        return
    assert pack(parsed) == forged


# One message for every way of being malformed

REFUSED: list[tuple[bytes, str]] = [
    (b"", "empty file"),
    (b"\x8fV", "truncated: the file ends after 2 of the 4 bytes of its magic number"),
    (b"\x89PNG\r\n\x1a\n", "not a .vq file: starts with 89 50 4e 47, expected 8f 56 51 0a"),
    (b"x", "not a .vq file: starts with 78, expected"),
    (file().replace(b"\n", b"\r\n", 1), "magic number damaged: .* 8f 56 51 0d, .*transferred as text"),
    (file().decode("latin-1").encode(), "magic number damaged"),
    (file().decode("utf-8", "replace").encode(), "magic number damaged"),
    (bytes(byte & 0x7F for byte in file()), "magic number damaged"),
    (file(version=b"\x02"), "made by a newer vqcodec: format version 2, this one reads 1"),
    (container.MAGIC + b"\xff\xff\xff\xff\x0f", "made by a newer vqcodec: format version 4294967295,"),
    (file(version=b"\x00"), "format version 0, which was never in use; this one reads 1"),
    (file(version=b"\x81\x00"), "the format version is padded: 1 "),
    (file(width=b"\x88\x80\x00"), "the width is padded: 8 "),
    (file(height=b"\x80\x80\x80\x80\x10"), "the height does not fit 32 bits"),
    (file(lengths=b"\xff\xff\xff\xff\xff"), "the length of level 0 does not fit 32 bits"),
    (file(lengths=b"\x80" * 100_000), "the length of level 0 does not fit 32 bits"),
    (file()[:11], "truncated: the width ends at byte 12, the file at byte 11"),
    (file()[:15], "truncated: level 0 ends at byte 16, the file at byte 15"),
    (file()[:17], "truncated: the CRC-32 of header or level 0 ends at byte 20, the file at byte 17"),
    (file(layout=0x41), "reserved bits are set: layout byte is 0x41"),
    (file(layout=0x81), "reserved bits are set: layout byte is 0x81"),
    (file(layout=0x00, lengths=b""), "the level count is 0, expected 1..15"),
    (file(quality=0), "the quality is 0, expected 1..100"),
    (file(quality=101), "the quality is 101, expected 1..100"),
    (file(width=b"\x00"), "the width is 0 pixels, expected 1..65535"),
    (file(height=b"\x80\x80\x04"), "the height is 65536 pixels, expected 1..65535"),
    (
        file(width=b"\xff\xff\x03", height=b"\x81\x10"),
        "too many pixels: 65535x2049 is 134281215, the limit for 2 bytes of levels is 4194304",
    ),
    (file(lengths=b"\x81\x80\x80\x80\x01"), "level 0 has a length of 268435457 bytes, the limit is 268435456"),
    (file(lengths=b"\x80\x80\x80\x80\x01"), "truncated: level 0 ends at byte 268435474, the file at byte 24"),
    (file(lengths=b"\x01"), "header or level 0 damaged: its CRC-32 is"),
    (file(layout=0x02, lengths=b"\x02\x09"), "truncated: the file has 21 bytes, its header says 34"),
    (file(rest=b"\0"), "too long: the file has 21 bytes, its header says 20"),
    (chunked(b""), "chunks of 0 bytes"),
    (chunked(b"xyz"), "truncated: the tag of chunk 0"),
    (chunked(b"note\x80"), "truncated: the length of chunk 0"),
    (chunked(sealed(b"note\x00") + b"junk"), "truncated: the length of chunk 1"),
    (chunked(b"note\x03hi"), "truncated: the payload of chunk 0"),
    (chunked(b"note\x02hi\0"), "truncated: the CRC-32 of chunk 0"),
    (chunked(sealed(b"note\x80\x00")), "the length of chunk 0 is padded: 0 "),
    (chunked(b"note\x81\x80\x80\x08"), "chunk 0 has a length of 16777217 bytes, the limit is 16777216"),
    (chunked(b"note\x80\x80\x80\x08"), "truncated: the payload of chunk 0"),
    (chunked(sealed(b"note\x00") + b"note\x02hi\0\0\0\0"), "chunk 1 damaged"),
    (chunked(sealed(b"n0te\x02hi")), "chunk 0 has the tag 6e 30 74 65, expected 4 ASCII letters"),
    (chunked(sealed(b"not\xe9\x02hi")), "chunk 0 has the tag 6e 6f 74 e9"),
    (chunked(sealed(b"Beta\x02hi")), "chunk 0 is a critical chunk that this vqcodec does not know: 'Beta'"),
    (chunked(sealed(b"note\x00") * 65), "too many chunks: 9 bytes follow the last of 64 allowed"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED)
def test_refusals(data: bytes, message: str) -> None:
    refusal = LimitError if message.startswith("too many pixels") else FormatError
    with pytest.raises(refusal, match=f"^{message}") as caught:
        parse(data)
    assert len(str(caught.value).splitlines()) == 1


def test_declared_lengths_are_not_allocated() -> None:
    claims = [data for data, message in REFUSED if "length" in message or "header says" in message]
    tracemalloc.start()
    for data in claims:
        with pytest.raises(FormatError):
            parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_max_pixels_is_the_callers() -> None:
    data = pack(SAMPLE)
    assert parse(data, max_pixels=300 * 200) == SAMPLE
    with pytest.raises(LimitError, match="too many pixels: 300x200 is 60000, the limit is 59999"):
        parse(data, max_pixels=300 * 200 - 1)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_anything_like_bytes_is_read(kind: Callable[[bytes], BytesLike]) -> None:
    data = kind(pack(NOTED))
    parsed = parse(data)
    assert (parsed, parse(data, intact=1)) == (NOTED, NOTED)
    assert all(type(part) is bytes for part in (parsed.fingerprint, *parsed.levels, *parsed.chunks[0]))
    assert b"hi" not in repr(parsed).encode()


@pytest.mark.parametrize("data", [None, 40, [143, 86], "text", Path("photo.vq")])
def test_nothing_else_is_read(data: Any) -> None:
    message = f"^expected the bytes of a .vq file, a bytes-like object, found {type(data).__name__}$"
    with pytest.raises(TypeError, match=message):
        parse(data)


# What is left of damaged files


@given(containers)
def test_salvage_of_whole_files(c: Container) -> None:
    file = parse(pack(c), intact=1)
    assert (file, file.level_count, file.damage) == (c, len(c.levels), None)


@pytest.mark.parametrize("sample", [SAMPLE, NOTED, VARIED])
def test_salvage_of_every_truncation_and_every_flipped_byte(sample: Container) -> None:
    data = pack(sample)
    after_levels = len(data) - sum(len(tag) + 1 + len(payload) + 4 for tag, payload in sample.chunks)
    ends = [after_levels - sum(len(level) + 4 for level in sample.levels[i + 1 :]) for i in range(len(sample.levels))]
    damaged = [(data[:length], length) for length in range(len(data))]
    for position in range(len(data)):
        damaged.append((data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :], position))
    for bad, first in damaged:
        with pytest.raises(FormatError):
            parse(bad)
        whole = sum(end <= first for end in ends)
        for intact in range(whole + 1, 4):
            with pytest.raises(FormatError):
                parse(bad, intact=intact)
        for intact in range(1, whole + 1):
            left = parse(bad, intact=intact)
            assert left.damage is not None
            missing = len(sample.levels) - whole
            rest = replace(
                sample,
                levels=sample.levels[:whole],
                chunks=(),
                missing=missing,
                damage=left.damage,
                chunks_lost=bool(sample.chunks),
            )
            assert left == rest
            assert left.level_count == len(sample.levels)
            assert len(left.damage.splitlines()) == 1
            with pytest.raises(ValueError, match=r"^the container is damaged: "):
                pack(left)


def test_small_files_are_not_trusted_with_many_pixels() -> None:
    small = replace(SAMPLE, width=2048, height=2048)
    assert parse(pack(small)) == small
    bomb = replace(SAMPLE, width=2049, height=2048)
    with pytest.raises(LimitError, match="2049x2048 is 4196352, the limit for 8 bytes of levels is 4194304"):
        parse(pack(bomb))
    assert parse(pack(bomb), max_pixels=container.MAX_PIXELS) == bomb
    enough = -(-2049 * 2048 // container.PIXELS_A_BYTE)
    heavier = replace(bomb, levels=(b"x" * 5, b"x" * (enough - 5)))
    assert parse(pack(heavier)) == heavier
    for lighter in (
        replace(heavier, levels=(b"x" * 5, b"x" * (enough - 6))),
        replace(bomb, chunks=((b"note", b"x" * 2100),)),  # a byte of a chunk is no evidence of a large picture,
    ):
        with pytest.raises(LimitError, match="2049x2048 is 4196352, the limit for"):
            parse(pack(lighter))
    with pytest.raises(LimitError, match="the limit for 5 bytes of levels is 4194304"):
        parse(pack(heavier)[:-1], intact=1)  # nor is one of a damaged level
    heaviest = replace(SAMPLE, width=65535, height=2049, levels=(b"x" * 5000, b""))
    with pytest.raises(LimitError, match="65535x2049 is 134281215, the limit is 134217728"):
        parse(pack(heaviest))


def test_size_is_the_first_damage() -> None:
    """A wrong size explains all other damage, such as missing levels."""
    data = pack(NOTED)
    for end in range(len(data) - 11, len(data)):
        file = parse(data[:end], intact=2)
        assert file.damage == f"truncated: the file has {end} bytes, its header says {len(data)}"
    file = parse(data + b"more", intact=2)
    assert file.damage == f"too long: the file has {len(data) + 4} bytes, its header says {len(data)}"


@given(containers)
def test_headers(c: Container) -> None:
    data = pack(c)
    header = parse_header(data[: container.MAX_HEADER_BYTES])
    assert (header.width, header.height, header.grey, header.quality) == (c.width, c.height, c.grey, c.quality)
    assert (header.fingerprint, header.lengths) == (c.fingerprint, tuple(map(len, c.levels)))
    assert header.size == len(data)


def test_the_longest_header() -> None:
    longest = file(
        layout=0x2F,
        width=varint(65535),
        height=varint(65535),
        lengths=varint(2**28) * 15,
        chunks=varint(2**32 - 1),
        level=b"",
    )
    assert len(longest) - 4 == container.MAX_HEADER_BYTES - 2 * 2  # a width and a height need three bytes of the five
    assert parse_header(longest).chunks_length == 2**32 - 1


@pytest.mark.parametrize(
    ("data", "message"),
    [(data, message) for data, message in REFUSED if "chunk" not in message],
)
def test_headers_are_refused_for_the_same_reasons(data: bytes, message: str) -> None:
    if any(words in message for words in ("header says", "too many pixels", "level 0 ends", "header or level 0")):
        parse_header(data)  # the header's parser does not check the size of the file or of the picture, nor level 0
        return
    with pytest.raises(FormatError, match=f"^{message}"):
        parse_header(data)


# What pack refuses


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(SAMPLE, width=0), "the width is 0 pixels"),
        (replace(SAMPLE, height=65_536), "the height is 65536 pixels"),
        (replace(SAMPLE, quality=101), "the quality is 101"),
        (replace(SAMPLE, levels=()), "the level count is 0"),
        (replace(SAMPLE, levels=(b"",) * 16), "the level count is 16"),
        (replace(SAMPLE, levels=(b"", b"x" * 301)), "level 1 has a length of 301 bytes, the limit is 300"),
        (replace(SAMPLE, fingerprint=b"123"), "the fingerprint has 3 bytes, expected 4"),
        (replace(SAMPLE, chunks=((b"note", b""),) * 65), "65 chunks, the limit is 64"),
        (replace(SAMPLE, chunks=((b"note", b"x" * 201),)), "chunk 0 has a length of 201 bytes, the limit is 200"),
        (replace(SAMPLE, chunks=((b"note", b""), (b"not", b""))), "chunk 1 has the tag 6e 6f 74, expected 4"),
        (replace(SAMPLE, chunks=((b"no e", b""),)), "chunk 0 has the tag 6e 6f 20 65"),
        (replace(SAMPLE, chunks=((b"Beta", b""),)), "chunk 0 is a critical chunk"),
    ],
)
def test_pack_refuses(wrong: Container, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_LEVEL_BYTES", 300)
    monkeypatch.setattr(container, "MAX_CHUNK_BYTES", 200)
    with pytest.raises(ValueError, match=f"^{message}"):
        pack(wrong)
