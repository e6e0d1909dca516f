"""Heat maps of experts: the most specialized layer, none without routing maps."""

from pathlib import Path

import pytest

from benchmarks.report.figures_experts import source_figures
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import LAYERS, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(make_run(tmp_path / "run", sparse=True))


def test_maps_show_the_most_specialized_layer(run: Run) -> None:
    figures = source_figures(run)
    assert figures["note"].startswith(f"Layer {LAYERS - 1}, on held-out text. It is the most spec")
    assert figures["sources"]["y"] == ["prose", "code"]
    prose, code = figures["sources"]["z"]
    assert prose[0] > 1 > prose[1] and code[1] > 1 > code[0]


def test_a_run_without_maps_has_none(run: Run) -> None:
    (run.path / "routing_maps.json").unlink()
    assert source_figures(read_run(run.path))["sources"] is None
