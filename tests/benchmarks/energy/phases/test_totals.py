"""A run's totals as checkpoints keep them."""

from benchmarks.energy.phases.totals import Totals
from benchmarks.energy.source import EnergyOrigin

METER = EnergyOrigin(source="nvml", boundary="GPU board", kind="measured")


def test_totals_of_older_checkpoints_keep_their_coarser_bound() -> None:
    phase = {"joules": 10.0, "seconds": 1.0, "quantisation_joules": 2.0}
    older = {"phases": {"train": phase, "idle": phase}, "reasons": [], "starts": 1}
    totals = Totals.from_state(older, "state")
    assert totals.energy(METER).uncertainty == 4
    assert Totals.from_state(totals.to_state(), "state").energy(METER).uncertainty == 4
