"""Output of the commands: tables, texts and JSON values."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from parallel.measurement.number_text import readable
from slurm.cluster.client import Client
from slurm.cluster.submission_folder import Attempt, Submission
from slurm.cluster.submit import ENDED, Receipt, local_cluster
from slurm.views.accounting import Usage
from slurm.views.logs import batch_log, choose_attempt, follow, rank_errors, rank_log, ranks, tail
from slurm.views.status import FAILED, SubmissionStatus, TaskStatus, counts

MAX_TASK_ROWS = 40
"""Rows of one table; of larger arrays those that need attention come first."""
PIPE_COLUMNS = 200
"""Width of tables where no terminal limits it."""


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Return what was submitted as JSON values."""
    return {
        "submission": str(receipt.submission),
        "job": receipt.job,
        "tasks": [{"name": name, "state": state} for name, state in receipt.states.items()],
    }


def receipt_text(receipt: Receipt) -> str:
    """Say in one line what was submitted and what was not."""
    states = list(receipt.states.values())
    parts = [f"{states.count(state)} {state}" for state in ("submitted", "queued", "finished")]
    summary = ", ".join(part for part in parts if not part.startswith("0 "))
    if receipt.job is None:
        return f"nothing to submit: {summary}"
    return f"job {receipt.job}: {summary}; {receipt.submission}"


def status_json(submissions: Sequence[SubmissionStatus]) -> dict[str, Any]:
    """Return the status of submissions as JSON values."""
    return {
        "submissions": [
            {
                "name": submission.name,
                "path": str(submission.path),
                "jobs": [job for job, _ in submission.submitted_jobs()],
                "counts": counts(statuses),
                "tasks": [status.to_json() for status in statuses],
            }
            for submission, statuses in submissions
        ]
    }


def status_tables(submissions: Sequence[SubmissionStatus]) -> Group:
    """Return the status of submissions: a table each, one line for several that are finished."""
    done = [one for one, statuses in submissions if set(counts(statuses)) == {"finished"}]
    brief = done if len(submissions) > 1 else []
    tables = [_status_table(*one) for one in submissions if one[0] not in brief]
    names = ", ".join(submission.path.name for submission in brief)
    return Group(*tables, *([Text(f"finished: {names}")] if brief else []))


def _status_table(submission: Submission, statuses: Sequence[TaskStatus]) -> Table:
    summary = ", ".join(f"{count} {state}" for state, count in counts(statuses).items())
    table = _table(f"{submission.path.name}: {summary}")
    table.add_column("job", no_wrap=True)
    table.add_column("task", overflow="fold")
    table.add_column("state", min_width=8)
    for column in ("starts", "step", "tokens/s", "loss", "time left", "limit in", "energy"):
        table.add_column(column, justify="right", no_wrap=True)
    order = {"running": 0} | dict.fromkeys(FAILED, 1)
    ranked = sorted(statuses, key=lambda status: (order.get(status.state, 2), status.index))
    for status in ranked[:MAX_TASK_ROWS]:
        table.add_row(*_status_cells(status))
    if len(ranked) > MAX_TASK_ROWS:
        table.caption = f"{len(ranked) - MAX_TASK_ROWS} more; --json has all"
    return table


def show_live(updates: Iterable[Sequence[SubmissionStatus]]) -> None:
    """Show each update in place of the one before; an interrupt ends it."""
    with suppress(KeyboardInterrupt), Live(console=console(), auto_refresh=False) as live:
        for submissions in updates:
            live.update(status_tables(submissions), refresh=True)


def logs_json(
    submission: Submission, task: int, attempt: int | None, rank: int, lines: int
) -> dict[str, Any]:
    """Return where a task's logs are, what failed, and the end of one log, as JSON values."""
    chosen = choose_attempt(submission, task, attempt)
    return {
        "attempt": chosen.number,
        "job": chosen.job,
        "outcome": chosen.outcome,
        "batch_log": str(batch_log(submission, chosen)),
        "rank_logs": {str(one): str(rank_log(chosen, one)) for one in ranks(chosen)},
        "errors": [asdict(error) for error in rank_errors(chosen)],
        "rank": rank,
        "lines": tail(_chosen_log(submission, chosen, rank), lines),
    }


def logs_text(submission: Submission, task: int, attempt: int | None, rank: int, lines: int) -> str:
    """Return errors, the rank that failed first before the others, then the end of one log."""
    chosen = choose_attempt(submission, task, attempt)
    parts = []
    for error in rank_errors(chosen):
        ended = "" if error.exit_code is None else f", exit code {error.exit_code}"
        parts += [f"== error of rank {error.rank}{ended}: {error.log}", error.text]
    path = _chosen_log(submission, chosen, rank)
    whose = f"rank {rank}" if ranks(chosen) else "no rank has written yet; batch shell"
    parts += [f"== {whose}, attempt {chosen.number}: {path}", *tail(path, lines)]
    return "\n".join(parts)


def follow_log(submission: Submission, task: int, rank: int, client: Client) -> Iterator[str]:
    """Yield one rank's log as it grows, from start to start, until the task has ended."""

    def newest() -> Path | None:
        attempts = submission.attempts(task)
        return attempts[-1].path / f"rank-{rank}.log" if attempts else None

    return follow(newest, lambda: not _is_active(submission, client, task))


def usage_table(source: str, usages: Sequence[Usage]) -> Table:
    """Return what tasks used as a table."""
    table = _table(f"source: {source}")
    table.add_column("task", overflow="fold")
    table.add_column("ends")
    columns = ("starts", "elapsed", "energy by sacct", "energy by the run", "sacct against run")
    for column in columns:
        table.add_column(column, justify="right")
    for usage in usages:
        about = ", ".join(filter(None, (usage.own_kind, usage.own_boundary)))
        own = energy_text(usage.own_energy_joules)
        table.add_row(
            usage.name,
            ", ".join(usage.states),
            str(usage.starts),
            duration_text(usage.elapsed_s),
            energy_text(usage.cluster_energy_joules),
            f"{own} ({about})" if about and usage.own_energy_joules is not None else own,
            "-" if usage.discrepancy is None else f"{usage.discrepancy:+.1%}",
        )
    return table


def console() -> Console:
    """Return the console for tables; a pipe is wide."""
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def duration_text(duration_s: float | None) -> str:
    """Write seconds as `1-02:03:04`; `-` where not known."""
    if duration_s is None:
        return "-"
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"


def energy_text(energy_joules: float | None) -> str:
    """Write joules with a fitting prefix; `-` where not metered."""
    return "-" if energy_joules is None else readable(energy_joules, "J")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))


def _status_cells(status: TaskStatus) -> list[str]:
    progress = status.progress
    steps = "-" if progress.step is None else f"{progress.step}/{status.steps or '?'}"
    why = f" ({status.reason})" if status.reason else ""
    return [
        status.job or "-",
        status.name,
        status.state + why,
        str(status.attempts),
        steps,
        "-" if progress.tokens_per_s is None else f"{progress.tokens_per_s:,.0f}",
        "-" if progress.loss is None else f"{progress.loss:.4f}",
        duration_text(status.time_left_s),
        duration_text(status.limit_left_s),
        energy_text(progress.energy_joules),
    ]


def _is_active(submission: Submission, client: Client, task: int) -> bool:
    """Return whether a task is in the queue."""
    here = local_cluster([submission], client)
    queue = client.queue({job for job, _ in submission.submitted_jobs(here)})
    ids = set(submission.job_ids(task, here))
    return any(entry.state not in ENDED and entry.job in ids for entry in queue.values())


def _chosen_log(submission: Submission, attempt: Attempt, rank: int) -> Path:
    """Return one rank's log, or the batch shell's where no rank has written yet."""
    return rank_log(attempt, rank) if ranks(attempt) else batch_log(submission, attempt)
