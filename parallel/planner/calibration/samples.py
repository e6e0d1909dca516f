"""Measured kernel times as samples that a card's model predicts, and which of them are held out."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path

from parallel.errors import ParallelError
from parallel.hardware.card import Card

Terms = Mapping[str, float]
"""What a table's own runs add to the kernel, by name: casts, an engine's factor."""

_HELD_OUT_OF = 10


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured time."""

    group: str
    """Table, precision and pass: what errors are told by."""
    seconds: float
    predict: Callable[[Card, Terms], float]
    """Seconds that a card's model gives, with the table's own terms."""
    weight: float = 1.0
    """How strongly the fit weighs this sample's error."""


def is_held_out(sizes: Iterable[str]) -> bool:
    """Return whether a row of these sizes is kept from fits: one of ten, by a hash."""
    digest = hashlib.sha256("/".join(sizes).encode()).digest()
    return int.from_bytes(digest[:4], "big") % _HELD_OUT_OF == 0


def read_rows(path: Path, sizes: tuple[str, ...], *, held_out: bool) -> list[dict[str, str]]:
    """Return the rows of a CSV file that are, or are not, held out by their `sizes` columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ParallelError(f"table {str(path)!r}: cannot be read: {error.strerror}") from error
    missing = [name for name in sizes if rows and name not in rows[0]]
    if missing:
        raise ParallelError(f"table {str(path)!r}: no column {missing[0]!r}")
    return [row for row in rows if is_held_out(row[name] for name in sizes) == held_out]


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """How far predictions of one group lie from what was measured."""

    count: int
    median: float
    """Median of |ln(predicted / measured)|."""
    p90: float
    """90th percentile of the same."""
    bias: float
    """Median of ln(predicted / measured): above 0, too slow."""


def summarize_errors(
    samples: Iterable[Sample], card: Card, terms: Terms
) -> dict[str, ErrorSummary]:
    """Return the errors of a card's predictions by group."""
    errors: dict[str, list[float]] = {}
    for sample in samples:
        error = log(sample.predict(card, terms) / sample.seconds)
        errors.setdefault(sample.group, []).append(error)
    return {group: _summary(values) for group, values in sorted(errors.items())}


def _summary(errors: list[float]) -> ErrorSummary:
    sizes = sorted(abs(error) for error in errors)
    return ErrorSummary(
        count=len(errors),
        median=_quantile(sizes, 0.5),
        p90=_quantile(sizes, 0.9),
        bias=_quantile(sorted(errors), 0.5),
    )


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
