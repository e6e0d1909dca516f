"""Status of submitted tasks: the queue's state, attempts on disk, the runs' own progress."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moe.runs.progress import RunProgress, read_progress
from slurm.cluster.client import Client, QueueEntry
from slurm.cluster.submission_folder import Attempt, Submission
from slurm.cluster.submit import ENDED, is_finished, local_cluster
from slurm.job.task import Task

FAILED = frozenset({"error", "rejected", "restart_cap", "killed", "unknown"})
"""States of tasks whose logs need a look."""


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """One task at one moment."""

    index: int
    name: str
    state: str
    """The queue's state in lower case (`pending`, `running`, ...); out of the queue the last
    attempt's outcome, `killed` where it could not write one, `lost` where there was no attempt,
    `elsewhere` where another cluster has it."""
    reason: str | None
    """Why it waits; of a `lost` one, how SLURM ended it; of one `elsewhere`, on which cluster."""
    job: str | None
    """The newest id, `123` or `123_4`."""
    nodes: str | None
    attempts: int
    """Starts so far."""
    steps: int | None
    """Steps the run is to take."""
    time_left_s: float | None
    """Time the run needs at its pace, s."""
    limit_left_s: int | None
    """Time until the job's time limit, s."""
    run_dir: str | None
    progress: RunProgress

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, the progress among the rest."""
        values = asdict(self)
        progress: dict[str, Any] = values.pop("progress")
        return values | progress


SubmissionStatus = tuple[Submission, list[TaskStatus]]
"""A submission and the status of its tasks."""


def watch_status(
    chosen: Callable[[], Sequence[Submission]],
    client: Client,
    interval_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[SubmissionStatus]]:
    """Yield the status of submissions repeatedly, until none of them is in the queue.

    The queue is asked once each time, whatever the number of submissions.
    """
    ends: dict[str, str | None] = {}
    while True:
        submissions = chosen()
        here = local_cluster(submissions, client)
        queue = client.queue({job for one in submissions for job, _ in one.submitted_jobs(here)})
        found = [(one, task_statuses(one, queue, here)) for one in submissions]
        yield _with_ends(found, client, ends)
        if all(entry.state in ENDED for entry in queue.values()):
            return
        sleep(interval_s)


def task_statuses(
    submission: Submission, queue: Mapping[str, QueueEntry], here: str | None = None
) -> list[TaskStatus]:
    """Return every task of a submission, as seen from cluster `here`."""
    ids: dict[int, list[str]] = {task.index: [] for task in submission.tasks}
    for job, indices in submission.submitted_jobs(here):
        for index in indices:
            ids[index].append(f"{job}_{index}" if submission.is_array else job)
    statuses = [_status(submission, task, ids[task.index], queue) for task in submission.tasks]
    if here is None:
        return statuses
    return [_seen_from(here, submission, status) for status in statuses]


def _seen_from(here: str, submission: Submission, status: TaskStatus) -> TaskStatus:
    job = submission.job_elsewhere(status.index, here)
    if job is None or status.state == "finished":
        return status
    identity = f"{job.job}_{status.index}" if submission.is_array else job.job
    return replace(status, state="elsewhere", reason=f"cluster {job.cluster}", job=identity)


def _with_ends(
    found: list[SubmissionStatus], client: Client, ends: dict[str, str | None]
) -> list[SubmissionStatus]:
    """Say of jobs whose batch shell never started, and which left the queue, how they ended.

    `ends` keeps what is known of them: the accounting is asked once for each.
    """
    lost = {
        status.job for _, statuses in found for status in statuses
        if status.state == "lost" and status.job
    }  # fmt: skip
    new = lost - set(ends)
    ends |= dict.fromkeys(new) | client.ends(new)
    return [
        (one, [replace(status, reason=ends[status.job] or status.reason)
               if status.job in lost else status for status in statuses])
        for one, statuses in found
    ]  # fmt: skip


def counts(statuses: Iterable[TaskStatus]) -> dict[str, int]:
    """Return how many tasks are in each state, the most frequent first."""
    return dict(Counter(status.state for status in statuses).most_common())


def _status(
    submission: Submission, task: Task, ids: list[str], queue: Mapping[str, QueueEntry]
) -> TaskStatus:
    entries = [queue[job] for job in ids if job in queue]
    active = next((entry for entry in reversed(entries) if entry.state not in ENDED), None)
    attempts = submission.attempts(task.index)
    progress = read_progress(Path(task.run_dir)) if task.run_dir else RunProgress()
    left = None
    if task.steps and progress.step is not None and progress.step_time_s is not None:
        left = (task.steps - progress.step) * progress.step_time_s
    state = active.state.lower() if active else _ended_state(submission, task, attempts, entries)
    reason = active.reason if active else None
    if state == "lost" and entries:
        reason = f"{entries[-1].state}, {entries[-1].reason}"
    return TaskStatus(
        index=task.index,
        name=task.name,
        state=state,
        reason=None if reason == "None" else reason,
        job=active.job if active else next(reversed(ids), None),
        nodes=(active.nodes or None) if active else None,
        attempts=len(attempts),
        steps=task.steps,
        time_left_s=left,
        limit_left_s=active.time_left_s if active else None,
        run_dir=task.run_dir,
        progress=progress,
    )


def _ended_state(
    submission: Submission, task: Task, attempts: list[Attempt], entries: list[QueueEntry]
) -> str:
    if is_finished(task, submission):
        return "finished"
    marked = (submission.task_dir(task.index) / "cancelled").exists()
    if marked or (entries and entries[-1].state == "CANCELLED"):
        return "cancelled"
    if not attempts:
        return "lost" if submission.submitted_jobs() else "not submitted"
    return attempts[-1].outcome or "killed"
