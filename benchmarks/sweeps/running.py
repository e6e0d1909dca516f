"""Runs what is missing of a sweep; a run that fails is kept with its reason, the others go on."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import benchmarks
from benchmarks.sweeps.expansion import Expansion
from benchmarks.sweeps.folder import SweepFolder
from benchmarks.sweeps.processes import Task, run_tasks
from benchmarks.sweeps.results import FAILED, FINISHED, MISSING, STOPPED, Row, row_of, write_results
from benchmarks.sweeps.shared_faults import check_stores
from data.build.worker_pool import available_cores
from data.errors import FailedError, StoppedError

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Of a group that this process may be in; the runs are in none."""
_NAMED = 5
"""Most failed runs that a message names."""


@dataclass(frozen=True)
class Outcome:
    """Rows of all runs."""

    folder: Path
    rows: tuple[Row, ...]

    def check(self) -> None:
        """Check that all runs finished.

        Raises:
            StoppedError: A signal stopped some, or all; says how many finished.
            FailedError: Runs failed; names them and their reasons.
        """
        statuses = [row["status"] for row in self.rows]
        if {STOPPED, MISSING} & set(statuses):
            raise StoppedError(
                f"stopped by a signal, {statuses.count(FINISHED)} of {len(statuses)} runs finished:"
                " the same command continues"
            )
        failed = [f"{row['run']}: {row['reason']}" for row in self.rows if row["status"] == FAILED]
        if failed:
            more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            raise FailedError(
                f"{len(failed)} of {len(self.rows)} runs failed (logs in {self.folder / 'logs'}):"
                f" {'; '.join(failed[:_NAMED])}{more}"
            )


def collect(folder: SweepFolder, expansion: Expansion) -> dict[str, Row]:
    """Write the table of what has run so far; returns its rows by run."""
    points = [one.point for one in expansion.points]
    rows = {point.run_name: row_of(folder, point) for point in points}
    write_results(folder.results, rows.values())
    return rows


def run_missing(
    folder: SweepFolder, expansion: Expansion, jobs: int, say: Callable[[str], None]
) -> Outcome:
    """Run all that is not finished, `jobs` at a time; the table grows with each run that ends.

    Raises:
        DataError: As `check_stores`.
    """
    rows = collect(folder, expansion)
    points = {one.point.run_name: one.point for one in expansion.points}
    missing = [name for name, row in rows.items() if row["status"] != FINISHED]
    check_stores(points[name].experiment for name in missing)
    say(f"{len(rows) - len(missing)} of {len(rows)} runs are finished, {len(missing)} to run")

    def task(name: str) -> Task:
        point = points[name]
        words = ("-m", "benchmarks.launch.training", str(folder.experiment(point)))
        command = (sys.executable, *words, str(folder.run_dir(point)), "1", "")
        return Task(name, command, folder.log(point))

    def ended(one: Task, code: int) -> None:
        row = rows[one.name] = row_of(folder, points[one.name], code)
        write_results(folder.results, rows.values())
        loss = row.get("loss")
        result = f"loss {loss:.4f}" if loss is not None else row["reason"] or f"exit code {code}"
        done = sum(each["status"] == FINISHED for each in rows.values())
        say(f"{one.name}: {row['status']}: {result} ({done} of {len(rows)} finished)")

    run_tasks(map(task, missing), jobs, _environment(jobs), ended)
    return Outcome(folder.path, tuple(rows.values()))


def _environment(jobs: int) -> dict[str, str]:
    """Return what the runs' processes need: this tree's code, and a share of the cores."""
    own = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    threads = max(1, available_cores() // jobs)
    tree = str(Path(benchmarks.__file__).resolve().parents[1])
    paths = dict.fromkeys([tree, *own.get("PYTHONPATH", "").split(os.pathsep)])
    python_path = os.pathsep.join(filter(None, paths))
    return {"OMP_NUM_THREADS": str(threads), **own, "PYTHONPATH": python_path}
