"""Emissions that a later start would have saved, by an hourly carbon intensity."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.errors import BenchmarkError
from data.storage.regular_file import read_regular
from moe.config.strict_csv import cells_by_column, column_names, number

COLUMNS = ("time", "gco2e_per_kwh")
MAX_BYTES = 1 << 28
MAX_INTENSITY = 1e6


@dataclass(frozen=True)
class HourlyIntensity:
    """Carbon intensity from each time on; the last value holds as long as the one before it."""

    times: list[datetime]
    gco2e_per_kwh: list[float]

    @property
    def end(self) -> datetime:
        """End of the series."""
        return self.times[-1] + (self.times[-1] - self.times[-2])

    def mean(self, begin: datetime, duration: timedelta) -> float:
        """Return the mean over a period, gCO2e/kWh, weighted by time.

        Raises:
            BenchmarkError: The period is not inside the series.
        """
        stop = begin + duration
        if begin < self.times[0] or stop > self.end:
            raise BenchmarkError(
                f"hourly intensity covers {self.times[0]:%Y-%m-%d %H:%M} to"
                f" {self.end:%Y-%m-%d %H:%M}, not {begin:%Y-%m-%d %H:%M} to {stop:%Y-%m-%d %H:%M}:"
                " give a file that covers the run"
            )
        if duration <= timedelta(0):
            return self.gco2e_per_kwh[bisect_right(self.times, begin) - 1]
        total, position = 0.0, begin
        index = bisect_right(self.times, begin) - 1
        while position < stop:
            boundary = self.times[index + 1] if index + 1 < len(self.times) else self.end
            boundary = min(boundary, stop)
            total += self.gco2e_per_kwh[index] * ((boundary - position) / duration)
            position, index = boundary, index + 1
        return total


@dataclass(frozen=True)
class StartComparison:
    """The run's own start against the best later one."""

    intensity: float
    """Mean over the run as it was, gCO2e/kWh."""
    best_start: datetime
    best_intensity: float
    """Mean had it started then, gCO2e/kWh."""

    @property
    def saved_fraction(self) -> float:
        """Fraction of the emissions that the best start would have saved."""
        return 1 - self.best_intensity / self.intensity if self.intensity else 0.0


def best_start(
    hourly: HourlyIntensity, begin: datetime, duration: timedelta, within: timedelta
) -> StartComparison:
    """Find the start from `begin` to `within` later with the lowest mean intensity.

    Power is assumed constant over the run. Candidates: the run's own start, and each time of the
    series.

    Raises:
        BenchmarkError: The run itself is not inside the series.
    """
    own = hourly.mean(begin, duration)
    latest = min(begin + within, hourly.end - duration)
    starts = [begin, *(time for time in hourly.times if begin < time <= latest)]
    best = min(starts, key=lambda start: hourly.mean(start, duration))
    return StartComparison(own, best, hourly.mean(best, duration))


def read_hourly(path: Path) -> HourlyIntensity:
    """Read a CSV with columns `time` (ISO 8601; UTC if it names no zone) and `gco2e_per_kwh`.

    Other columns are not read.

    Raises:
        BenchmarkError: Missing file or column, a row that cannot be read with certainty, or times
            that do not increase.
    """
    try:
        heading, *lines = read_regular(path, MAX_BYTES).split(b"\n")
        columns = column_names(heading)
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BenchmarkError(f"{path}: {error}") from None
    if missing := [name for name in COLUMNS if name not in columns]:
        raise BenchmarkError(
            f"{path}: no column {', '.join(missing)}: it needs {' and '.join(COLUMNS)}"
        )
    times, values = [], []
    for line_number, line in enumerate(lines, 2):
        try:
            if row := cells_by_column(columns, line):
                times.append(_utc(row["time"]))
                values.append(_intensity(row["gco2e_per_kwh"]))
        except ValueError as error:
            raise BenchmarkError(f"{path}: line {line_number}: {f'{error}'[:200]}") from None
    if len(times) < 2 or any(a >= b for a, b in zip(times, times[1:], strict=False)):
        raise BenchmarkError(f"{path}: it needs two or more rows with growing times")
    return HourlyIntensity(times, values)


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text.strip())
    return time.replace(tzinfo=time.tzinfo or UTC)


def _intensity(text: str) -> float:
    value = number(text)
    if value is None or not 0 <= value <= MAX_INTENSITY:
        raise ValueError(f"{text[:40]!r} is no intensity such as 56.5")
    return value
