"""Carbon intensity of electricity by zone: a dated table that ships, or the user's own value."""

import difflib
from dataclasses import dataclass
from functools import cache

from benchmarks.errors import BenchmarkError
from benchmarks.published.rows import published_rows


@dataclass(frozen=True)
class GridZone:
    """One row of `published/carbon_intensity.csv`, resolved."""

    code: str
    name: str
    gco2e_per_kwh: float
    year: int | None
    """Year the value is of; `None` where its source does not say."""
    source: str

    @property
    def label(self) -> str:
        """Zone, year and source in one line, to be printed wherever the value is used."""
        year = "year not stated" if self.year is None else str(self.year)
        return f"{self.code} {self.gco2e_per_kwh:g} gCO2e/kWh ({year}; {self.source})"


@cache
def grid_zones() -> dict[str, GridZone]:
    """Return all zones by code: countries, US states, cloud regions, WORLD."""
    rows = {row["zone"]: row for row in published_rows("carbon_intensity")}
    found = {}
    for code, row in rows.items():
        grid = rows[row["same_as"]] if row["same_as"] else row
        source = grid["source"] if grid is row else f"grid {row['same_as']}: {grid['source']}"
        found[code] = GridZone(
            code=code,
            name=row["name"],
            gco2e_per_kwh=float(grid["gco2e_per_kwh"]),
            year=int(grid["year"]) if grid["year"] else None,
            source=source,
        )
    return found


def grid_zone(code: str) -> GridZone:
    """Return a zone by its code, whatever its case.

    Raises:
        BenchmarkError: No such zone; names the nearest code or place.
    """
    by_lower = {known.lower(): known for known in grid_zones()}
    if code.lower() in by_lower:
        return grid_zones()[by_lower[code.lower()]]
    names = {known.name.lower(): known.code for known in reversed(grid_zones().values())}
    near = difflib.get_close_matches(code.lower(), [*by_lower, *names], n=1)
    hint = names.get(near[0]) or by_lower.get(near[0]) if near else None
    remedy = f"did you mean {hint}?" if hint else "`moe carbon --zones` lists them"
    raise BenchmarkError(f"energy.region = {code!r}: no such zone: {remedy}")
