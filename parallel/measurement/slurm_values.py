"""Numbers as SLURM's commands print them, and the ones among them that stand for "not known"."""

NO_VALUES = frozenset({2**32 - 2, 2**32 - 1, 2**64 - 2, 2**64 - 1})
"""SLURM's NO_VAL and INFINITE, in 32 and 64 bits."""
_IMPOSSIBLE = 2**63
"""From here on: a negative difference, or a sum with NO_VAL, in 64 bits without a sign."""


def known_number(text: str) -> int | None:
    """Return a counter that SLURM printed; None where it is empty or stands for no value."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    number = int(text)
    return None if number in NO_VALUES or number >= _IMPOSSIBLE else number


def known_joules(text: str) -> float | None:
    """Return `ConsumedEnergyRaw`, J; None where it is not known.

    0 is not known either: SLURM prints it where nothing meters the node. Nor is a multiple of a
    32-bit NO_VAL: the sum over nodes none of which has a number.
    """
    number = known_number(text)
    if not number or any(number % value == 0 for value in (2**32 - 2, 2**32 - 1)):
        return None
    return float(number)
