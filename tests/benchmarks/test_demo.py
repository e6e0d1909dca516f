"""The demo's two runs take turns, so that a machine's load meets both."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import demo
from benchmarks.demo import run_demo, turns
from moe.config.experiment import Experiment


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, [("dense", 10), ("sparse", 10)]),
        (100, [("dense", 50), ("sparse", 100), ("dense", 100)]),
        (300, [("dense", 100), ("sparse", 200), ("dense", 300), ("sparse", 300)]),
    ],
)
def test_turns(steps: int, expected: list[tuple[str, int]]) -> None:
    assert turns(["dense", "sparse"], steps) == expected


def test_a_load_that_grows_meets_both_nearly_alike() -> None:
    """Mean position of each run's steps in the order in which all are trained."""
    done: dict[str, int] = {}
    positions: dict[str, list[int]] = {"dense": [], "sparse": []}
    at = 0
    for name, until in turns(["dense", "sparse"], 300):
        count = until - done.get(name, 0)
        positions[name] += range(at, at + count)
        at, done[name] = at + count, until
    means = [sum(places) / len(places) for places in positions.values()]
    assert abs(means[0] - means[1]) <= 600 / 15  # one after the other: 300


def test_memory_is_checked_in_the_first_turn_of_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[str, bool]] = []

    def train(one: Experiment, _run_dir: Path, *, memory_is_checked: bool, **_: Any) -> None:
        checked.append((one.name, not memory_is_checked))

    monkeypatch.setattr(demo, "_build_store", lambda *_: None)
    monkeypatch.setattr(demo, "train_rank", train)
    for name in ("write_report", "read_runs", "finding"):
        monkeypatch.setattr(demo, name, lambda *_: None)
    run_demo([tmp_path], tmp_path / "demo", steps=300, print_line=lambda _: None)
    dense, sparse = "demo-dense", "demo-sparse"
    assert checked == [(dense, True), (sparse, True), (dense, False), (sparse, False)]
