"""A submission's folder: its files, and the jobs and attempts of its tasks.

    runs/slurm/<name>-<hash>/
        job.sh job.json commands      the script, the description, one line of arguments a task
        jobs                          one JSON line for each time it was submitted
        experiments/<run>.toml        experiments as they were at submission
        secrets                       0600, only where the profile names some
        logs/                         the batch shell's output
        tasks/<index>/attempt-<n>/    `begin`, `end`, `rank-<r>.log` of every start

The batch shell writes `jobs` (when it submits its own continuation) and `tasks`.
"""

import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.storage.lock import FileLock, LocksUnsupportedError
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

    def submitted_jobs(self) -> list[tuple[str, frozenset[int]]]:
        """Return every job of this submission with its tasks, oldest first."""
        jobs = {}  # by id: the batch shell and record_orphan_jobs may both have recorded it
        # A full disk may have cut a line short, with the next one directly after it.
        for line in re.findall(r"\{[^{}]*\}", _text(self.path / "jobs")):
            with suppress(ValueError, KeyError):
                row = json.loads(line)
                jobs[str(row["job"])] = parse_array(row["tasks"])
        return list(jobs.items())

    def record_job(self, job: str, tasks: str, submitted_s: float) -> None:
        """Record that tasks were submitted as `job`: one short line, under a lock."""
        row = {"job": job, "tasks": tasks, "submitted": int(submitted_s)}
        with (self.path / "jobs").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(row) + "\n")

    def task_dir(self, index: int) -> Path:
        """Return the folder in which the batch shell records a task's attempts."""
        return self.path / "tasks" / str(index)

    def job_ids(self, index: int) -> list[str]:
        """Return the ids under which the queue knew a task, oldest first."""
        jobs = [job for job, tasks in self.submitted_jobs() if index in tasks]
        return [f"{job}_{index}" if self.is_array else job for job in jobs]

    def attempts(self, index: int) -> list[Attempt]:
        """Return a task's starts, oldest first."""
        begins = self.task_dir(index).glob("attempt-*/begin")
        attempts = [_attempt(path, first) for path in begins if (first := _values(path))]
        return sorted(attempts, key=lambda attempt: attempt.number)


def parse_array(text: str) -> frozenset[int]:
    """Read array indices, for example `0-3,7`."""
    indices: set[int] = set()
    for span in text.split(","):
        first, _, last = span.partition("-")
        indices.update(range(int(first), int(last or first) + 1))
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
    text = (path / "job.json").read_text(encoding="utf-8")
    try:
        values = json.loads(text)
    except ValueError as error:
        raise JobError(f"{path}: no submission: job.json: {error}") from None
    rows = values.pop("tasks")
    return Submission(
        path=path,
        name=values.pop("name"),
        is_array=values.pop("array"),
        tasks=tuple(Task(**{**row, "command": tuple(row["command"])}) for row in rows),
        details=values,
    )


def all_submissions(runs_dir: Path) -> list[Submission]:
    """Return every submission, oldest first."""
    dated = []
    for path in (runs_dir / SUBMISSIONS).glob("[!.]*/job.json"):
        with suppress(FileNotFoundError):  # refused by the cluster, its folder is being removed
            dated.append((path.stat().st_mtime, _read(path.parent)))
    return [submission for _, submission in sorted(dated, key=lambda entry: entry[0])]


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
    """Return the submission that a job id, a folder, or the start of a name identifies.

    Raises:
        JobError: None matches, or several do.
    """
    if (Path(name) / "job.json").exists():
        return read_submission(Path(name).resolve())
    known = all_submissions(runs_dir)
    number = name.partition("_")[0]
    for submission in known:
        if any(job == number for job, _ in submission.submitted_jobs()):
            return submission
    named = [one for one in known if name == one.name or one.path.name.startswith(name)]
    if len(named) == 1:
        return named[0]
    names = ", ".join(one.path.name for one in (named or known)) or "none"
    problem = "means several submissions" if named else "is no submission"
    raise JobError(f"{name}: {problem} in {runs_dir / SUBMISSIONS} (there: {names})")


def _attempt(begin: Path, first: dict[str, Any]) -> Attempt:
    last = _values(begin.with_name("end"))
    return Attempt(
        number=int(begin.parent.name.removeprefix("attempt-")),
        path=begin.parent,
        job=first["job"],
        restart=first["restart"],
        nodes=first["nodes"],
        began_s=first["began"],
        ended_s=last.get("ended"),
        outcome=last.get("outcome"),
    )


def _values(path: Path) -> dict[str, Any]:
    """Return what a mark of an attempt says; nothing where a full disk left it torn or empty."""
    try:
        values: dict[str, Any] = json.loads(_text(path))
    except ValueError:
        return {}
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
