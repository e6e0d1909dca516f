"""What others took of a run's processors, from its ranks' reports."""

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.energy.phases.machine_load import MachineLoad
from benchmarks.energy.phases.totals import Totals
from benchmarks.energy.sources.model import CpuModelSource
from parallel.hardware import processor_load
from tests.support.fake_meters import FakeClock, Rank, Ranks


def report(node: str, processors: list[int], busy: float, own: float) -> dict[str, Any]:
    load = {"node": node, "processors": processors, "busy_s": busy, "own_s": own, "seconds": 10.0}
    return {"load": load}


@pytest.mark.parametrize(
    ("reports", "share"),
    [
        ([report("a", [0, 1], 15, 10)], 5 / 20),
        # Two ranks on the same processors: what one sees of the other is no load.
        ([report("a", [0, 1], 19, 9), report("a", [0, 1], 19, 9)], 1 / 20),
        # Each bound to processors of its own, and a third on another node.
        ([report("a", [0], 9, 9), report("a", [1], 9, 5), report("b", [0], 10, 4)], 10 / 30),
        ([report("a", [0, 1], 9.9, 10)], 0),  # the kernel's ticks are coarse
        ([report("a", [0, 1], 15, 10), None, {"device": None}], 5 / 20),
    ],
)
def test_others_are_what_is_busy_without_the_ranks(reports: list[Any], share: float) -> None:
    load = MachineLoad().plus(reports)
    assert load.others.value == pytest.approx(share)
    assert load.others.kind == "measured"


def test_loads_of_all_starts_are_one() -> None:
    first = MachineLoad().plus([report("a", [0, 1], 20, 10)])
    both = Totals.from_state(Totals(load=first).to_state(), "state").load.plus(
        [report("a", [0, 1], 10, 10)]
    )
    assert both.others.value == pytest.approx(10 / 40)
    older = {"phases": {}, "reasons": [], "starts": 1}
    assert Totals.from_state(older, "state").load.others.value is None


def test_a_run_records_it(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor_load, "MIN_WINDOW_S", 0.0)
    ranks = Ranks([Rank(lambda: CpuModelSource("node", None, 2, time.monotonic), clock)], tmp_path)
    ranks.start()
    [record] = ranks.call(lambda callback, _: callback.finish())
    assert record["load"]["unit"] == "share"
    assert record["load"]["value"] >= 0
