"""What jobs used: the cluster's accounting beside the run's own meter, the difference shown."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from moe.runs.progress import RunProgress, read_progress
from slurm.cluster.client import AccountingEntry, Client
from slurm.cluster.submission_folder import Submission
from slurm.cluster.submit import local_cluster
from slurm.errors import SlurmError
from slurm.job.task import Task

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one task used over all its starts; none means not metered or not known."""

    name: str
    jobs: tuple[str, ...]
    """Ids, oldest first."""
    starts: int
    states: tuple[str, ...]
    """How each start ended, oldest first: sacct's words, or the attempts' outcomes."""
    elapsed_s: int | None
    """Wall time on nodes, s; none where a start was killed before it could note its end."""
    cluster_energy_joules: float | None
    """Energy of its nodes by sacct while ranks ran, J."""
    own_energy_joules: float | None
    """Energy by the run's own meter, J."""
    own_kind: str | None
    own_boundary: str | None

    @property
    def discrepancy(self) -> float | None:
        """Return `cluster / own - 1`. The boundaries differ (node against device), so not 0."""
        if not self.cluster_energy_joules or not self.own_energy_joules:
            return None
        return self.cluster_energy_joules / self.own_energy_joules - 1

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self.__dict__, "discrepancy": self.discrepancy}


def usages(
    submission: Submission, client: Client, report: Callable[[str], object] = lambda _: None
) -> tuple[str, list[Usage]]:
    """Return where the figures come from (`sacct` or `attempts`), and every started task's use.

    Where the accounting is disabled or does not answer, or some jobs are another cluster's, time
    and ends come from what the batch shells wrote; `report` is told why.
    """
    here = local_cluster([submission], client)
    entries = None
    if all(job.is_of(here) for job in submission.recorded_jobs()):
        try:
            entries = client.accounting({job for job, _ in submission.submitted_jobs()})
        except SlurmError as error:
            report(f"{error}; time and ends as the batch shells wrote them, no energy of nodes")
    else:
        report(
            f"some jobs are not of this cluster ({here}): time and ends as the batch shells wrote"
            " them, no energy of nodes"
        )
    if entries is None:
        from_shells = [_from_attempts(submission, task) for task in submission.tasks]
        return "attempts", [usage for usage in from_shells if usage.starts]
    by_job: defaultdict[str, list[AccountingEntry]] = defaultdict(list)
    for entry in entries:
        by_job[entry.job].append(entry)
    from_sacct = [_from_sacct(submission, task, by_job) for task in submission.tasks]
    return "sacct", [usage for usage in from_sacct if usage.starts]


def _from_sacct(
    submission: Submission, task: Task, by_job: dict[str, list[AccountingEntry]]
) -> Usage:
    jobs = submission.job_ids(task.index)
    entries = [entry for job in jobs for entry in by_job.get(job, []) if entry.nodes]
    return _usage(
        submission,
        task,
        states=tuple(entry.state for entry in entries),
        elapsed_s=_known_sum(entry.elapsed_s for entry in entries),
        joules=_known_sum(entry.energy_joules for entry in entries if entry.has_steps),
    )


def _known_sum(values: Iterable[Number | None]) -> Number | None:
    """Return the sum; none where a value is not known, or there is none."""
    known = list(values)
    if not known or None in known:
        return None
    return sum(value for value in known if value is not None)


def _from_attempts(submission: Submission, task: Task) -> Usage:
    attempts = submission.attempts(task.index)
    times = [one.ended_s - one.began_s for one in attempts if one.ended_s is not None]
    return _usage(
        submission,
        task,
        states=tuple(one.outcome or "unknown" for one in attempts),
        elapsed_s=sum(times) if len(times) == len(attempts) else None,
        joules=None,
    )


def _usage(
    submission: Submission,
    task: Task,
    *,
    states: tuple[str, ...],
    elapsed_s: int | None,
    joules: float | None,
) -> Usage:
    progress = read_progress(Path(task.run_dir)) if task.run_dir else RunProgress()
    return Usage(
        name=task.name,
        jobs=tuple(submission.job_ids(task.index)),
        starts=len(states),
        states=states,
        elapsed_s=elapsed_s,
        cluster_energy_joules=joules,
        own_energy_joules=progress.energy_joules,
        own_kind=progress.energy_kind,
        own_boundary=progress.energy_boundary,
    )
