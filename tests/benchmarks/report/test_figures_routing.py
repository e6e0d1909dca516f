"""Routing in the report: the layer that tells most, lines by tokens, tables."""

import json
from pathlib import Path

import pytest

from benchmarks.comparison.seed_groups import group_runs
from benchmarks.report.figures_routing import (
    map_figures,
    measure_figures,
    routing_rows,
    source_rows,
)
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import LAYERS, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(make_run(tmp_path / "run", sparse=True))


def test_maps_show_the_most_specialised_layer(run: Run) -> None:
    figures = map_figures(run)
    assert figures["note"].startswith(f"Layer {LAYERS - 1}, whose experts tell ")
    assert figures["sources"]["y"] == ["prose", "code"]
    prose, code = figures["sources"]["z"]
    assert prose[0] > 1 > prose[1] and code[1] > 1 > code[0]


def test_lines_are_means_over_layers(run: Run) -> None:
    figures = {figure["id"]: figure for figure in measure_figures(group_runs([run]))}
    assert "routing-drop_rate" not in figures, "nothing was dropped"
    (trace,) = figures["routing-load_entropy"]["traces"]
    assert trace["y"][-1] == pytest.approx(0.6)
    assert trace["x"][-1] == run.tokens


def test_tables_hold_everything(run: Run) -> None:
    rows = routing_rows(run)
    assert len(rows) == len(run.routing) * (LAYERS - 1)
    assert rows[0]["token_entropy"] == run.routing[0]["token_entropy"][0]
    counts = run.routing_maps["counts"]
    assert sum(row["choices"] for row in source_rows(run)) == sum(
        sum(sum(source) for source in layer) for layer in counts
    )


def test_a_run_without_maps_has_none(run: Run) -> None:
    (run.path / "routing_maps.json").unlink()
    (run.path / "routing.jsonl").unlink()
    old = read_run(run.path)
    assert map_figures(old)["sources"] is None
    assert all(not figure["traces"] for figure in measure_figures(group_runs([old])))
    assert json.dumps(source_rows(old)) == "[]"
