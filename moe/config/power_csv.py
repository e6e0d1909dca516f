"""The file that `energy.power_csv` names: its columns and cells, read strictly, never guessed."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from data.storage.regular_file import open_regular
from moe.config.strict_csv import cells_by_column, column_names, number
from moe.errors import ConfigError

COLUMNS = ("time", "watts", "device")
"""All columns that it may have; the last where it logs several devices."""
MAX_POWER_CSV_BYTES = 1 << 30
MAX_HEADING_BYTES = 1 << 16
MAX_DEVICE_CHARACTERS = 80
MAX_WATTS = 1e9
# The year 3934: what `datetime` holds on both sides of 1970, with room for time zones.
MAX_UNIX_S = 62_000_000_000.0


class Sample(NamedTuple):
    """One row: Unix time in s, power in W, and the device's name (empty where it has none)."""

    device: str
    unix_s: float
    watts: float


def parse_heading(line: bytes) -> list[str]:
    """Return the columns that the first line names; case and spaces around them do not count.

    Raises:
        ValueError: It is not of `COLUMNS`, each once, with `time` and `watts`.
    """
    names = column_names(line)
    if missing := [name for name in COLUMNS[:2] if name not in names]:
        raise ValueError(
            f"no column {', '.join(missing)}: its first line must name time and watts, and device"
            " where several are summed"
        )
    for name in names:
        if name not in COLUMNS:
            raise ValueError(
                f"a column {name[:40]!r}, but only {', '.join(COLUMNS)} are read: name it device if"
                " it tells devices apart, or leave it out"
            )
    return names


def parse_row(columns: list[str], line: bytes) -> Sample | None:
    """Return the sample in a line; `None` for an empty one.

    Raises:
        ValueError: It has not one cell for each column, or one that cannot be read with certainty.
    """
    values = cells_by_column(columns, line)
    if not values:
        return None
    device = values.get("device", "").strip()
    if len(device) > MAX_DEVICE_CHARACTERS:
        raise ValueError(f"a device's name of more than {MAX_DEVICE_CHARACTERS} characters")
    watts = number(values["watts"])
    if watts is None:
        raise ValueError(f"watts {values['watts'][:40]!r} is no number such as 1250.5")
    if not 0 <= watts <= MAX_WATTS:
        raise ValueError(f"{watts:g} W is no power")
    return Sample(device, _unix_seconds(values["time"]), watts)


def check_power_csv(path: Path) -> None:
    """Refuse a file of power samples that is not there, is too long, or has other columns.

    Raises:
        ConfigError: With the reason and the remedy.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            heading = file.readline(MAX_HEADING_BYTES)
    except OSError as error:
        fault = error.strerror or str(error)
        raise _refusal(path, f"{fault}: start its logger first, or name its file") from None
    if size > MAX_POWER_CSV_BYTES:
        raise _refusal(path, too_long())
    try:
        parse_heading(heading)
    except ValueError as error:
        raise _refusal(path, str(error)) from None


def too_long() -> str:
    """Return what is said of a file beyond `MAX_POWER_CSV_BYTES`."""
    return f"longer than {MAX_POWER_CSV_BYTES >> 20} MiB: cut it to the time of the run"


def _refusal(path: Path, fault: str) -> ConfigError:
    return ConfigError(f"energy.power_csv = {path}: {fault}")


def _unix_seconds(text: str) -> float:
    unix_s = number(text)
    try:
        if unix_s is None:
            time = datetime.fromisoformat(text.strip())
            unix_s = time.replace(tzinfo=time.tzinfo or UTC).timestamp()
    except (OverflowError, ValueError):
        unix_s = None
    if unix_s is None or not -MAX_UNIX_S < unix_s < MAX_UNIX_S:
        raise ValueError(f"time {text[:40]!r} is neither Unix seconds nor ISO 8601")
    return unix_s
