"""Logs of ranks: errors first, then one rank's log, followed while it grows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slurm.cluster.submission_folder import Attempt, Submission
from slurm.errors import JobError

ERROR_SIGNS = ("Traceback (most recent call last)", "moe: ", "Error: ")
"""Text that marks the beginning of what went wrong."""
EXCERPT_LINES = 30


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """One rank's failure."""

    rank: int
    exit_code: int | None
    """Its exit code; none where it did not live to leave one."""
    log: str
    text: str
    """The last error in its log."""


def choose_attempt(submission: Submission, index: int, number: int | None = None) -> Attempt:
    """Return a task's newest attempt, or the one that is asked for.

    Raises:
        JobError: There is no such attempt, or none yet.
    """
    attempts = submission.attempts(index)
    chosen = [one for one in attempts if number in {None, one.number}]
    if not chosen:
        there = f"1 to {attempts[-1].number}" if attempts else "none: it has not started yet"
        raise JobError(f"{submission.path.name} task {index}: no such attempt (there: {there})")
    return chosen[-1]


def batch_log(submission: Submission, attempt: Attempt) -> Path:
    """Return the batch shell's log, which all attempts of one job share."""
    return submission.path / "logs" / f"{attempt.job}.log"


def rank_log(attempt: Attempt, rank: int) -> Path:
    """Return one rank's log.

    Raises:
        JobError: The rank has none; names those that have.
    """
    path = attempt.path / f"rank-{rank}.log"
    if not path.exists():
        there = ", ".join(str(number) for number in ranks(attempt)) or "none yet"
        raise JobError(f"attempt {attempt.number}: no log of rank {rank} (there: {there})")
    return path


def ranks(attempt: Attempt) -> list[int]:
    """Return the ranks that have a log."""
    numbers = (path.stem.removeprefix("rank-") for path in attempt.path.glob("rank-*.log"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def rank_errors(attempt: Attempt) -> list[RankFailure]:
    """Return what failed, the rank that failed first before the others.

    A rank that was killed leaves no exit code: where none did and the attempt did not end well,
    every rank with an error in its log counts.
    """
    exits = sorted(attempt.path.glob("exit-*"), key=lambda path: path.stat().st_mtime_ns)
    names = {path: path.name.removeprefix("exit-") for path in exits}
    codes = {int(name): _exit_code(path) for path, name in names.items() if name.isdecimal()}
    errors = [_rank_error(attempt, rank, code) for rank, code in codes.items()]
    if not errors and attempt.outcome in {None, "error", "node_failure"}:
        silent = (_rank_error(attempt, rank, None) for rank in ranks(attempt))
        errors = [error for error in silent if error.text]
    return errors


def _exit_code(path: Path) -> int | None:
    """Return what a rank left; none where a full disk kept it from that."""
    text = path.read_text(errors="replace").strip()
    return int(text) if text.isdecimal() else None


def _rank_error(attempt: Attempt, rank: int, exit_code: int | None) -> RankFailure:
    path = attempt.path / f"rank-{rank}.log"
    return RankFailure(rank=rank, exit_code=exit_code, log=str(path), text=last_error(path))


def last_error(path: Path) -> str:
    """Return the end of a log from its last error on; empty where nothing looks like one."""
    lines = tail(path, 400)
    for start in range(len(lines) - 1, -1, -1):
        if any(sign in lines[start] for sign in ERROR_SIGNS):
            # A traceback ends in the error that it leads to: show it from its own beginning.
            first = next(
                (i for i in range(start, -1, -1) if lines[i].startswith("Traceback")), start
            )
            return "\n".join(lines[first:][-EXCERPT_LINES:])
    return ""


def tail(path: Path, count: int) -> list[str]:
    """Return the last lines of a file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 400 * count))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def follow(
    paths: Callable[[], Path | None],
    is_over: Callable[[], bool],
    *,
    interval_s: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield a log's text as it grows; where `paths` names another file, go on with that one."""
    current: Path | None = None
    offset = 0
    while True:
        over = is_over()  # asked first: what was written before the end is still read
        path = paths()
        if path != current:
            current, offset = path, 0
        if current is not None and current.exists():
            with current.open("rb") as file:
                file.seek(offset)
                data = file.read()
            offset += len(data)
            if data:
                yield data.decode(errors="replace")
        if over:
            return
        sleep(interval_s)
