"""A task of a job: one run, or one command."""

from dataclasses import dataclass

SUBMISSIONS = "slurm"
"""Folder of submissions inside the folder of runs."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work: a run, or a command."""

    index: int
    name: str
    command: tuple[str, ...]
    """Arguments of `moe`."""
    run_dir: str | None = None
    """The run's directory, absolute; none for commands that are not training."""
    experiment: str | None = None
    """The stored experiment, absolute."""
    steps: int | None = None
    """Steps the run is to take."""
