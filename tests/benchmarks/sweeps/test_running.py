"""What a sweep starts: what is missing, and nothing else."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from benchmarks.sweeps import running
from benchmarks.sweeps.expand import expand
from benchmarks.sweeps.folder import open_folder
from benchmarks.sweeps.processes import Task
from benchmarks.sweeps.shared_faults import check_stores
from benchmarks.sweeps.speed import UnknownSpeed
from data.errors import DataError
from moe.config.experiment import load_experiment
from moe.cost.ledger import ledger
from tests.support.sweep_designs import make_design
from tests.support.synthetic_runs import make_run


def test_only_what_is_missing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = make_design(tmp_path, "[axes]\nseeds = [0, 1, 2, 3]")
    expansion = expand(design, UnknownSpeed())
    points = [one.point for one in expansion.points]
    costs = ledger(points[0].experiment.model, 32).as_json()
    started: list[Task] = []

    def run_tasks(
        tasks: Iterable[Task],
        jobs: int,
        environment: Mapping[str, str],
        ended: Callable[[Task, int], None],
    ) -> None:
        """The first run finishes, the second fails, a signal comes before the third."""
        assert (jobs, environment["OMP_NUM_THREADS"]) == (8, "2")
        assert "RANK" not in environment
        started.extend(tasks)
        record = Path(started[0].command[4], "record.json")
        record.write_text(record.read_text().replace('"stopped"', '"finished"'))
        ended(started[0], 0)
        started[1].log.write_text("moe: no such store\n")
        ended(started[1], 2)

    monkeypatch.setattr(running, "run_tasks", run_tasks)
    monkeypatch.setattr(running, "check_stores", list)  # there is no store
    monkeypatch.setattr(running, "available_cores", lambda: 16)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    lines: list[str] = []
    with open_folder(tmp_path / "sweep", design, points) as folder:
        for status, point in zip(("finished", "stopped"), points, strict=False):
            changes = {"status": status, "ledger": costs}
            make_run(folder.run_dir(point), sparse=True, changes=changes)
        outcome = running.run_missing(folder, expansion, 8, lines.append)
    assert [task.name for task in started] == [point.run_name for point in points[1:]]
    for task in started:
        assert task.command[1:3] == ("-m", "benchmarks.launch.training")
        assert load_experiment(Path(task.command[3])).content_hash in task.name
        assert task.command[5:] == ("1", "")  # resume, from the newest checkpoint
    statuses = [row["status"] for row in outcome.rows]
    assert statuses == ["finished", "finished", "failed", "missing"]
    assert lines[0] == "1 of 4 runs are finished, 3 to run"
    assert lines[-1] == f"{started[1].name}: failed: no such store (2 of 4 finished)"
    kept = pyarrow.parquet.read_table(folder.results).to_pylist()
    assert [row["status"] for row in kept] == statuses


def test_a_store_that_no_run_can_read_is_found_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expansion = expand(make_design(tmp_path, "[axes]\nseeds = [0, 1]"), UnknownSpeed())
    started: list[Task] = []
    monkeypatch.setattr(running, "run_tasks", lambda tasks, *_: started.extend(tasks))
    points = [one.point for one in expansion.points]
    with (
        open_folder(tmp_path / "sweep", expansion.design, points) as folder,
        pytest.raises(DataError, match="store"),
    ):
        running.run_missing(folder, expansion, 1, lambda _: None)
    assert not started


@pytest.mark.parametrize(
    ("section", "change", "reason"),
    [
        ("model", {"vocab_size": 16}, "vocab"),
        ("train", {"seq_len": 10**6}, "sequence"),
        ("data", {"store": Path("none")}, "none"),
    ],
)
def test_what_feeds_no_run_is_refused_and_what_feeds_some_is_theirs(
    tmp_path: Path, store: Path, section: str, change: dict[str, Any], reason: str
) -> None:
    base = make_design(tmp_path, "").base
    good = base.model_copy(update={"data": base.data.model_copy(update={"store": store})})
    part = getattr(good, section).model_copy(update=change)
    bad = good.model_copy(update={section: part})
    check_stores([good, bad, good])
    with pytest.raises(DataError, match=reason):
        check_stores([bad, bad])
