"""EXIF is changed in place: the orientation, the GPS data, and nothing else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from vqcodec.files.exif import PREFIX, upright, upright_xmp, without_gps, without_gps_xmp

LATITUDE = b"".join(struct.pack(">II", value, 1) for value in (48, 51, 29))


def block(order: str = ">") -> bytes:
    """Make, orientation 6, a GPS IFD with a latitude, and private data that an absolute offset names."""
    gps, latitude, private = 8 + 2 + 4 * 12 + 4, 8 + 2 + 4 * 12 + 4 + 2 + 2 * 12 + 4, 200
    rows: list[tuple[int, int, int, int | bytes]] = [
        (0x010F, 2, 4, b"Me!\0"),
        (0x0112, 3, 1, 6),
        (0x8825, 4, 1, gps),
        (0xC634, 7, 8, private),
    ]
    body = (
        struct.pack(f"{order}H", len(rows))
        + b"".join(row(order, tag, kind, count, value) for tag, kind, count, value in rows)
        + bytes(4)
    )
    body += struct.pack(f"{order}H", 2) + row(order, 1, 2, 2, b"N\0\0\0") + row(order, 2, 5, 3, latitude) + bytes(4)
    body += LATITUDE
    start = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return (start + body).ljust(private, b"\0") + b"private!"


def row(order: str, tag: int, kind: int, count: int, value: int | bytes) -> bytes:
    packed = value if isinstance(value, bytes) else struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", value)
    return struct.pack(f"{order}HHI", tag, kind, count) + packed


def tags(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(PREFIX + data)
    return exif


@pytest.mark.parametrize("order", "<>")
def test_the_orientation_alone_is_changed(order: str) -> None:
    before, after = block(order), upright(block(order))
    assert tags(after)[ExifTags.Base.Orientation] == 1
    assert len(after) == len(before)
    assert [i for i in range(len(before)) if before[i] != after[i]] == [before.index(6)]


@pytest.mark.parametrize("order", "<>")
def test_gps_data_are_gone_and_the_rest_is_there(order: str) -> None:
    before, after = block(order), without_gps(block(order))
    assert tags(before).get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert LATITUDE not in after
    assert b"N\0" not in after
    assert dict(tags(after)) == {0x010F: "Me!", 0x0112: 6, 0xC634: b"private!"}
    assert len(after) == len(before)
    assert without_gps(after) == after


@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0", b"MM\0*\0\0\0\x08", block(), block("<")]), st.data())
def test_hostile_blocks_keep_their_length(noise: bytes, start: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(start)))
    hostile = start[:at] + noise + start[at + len(noise) :]
    assert len(upright(hostile)) == len(without_gps(hostile)) == len(hostile)


def test_many_entries_that_claim_everything_take_no_time() -> None:
    rows = row("<", 0x8825, 4, 1, 26) + bytes(4)
    gps = struct.pack("<H", 65_535) + row("<", 1, 1, 2**24 - 100, 8) * 65_535
    hostile = (b"II*\0" + struct.pack("<IH", 8, 1) + rows + gps).ljust(2**24, b"x")
    assert len(without_gps(hostile)) == len(hostile)


def test_xmp() -> None:
    packet = b"<d tiff:Orientation='8' exif:GPSLatitude=\"1,2N\" a='1'/><tiff:Orientation>6</tiff:Orientation>"
    packet += b"<exif:GPSMapDatum>WGS</exif:GPSMapDatum><b/>"
    assert upright_xmp(packet) == packet.replace(b"'8'", b"'1'").replace(b">6<", b">1<")
    assert without_gps_xmp(packet) == (b"<d tiff:Orientation='8' a='1'/><tiff:Orientation>6</tiff:Orientation><b/>")
