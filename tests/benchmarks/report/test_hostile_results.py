"""Result files and tables that somebody else made: one line names the file, or they are shown."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.bench.results import read_results
from benchmarks.comparison.seed_groups import group_runs
from benchmarks.errors import BenchmarkError
from benchmarks.footprint.footprint import read_runs_under
from benchmarks.footprint.start_time import read_hourly
from benchmarks.report.bench_results import bench_content, read_bench_files, step_splits
from benchmarks.report.content import report_content
from benchmarks.report.figures import report_figures
from benchmarks.report.figures_cost import pareto_figures
from benchmarks.report.tables import report_tables
from benchmarks.report.write import write_report
from data.errors import InputError
from tests.support.hostile_json import damaged, mutations, read_document, write_document
from tests.support.synthetic_runs import make_run, measurement

KEEPS_FOLDER = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RUN_FILES = ("record.json", "experiment.toml", "metrics.jsonl", "evaluations.jsonl",
             "expert_load.jsonl", "routing.jsonl", "routing_maps.json")  # fmt: skip
SPREAD = {"median": 0.5, "low": 0.4, "high": 0.6}
RECORD: dict[str, Any] = {
    "format": 1,
    "bench": "collectives",
    "case": {"operation": "all_reduce", "ranks": 2, "bytes": 4096},
    "conditions": {
        "hardware": {"name": "AMD EPYC", "ranks": 1},
        "packages": {"torch": "2.13.0"},
        "load_average": 0.2,
        "cores": 2,
        "commit": {"commit": "3e898e9aa0b1c2d3", "dirty": False},
    },
    "result": {"time_s": SPREAD, "bus_bytes_per_s": 1e9},
}


@KEEPS_FOLDER
@given(mutations(RECORD))
def test_any_value_of_a_result_is_shown_or_refused(tmp_path: Path, record: Any) -> None:
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps(record) + "\n")
    try:
        records = read_bench_files([file])
    except InputError as error:
        assert str(file) in str(error) and len(str(error).splitlines()) == 1
    else:
        json.dumps([bench_content(records), step_splits(records)], allow_nan=False)


def test_a_damaged_result_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps(RECORD) + "\n" + json.dumps(RECORD | {"result": {}}) + "\n")
    with pytest.raises(BenchmarkError, match=r"bench.jsonl: line 2: a damaged result of `moe ben"):
        read_bench_files([file])


def test_a_pipe_of_results_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bench.jsonl")
    with pytest.raises(BenchmarkError, match="not a regular file"):
        read_results(tmp_path / "bench.jsonl")


@KEEPS_FOLDER
@given(st.lists(st.sampled_from(
    ["2026-01-01T00:00", "2026-01-01T01:00+00:00", "5", "nan", "-1", "1e999", '"', "\r", "x",
     "0001-01-01T00:00", "9999-12-31T23:00"]), max_size=8))  # fmt: skip
def test_any_hourly_table_is_read_or_refused(tmp_path: Path, cells: list[str]) -> None:
    file = tmp_path / "hourly.csv"
    pairs = zip(cells[::2], cells[1::2], strict=False)
    file.write_text("time,gco2e_per_kwh\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    try:
        hourly = read_hourly(file)
    except InputError as error:
        assert str(file) in str(error)
    else:
        assert all(value >= 0 for value in hourly.gco2e_per_kwh)


def test_runs_that_log_unlike_measures_have_one_table(tmp_path: Path) -> None:
    """An earlier version logged fewer; null stands where a run has none."""
    runs = [make_run(tmp_path / name, sparse=True, steps=3) for name in ("a", "b")]
    rows = [json.loads(line) for line in (runs[0] / "routing.jsonl").read_text().splitlines()]
    for row in rows:
        del row["drop_rate"]
    rows[0]["router_z"][0] = None
    (runs[0] / "routing.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with (runs[0] / "experiment.toml").open("a") as file:
        file.write("[slurm]\nbegin = 1979-05-27\n[x]\ny = 1979-05-27\n")
    paths = write_report(runs, tmp_path / "out")
    header = (paths.figures / "routing.csv").read_text().splitlines()[0]
    assert header == "run,step,layer,load_entropy,token_entropy,drop_rate,router_z"


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    energy = {"region": "FRA", "price_per_kwh": 0.3, "pue": 1.2}
    kinds = {"hostile": True, "dense": False, "sparse": True}
    peak = {"flops_per_s": 1e11, "median_flops_per_s": 1e11, "source": "a product"}
    changes = {"load": measurement(0.1, "share"), "peak": peak}
    return [
        make_run(tmp_path / name, sparse=is_sparse, steps=3, energy=energy, changes=changes)
        for name, is_sparse in kinds.items()
    ]


@settings(KEEPS_FOLDER, max_examples=25, deadline=None)
@given(st.data())
def test_no_run_blocks_a_report_of_many(runs: list[Path], data: st.DataObject) -> None:
    runs = runs[: data.draw(st.integers(2, 3))]  # a pair has a finding, more have a front
    file = runs[0] / data.draw(st.sampled_from(RUN_FILES))
    original = file.read_bytes()
    try:
        if data.draw(st.booleans()):
            write_document(file, data.draw(mutations(read_document(file))))
        else:
            file.write_bytes(data.draw(damaged(original)))
        found, unreadable = read_runs_under(runs, {})
        assert {run.path for run in found} >= set(runs[1:])
        groups = group_runs(found)
        content = report_content(found, groups, unreadable=unreadable)
        json.dumps([content, report_figures(groups), pareto_figures(groups)], allow_nan=False)
        for table in report_tables(found, groups):
            table.to_csv()
            pa.Table.from_pylist(table.rows)
    finally:
        file.write_bytes(original)


@pytest.mark.parametrize(
    "odd",
    [
        {"tokens": 0, "training_flops": 1e9},
        {"energy": {"total": measurement(9.0, "J") | {"source": "x\ud800", "boundary": "\ud800"},
                    "phases": {"train": measurement(5.0, "J") | {"seconds": 1.0,
                                                                 "source": "\ud800"}}}},
        {"energy": {"phases": {"train": {"unit": "J", "source": "x", "reason": "none",
                                         "seconds": 1.0}}}},
    ],
    ids=["no tokens", "half characters", "a phase without a value"],
)  # fmt: skip
def test_a_record_that_others_wrote_blocks_no_report(
    odd: dict[str, Any], runs: list[Path], tmp_path: Path
) -> None:
    record = json.loads((runs[0] / "record.json").read_text())
    (runs[0] / "record.json").write_text(json.dumps(record | odd))
    paths = write_report(runs, tmp_path / "out")
    assert "dense" in paths.markdown.read_text()
