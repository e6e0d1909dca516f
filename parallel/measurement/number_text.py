"""Numbers as people read them: three significant digits, SI prefixes, units."""

import math
from collections.abc import Iterable

from parallel.measurement.units import SECONDS_PER_HOUR

_PREFIXES = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T",
             5: "P", 6: "E", 7: "Z", 8: "Y"}  # fmt: skip
# Only these take SI prefixes; a loss or a fraction is written as it is.
_SCALED = {"", "J", "J/token", "W", "FLOP", "FLOP/s", "FLOP/token", "tokens/s", "tokens", "B",
           "gCO2e", "gCO2e/token", "J/nat", "gCO2e/nat"}  # fmt: skip
# Of these, a billion is B, not giga.
_COUNTED = {"", "tokens", "tokens/s"}
_SECONDS = ((SECONDS_PER_HOUR, "h"), (60.0, "min"), (1.0, "s"))


def significant(value: float, digits: int = 3) -> str:
    """Return `value` rounded to `digits` significant digits, never in exponent form."""
    if value == 0:
        return "0"
    # Round first: 0.9996 to three digits is 1.00.
    value = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def plain_number(value: float, digits: int = 4) -> str:
    """Return a number without a unit: `42,110`, `0.0003`, `482.1`; `2.4e20` where it is long."""
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        mantissa, mark, power = f"{value:.{digits}g}".partition("e")
        return f"{mantissa}e{int(power)}" if mark else mantissa
    if abs(value) >= 10 ** (digits - 1) or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def counted(value: float) -> str:
    """Return a count, as of parameters or tokens: `42,110`, `17.6 M`, `7.40 B`; `2.4e20`."""
    return readable(value, "") if 1e6 <= abs(value) < 1e15 else plain_number(value)


def readable(value: float | None, unit: str, beside: float | None = None) -> str:
    """Return a quantity as text: `17.6 M`, `1.23 mJ/token`, `4.812`, `38.1%`, `1.5 min`.

    It has the prefix of `beside`, another of the same unit, so that both are compared at a glance.
    """
    if value is None:
        return "–"
    if unit == "nats/token":
        return f"{value:.3f}"
    if unit == "share":
        return f"{significant(100 * value)}%"
    if unit == "s":
        size, name = next((s for s in _SECONDS if abs(value) >= s[0]), _SECONDS[-1])
        return f"{significant(value / size)} {name}"
    return _prefixed(value, unit, beside) if unit in _SCALED else _plain(value, unit)


def _plain(value: float, unit: str) -> str:
    if unit.endswith("/token"):
        return f"{significant(1e6 * value)} {unit.removesuffix('/token')} per M tokens"
    return f"{significant(value)} {unit}".strip()


def scale_beside(values: Iterable[float | None]) -> float | None:
    """Return the largest of quantities of one unit, whose prefix serves all; `None` if none does.

    Over a factor of a thousand each needs its own.
    """
    sizes = [abs(value) for value in values if value]
    return max(sizes) if sizes and max(sizes) < 1000 * min(sizes) else None


def _prefixed(value: float, unit: str, beside: float | None = None) -> str:
    if value == 0:
        return f"0 {unit}".strip()
    rounded = float(f"{value:.2e}")
    power = math.floor(math.log10(abs(float(f"{beside or value:.2e}"))) / 3)
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    # A word is set apart from its prefix: 819 k tokens, but 1.08 mJ/token.
    gap = " " if unit[:1].islower() and unit[0] != "g" else ""
    prefix = "B" if power == 3 and unit in _COUNTED else _PREFIXES[power]
    return f"{significant(rounded / 1000.0**power)} {prefix}{gap}{unit}".strip()


def short(value: float | None, unit: str, beside: float | None = None) -> str:
    """Return a quantity for a heading that already names the unit: `670 µJ`, `9.80 k/s`."""
    if value is not None and unit == "tokens/s":
        return f"{readable(value, '', beside)}/s"
    whole, _, per = unit.partition("/")
    is_named = per in ("token", "parameter") and whole in _SCALED
    return readable(value, whole if is_named else unit, beside)


def ratio(value: float) -> str:
    """Return a factor as text: `1.62x`."""
    return f"{significant(value)}x"
