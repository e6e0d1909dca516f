"""The file through which secrets reach the ranks: its owner's alone, there while runs need it."""

import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from slurm.cluster.submission_folder import Submission
from slurm.errors import JobError

SECRETS = "secrets"


def secret_lines(names: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Return the file's lines.

    Raises:
        JobError: One is not set.
    """
    lines = []
    for name in names:
        if name not in environment:
            raise JobError(
                f"secret {name} is not set in this shell: export it, or remove it from the"
                " profile's secrets"
            )
        lines.append(f"export {name}={shlex.quote(environment[name])}\n")
    return lines


def write_secrets(folder: Path, lines: Iterable[str]) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    temporary = folder / ".secrets.partial"
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / SECRETS)


def renew_secrets(submission: Submission, environment: Mapping[str, str]) -> None:
    """Write the file anew where the end of the run has removed it.

    Raises:
        JobError: A secret is not set in this shell.
    """
    names = submission.details["profile"].get("secrets", ())
    if names and not (submission.path / SECRETS).exists():
        write_secrets(submission.path, secret_lines(names, environment))


def remove_idle_secrets(
    submissions: Iterable[Submission], active_jobs: Iterable[str], here: str | None
) -> None:
    """Remove the file of every submission that has no job in the queue.

    The batch shell does so at the end of its run, unless it was killed or never started.
    """
    active = {job.partition("_")[0] for job in active_jobs}
    for one in submissions:
        jobs = one.recorded_jobs()
        # Of jobs of another cluster than `here` nothing is known.
        if jobs and all(job.is_of(here) and job.job not in active for job in jobs):
            with suppress(OSError):
                (one.path / SECRETS).unlink()
