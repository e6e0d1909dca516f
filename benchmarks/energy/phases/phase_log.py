"""What survives a killed run: its totals so far, and when each phase began."""

import csv
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.energy.phases.totals import Totals
from benchmarks.errors import BenchmarkError
from data.storage.atomic import atomic_file
from data.storage.bounded_json import read_json
from data.storage.regular_file import append_regular, read_regular

TOTALS, PHASES = "energy.json", "phases.csv"
MAX_PHASES_BYTES = 1 << 28
MAX_UNIX_S = 253_402_300_800.0
"""The year 10000, which `datetime` does not reach."""
# Totals on disk are rewritten when older than this: the most that a kill leaves unmetered.
RENEW_S = 30.0


def read_totals(run_dir: Path) -> Totals | None:
    """Return the totals that an earlier start of this run left; `None` where none can be read."""
    path = run_dir / TOTALS
    try:
        return Totals.from_state(read_json(path, BenchmarkError, follow_link=False), str(path))
    except (FileNotFoundError, BenchmarkError):
        return None


def write_totals(run_dir: Path, totals: Totals, *, closed: bool = False) -> None:
    """Write the totals to disk; `closed` at the orderly end of a start.

    Renamed but not synced: a killed process loses nothing by that, and training waits for no disk.
    """
    with atomic_file(run_dir / TOTALS, sync=False) as file:
        file.write(json.dumps({**totals.to_state(), "closed": closed}).encode())


def resume_totals(checkpoint: Totals, newest: Totals | None) -> Totals:
    """Return the totals from which a resumed run continues.

    Training after the checkpoint is repeated: its joules move to the phase `redone`, so that
    energy per token counts retained work only, and the total leaves nothing out.
    """
    if newest is None:
        return checkpoint
    phases = {name: dict(total) for name, total in newest.phases.items()}
    retained = checkpoint.phases.get("train") or {}
    train = phases.get("train")
    if train is not None:
        lost = {name: value - retained.get(name, 0.0) for name, value in train.items()}
        if lost["joules"] > 0 or lost["seconds"] > 0:
            redone = phases.setdefault("redone", dict.fromkeys(lost, 0.0))
            phases["redone"] = {name: redone[name] + lost[name] for name in lost}
            phases["train"] = {name: train[name] - lost[name] for name in lost}
    reasons = list(dict.fromkeys([*checkpoint.reasons, *newest.reasons]))
    return replace(newest, phases=phases, reasons=reasons)


class PhaseLog:
    """`phases.csv`: wall-clock times at which phases began, for meters that are read afterwards.

    A row `start,N` means that a start resumed from a checkpoint written after N phase rows: the
    training logged after them was repeated.
    """

    def __init__(self, run_dir: Path, num_retained: int) -> None:
        """Log a start that resumes after `num_retained` phase rows.

        Raises:
            BenchmarkError: The file is a link or no regular file, or cannot be written.
        """
        self._path = run_dir / PHASES
        earlier = read_phases(run_dir)
        self.num_rows = sum(row.event == "phase" for row in earlier)
        try:
            self._append("start", str(num_retained))
        except OSError as error:
            fault = error.strerror or error
            raise BenchmarkError(
                f"{self._path}: {fault}: remove it, or choose another --run-dir"
            ) from None

    def begin(self, phase: str) -> None:
        """Log that a phase begins now."""
        self.num_rows += 1
        self._append("phase", phase)

    def end(self) -> None:
        """Log that this start ends now."""
        self._append("end", "")

    def _append(self, event: str, value: str) -> None:
        with append_regular(self._path) as file:
            heading = "" if file.tell() else "unix_s,event,value\n"
            file.write(f"{heading}{time.time():.3f},{event},{value}\n".encode())


@dataclass(frozen=True)
class PhaseRow:
    """One row of `phases.csv`."""

    unix_s: float
    event: str
    value: str


def read_phases(run_dir: Path) -> list[PhaseRow]:
    """Return the rows of `phases.csv`; an incomplete last one is skipped."""
    try:
        content = read_regular(run_dir / PHASES, MAX_PHASES_BYTES, follow_link=False)
    except OSError:
        return []
    rows = []
    try:
        for row in csv.DictReader(content.decode("utf-8", "replace").splitlines()):
            rows.append(_phase_row(row))
    except (KeyError, TypeError, ValueError, csv.Error):
        pass  # what comes after a damaged row cannot be placed in time
    return rows


def _phase_row(row: Mapping[str, Any]) -> PhaseRow:
    unix_s, event, value = float(row["unix_s"]), row["event"], row["value"] or ""
    if not 0 <= unix_s < MAX_UNIX_S or event not in {"start", "phase", "end"}:
        raise ValueError("no time, or no event")
    if event == "start":
        value = str(int(value or 0))
    return PhaseRow(unix_s, event, value)


@dataclass(frozen=True)
class PhaseInterval:
    """A period that a run spent in one phase, Unix s; `redone` is training that was repeated."""

    phase: str
    begin_s: float
    end_s: float


def phase_intervals(rows: list[PhaseRow]) -> tuple[list[PhaseInterval], int]:
    """Return the intervals in order, and how many starts were killed (ended without a row).

    A killed start's last interval has no known end and is left out.
    """
    intervals: list[tuple[int, PhaseInterval]] = []
    killed, number = 0, 0
    open_at: tuple[str, float] | None = None
    for row in rows:
        if row.event == "start":
            killed += open_at is not None
            retained = int(row.value or 0)
            intervals = [(n, _as_redone(i) if n > retained else i) for n, i in intervals]
            open_at = None
            continue
        if open_at is not None:
            intervals.append((number, PhaseInterval(open_at[0], open_at[1], row.unix_s)))
        number += row.event == "phase"
        open_at = (row.value, row.unix_s) if row.event == "phase" else None
    return [interval for _, interval in intervals], killed + (open_at is not None)


def _as_redone(interval: PhaseInterval) -> PhaseInterval:
    return replace(interval, phase="redone") if interval.phase == "train" else interval


def state_with_rows(totals: Totals, log: PhaseLog | None) -> Mapping[str, Any]:
    """Return what a checkpoint saves: totals, and the number of phase rows they cover."""
    return {**totals.to_state(), "phase_rows": log.num_rows if log else 0}
