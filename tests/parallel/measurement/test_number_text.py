"""Numbers as people read them."""

import pytest

from parallel.measurement.number_text import ratio, readable, short


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
    assert ratio(1.6123) == "1.61x"
    assert ratio(12.34) == "12.3x"
