"""Opacity and metadata become chunks and come back; malformed chunks cost a warning or one error."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import plain_reader
from vqcodec.errors import FormatError, ImageError
from vqcodec.files import extras
from vqcodec.files.container import Container, pack, parse
from vqcodec.files.extras import Extras, from_container, to_chunks

PLAIN = Container(9, 7, False, 50, b"1234", (b"level",))
ALPHA = np.arange(63, dtype=np.uint8).reshape(7, 9)

metadata = st.none() | st.binary(max_size=200)


def packed(extras: Extras) -> bytes:
    return pack(replace(PLAIN, chunks=tuple(to_chunks(extras))))


@given(st.booleans(), metadata, metadata, metadata)
def test_round_trip(has_alpha: bool, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> None:
    given_extras = Extras(ALPHA if has_alpha else None, icc, exif, xmp)
    data = packed(given_extras)
    back, warnings = from_container(parse(data))
    assert warnings == []
    assert (back.icc, back.exif, back.xmp) == (icc, exif, xmp)
    plain = plain_reader.picture_alpha(plain_reader.parse(data))
    for alpha in (back.alpha, plain):
        assert (None if alpha is None else alpha.tolist()) == (ALPHA.tolist() if has_alpha else None)


def test_nothing_costs_nothing() -> None:
    assert packed(Extras()) == pack(PLAIN)
    transparent = packed(Extras(np.zeros((7, 9), np.uint8)))
    assert len(transparent) - len(pack(PLAIN)) == 11


def test_strip() -> None:
    gps = b"<a exif:GPSAltitude='3'/>"
    full = Extras(ALPHA, b"icc", b"exif", gps)
    assert full.strip(["all"]) == Extras(ALPHA)
    assert full.strip(["icc", "xmp"]) == Extras(ALPHA, exif=b"exif")
    assert full.strip(["gps"]) == replace(full, xmp=b"<a/>")
    assert full.strip([]) == full == full.strip(["alpha"])


@pytest.mark.parametrize("payload", [b"", b"no stream", zlib.compress(b"x")[:-1], zlib.compress(b"x") + b"x"])
def test_malformed_metadata_costs_a_warning(payload: bytes) -> None:
    file = replace(PLAIN, chunks=((b"exif", payload), (b"xmpp", zlib.compress(b"<x/>"))))
    assert from_container(file) == (Extras(xmp=b"<x/>"), ["malformed EXIF metadata dropped"])


def test_a_bomb_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "MAX_CHUNK_BYTES", 100)
    for size, found in ((100, bytes(100)), (101, None), (10**6, None)):
        file = replace(PLAIN, chunks=((b"iccp", zlib.compress(bytes(size))),))
        assert from_container(file)[0].icc == found
    with pytest.raises(ImageError, match="101 bytes of ICC profile, expected at most 100"):
        to_chunks(Extras(icc=bytes(101)))
    noise = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    with pytest.raises(ImageError, match=r"the chunk Alph would have \d+ bytes, expected at most 100"):
        to_chunks(Extras(noise))


@pytest.mark.parametrize("payloads", [[b""], [b"\x09xx"], [b"\x80", b"\x80"]])
def test_a_wrong_opacity_is_refused(payloads: list[bytes]) -> None:
    file = replace(PLAIN, chunks=tuple((b"Alph", payload) for payload in payloads))
    with pytest.raises(FormatError):
        from_container(file)
    with pytest.raises(plain_reader.FormatError):
        plain_reader.picture_alpha(plain_reader.parse(pack(file)))


@given(st.lists(st.tuples(st.sampled_from([b"Alph", b"exif", b"iccp", b"xmpp", b"note"]), st.binary(max_size=30))))
def test_any_chunks_give_extras_or_one_error(chunks: list[tuple[bytes, bytes]]) -> None:
    try:
        found, warnings = from_container(replace(PLAIN, chunks=tuple(chunks)))
    except FormatError as error:
        warnings = [str(error)]
    else:
        assert found.alpha is None or found.alpha.shape == (7, 9)
    assert all(warning.isprintable() for warning in warnings)
