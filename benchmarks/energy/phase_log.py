"""What outlives a killed run: its totals so far, and when each phase began."""

import csv
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.energy.totals import Totals

TOTALS, PHASES = "energy.json", "phases.csv"
# Age at which the totals on disk are renewed; so much a kill can leave unmetered.
RENEW_S = 30.0


def read_totals(run_dir: Path) -> Totals | None:
    """Return the totals that an earlier start of this run left; none where there are none."""
    try:
        return Totals.from_state(json.loads((run_dir / TOTALS).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_totals(run_dir: Path, totals: Totals, *, closed: bool = False) -> None:
    """Renew the totals on disk; `closed` where this start ends in order.

    Renamed but not synced: a killed process loses nothing by that, and training waits for no disk.
    """
    temporary = run_dir / f".{TOTALS}.partial"
    temporary.write_text(json.dumps({**totals.to_state(), "closed": closed}), encoding="utf-8")
    temporary.replace(run_dir / TOTALS)


def taken_up(checkpoint: Totals, newest: Totals | None) -> Totals:
    """Return the totals from which a resumed run goes on.

    Training after the checkpoint is done again: its joules move to the phase `redone`, so that
    energy per token is of what was kept, and the total leaves nothing out.
    """
    if newest is None:
        return checkpoint
    phases = {name: dict(total) for name, total in newest.phases.items()}
    kept = checkpoint.phases.get("train")
    train = phases.get("train")
    if train is not None:
        lost = {name: value - (kept or {}).get(name, 0.0) for name, value in train.items()}
        if lost["joules"] > 0 or lost["seconds"] > 0:
            redone = phases.setdefault("redone", dict.fromkeys(lost, 0.0))
            phases["redone"] = {name: redone[name] + lost[name] for name in lost}
            phases["train"] = {name: train[name] - lost[name] for name in lost}
    reasons = list(dict.fromkeys([*checkpoint.reasons, *newest.reasons]))
    return replace(newest, phases=phases, reasons=reasons)


class PhaseLog:
    """`phases.csv`: wall-clock times at which phases began, for meters that are read afterwards.

    A row `start,N` says that a start went on from a checkpoint written after N phase rows: what
    was trained after them was done again.
    """

    def __init__(self, run_dir: Path, kept: int) -> None:
        """Note a start that goes on after `kept` phase rows."""
        self._path = run_dir / PHASES
        earlier = read_phases(run_dir)
        self.num_rows = sum(row.event == "phase" for row in earlier)
        if not self._path.exists():
            self._path.write_text("unix_s,event,value\n", encoding="utf-8")
        self._append("start", str(kept))

    def begin(self, phase: str) -> None:
        """Note that a phase begins now."""
        self.num_rows += 1
        self._append("phase", phase)

    def end(self) -> None:
        """Note that this start ends now."""
        self._append("end", "")

    def _append(self, event: str, value: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{time.time():.3f},{event},{value}\n")


@dataclass(frozen=True)
class PhaseRow:
    """One row of `phases.csv`."""

    unix_s: float
    event: str
    value: str


def read_phases(run_dir: Path) -> list[PhaseRow]:
    """Return the rows of `phases.csv`; a torn last one is passed over."""
    try:
        text = (run_dir / PHASES).read_text(encoding="utf-8")
    except OSError:
        return []
    rows = []
    for row in csv.DictReader(text.splitlines()):
        try:
            rows.append(PhaseRow(float(row["unix_s"]), row["event"], row["value"] or ""))
        except (KeyError, TypeError, ValueError):
            break
    return rows


@dataclass(frozen=True)
class Stretch:
    """A time in which a run was in one phase, Unix s; `redone` is training that was not kept."""

    phase: str
    begin_s: float
    end_s: float


def stretches(rows: list[PhaseRow]) -> tuple[list[Stretch], int]:
    """Return the phases' stretches, and how many starts ended without a word (killed).

    A killed start's last stretch has no known end and is left out.
    """
    found: list[tuple[int, Stretch]] = []
    killed, number = 0, 0
    open_at: tuple[str, float] | None = None
    for row in rows:
        if row.event == "start":
            killed += open_at is not None
            kept = int(row.value or 0)
            found = [(n, _redone(s) if n > kept else s) for n, s in found]
            open_at = None
            continue
        if open_at is not None:
            found.append((number, Stretch(open_at[0], open_at[1], row.unix_s)))
        number += row.event == "phase"
        open_at = (row.value, row.unix_s) if row.event == "phase" else None
    return [stretch for _, stretch in found], killed + (open_at is not None)


def _redone(stretch: Stretch) -> Stretch:
    is_training = stretch.phase == "train"
    return Stretch("redone", stretch.begin_s, stretch.end_s) if is_training else stretch


def state_with_rows(totals: Totals, log: PhaseLog | None) -> Mapping[str, Any]:
    """Return what a checkpoint keeps: totals, and the phase rows they cover."""
    return {**totals.to_state(), "phase_rows": log.num_rows if log else 0}
