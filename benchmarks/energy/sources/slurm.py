"""Joules of a job step from SLURM's own accounting (`ConsumedEnergyRaw`)."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping

from benchmarks.energy.source import SourceInfo, SourceLostError, SourceUnavailableError
from parallel.measurement.slurm_values import known_joules, known_number

RunCommand = Callable[[list[str]], str]
# AcctGatherNodeFreq where the cluster does not set it.
DEFAULT_PERIOD_S = 30.0


class SlurmSource:
    """`ConsumedEnergyRaw` of the running job step, over all its nodes; one rank reads it."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, run: RunCommand | None = None
    ) -> None:
        """Find the step that this process runs in.

        Raises:
            SourceUnavailableError: Not in a job, or the cluster gathers no energy.
        """
        self._run = run or _run_command
        self._newest_joules = 0.0
        job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "batch")
        if not job:
            raise SourceUnavailableError("this is no SLURM job (SLURM_JOB_ID is not set)")
        try:
            settings = self._run(["scontrol", "show", "config"])
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
            resolution_s=float(period[0]) if period and int(period[0]) else DEFAULT_PERIOD_S,
            max_power_watts=None,
            scope="job",
            note=f"ConsumedEnergyRaw by {plugin}; a shared node's other jobs are counted too",
        )

    def read_joules(self) -> float:
        """Return joules since the step began; 0 as long as SLURM has no sample of it.

        Raises:
            SourceLostError: SLURM gives no figure, or a smaller one than before.
        """
        arguments = ["--noheader", "--parsable2", "--format=ConsumedEnergyRaw"]
        text = self._run(["sstat", *arguments, f"--jobs={self._step}"]).strip()
        # The first figure comes with the nodes' first sample; `PhaseMeter` loses one that stays 0.
        is_fresh = not self._newest_joules and known_number(text) == 0
        joules = 0.0 if is_fresh else known_joules(text)
        if joules is None:
            raise SourceLostError(f"sstat gives no energy for {self._step} ({text or 'nothing'!r})")
        if joules < self._newest_joules:
            raise SourceLostError(
                f"sstat's energy of {self._step} fell from {self._newest_joules:.0f} to"
                f" {joules:.0f} J: a node's sensor was lost, or the step started again"
            )
        self._newest_joules = joules
        return joules


def _setting(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*=\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else None


def _run_command(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=30, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceLostError(f"{argv[0]}: {error}") from None
    if done.returncode:
        raise SourceLostError(f"{argv[0]}: {done.stderr.strip().splitlines()[-1:] or 'failed'}")
    return done.stdout
