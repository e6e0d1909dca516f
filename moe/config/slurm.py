"""The `[slurm]` section: what a batch job asks the cluster for, and how it survives."""

import datetime
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, StringConstraints, model_validator

from data.frozen_model import FrozenModel

OWN_OPTIONS = frozenset(
    {"array", "chdir", "clusters", "cpus-per-task", "error", "exclude", "export", "export-file",
     "gpus-per-node", "help", "input", "job-name", "mincpus", "nodes", "no-requeue", "ntasks",
     "ntasks-per-node", "open-mode", "output", "parsable", "requeue", "signal", "test-only", "time",
     "usage", "version", "wait", "wrap"}
)  # fmt: skip
"""sbatch options that moescale writes itself or depends on; `extra` may not repeat them."""
CPUS_PER_GPU = 8
"""CPU cores of a GPU's rank where nothing says: no more than nodes with eight GPUs have."""

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


def _time_text(value: Any) -> Any:
    """Read unquoted TOML (`time = 04:00:00`, `time = 90`) as the duration it was meant to be."""
    if isinstance(value, datetime.time):
        return value.isoformat()
    return str(value) if type(value) is int else value


Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Text without line breaks or control characters: safe in a batch script's header."""


class SlurmConfig(FrozenModel):
    """The `[slurm]` section. Keys left out come from the site profile, then from these defaults."""

    profile: str | None = None
    """Site profile in `~/.config/moescale/slurm.toml`. Default: that file's `default`."""
    partition: Line | None = None
    """Partition to queue in."""
    account: Line | None = None
    """Account that is charged."""
    qos: Line | None = None
    """Quality of service."""
    reservation: Line | None = None
    """Reservation to run in."""
    constraint: Line | None = None
    """Node features, for example `h100&ib`."""
    comment: Line | None = None
    """Free text that the accounting keeps."""
    dependency: Line | None = None
    """Wait for other jobs, for example `afterok:1234`."""
    nodes: PositiveInt = 1
    """Nodes of one run (the most, where `min_nodes` is set)."""
    min_nodes: PositiveInt | None = None
    """Start or continue on as few nodes as this; none: always exactly `nodes`."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs of one node; 0: a CPU job."""
    gpu_type: Line | None = None
    """GPU type as the cluster names it, for example `h100`."""
    processes_per_node: PositiveInt | None = None
    """Ranks on one node. Default: one a GPU, or one."""
    cpus_per_process: PositiveInt | None = None
    """CPU cores of one rank. Default: 8 for each of its GPUs; without GPUs the cluster's."""
    memory: Annotated[str, StringConstraints(pattern=r"^\d+[KMGT]?$")] | None = None
    """Memory of one node, for example `480G`; `0`: all of it. Default: the cluster's."""
    time: Annotated[Line, BeforeValidator(_time_text)] | None = None
    """Time limit as sbatch reads it: `90` (minutes), `04:00:00`, `2-12`. Default: the partition's.
    A run that needs longer is continued, see `continue_by`."""
    exclusive: bool = False
    """Share nodes with no other job."""
    exclude: tuple[Line, ...] = ()
    """Nodes never to use."""
    extra: tuple[Line, ...] = ()
    """More sbatch options, each as `--option=value`."""
    launch: Literal["srun", "torchrun"] = "srun"
    """Start ranks as one SLURM task each, or by one torchrun a node."""
    checkpoint_lead_s: int = Field(default=120, ge=10, le=65_535)
    """Seconds before the time limit at which ranks are told to write a checkpoint and stop."""
    continue_by: Literal["requeue", "submit", "none"] = "requeue"
    """After preemption, time limit or node failure: requeue the job, submit a new one that waits
    for its end (where requeueing is forbidden), or leave it."""
    max_restarts: int = Field(default=50, ge=0)
    """Most restarts of one run, for whatever reason, until it is submitted again by hand."""
    max_error_restarts: int = Field(default=1, ge=0)
    """Of those, restarts after ranks failed by themselves on healthy nodes, counted anew each time
    a run gets beyond the step at which it failed."""
    exclude_failed_nodes: bool = True
    """Keep a restart off nodes that failed."""
    max_parallel: PositiveInt | None = None
    """Most array tasks that run at once. With `continue_by = "submit"` tasks that go on wait until
    the whole array has had its turn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.time is not None and self.time_limit_s is None:
            raise ValueError(
                f'time = "{self.time}" is not a SLURM time: write minutes, "HH:MM:SS" or'
                ' "days-HH:MM:SS"'
            )
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ValueError(f"min_nodes={self.min_nodes} exceeds nodes={self.nodes}")
        limit = self.time_limit_s
        if limit is not None and limit <= self.checkpoint_lead_s:
            raise ValueError(
                f'time = "{self.time}" is not longer than checkpoint_lead_s='
                f"{self.checkpoint_lead_s}: ranks would be stopped as they start"
            )
        for option in self.extra:
            _check_extra(option)
        return self

    @property
    def num_processes_per_node(self) -> int:
        """Ranks on one node, resolved."""
        return self.processes_per_node or self.gpus_per_node or 1

    @property
    def num_cpus_per_process(self) -> int | None:
        """CPU cores of one rank, resolved; none: the cluster's default.

        With GPUs that default is one core in most places, on which a rank's loader, checkpoint
        writer and NCCL's proxies cannot work.
        """
        if self.cpus_per_process is not None or not self.gpus_per_node:
            return self.cpus_per_process
        return CPUS_PER_GPU * max(1, self.gpus_per_node // self.num_processes_per_node)

    @property
    def time_limit_s(self) -> int | None:
        """Time limit in seconds by sbatch's rules; none where it is not set (or not a time)."""
        match = _TIME.fullmatch(self.time or "")
        if match is None:
            return None
        parts = [int(part) for part in match["parts"].split(":")]
        if match["days"] is not None:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
            return int(match["days"]) * 86_400 + hours * 3600 + minutes * 60 + seconds
        if len(parts) == 3:
            return parts[0] * 3600 + parts[1] * 60 + parts[2]
        return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)


def _check_extra(option: str) -> None:
    match = re.fullmatch(r"--([a-z][a-z0-9-]*)(=.*)?", option)
    if match is None:
        raise ValueError(f'extra = "{option}": write each option as "--option=value"')
    # sbatch also reads the beginning of an option's name as the option.
    meant = sorted(own for own in OWN_OPTIONS if own.startswith(match[1]))
    if meant and match[1] != "gpus":  # an option of its own
        raise ValueError(f'extra = "{option}": moescale sets --{meant[0]} itself; use its own key')
