"""Power samples logged by another device (a rack PDU, IPMI, a bench meter), and their joules."""

import csv
import os
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.energy.sample_devices import alike, covering
from benchmarks.energy.source import SourceInfo, SourceLostError, SourceUnavailableError
from data.storage.regular_file import open_regular
from moe.config.power_csv import missing_columns

# A logger has stopped if it is silent for both this many of its intervals and this many seconds.
GAP_INTERVALS = 10
GAP_S = 10.0
MAX_NEW_BYTES = 1 << 30
# The year 3934: what `datetime` holds on both sides of 1970, with room for time zones.
MAX_UNIX_S = 62_000_000_000.0


@dataclass
class PowerSamples:
    """Samples of one or more devices (outlets, nodes), whose sum is the power drawn."""

    origin: str
    devices: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By device: (Unix time in s, power in W), in increasing order of time."""

    def add(self, device: str, time_s: float, watts: float) -> None:
        """Add a device's next sample.

        Raises:
            ValueError: It is not later than the one before, or negative.
        """
        samples = self.devices.setdefault(device, [])
        if samples and time_s <= samples[-1][0]:
            raise ValueError("times of a device must grow")
        if not 0 <= watts < float("inf"):
            raise ValueError(f"{watts:g} W is no power")
        samples.append((time_s, watts))

    @property
    def newest_s(self) -> float:
        """Time up to which every device was sampled, Unix s."""
        return min(samples[-1][0] for samples in self.devices.values())

    @property
    def interval_s(self) -> float:
        """Median time between two samples of a device, s."""
        gaps = [b[0] - a[0] for samples in self.devices.values() for a, b in pairwise(samples)]
        return median(gaps) if gaps else GAP_S

    @property
    def longest_gap_s(self) -> float:
        """Longest silence over which power is interpolated, s."""
        return max(GAP_S, GAP_INTERVALS * self.interval_s)

    @property
    def max_watts(self) -> float:
        """Sum of the devices' highest samples, W."""
        return sum(max(watts for _, watts in samples) for samples in self.devices.values())

    def info(self, path: Path, note: str) -> SourceInfo:
        """Return what these samples, read from the file `path`, cover, and their resolution."""
        names = ", ".join(name for name in self.devices if name)
        return SourceInfo(
            name="csv",
            kind="measured",
            boundary=names or "what the samples' meter covers",
            device=str(path.resolve()),
            resolution_s=self.interval_s,
            max_power_watts=self.max_watts,
            scope="job",
            note="; ".join([note, *self._doubts()]),
        )

    def _doubts(self) -> list[str]:
        return [
            f"{one} and {other} read the same in every sample: if they are one sensor, it counts"
            " twice"
            for one, other in alike(self.devices)
        ]

    def joules(self, begin_s: float, end_s: float) -> float:
        """Return the energy between two Unix times, J, by the trapezoidal rule.

        Raises:
            SourceLostError: A device was silent too long between them.
        """
        return sum(self._device_joules(name, begin_s, end_s) for name in self.devices)

    def _device_joules(self, name: str, begin_s: float, end_s: float) -> float:
        samples, longest = self.devices[name], self.longest_gap_s
        first = max(0, bisect_right(samples, (begin_s, float("inf"))) - 1)
        total, position, watts = 0.0, begin_s, samples[first][1]
        if abs(samples[first][0] - begin_s) > longest:
            raise self._silent(name, begin_s, samples[first][0])
        for (left_s, left), (right_s, right) in pairwise(samples[first:]):
            if position >= end_s:
                break
            if right_s - left_s > longest:
                raise self._silent(name, left_s, right_s)
            stop = min(right_s, end_s)
            if stop > position:
                slope = (right - left) / (right_s - left_s)
                at_position = left + slope * (max(position, left_s) - left_s)
                watts = left + slope * (stop - left_s)
                total += (at_position + watts) / 2 * (stop - position)
                position = stop
        if end_s - position > longest:
            raise self._silent(name, position, end_s)
        return total + watts * max(0.0, end_s - position)

    def _silent(self, name: str, begin_s: float, end_s: float) -> SourceLostError:
        times = [datetime.fromtimestamp(t, UTC).isoformat(timespec="seconds")
                 for t in sorted((begin_s, end_s))]  # fmt: skip
        device = f" of {name}" if name else ""
        return SourceLostError(f"{self.origin}: no sample{device} from {times[0]} to {times[1]}")


class SampleFile:
    """A CSV that a logger may still be writing: `time`, `watts` and, for several, `device`.

    Times are Unix seconds or ISO 8601 (UTC where no zone is given), by the clock of the run's
    machine.
    """

    def __init__(self, path: Path) -> None:
        """Read the samples logged so far.

        Raises:
            SourceUnavailableError: Missing file or column, no or a damaged sample.
        """
        self.path = path
        self.samples = PowerSamples(str(path))
        self._offset = self._line = 0
        self._names: list[str] = []
        try:
            self.update()
        except SourceLostError as error:
            raise SourceUnavailableError(str(error)) from None
        if not self.samples.devices:
            raise SourceUnavailableError(f"{path}: no samples yet")

    def update(self) -> PowerSamples:
        """Read the complete lines added since the last call; returns all samples.

        Raises:
            SourceLostError: The file went away, or a line is damaged.
        """
        try:
            with open_regular(self.path) as file:
                size = file.seek(0, os.SEEK_END) - self._offset
                if size > MAX_NEW_BYTES:
                    raise SourceLostError(f"{self.path}: longer than {MAX_NEW_BYTES >> 20} MiB")
                file.seek(self._offset)
                new = file.read(max(size, 0))
        except OSError as error:
            raise SourceLostError(f"{self.path}: {error.strerror or error}") from None
        complete = new[: new.rfind(b"\n") + 1]
        self._offset += len(complete)
        try:
            for row in csv.reader(complete.decode("utf-8-sig", "replace").splitlines()):
                self._line += 1
                if row:
                    self._add_row(row)
        except csv.Error as error:
            raise SourceLostError(f"{self.path}: line {self._line + 1}: {error}") from None
        if pair := covering(self.samples.devices):
            raise SourceLostError(
                f'{self.path}: device "{pair[0]}" covers "{pair[1]}", which would count twice: log'
                " one of them, or give a meter of its own another name"
            )
        return self.samples

    def _add_row(self, row: list[str]) -> None:
        if not self._names:
            self._names = [name.strip().lower() for name in row]
            if missing := missing_columns(row):
                raise SourceLostError(
                    f"{self.path}: no column {', '.join(missing)}: it needs time and watts, and"
                    " device where several are summed"
                )
            return
        values = dict(zip(self._names, row, strict=False))
        try:
            self.samples.add(
                values.get("device", ""), _unix_seconds(values["time"]), float(values["watts"])
            )
        except (KeyError, OverflowError, ValueError) as error:
            fault = "a cell is missing" if isinstance(error, KeyError) else f"{error}"[:200]
            raise SourceLostError(f"{self.path}: line {self._line}: {fault}") from None


def _unix_seconds(text: str) -> float:
    try:
        unix_s = float(text)
    except ValueError:
        time = datetime.fromisoformat(text.strip())
        unix_s = time.replace(tzinfo=time.tzinfo or UTC).timestamp()
    if not -MAX_UNIX_S < unix_s < MAX_UNIX_S:
        raise ValueError(f"{text[:40]!r} is no time")
    return unix_s
