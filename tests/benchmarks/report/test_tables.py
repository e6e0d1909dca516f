"""Tables of a report hold all rows of the runs."""

import json
from pathlib import Path

import pytest

from benchmarks.comparison.seed_groups import group_runs
from benchmarks.report.tables import report_tables
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import LAYERS, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(make_run(tmp_path / "run", sparse=True))


def test_routing_tables_hold_everything(run: Run) -> None:
    tables = {table.name: table.rows for table in report_tables([run], group_runs([run]))}
    rows = tables["routing"]
    assert len(rows) == len(run.routing) * (LAYERS - 1)
    assert rows[0]["token_entropy"] == run.routing[0]["token_entropy"][0]
    counts = run.routing_maps["counts"]
    assert sum(row["choices"] for row in tables["routing_sources"]) == sum(
        sum(sum(source) for source in layer) for layer in counts
    )


def test_a_run_without_maps_has_no_rows_by_source(run: Run) -> None:
    (run.path / "routing_maps.json").unlink()
    old = read_run(run.path)
    tables = {table.name: table.rows for table in report_tables([old], group_runs([old]))}
    assert json.dumps(tables["routing_sources"]) == "[]"
