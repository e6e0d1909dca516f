"""Routing statistics against tokens: means over layers, nothing without logs."""

from pathlib import Path

import pytest

from benchmarks.comparison.seed_groups import group_runs
from benchmarks.report.figures_routing import routing_figures
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(make_run(tmp_path / "run", sparse=True))


def test_lines_are_means_over_layers(run: Run) -> None:
    figures = {figure["id"]: figure for figure in routing_figures(group_runs([run]))}
    assert "routing-drop-rate" not in figures, "nothing was dropped"
    (trace,) = figures["routing-load-entropy"]["traces"]
    assert trace["y"][-1] == pytest.approx(0.6)
    assert trace["x"][-1] == run.tokens


def test_a_run_without_routing_logs_has_no_lines(run: Run) -> None:
    (run.path / "routing.jsonl").unlink()
    old = read_run(run.path)
    assert all(not figure["traces"] for figure in routing_figures(group_runs([old])))
