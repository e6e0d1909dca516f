"""Cancel and requeue submitted tasks."""

import os
from collections.abc import Mapping, Sequence

from slurm.cluster.client import Client, QueueEntry
from slurm.cluster.secrets_file import remove_idle_secrets, renew_secrets
from slurm.cluster.submission_folder import Submission, submission_lock
from slurm.cluster.submit import (
    ENDED,
    is_finished,
    local_cluster,
    record_orphan_jobs,
    reset_restart_count,
    submit_tasks,
)
from slurm.errors import JobError
from slurm.job.task import Task


def cancel_tasks(submission: Submission, only: int | None, client: Client) -> list[str]:
    """Cancel what is in the queue, and mark it so that no batch shell continues it; returns ids.

    Raises:
        JobError: There is no such task, or another cluster has it.
    """
    ids = []
    tasks = _tasks(submission, only)
    _refuse_elsewhere(submission, tasks, client)
    active = _active(submission, client)
    for task in tasks:
        if entry := active.get(task.index):
            folder = submission.task_dir(task.index)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cancelled").touch()
            ids.append(entry.job)
    if ids:
        # A whole array by its one id: SLURM cancels a thousand tasks at once.
        client.cancel(ids if only is not None else sorted({job.partition("_")[0] for job in ids}))
    if len(ids) == len(active) and all(entry.state == "PENDING" for entry in active.values()):
        # No batch shell will.
        remove_idle_secrets([submission], (), local_cluster([submission], client))
    return ids


def requeue_tasks(
    submission: Submission,
    only: int | None,
    client: Client,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, list[str]]:
    """Requeue running tasks, submit again those that ended unfinished; returns what was done.

    Their restarts count from 0.

    Raises:
        JobError: There is no such task, another cluster has it, or a secret is not set here.
    """
    with submission_lock(submission.path.parent):
        return _requeue(submission, only, client, environment)


def _requeue(
    submission: Submission, only: int | None, client: Client, environment: Mapping[str, str]
) -> dict[str, list[str]]:
    tasks = _tasks(submission, only)
    _refuse_elsewhere(submission, tasks, client)
    record_orphan_jobs(submission, client)
    active = _active(submission, client)
    running = {
        task.index: active[task.index].job
        for task in tasks
        if task.index in active and active[task.index].state == "RUNNING"
    }
    # Where the job may not be requeued, its batch shell submits the next one.
    by_shell = submission.details["slurm"].get("continue_by") == "submit"
    for index, job in running.items():
        reset_restart_count(submission, index)
        (client.signal_batch_shell if by_shell else client.requeue)(job)
    ended = [
        task for task in tasks if task.index not in active and not is_finished(task, submission)
    ]
    submitted = []
    if ended:
        for task in ended:
            reset_restart_count(submission, task.index)
        renew_secrets(submission, environment)
        names = submission.details["profile"].get("secrets", ())
        submitted = [submit_tasks(submission, ended, client, names)]
    return {"requeued": list(running.values()), "submitted": submitted}


def _refuse_elsewhere(submission: Submission, tasks: Sequence[Task], client: Client) -> None:
    here = local_cluster([submission], client)
    for task in tasks:
        if job := submission.job_elsewhere(task.index, here):
            raise JobError(
                f"{task.name}: job {job.job} is of cluster {job.cluster}, and this is cluster"
                f" {here}: run the command there"
            )


def _active(submission: Submission, client: Client) -> dict[int, QueueEntry]:
    """Return what the queue says of each task that is in it, by task."""
    jobs = submission.submitted_jobs(local_cluster([submission], client))
    queue = client.queue({job for job, _ in jobs})
    active = {}
    for job, indices in jobs:
        for index in indices:
            entry = queue.get(f"{job}_{index}" if submission.is_array else job)
            if entry and entry.state not in ENDED:
                active[index] = entry
    return active


def _tasks(submission: Submission, only: int | None) -> Sequence[Task]:
    if only is None:
        return submission.tasks
    if only >= len(submission.tasks):
        raise JobError(
            f"{submission.path.name} has no task {only} (there: 0 to {len(submission.tasks) - 1})"
        )
    return (submission.tasks[only],)
