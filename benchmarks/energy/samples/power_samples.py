"""Power samples logged by another device (a rack PDU, IPMI, a bench meter), and their joules."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.energy.samples.devices import alike, not_siblings
from benchmarks.energy.source import SourceInfo, SourceLostError, SourceUnavailableError
from data.storage.regular_file import open_regular
from moe.config.power_csv import MAX_POWER_CSV_BYTES, parse_heading, parse_row, too_long

# A logger has stopped if it is silent for both this many of its intervals and this many seconds.
GAP_INTERVALS = 10
GAP_S = 10.0
MAX_DEVICES = 1000
# Pairs of devices that a note names; others are like them.
MAX_NOTED = 5
# All samples are gone through again once they are so many times as many.
RENEW_AT = 1.01


class _Summary(NamedTuple):
    """What all of the first `num_samples` say."""

    num_samples: int
    interval_s: float
    alike: tuple[tuple[str, str], ...]


@dataclass
class PowerSamples:
    """Samples of one or more devices (outlets, nodes), whose sum is the power drawn."""

    origin: str
    devices: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By device: (Unix time in s, power in W), in increasing order of time."""
    _peaks: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _summary: _Summary = field(default=_Summary(0, GAP_S, ()), init=False, repr=False)

    def add(self, device: str, time_s: float, watts: float) -> None:
        """Add a device's next sample.

        Raises:
            ValueError: It is not later than the one before.
        """
        samples = self.devices.setdefault(device, [])
        if samples and time_s <= samples[-1][0]:
            raise ValueError("times of a device must grow")
        samples.append((time_s, watts))
        self._peaks[device] = max(watts, self._peaks.get(device, 0.0))

    @property
    def newest_s(self) -> float:
        """Time up to which every device was sampled, Unix s."""
        return min(samples[-1][0] for samples in self.devices.values())

    @property
    def interval_s(self) -> float:
        """Median time between two samples of a device, s."""
        return self._summarized().interval_s

    @property
    def longest_gap_s(self) -> float:
        """Longest silence over which power is interpolated, s."""
        return max(GAP_S, GAP_INTERVALS * self.interval_s)

    @property
    def max_watts(self) -> float:
        """Sum of the devices' highest samples, W."""
        return sum(self._peaks.values())

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
            for one, other in self._summarized().alike
        ]

    def _summarized(self) -> _Summary:
        """Return what reading all samples gives: meters ask at every step, so rarely anew."""
        num_samples = sum(map(len, self.devices.values()))
        if num_samples > RENEW_AT * self._summary.num_samples:
            gaps = [b[0] - a[0] for samples in self.devices.values() for a, b in pairwise(samples)]
            pairs = tuple(alike(self.devices)[:MAX_NOTED])
            self._summary = _Summary(num_samples, median(gaps) if gaps else GAP_S, pairs)
        return self._summary

    def joules(self, begin_s: float, end_s: float) -> float:
        """Return the energy between two Unix times, J, by the trapezoidal rule.

        Raises:
            SourceLostError: A device was silent too long between them.
        """
        return sum(self._device_joules(name, begin_s, end_s) for name in self.devices)

    def _device_joules(self, name: str, begin_s: float, end_s: float) -> float:
        samples, longest = self.devices[name], self.longest_gap_s
        first = max(0, bisect_right(samples, (begin_s, float("inf"))) - 1)
        first_s, watts = samples[first]
        if abs(first_s - begin_s) > longest:
            raise self._silent(name, begin_s, first_s)
        position = min(max(begin_s, first_s), end_s)
        total = watts * (position - begin_s)
        for (left_s, left), (right_s, right) in pairwise(samples[first:]):
            if position >= end_s:
                break
            if right_s - left_s > longest:
                raise self._silent(name, left_s, right_s)
            stop = min(right_s, end_s)
            if stop > position:
                # Fractions of the gap, not a slope: that of samples very close is infinite.
                at_position = left + (right - left) * ((position - left_s) / (right_s - left_s))
                watts = left + (right - left) * ((stop - left_s) / (right_s - left_s))
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
    """A CSV that a logger may still be writing, read strictly (`moe.config.power_csv`).

    Times are by the clock of the run's machine, UTC where they name no zone. A last line without
    an end is left out: it may be cut off.
    """

    def __init__(self, path: Path, devices: Sequence[str] | None = None) -> None:
        """Read the samples logged so far.

        Args:
            path: The file.
            devices: Devices whose sum is the power, the only ones read; `None` for all, which
                must then be siblings by their names (`not_siblings`).

        Raises:
            SourceUnavailableError: Missing file, column or device, no or a damaged sample.
        """
        self.path = path
        self.samples = PowerSamples(str(path))
        self._wanted = None if devices is None else [name.strip() for name in devices]
        self._left_out: dict[str, None] = {}
        self._columns: list[str] = []
        self._offset = self._line = 0
        self._identity: tuple[int, int] | None = None
        try:
            self.update()
        except SourceLostError as error:
            raise SourceUnavailableError(str(error)) from None
        for name in self._wanted or ():
            if name not in self.samples.devices:
                others = ", ".join([*self.samples.devices, *self._left_out][:MAX_NOTED])
                raise SourceUnavailableError(
                    f'{path}: no samples of "{name}"; its first devices: {others or "none"}'
                )
        if not self.samples.devices:
            raise SourceUnavailableError(f"{path}: no samples yet")

    def update(self) -> PowerSamples:
        """Read the complete lines added since the last call; returns all samples.

        Raises:
            SourceLostError: The file went away or is another, a line is damaged, or devices may
                not be summed.
        """
        try:
            with open_regular(self.path) as file:
                status = os.fstat(file.fileno())
                self._check_same(status)
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # its rest may come before the next is read
                    self._add_line(line)
        except OSError as error:
            raise SourceLostError(f"{self.path}: {error.strerror or error}") from None
        if self._wanted is None:
            self._check_siblings()
        return self.samples

    def _check_same(self, status: os.stat_result) -> None:
        identity = status.st_dev, status.st_ino
        self._identity = self._identity or identity
        if identity != self._identity or status.st_size < self._offset:
            raise SourceLostError(f"{self.path}: replaced or cut since it was read: log on in one")
        if status.st_size - self._offset > MAX_POWER_CSV_BYTES:
            raise SourceLostError(f"{self.path}: {too_long()}")

    def _check_siblings(self) -> None:
        if pair := not_siblings(self.samples.devices):
            raise SourceLostError(
                f'{self.path}: devices "{pair[0]}" and "{pair[1]}" may be a whole and its part, or'
                " the same: name those that add up in energy.power_devices (moe energy:"
                " --power-device)"
            )

    def _add_line(self, line: bytes) -> None:
        try:
            if not self._columns:
                self._columns = parse_heading(line)
            elif sample := parse_row(self._columns, line):
                self._add(*sample)
        except ValueError as error:
            where = f"line {self._line + 1}: " if self._columns else ""
            raise SourceLostError(f"{self.path}: {where}{error}") from None
        # Once it is taken: a damaged line stays one for the next call.
        self._offset += len(line)
        self._line += 1

    def _add(self, device: str, unix_s: float, watts: float) -> None:
        if self._wanted is not None and device not in self._wanted:
            if len(self._left_out) < MAX_NOTED:
                self._left_out[device] = None
            return
        self.samples.add(device, unix_s, watts)
        if len(self.samples.devices) > MAX_DEVICES:
            raise ValueError(f"more than {MAX_DEVICES} devices")
