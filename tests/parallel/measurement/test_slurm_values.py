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


@pytest.mark.parametrize("text", ["8589934588", "8589934590", "18446744073710551614"])
def test_sums_over_nodes_without_a_value_are_not_known(text: str) -> None:
    """Two nodes of a 32-bit one, and a 64-bit one with a node of 1 MJ."""
    assert known_joules(text) is None


@given(st.integers(1, 2**63 - 1).filter(lambda n: n % (2**32 - 2) and n % (2**32 - 1)))
def test_other_numbers_are_themselves(number: int) -> None:
    assert known_number(f"{number}\n") == number
    assert known_joules(str(number)) == float(number)
