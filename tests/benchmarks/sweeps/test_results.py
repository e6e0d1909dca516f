"""The table of a sweep: one row a run, conventions explicit, read by `moe fit`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from benchmarks.laws.law_columns import law_points
from benchmarks.laws.registry import LAWS
from benchmarks.laws.run_points import points_from
from benchmarks.sweeps.expand import expand
from benchmarks.sweeps.folder import SweepFolder, open_folder
from benchmarks.sweeps.point import Point
from benchmarks.sweeps.results import row_of
from benchmarks.sweeps.running import Outcome, collect
from benchmarks.sweeps.speed import UnknownSpeed
from data.errors import FailedError, StoppedError
from moe.cost.ledger import ledger
from tests.support.sweep_designs import make_design
from tests.support.synthetic_runs import make_run

TEXT = "[axes]\nexperts = [1, 8]\nseeds = [0, 1]"


@contextmanager
def opened(tmp_path: Path) -> Iterator[tuple[SweepFolder, list[Point]]]:
    design = make_design(tmp_path, TEXT)
    points = [one.point for one in expand(design, UnknownSpeed()).points]
    with open_folder(tmp_path / "sweep", design, points) as folder:
        yield folder, points


def record(folder: SweepFolder, point: Point, **changes: Any) -> None:
    costs = ledger(point.experiment.model, point.experiment.train.seq_len).as_json()
    make_run(folder.run_dir(point), sparse=True, changes={"ledger": costs, **changes})


def test_rows_tell_how_far_each_run_got(tmp_path: Path) -> None:
    with opened(tmp_path) as (folder, points):
        done, failed, running, nothing = points
        record(folder, done, final_loss=3.25, training_flops=5e9)
        record(folder, failed, status="failed", failure="the disk\nis full", final_loss=None)
        record(folder, running, status="running", final_loss=None)
        rows = [row_of(folder, point) for point in points]
        assert [row["status"] for row in rows] == ["finished", "failed", "stopped", "missing"]
        assert [row["reason"] for row in rows] == [None, "the disk is full", None, None]
        assert (rows[0]["loss"], rows[0]["flops"], rows[0]["energy_kind"]) == (
            3.25,
            5e9,
            "modelled",
        )
        assert (rows[0]["experts"], rows[2]["experts"]) == (1, 8)
        assert (rows[0]["seed"], rows[1]["seed"]) == (0, 1)
        assert rows[0]["bits"] == 32
        assert "loss" not in rows[1]
        assert row_of(folder, running, 75)["status"] == "stopped"
        assert row_of(folder, running, -9)["reason"] == "killed by SIGKILL"
        assert row_of(folder, running, -40)["reason"] == "killed by signal 40"
        folder.log(nothing).write_text("some words\nmoe: no such store\n\n")
        ended = row_of(folder, nothing, 2)
        assert (ended["status"], ended["reason"]) == ("failed", "no such store")


def test_a_damaged_record_is_a_failed_run(tmp_path: Path) -> None:
    with opened(tmp_path) as (folder, points):
        record(folder, points[0])
        (folder.run_dir(points[0]) / "record.json").write_text("{")
        row = row_of(folder, points[0])
        assert row["status"] == "failed"
        assert "record.json" in row["reason"]


def test_the_table_states_conventions_and_is_points(tmp_path: Path) -> None:
    design = make_design(tmp_path, TEXT)
    expansion = expand(design, UnknownSpeed())
    points = [one.point for one in expansion.points]
    with open_folder(tmp_path / "sweep", design, points) as folder:
        for point, loss in zip(points[:3], (4.0, 3.9, 3.5), strict=True):
            record(folder, point, final_loss=loss)
        collect(folder, expansion)
    table = pyarrow.parquet.read_table(folder.results).to_pylist()
    assert [row["status"] for row in table] == ["finished"] * 3 + ["missing"]
    first = table[0]
    assert (first["embeddings"], first["granularity_definition"]) == ("in", "ffn")
    assert (first["loss_unit"], first["energy_joules"]) == ("nats", 900.0)
    assert first["energy_boundary"] == "CPU cores used by this run"
    assert "causal attention" in first["flop_convention"]
    assert json.loads(first["settings"]) == {"experts": 1, "seeds": 0}
    assert first["parameters"] - first["embedding_parameters"] == first["non_embedding_parameters"]
    assert table[3]["loss"] is None
    for path in (folder.path, folder.results):
        read = points_from([path])
        assert read.columns["loss"].tolist() == [4.0, 3.9, 3.5]
        assert read.left_out == 1
        brought = law_points(LAWS["abnar"], read)
        assert brought.columns["sparsity"].tolist() == [0, 0, 0.75]
        assert "1 runs did not finish and are left out" in brought.warnings


def test_the_end_names_what_failed(tmp_path: Path) -> None:
    rows = [
        {"run": "a", "status": "finished", "reason": None},
        {"run": "b", "status": "failed", "reason": "no store"},
    ]
    with pytest.raises(FailedError, match=r"1 of 2 runs failed .*: b: no store"):
        Outcome(tmp_path, tuple(rows)).check()
    with pytest.raises(StoppedError, match="1 of 2 runs finished: the same command continues"):
        Outcome(tmp_path, (*rows[:1], {"run": "c", "status": "stopped", "reason": None})).check()
    Outcome(tmp_path, tuple(rows[:1])).check()
