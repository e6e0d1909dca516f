"""A submission's folder: its files, and the jobs and attempts of its tasks.

    runs/slurm/<name>-<hash>/
        job.sh job.json commands      the script, the description, one line of arguments a task
        jobs                          one JSON line for each time it was submitted
        experiments/<run>.toml        experiments as they were at submission
        secrets                       0600, where the profile names some; until the run's end
        logs/                         the batch shell's output
        tasks/<index>/attempt-<n>/    `begin`, `end`, `rank-<r>.log` of every start

The batch shell writes `jobs` (when it submits its own continuation) and `tasks`.
"""

import fcntl
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data.storage.lock import FileLock, LocksUnsupportedError
from slurm.cluster.submission_files import (
    BeginFile,
    EndFile,
    JobFile,
    JobLine,
    read_file,
    read_if_whole,
)
from slurm.errors import JobError
from slurm.job.task import SUBMISSIONS, Task


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a task on nodes."""

    number: int
    """From 1."""
    path: Path
    job: str
    """The job's id, `123` or `123_4`."""
    restart: int
    """SLURM's own count of the job's restarts."""
    nodes: str
    began_s: int
    """Start, seconds since 1970."""
    ended_s: int | None
    """End; none while it runs, or when it was killed before it could say so."""
    outcome: str | None
    """`finished`, `time_limit`, `preempted`, `requeued`, `node_failure`, `error`, `rejected`,
    `cancelled`, `restart_cap`, `unknown` (SLURM ended it and did not say why), or none."""


FINAL_OUTCOMES = frozenset({"finished", "error", "rejected", "cancelled", "restart_cap"})
"""Outcomes after which nothing goes on by itself."""


@dataclass(frozen=True)
class RecordedJob:
    """A job of a submission."""

    job: str
    """Its id, without array index."""
    tasks: frozenset[int]
    cluster: str | None
    """Where it was submitted; none where that was not recorded."""

    def is_of(self, here: str | None) -> bool:
        """Return whether it may be a job of this cluster: ids of two clusters may be equal."""
        return None in {here, self.cluster} or self.cluster == here


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission as read from its folder."""

    path: Path
    name: str
    is_array: bool
    tasks: tuple[Task, ...]
    details: dict[str, Any]
    """Everything else in `job.json`."""

    @property
    def script(self) -> Path:
        """The batch script."""
        return self.path / "job.sh"

    def recorded_jobs(self) -> list[RecordedJob]:
        """Return every job of this submission, oldest first."""
        jobs = {}  # the batch shell and record_orphan_jobs may both have recorded one
        # A full disk may have cut a line short, with the next one directly after it.
        for text in re.findall(r"\{[^{}]*\}", _text(self.path / "jobs")):
            with suppress(ValidationError):
                line = JobLine.model_validate_json(text)
                tasks = parse_array(line.tasks, len(self.tasks))
                jobs[line.cluster, line.job] = RecordedJob(line.job, tasks, line.cluster or None)
        return list(jobs.values())

    def submitted_jobs(self, here: str | None = None) -> list[tuple[str, frozenset[int]]]:
        """Return jobs with their tasks, oldest first; those of cluster `here`, where it is known.

        Jobs of another cluster are never asked for by their number: here it is another job's.
        """
        return [(one.job, one.tasks) for one in self.recorded_jobs() if one.is_of(here)]

    def record_job(
        self, job: str, tasks: str, submitted_s: float, cluster: str | None = None
    ) -> None:
        """Record that tasks were submitted as `job`: one short line, under a lock."""
        row = {"job": job, "tasks": tasks, "submitted": int(submitted_s), "cluster": cluster}
        with (self.path / "jobs").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(row) + "\n")

    def task_dir(self, index: int) -> Path:
        """Return the folder in which the batch shell records a task's attempts."""
        return self.path / "tasks" / str(index)

    def job_ids(self, index: int, here: str | None = None) -> list[str]:
        """Return the ids under which the queue (of cluster `here`) knew a task, oldest first."""
        jobs = [job for job, tasks in self.submitted_jobs(here) if index in tasks]
        return [f"{job}_{index}" if self.is_array else job for job in jobs]

    def job_elsewhere(self, index: int, here: str | None) -> RecordedJob | None:
        """Return a task's newest job if it is another cluster's, and not known to be over."""
        if here is None:
            return None
        newest = [one for one in self.recorded_jobs() if index in one.tasks][-1:]
        if not newest or newest[0].is_of(here) or (self.task_dir(index) / "cancelled").exists():
            return None
        identity = f"{newest[0].job}_{index}" if self.is_array else newest[0].job
        last = self.attempts(index)[-1:]
        over = last and last[0].job == identity and last[0].outcome in FINAL_OUTCOMES
        return None if over else newest[0]

    def attempts(self, index: int) -> list[Attempt]:
        """Return a task's starts, oldest first."""
        begins = self.task_dir(index).glob("attempt-*/begin")
        attempts = [one for path in begins if (one := _attempt(path))]
        return sorted(attempts, key=lambda attempt: attempt.number)


def parse_array(text: str, count: int | None = None) -> frozenset[int]:
    """Read array indices, for example `0-3,7`; those below `count`."""
    indices: set[int] = set()
    for span in text.split(","):
        first, _, last = span.partition("-")
        end = int(last or first) + 1
        indices.update(range(int(first), end if count is None else min(end, count)))
    return frozenset(indices)


def describe(tasks: Sequence[Task], *, name: str, is_array: bool, **details: Any) -> dict[str, Any]:
    """Return the content of `job.json`."""
    return {
        "format": 1,
        "name": name,
        "array": is_array,
        **details,
        "tasks": [asdict(task) for task in tasks],
    }


def read_submission(path: Path) -> Submission:
    """Open a submission's folder.

    Raises:
        JobError: It is not one.
    """
    try:
        return _read(path)
    except OSError as error:
        raise JobError(f"{path}: no submission: job.json: {error.strerror}") from None


def _read(path: Path) -> Submission:
    try:
        file = read_file(path / "job.json", JobFile)
        tasks = file.all_tasks()
    except JobError as error:
        raise JobError(f"{path}: no submission: {error}") from None
    return Submission(
        path=path,
        name=file.name,
        is_array=file.array,
        tasks=tasks,
        details=file.model_dump(exclude={"name", "array", "tasks"}),
    )


def all_submissions(runs_dir: Path) -> list[Submission]:
    """Return every submission, oldest first; says of what is none that it is passed over."""
    dated = []
    for path in (runs_dir / SUBMISSIONS).glob("[!.]*/job.json"):
        try:
            dated.append((path.stat().st_mtime, _read(path.parent)))
        except FileNotFoundError:  # refused by the cluster, its folder is being removed
            continue
        except JobError as error:
            _pass_over(str(error))
        except OSError as error:
            _pass_over(f"{path}: {error.strerror}")
    return [submission for _, submission in sorted(dated, key=lambda entry: entry[0])]


@cache
def _pass_over(why: str) -> None:
    print(f"moe: {why}; passed over", file=sys.stderr)


@contextmanager
def submission_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of submissions: one command at a time submits from it.

    Raises:
        JobError: The file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock")
    except LocksUnsupportedError as error:
        raise JobError(
            f"{folder}: cannot lock it against other commands ({error.strerror}):"
            " choose a file system with locks with --runs-dir"
        ) from None
    with lock:
        yield


def find_submission(runs_dir: Path, name: str) -> Submission:
    """Return the submission that a job id, a folder, a name, or the start of one identifies.

    Raises:
        JobError: None matches, or several do.
    """
    if (Path(name) / "job.json").exists():
        return read_submission(Path(name).resolve())
    known = all_submissions(runs_dir)
    number = name.partition("_")[0]
    matches = (
        lambda one: any(job == number for job, _ in one.submitted_jobs()),
        lambda one: name == one.path.name,
        lambda one: name == one.name,
        lambda one: one.path.name.startswith(name),
    )
    # What is named exactly goes before what only begins so.
    found = next((some for match in matches if (some := list(filter(match, known)))), [])
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.path.name for one in (found or known)) or "none"
    problem = "means several submissions" if found else "is no submission"
    raise JobError(f"{name}: {problem} in {runs_dir / SUBMISSIONS} (there: {names})")


def _attempt(begin: Path) -> Attempt | None:
    number = begin.parent.name.removeprefix("attempt-")
    first = read_if_whole(begin, BeginFile)
    if first is None or not number.isdecimal():
        return None
    last = read_if_whole(begin.with_name("end"), EndFile) or EndFile()
    return Attempt(
        number=int(number),
        path=begin.parent,
        job=first.job,
        restart=first.restart,
        nodes=first.nodes,
        began_s=first.began,
        ended_s=last.ended,
        outcome=last.outcome,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except FileNotFoundError:
        return ""
