"""Joules of a job from a file of power samples that a logger is still writing."""

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.energy.samples.power_samples import SampleFile
from benchmarks.energy.source import Clock, SourceInfo, SourceLostError, SourceUnavailableError


class PowerCsvSource:
    """A file of power samples that a logger keeps writing; one rank reads it for the job."""

    def __init__(
        self, path: Path, devices: Sequence[str] | None = None, clock: Clock = time.time
    ) -> None:
        """Open the file; `clock` gives Unix time, as the samples' times are.

        `devices` are those to sum, as `SampleFile` takes them.

        Raises:
            SourceUnavailableError: No samples there, none lately, or of times to come.
        """
        self._file, self._clock = SampleFile(path, devices), clock
        samples = self._file.samples
        age_s = clock() - samples.newest_s
        if -age_s > samples.longest_gap_s:
            raise SourceUnavailableError(
                f"{path}: its newest sample is {-age_s:.0f} s ahead of this machine's clock: log"
                " times in UTC, or with their zone"
            )
        if age_s > samples.longest_gap_s:
            raise SourceUnavailableError(
                f"{path}: its newest sample is {age_s:.0f} s old: is its logger running, by this"
                " machine's clock? A finished log is read by `moe energy RUN --power-csv`"
            )
        self._position_s, self._joules = samples.newest_s, 0.0

    @property
    def info(self) -> SourceInfo:
        """What the samples so far cover, and how often they come."""
        path = self._file.path
        return self._file.samples.info(path, note=f"power samples from {path}")

    def read_joules(self) -> float:
        """Return joules from the first reading to the newest sample.

        Raises:
            SourceLostError: The logger fell silent, or wrote a damaged line.
        """
        samples = self._file.update()
        silent_s = self._clock() - samples.newest_s
        if silent_s > samples.longest_gap_s:
            raise SourceLostError(f"{self._file.path}: no sample for {silent_s:.0f} s")
        if samples.newest_s > self._position_s:
            self._joules += samples.joules(self._position_s, samples.newest_s)
            self._position_s = samples.newest_s
        return self._joules
