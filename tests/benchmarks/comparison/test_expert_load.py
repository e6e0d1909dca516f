"""Expert load over layers, experts and time, by hand and thinned."""

from pathlib import Path

import pytest

from benchmarks.comparison.expert_load import load_maps
from moe.runs.reader import read_run
from tests.support.synthetic_runs import make_run, write_rows


def test_load_maps_by_hand(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=True, steps=8)
    rows = [
        {"step": step, "layers": [0], "counts": [[40, 40, 0, 0] if step < 7 else [60, 20, 20, 0]]}
        for step in range(1, 9)
    ]
    write_rows(path / "expert_load.jsonl", rows)
    maps = load_maps(read_run(path))
    assert maps is not None
    assert maps.by_expert == [[2.4, 0.8, 0.8, 0.0]]
    assert maps.busiest[0] == pytest.approx([2.0] * 6 + [2.4] * 2)
    assert maps.worst == 2.4
    assert maps.idle_experts == 1
