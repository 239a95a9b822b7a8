"""The stored forms of a result: JSON there and back, and CSV."""

import csv
import io
from pathlib import Path

import pytest

from tests.rd_example import example
from vqcodec.jsonfile import write_json
from vqcodec.rd.result import Result, Row, csv_text, read_result


@pytest.fixture
def kodak(root: Path) -> Path:
    """The folder of the stored result."""
    return root / "benchmarks" / "results" / "kodak"


def test_json_there_and_back() -> None:
    data = example()
    assert Result.from_json(data).to_json() == data


def test_the_stored_result_there_and_back_is_the_same_file(kodak: Path, folder: Path) -> None:
    write_json(folder / "rd.json", read_result(kodak / "rd.json").to_json())
    assert (folder / "rd.json").read_bytes() == (kodak / "rd.json").read_bytes()


@pytest.mark.parametrize("name", ["name", "results", "rates", "bd", "checks", "provenance"])
def test_another_file_is_refused(name: str) -> None:
    data = example()
    del data[name]
    with pytest.raises(KeyError, match=name):
        Result.from_json(data)
    data = example()
    data["provenance"]["other"] = 1
    with pytest.raises(TypeError, match="other"):
        Result.from_json(data)


def _row(data: dict[str, str], index: int) -> Row:
    """A line of ``per_image.csv``."""
    fixed = ("image", "codec", "setting", "bytes", "bpp", "encode_seconds", "decode_seconds")
    return Row(
        image=data["image"],
        codec=data["codec"],
        setting=index,
        setting_label=data["setting"],
        bytes=int(data["bytes"]),
        bpp=float(data["bpp"]),
        metrics={key: float(value) for key, value in data.items() if key not in fixed},
        encode_seconds=float(data["encode_seconds"]),
        decode_seconds=float(data["decode_seconds"]),
    )


def test_the_stored_rows_there_and_back_are_the_same_file(kodak: Path) -> None:
    text = (kodak / "per_image.csv").read_bytes().decode()
    rows = [_row(line, index) for index, line in enumerate(csv.DictReader(io.StringIO(text, newline="")))]
    assert csv_text(rows) == text


def test_csv_quotes_names_and_leaves_missing_values_empty() -> None:
    row = Row('a, "b".png', "jpeg", 0, "quality 10", 9, 0.5, {"psnr-rgb": 26.0, "ms-ssim-rgb-db": None}, 0.5, 0.25)
    (read,) = csv.DictReader(io.StringIO(csv_text([row])))
    assert read == {
        "image": 'a, "b".png',
        "codec": "jpeg",
        "setting": "quality 10",
        "bytes": "9",
        "bpp": "0.5",
        "psnr-rgb": "26.0",
        "ms-ssim-rgb-db": "",
        "encode_seconds": "0.5",
        "decode_seconds": "0.25",
    }
