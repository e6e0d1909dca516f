"""SLURM's ways of saying that it does not know a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.measurement.slurm_values import NO_VALUES, known_joules, known_number


@pytest.mark.parametrize(
    "text",
    ["", " ", "None", "-1", "1.5K", "1e3", "٣", "9" * 5000, str(2**63), *map(str, NO_VALUES)],
)
def test_no_value_is_none(text: str) -> None:
    assert known_number(text) is None
    assert known_joules(text) is None


def test_zero_joules_are_not_known_zero_seconds_are() -> None:
    assert known_joules("0") is None
    assert known_number("0") == 0


@given(st.integers(1, 2**63 - 1).filter(lambda number: number not in NO_VALUES))
def test_other_numbers_are_themselves(number: int) -> None:
    assert known_number(f"{number}\n") == number
    assert known_joules(str(number)) == float(number)
