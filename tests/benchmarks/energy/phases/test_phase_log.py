"""Phase times on disk, read back as intervals."""

import os
from pathlib import Path

import pytest

from benchmarks.energy.phases.phase_log import (
    PhaseLog,
    PhaseRow,
    phase_intervals,
    read_phases,
    read_totals,
    write_totals,
)
from benchmarks.energy.phases.totals import Totals
from benchmarks.errors import BenchmarkError


def test_phases_after_the_checkpoint_are_redone() -> None:
    rows = [
        PhaseRow(0, "start", "0"),
        PhaseRow(0, "phase", "train"),
        PhaseRow(10, "phase", "checkpoint"),
        PhaseRow(11, "phase", "train"),
        PhaseRow(15, "phase", "evaluate"),
        PhaseRow(16, "phase", "train"),
        PhaseRow(18, "start", "2"),
        PhaseRow(18, "phase", "train"),
        PhaseRow(30, "end", ""),
    ]
    found, killed = phase_intervals(rows)
    assert killed == 1
    lengths = [(s.phase, s.end_s - s.begin_s) for s in found]
    assert lengths[:3] == [("train", 10), ("checkpoint", 1), ("redone", 4)]
    assert lengths[3:] == [("evaluate", 1), ("train", 12)]


def test_rows_of_two_starts_lie_in_one_file(tmp_path: Path) -> None:
    for retained in (0, 1):
        log = PhaseLog(tmp_path, retained)
        log.begin("train")
    assert log.num_rows == 2
    rows = [(row.event, row.value) for row in read_phases(tmp_path)]
    assert rows == [("start", "0"), ("phase", "train"), ("start", "1"), ("phase", "train")]


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder"])
def test_phases_are_written_to_no_other_file(tmp_path: Path, kind: str) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    if kind == "fifo":
        os.mkfifo(run / "phases.csv")
    elif kind == "folder":
        (run / "phases.csv").mkdir()
    else:
        (run / "phases.csv").symlink_to(outside)
        outside.write_text("mine") if kind == "link" else None
    with pytest.raises(BenchmarkError, match=r"phases.csv: .*remove it, or choose another --run-"):
        PhaseLog(run, 0)
    assert outside.exists() == (kind == "link")
    assert kind != "link" or outside.read_text() == "mine"


@pytest.mark.parametrize("name", ["energy.json", ".energy.json.partial"])
def test_totals_are_written_to_no_other_file(tmp_path: Path, name: str) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.write_text("mine")
    (run / name).symlink_to(outside)
    write_totals(run, Totals(starts=3), closed=True)
    newest = read_totals(run)
    assert newest is not None and newest.starts == 4  # with the one that reads
    assert outside.read_text() == "mine"
    assert {path.name for path in run.iterdir()} == {name, "energy.json"}  # none left over
