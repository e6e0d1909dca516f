"""Tables that ship with moescale: published numbers, each row with its source."""

import csv
from functools import cache
from importlib import resources


@cache
def published_rows(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of `benchmarks/published/<name>.csv`; empty cells are empty strings."""
    file = resources.files("benchmarks") / "published" / f"{name}.csv"
    return tuple(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
