"""Emissions that a later start would have saved, by an hourly carbon intensity."""

import csv
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.errors import BenchmarkError
from data.storage.regular_file import read_regular

MAX_BYTES = 1 << 28


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

    Raises:
        BenchmarkError: Missing file or column, a damaged row, or times that do not increase.
    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines()))
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{path}: not CSV in UTF-8: {error}") from None
    times, values = [], []
    for number, row in enumerate(rows, 2):
        try:
            time = datetime.fromisoformat(row["time"])
            value = float(row["gco2e_per_kwh"])
            if not 0 <= value < float("inf"):
                raise ValueError(f"{value:g} gCO2e/kWh is no intensity")
        except KeyError as error:
            raise BenchmarkError(
                f"{path}: no column {error}: it needs time and gco2e_per_kwh"
            ) from None
        except (TypeError, ValueError) as error:
            raise BenchmarkError(f"{path}: line {number}: {f'{error}'[:200]}") from None
        times.append(time.replace(tzinfo=time.tzinfo or UTC))
        values.append(value)
    if len(times) < 2 or any(a >= b for a, b in zip(times, times[1:], strict=False)):
        raise BenchmarkError(f"{path}: it needs two or more rows with growing times")
    return HourlyIntensity(times, values)
