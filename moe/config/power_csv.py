"""The file that `energy.power_csv` names, as far as it can be checked before a run starts."""

import csv
from pathlib import Path

from moe.errors import ConfigError

POWER_COLUMNS = ("time", "watts")
"""Columns that it must have; `device` where several are summed."""


def missing_columns(heading: list[str]) -> list[str]:
    """Return the columns that a heading lacks; case and spaces do not count."""
    names = [name.strip().lower() for name in heading]
    return [name for name in POWER_COLUMNS if name not in names]


def check_power_csv(path: Path) -> None:
    """Refuse a file of power samples that is not there, or has other columns.

    Raises:
        ConfigError: With the reason and the remedy.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            heading = next(csv.reader(file), None)
    except (OSError, csv.Error) as error:
        fault = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"energy.power_csv = {path}: {fault}: start its logger first, or name its file"
        ) from None
    lacking = POWER_COLUMNS if heading is None else missing_columns(heading)
    if lacking:
        raise ConfigError(
            f"energy.power_csv = {path}: no column {', '.join(lacking)}: its first line must name"
            " time and watts, and device where several are summed"
        )
