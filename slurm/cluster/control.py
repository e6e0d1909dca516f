"""Cancel and requeue submitted tasks."""

from collections.abc import Iterable

from slurm.cluster.client import Client
from slurm.cluster.submission_folder import Submission, submission_lock
from slurm.cluster.submit import (
    ENDED,
    is_finished,
    record_orphan_jobs,
    reset_restart_count,
    submit_tasks,
)
from slurm.errors import JobError
from slurm.job.task import Task


def cancel_tasks(submission: Submission, only: int | None, client: Client) -> list[str]:
    """Cancel what is in the queue, and mark it so that no batch shell continues it; returns ids.

    Raises:
        JobError: There is no such task.
    """
    ids = []
    active = _active_ids(submission, client)
    for task in _tasks(submission, only):
        if job := active.get(task.index):
            folder = submission.task_dir(task.index)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cancelled").touch()
            ids.append(job)
    if ids:
        # A whole array by its one id: SLURM cancels a thousand tasks at once.
        client.cancel(ids if only is not None else sorted({job.partition("_")[0] for job in ids}))
    return ids


def requeue_tasks(submission: Submission, only: int | None, client: Client) -> dict[str, list[str]]:
    """Requeue running tasks, submit again those that ended unfinished; returns what was done.

    Their restarts count from 0.

    Raises:
        JobError: There is no such task.
    """
    with submission_lock(submission.path.parent):
        return _requeue(submission, only, client)


def _requeue(submission: Submission, only: int | None, client: Client) -> dict[str, list[str]]:
    record_orphan_jobs(submission, client)
    active = _active_ids(submission, client, state="RUNNING")
    waiting = _active_ids(submission, client)
    tasks = _tasks(submission, only)
    running = {task.index: active[task.index] for task in tasks if task.index in active}
    # Where the job may not be requeued, its batch shell submits the next one.
    by_shell = submission.details["slurm"].get("continue_by") == "submit"
    for index, job in running.items():
        reset_restart_count(submission, index)
        (client.signal_batch_shell if by_shell else client.requeue)(job)
    ended = [
        task for task in tasks if task.index not in waiting and not is_finished(task, submission)
    ]
    profile = submission.details.get("profile") or {}
    submitted = (
        [submit_tasks(submission, ended, client, profile.get("secrets", ()))] if ended else []
    )
    return {"requeued": list(running.values()), "submitted": submitted}


def _active_ids(submission: Submission, client: Client, state: str | None = None) -> dict[int, str]:
    """Return the id of each task that is in the queue (in one state), by task."""
    jobs = submission.submitted_jobs()
    queue = client.queue({job for job, _ in jobs})
    ids = {}
    for job, indices in jobs:
        for index in indices:
            identity = f"{job}_{index}" if submission.is_array else job
            entry = queue.get(identity)
            if entry and entry.state not in ENDED and state in {None, entry.state}:
                ids[index] = identity
    return ids


def _tasks(submission: Submission, only: int | None) -> Iterable[Task]:
    if only is None:
        return submission.tasks
    if only >= len(submission.tasks):
        raise JobError(
            f"{submission.path.name} has no task {only} (there: 0 to {len(submission.tasks) - 1})"
        )
    return (submission.tasks[only],)
