"""Submit a plan's missing tasks to the cluster; a submission is complete or absent."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.storage.atomic import write_json
from moe.runs.progress import read_status
from slurm.cluster.client import Client
from slurm.cluster.secrets_file import remove_idle_secrets, secret_lines, write_secrets
from slurm.cluster.submission_folder import (
    Submission,
    all_submissions,
    describe,
    read_submission,
    submission_lock,
)
from slurm.errors import JobError, UnrecordedError
from slurm.job.batch_script import array_text, render, render_commands
from slurm.job.code_snapshot import CodeSnapshot
from slurm.job.plan import JobPlan
from slurm.job.task import Task

ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "PREEMPTED", "REVOKED", "SPECIAL_EXIT", "TIMEOUT"}
)  # fmt: skip
"""States of jobs that will not go on by themselves."""
TaskState = Literal["submitted", "queued", "finished"]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of each task."""

    submission: Path
    job: str | None
    """The new job's id; none where nothing was missing."""
    states: dict[str, TaskState]
    """By task name."""


def dry_run_on_cluster(plan: JobPlan, client: Client) -> str:
    """Ask the cluster whether and when a plan could run; returns its answer.

    Raises:
        JobError: It could never run.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.sh"
        script.write_text(render(plan.job), encoding="utf-8")
        return client.test(script)


def submit(
    plan: JobPlan,
    snapshot: CodeSnapshot,
    client: Client,
    environment: Mapping[str, str] = os.environ,
) -> Receipt:
    """Submit the tasks of a plan that are neither finished nor queued.

    Raises:
        JobError: A secret is missing, the array is too long, or the cluster refuses the job.
        SlurmError: The cluster does not answer.
        UnrecordedError: The job is queued, but the disk is full.
    """
    secrets = secret_lines(plan.job.profile.secrets, environment)
    with submission_lock(plan.job.job_dir.parent):
        return _submit(plan, snapshot, client, secrets)


def _submit(plan: JobPlan, snapshot: CodeSnapshot, client: Client, secrets: list[str]) -> Receipt:
    path = plan.job.job_dir
    earlier = read_submission(path) if (path / "job.json").exists() else None
    if earlier is not None:
        record_orphan_jobs(earlier, client)
    states = task_states(plan, client)
    missing = [task for task in plan.tasks if states[task.name] == "submitted"]
    if not missing:
        return Receipt(submission=path, job=None, states=states)
    if plan.job.is_array:
        _check_array_size(len(plan.tasks), client)
    submission = earlier or _write(plan, snapshot)
    for task in missing:
        reset_restart_count(submission, task.index)
    if secrets:
        write_secrets(path, secrets)
    try:
        job = submit_tasks(submission, missing, client, plan.job.profile.secrets)
    except UnrecordedError:
        raise
    except Exception:
        if earlier is None:
            with suppress(OSError):  # the cluster's refusal is the error to report
                _discard(path)
        raise
    return Receipt(submission=path, job=job, states=states)


def submit_tasks(
    submission: Submission, tasks: Iterable[Task], client: Client, secrets: Iterable[str] = ()
) -> str:
    """Submit some tasks of a submission that lies on disk; returns the job's id.

    Raises:
        UnrecordedError: The job is queued, but the disk is full.
    """
    indices = [task.index for task in tasks]
    here = client.cluster_name()
    known = [job for job, _ in submission.submitted_jobs(here)]
    options = []
    if submission.is_array and (submission.recorded_jobs() or len(indices) < len(submission.tasks)):
        limit = submission.details["slurm"].get("max_parallel")
        options = [f"--array={array_text(indices)}" + (f"%{limit}" if limit else "")]
    began_s = time.time()
    job = client.submit(submission.script, options=options, known_jobs=known, secrets=secrets)
    _record(submission, job, indices, began_s, here)
    return job


def record_orphan_jobs(submission: Submission, client: Client) -> None:
    """Record queued jobs whose command was ended, or whose disk was full, before it could."""
    here = local_cluster([submission], client)
    known = {job for job, _ in submission.submitted_jobs(here)}
    for job in sorted(client.jobs_of_script(submission.script) - known):
        if ids := client.queue([job]):
            indices = {int(one.partition("_")[2] or 0) for one in ids}
            _record(submission, job, indices, time.time(), client.cluster_name())


def _record(
    submission: Submission, job: str, indices: Iterable[int], began_s: float, here: str | None
) -> None:
    try:
        submission.record_job(job, array_text(indices), began_s, here)
    except OSError as error:
        raise UnrecordedError(
            f"job {job} is queued but could not be recorded in {submission.path / 'jobs'}"
            f" ({error.strerror}): make room and submit again, which records it, or scancel {job}"
        ) from None


def task_states(plan: JobPlan, client: Client) -> dict[str, TaskState]:
    """Return which tasks are finished, which any submission has queued, and which to submit.

    Raises:
        JobError: Another cluster may still have one of them.
    """
    states: dict[str, TaskState] = {}
    others = all_submissions(plan.job.runs_dir)
    here = local_cluster(others, client)
    _refuse_queued_elsewhere(plan, others, here)
    queue = client.queue({job for one in others for job, _ in one.submitted_jobs(here)})
    active = {job for job, entry in queue.items() if entry.state not in ENDED}
    remove_idle_secrets([one for one in others if one.path != plan.job.job_dir], active, here)
    queued = _queued_names(others, active, here)
    own = next((one for one in others if one.path == plan.job.job_dir), None)
    for task in plan.tasks:
        if is_finished(task, own):
            states[task.name] = "finished"
        else:
            is_queued = _key(task, plan.job.job_dir) in queued
            states[task.name] = "queued" if is_queued else "submitted"
    return states


def local_cluster(submissions: Iterable[Submission], client: Client) -> str | None:
    """Return this cluster's name; none where no submission has recorded any, or SLURM has none."""
    named = any(job.cluster for one in submissions for job in one.recorded_jobs())
    return client.cluster_name() if named else None


def is_finished(task: Task, submission: Submission | None) -> bool:
    """Return whether a task needs no more work: by the run's record, or the last attempt's end."""
    if task.run_dir is not None:
        return read_status(Path(task.run_dir)) == "finished"
    if submission is None:
        return False
    attempts = submission.attempts(task.index)
    return bool(attempts) and attempts[-1].outcome == "finished"


def _queued_names(
    submissions: Sequence[Submission], active: set[str], here: str | None
) -> set[str]:
    """Return what is in the queue: run directories, or `<submission>/<index>` of commands."""
    names = set()
    for one in submissions:
        for job, indices in one.submitted_jobs(here):
            for index in indices:
                if (f"{job}_{index}" if one.is_array else job) in active:
                    names.add(one.tasks[index].run_dir or f"{one.path}/{index}")
    return names


def _refuse_queued_elsewhere(
    plan: JobPlan, submissions: Iterable[Submission], here: str | None
) -> None:
    """Raise an error where another cluster may still train a run of the plan."""
    wanted = {_key(task, plan.job.job_dir): task.name for task in plan.tasks}
    for one in submissions:
        for task in one.tasks:
            name = wanted.get(_key(task, one.path))
            if name and (job := one.job_elsewhere(task.index, here)):
                raise JobError(
                    f"{name}: job {job.job} of cluster {job.cluster} has it, and this is cluster"
                    f" {here}: cancel it there first, or choose another --runs-dir"
                )


def _key(task: Task, submission: Path) -> str:
    return task.run_dir or f"{submission}/{task.index}"


def _check_array_size(count: int, client: Client) -> None:
    limit = client.max_array_size()
    if count > limit:
        raise JobError(
            f"{count} tasks exceed the cluster's MaxArraySize={limit}: submit them in parts"
        )


def _write(plan: JobPlan, snapshot: CodeSnapshot) -> Submission:
    """Write the submission's folder under a temporary name, then rename it."""
    path = plan.job.job_dir
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # left behind by an earlier removal that failed
        _discard(path)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=".partial-"))
    try:
        work.chmod(0o755)
        for folder in ("logs", "tasks", "experiments"):
            (work / folder).mkdir()
        for name, text in plan.experiments.items():
            (work / "experiments" / name).write_text(text, encoding="utf-8")
        (work / "commands").write_text(render_commands(plan.job), encoding="utf-8")
        (work / "job.sh").write_text(render(plan.job), encoding="utf-8")
        write_json(
            work / "job.json",
            describe(
                plan.tasks,
                name=plan.job.name,
                is_array=plan.job.is_array,
                content_hash=plan.content_hash,
                slurm=plan.job.config.model_dump(mode="json"),
                profile=plan.job.profile.model_dump(mode="json"),
                code={
                    "tree": snapshot.tree,
                    "commit": snapshot.commit,
                    "dirty": snapshot.dirty,
                },
            ),
        )
        work.rename(path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return read_submission(path)


def _discard(path: Path) -> None:
    """Rename a folder before removing it: a half-removed one must not look like a submission."""
    hidden = Path(tempfile.mkdtemp(dir=path.parent, prefix=".refused-"))
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def reset_restart_count(submission: Submission, index: int) -> None:
    """Count a task's restarts from 0 again; clear its failed nodes and its cancelled mark."""
    folder = submission.task_dir(index)
    if folder.exists():
        for mark in ("cancelled", "excluded", "ended"):
            (folder / mark).unlink(missing_ok=True)
        attempts = submission.attempts(index)
        (folder / "since").write_text(f"{attempts[-1].number if attempts else 0}\n")
