"""Damaged and forged files: refused with one line, salvaged exactly, or decoded; a slice of the benchmark."""

import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.damage import CLASSES, Class, Good, examine, forged_mutations, renamed, reseal
from vqcodec.codec import Codec
from vqcodec.errors import FormatError, LimitError
from vqcodec.files.container import MAX_SIDE, pack, parse
from vqcodec.files.extras import Extras, from_container, to_chunks

CORPUS = Path(__file__).parent / "corpus.zip"  # inputs that benchmarks.fuzz found
LIMIT = 2**13  # pixels


@pytest.fixture(scope="module")
def good(tiny_codec: Codec, photograph: NDArray[np.uint8]) -> Good:
    return Good.of(tiny_codec, tiny_codec.compress(np.ascontiguousarray(photograph[:32, :48]), 60, effort=0))


@pytest.mark.parametrize("own", CLASSES[:-1], ids=lambda own: own.name)
def test_each_class_of_damage(tiny_codec: Codec, good: Good, own: Class) -> None:
    bad = [data for data in own.damage(good.data, 200, random.Random(7)) if data != good.data]
    bad = random.Random(8).sample(bad, min(len(bad), 200))
    kinds = {examine(tiny_codec, data, None if own.forged else good, max_pixels=LIMIT).kind for data in bad}
    assert kinds <= {"refused", "salvaged", "decoded"} if own.forged else kinds <= {"refused", "salvaged", "same"}
    assert len(kinds) > 1


def test_empty_files_that_claim_many_pixels(tiny_codec: Codec, good: Good) -> None:
    bombs = list(CLASSES[-1].damage(good.data, 0, random.Random(0)))
    beyond = [data for data in bombs if examine(tiny_codec, data, max_pixels=LIMIT).kind == "refused"]
    assert 0 < len(beyond) < len(bombs)


def test_chunks_and_damaged_levels_earn_no_pixels(tiny_codec: Codec, good: Good) -> None:
    claim = replace(parse(good.data), width=MAX_SIDE, height=2047, levels=(b"\1", b"", b""))
    noted = pack(replace(claim, chunks=((b"note", bytes(2100)),)))
    cut = pack(replace(claim, levels=(b"\1", bytes(3000), b"")))[:-1000]
    for data in (noted, cut):
        outcome = examine(tiny_codec, data)
        assert outcome.kind == "refused"
        assert outcome.message.endswith("the limit for 1 bytes of levels is 4194304")


def test_mutations_of_opacity_and_metadata(tiny_codec: Codec, good: Good) -> None:
    whole, rng = parse(good.data), random.Random(9)
    alpha = np.tile(np.arange(whole.width, dtype=np.uint8), (whole.height, 1))
    chunks = to_chunks(Extras(alpha, b"icc" * 30, b"exif" * 30, b"xmp" * 30))
    refused = 0
    for _ in range(60):
        number = rng.randrange(len(chunks))
        tag, payload = chunks[number]
        changed = bytearray(payload)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        forged = replace(whole, chunks=(*chunks[:number], (tag, bytes(changed)), *chunks[number + 1 :]))
        assert examine(tiny_codec, pack(forged), good, max_pixels=LIMIT).kind == "same"
        if tag == b"Alph":
            try:
                from_container(forged)
            except FormatError:
                refused += 1
        else:  # the checksum of zlib finds all changes but those of padding
            found, warnings = from_container(forged)
            assert warnings or (found.icc, found.exif, found.xmp) == (b"icc" * 30, b"exif" * 30, b"xmp" * 30)
    assert refused


def test_a_truncated_file_is_salvaged_level_by_level(tiny_codec: Codec, good: Good) -> None:
    whole = parse(good.data)
    ends = [len(good.data) - sum(len(level) + 4 for level in whole.levels[count:]) for count in range(4)]
    for count, end in enumerate(ends[:-1]):
        assert examine(tiny_codec, good.data[:end], good).kind == ("salvaged" if count else "refused")
    assert examine(tiny_codec, good.data, good).kind == "same"


def test_reseal_mends_checksums_and_nothing_else(good: Good) -> None:
    noted = pack(replace(parse(good.data), chunks=((b"note", b"hi"), (b"more", b""))))
    for data in (good.data, noted):
        assert reseal(data) == data
        sizes = [len(level) + 4 for level in parse(good.data).levels]
        header = len(good.data) - sum(sizes) + (len(data) > len(good.data))  # which states the length of chunks, if any
        for at in {len(data) - 1, header + sizes[0] - 1, header + sum(sizes) - 4}:
            broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(FormatError):
                parse(broken)
            assert reseal(broken) == data
    for length in range(len(noted)):
        assert len(reseal(noted[:length])) == length
    assert reseal(b"") == b""


def test_some_forgeries_get_past_the_checksums(tiny_codec: Codec, good: Good) -> None:
    """If none did, the forgeries would not test the decoder."""
    passed = 0
    for data in forged_mutations(good.data, 300, random.Random(3)):
        try:
            parse(data)
        except (FormatError, LimitError):
            continue
        passed += 1
    assert passed > 10


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (ValueError("a bug"), "a bug"),
        (FormatError(""), "message is empty"),
        (FormatError("two\nlines"), "not one printable line"),
        (FormatError("x" * 301), "too long"),
    ],
)
def test_examine_finds_broken_promises(
    tiny_codec: Codec, good: Good, monkeypatch: pytest.MonkeyPatch, fault: Exception, complaint: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise fault

    monkeypatch.setattr(Codec, "decompress", fail)
    with pytest.raises((AssertionError, ValueError), match=complaint):
        examine(tiny_codec, good.data, good)


def test_examine_finds_a_wrong_picture(tiny_codec: Codec, good: Good, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = np.zeros_like(good.previews[0])
    monkeypatch.setattr(Codec, "salvage", lambda *arguments, **options: (wrong, options and None))
    with pytest.raises(AssertionError, match="report different damage"):
        examine(tiny_codec, good.data[:-1], good)
    honest = f"truncated: the file has {len(good.data) - 1} bytes, its header says {len(good.data)}"
    monkeypatch.setattr(Codec, "salvage", lambda *arguments, **options: (wrong, honest))
    with pytest.raises(AssertionError, match="not those of the levels before the damage"):
        examine(tiny_codec, good.data[:-1], good)


def test_a_renamed_file_names_another_model_and_is_otherwise_the_same(good: Good) -> None:
    name = b"\1\2\3\4"
    assert parse(renamed(good.data, name)) == replace(parse(good.data), fingerprint=name)
    cut = renamed(good.data[:-1], name)
    assert parse(cut, intact=1) == replace(parse(good.data[:-1], intact=1), fingerprint=name)
    flipped = bytearray(good.data)
    flipped[9] ^= 1  # the header is not sound
    for other in (bytes(flipped), good.data[:12], b""):
        assert renamed(other, name) == other


def test_what_the_fuzzer_has_found(tiny_codec: Codec) -> None:
    """The corpus of coverage-guided fuzzing, and mutations of its files."""
    with zipfile.ZipFile(CORPUS) as archive:
        corpus = [renamed(archive.read(name), tiny_codec.fingerprint) for name in sorted(archive.namelist())]
    rng = random.Random(5)
    kinds: list[str] = []
    for data in corpus:
        kinds.append(examine(tiny_codec, data, max_pixels=LIMIT).kind)
        if data:
            for neighbour in forged_mutations(data, 3, rng):
                examine(tiny_codec, neighbour, max_pixels=LIMIT)
    assert {"decoded", "salvaged", "refused"} <= set(kinds), "the corpus has lost its point"
