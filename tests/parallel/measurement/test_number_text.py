"""Numbers as people read them."""

import pytest

from parallel.measurement.number_text import (
    counted,
    plain_number,
    ratio,
    readable,
    scale_beside,
    short,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "J", "–"),
        (0.00108, "J/token", "1.08 mJ/token"),
        (999.7, "W", "1.00 kW"),
        (819_200, "tokens", "819 k tokens"),
        (9800, "tokens/s", "9.80 k tokens/s"),
        (4.2684, "nats/token", "4.268"),
        (0.381, "share", "38.1%"),
        (91.8, "s", "1.53 min"),
        (0, "J", "0 J"),
        (-1500, "J", "-1.50 kJ"),
        (2_110_000, "", "2.11 M"),
    ],
)
def test_readable(value: float | None, unit: str, text: str) -> None:
    assert readable(value, unit) == text


def test_short_and_ratio() -> None:
    assert short(0.00108, "J/token") == "1.08 mJ"
    assert short(9800, "tokens/s") == "9.80 k/s"
    assert short(4.2684, "nats/token") == "4.268"
    assert short(2.0, "B/parameter") == "2.00 B"
    assert short(13.1e6, "FLOP/token") == "13.1 MFLOP"
    assert ratio(1.6123) == "1.61x"
    assert ratio(12.34) == "12.3x"


def test_quantities_side_by_side_have_one_prefix() -> None:
    pair = (3.65e-3, 875e-6)
    beside = scale_beside(pair)
    assert [readable(value, "J/token", beside) for value in pair] == [
        "3.65 mJ/token", "0.875 mJ/token"
    ]  # fmt: skip
    assert short(875e-6, "J/token", beside) == "0.875 mJ"
    assert readable(819_200, "tokens", scale_beside([819_200, 2_000_000])) == "0.819 M tokens"
    assert scale_beside([1.0, 5000.0]) is None, "each needs its own"
    assert scale_beside([None, 0.0]) is None
    assert readable(0.875, "nats/token", 3.0) == "0.875"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42_110.0, "42,110"), (65_536, "65,536"), (2.4e20, "2.4e20"), (5.28e16, "5.28e16"),
        (0.003, "0.003"), (3e-5, "3e-5"), (482.013, "482"), (2085.43, "2,085"),
        (-0.1889, "-0.1889"), (1.81686, "1.817"), (0, "0"), (16, "16"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_plain_number(value: float, text: str) -> None:
    assert plain_number(value) == text


def test_counts_have_prefixes_where_they_are_long() -> None:
    assert [counted(v) for v in (42_110, 17_600_000, 7.4e9, 2.4e20)] == [
        "42,110", "17.6 M", "7.40 B", "2.4e20",
    ]  # fmt: skip
