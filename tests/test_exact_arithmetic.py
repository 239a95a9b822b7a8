"""The frequency table."""

import math
from decimal import Decimal, localcontext

from vqcodec.exact.arithmetic import FREQUENCIES


def test_frequency_table_literally() -> None:
    assert len(FREQUENCIES) == 22 * 64 + 2
    assert FREQUENCIES[:4] == (4194304, 4149123, 4104428, 4060215)
    assert FREQUENCIES[63:66] == (2119988, 2097152, 2074561)
    assert FREQUENCIES[-3:] == (1, 1, 0)
    assert sum(FREQUENCIES) == 389370650


def test_frequency_table_is_the_floor_of_the_power() -> None:
    with localcontext(prec=60):
        for i, frequency in enumerate(FREQUENCIES[:-1]):
            assert frequency == math.floor(Decimal(2) ** (22 - Decimal(i) / 64))
            # The same without roots: the largest integer whose 64th power is at most 2^(1408 − i).
            assert frequency**64 <= 2 ** (1408 - i) < (frequency + 1) ** 64
