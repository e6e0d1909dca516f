"""Meters outside the machine behind our interface: logged power samples, SLURM's accounting."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.energy.source import (
    Clock,
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
)
from benchmarks.energy.source_power_csv import SampleFile

Ask = Callable[[list[str]], str]
NOT_KNOWN = ("", "0", "4294967294", "18446744073709551614")  # SLURM's NO_VAL
NODE_PERIOD_S = 30.0


class SampleSource:
    """A file of power samples that a logger goes on writing; one rank reads it for the job."""

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        """Open the file; `clock` gives Unix time, as the samples' times are.

        Raises:
            SourceUnavailableError: No samples there, or none lately.
        """
        self._file, self._clock = SampleFile(path), clock
        samples = self._file.samples
        age_s = clock() - samples.newest_s
        if age_s > samples.longest_gap_s:
            raise SourceUnavailableError(
                f"{path}: its newest sample is {age_s:.0f} s old: is its logger running, by this"
                " machine's clock? A finished log is read by `moe energy RUN --power-csv`"
            )
        self._position_s, self._joules = samples.newest_s, 0.0

    @property
    def info(self) -> SourceInfo:
        """What the samples say of themselves so far."""
        samples = self._file.samples
        names = ", ".join(name for name in samples.devices if name)
        return SourceInfo(
            name="csv",
            kind="measured",
            boundary=names or "what the samples' meter covers",
            device=str(self._file.path.resolve()),
            resolution_s=samples.interval_s,
            max_power_watts=samples.max_watts,
            scope="job",
            note=f"power samples from {self._file.path}",
        )

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


class SlurmSource:
    """`ConsumedEnergyRaw` of the running job step, over all its nodes; one rank asks."""

    def __init__(self, environment: Mapping[str, str] = os.environ, ask: Ask | None = None) -> None:
        """Find the step that this process runs in.

        Raises:
            SourceUnavailableError: Not in a job, or the cluster gathers no energy.
        """
        self._ask = ask or _ask
        job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "batch")
        if not job:
            raise SourceUnavailableError("this is no SLURM job (SLURM_JOB_ID is not set)")
        try:
            settings = self._ask(["scontrol", "show", "config"])
        except SourceLostError as error:
            raise SourceUnavailableError(str(error)) from None
        plugin = _setting(settings, "AcctGatherEnergyType") or "none"
        if plugin.endswith("none"):
            raise SourceUnavailableError(
                "this cluster gathers no energy (AcctGatherEnergyType is none): an administrator"
                " can turn it on"
            )
        period = re.match(r"\d+", _setting(settings, "AcctGatherNodeFreq") or "")
        self._step = f"{job}.{step}"
        self.info = SourceInfo(
            name="slurm",
            kind="measured",
            boundary="all the job's nodes, whole",
            device=f"SLURM step {self._step}",
            resolution_s=float(period[0]) if period and int(period[0]) else NODE_PERIOD_S,
            max_power_watts=None,
            scope="job",
            note=f"ConsumedEnergyRaw by {plugin}; a shared node's other jobs are counted too",
        )

    def read_joules(self) -> float:
        """Return joules since the step began.

        Raises:
            SourceLostError: SLURM gives no figure.
        """
        arguments = ["--noheader", "--parsable2", "--format=ConsumedEnergyRaw"]
        text = self._ask(["sstat", *arguments, f"--jobs={self._step}"]).strip()
        if text in NOT_KNOWN or not text.isdecimal():
            raise SourceLostError(f"sstat gives no energy for {self._step} ({text or 'nothing'!r})")
        return float(text)


def _setting(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def _ask(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceLostError(f"{argv[0]}: {error}") from None
    if done.returncode:
        raise SourceLostError(f"{argv[0]}: {done.stderr.strip().splitlines()[-1:] or 'failed'}")
    return done.stdout
