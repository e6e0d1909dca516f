"""Carbon intensity of electricity by grid zone: a dated table that ships with moescale."""

import difflib
from dataclasses import dataclass
from functools import cache

from benchmarks.errors import BenchmarkError
from benchmarks.published.rows import published_rows


@dataclass(frozen=True)
class GridZone:
    """A row of `published/carbon_intensity.csv`, with the value of the row it may refer to."""

    code: str
    name: str
    gco2e_per_kwh: float
    year: int | None
    """Year of the value; `None` where its source does not state it."""
    source: str

    @property
    def label(self) -> str:
        """Zone, value, year and source in one line, to print wherever the value is used."""
        year = "year not stated" if self.year is None else str(self.year)
        return f"{self.code} {self.gco2e_per_kwh:g} gCO2e/kWh ({year}; {self.source})"


@cache
def grid_zones() -> dict[str, GridZone]:
    """Return all zones by code: countries, US states, cloud regions, WORLD."""
    rows = {row["zone"]: row for row in published_rows("carbon_intensity")}
    zones = {}
    for code, row in rows.items():
        grid = rows[row["same_as"]] if row["same_as"] else row
        source = grid["source"] if grid is row else f"grid {row['same_as']}: {grid['source']}"
        zones[code] = GridZone(
            code=code,
            name=row["name"],
            gco2e_per_kwh=float(grid["gco2e_per_kwh"]),
            year=int(grid["year"]) if grid["year"] else None,
            source=source,
        )
    return zones


def grid_zone(code: str) -> GridZone:
    """Return a zone by its code, in upper or lower case.

    Raises:
        BenchmarkError: No such zone; suggests the closest code or place.
    """
    by_lower = {known.lower(): known for known in grid_zones()}
    if code.lower() in by_lower:
        return grid_zones()[by_lower[code.lower()]]
    names = {known.name.lower(): known.code for known in reversed(grid_zones().values())}
    matches = difflib.get_close_matches(code.lower(), [*by_lower, *names], n=1)
    hint = names.get(matches[0]) or by_lower.get(matches[0]) if matches else None
    remedy = f"did you mean {hint}?" if hint else "`moe carbon --zones` lists them"
    raise BenchmarkError(f"energy.region = {code!r}: no such zone: {remedy}")
