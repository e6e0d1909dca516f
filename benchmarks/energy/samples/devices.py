"""Which devices of a power log may be summed: none may be another's part, or another once more."""

import re
from collections.abc import Iterable, Mapping, Sequence

# So many samples alike, of so many values, are no chance.
MIN_ALIKE, MIN_VALUES = 10, 5

Samples = Sequence[tuple[float, float]]


def not_siblings(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two devices whose names do not show that they are siblings; `None` if all do.

    Siblings differ in the numbers of their names alone: `psu1` and `psu2`, or `n1/gpu0` and
    `n2/gpu0`. Of any others (`node` and `gpu0`, `n1` and `n1/gpu0`, `A` and `a`, `psu1` and
    `psu01`) one may be a part of the other, or the same: only who logged them knows.
    """
    by_numbers: dict[tuple[int, ...], str] = {}
    first: tuple[str, list[str]] | None = None
    for name in names:
        parts = re.split("([0-9]+)", name)
        words, numbers = parts[::2], tuple(int(number) for number in parts[1::2])
        first = first or (name, words)
        if words != first[1]:
            return first[0], name
        if numbers in by_numbers:
            return by_numbers[numbers], name
        by_numbers[numbers] = name
    return None


def alike(devices: Mapping[str, Samples]) -> list[tuple[str, str]]:
    """Return pairs of devices whose samples are all the same: perhaps one sensor, logged twice."""
    first_with: dict[tuple[tuple[float, float], ...], str] = {}
    pairs = []
    for name, samples in devices.items():
        if len(samples) >= MIN_ALIKE and len({watts for _, watts in samples}) >= MIN_VALUES:
            first = first_with.setdefault(tuple(samples), name)
            if first != name:
                pairs.append((first, name))
    return pairs
