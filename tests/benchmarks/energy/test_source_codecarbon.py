"""codecarbon as a source, by a fake of the calls that are used."""

from types import SimpleNamespace

import pytest

from benchmarks.energy.source import SourceLostError
from benchmarks.energy.source_codecarbon import CodeCarbonSource, LatestEnergy


class FakeTracker:
    """A tracker that hands totals to its output when it is flushed."""

    def __init__(self, latest: LatestEnergy) -> None:
        self.latest, self.kwh, self.locked = latest, 0.0, False

    def start(self) -> None:
        self.started = True

    def flush(self) -> None:
        if not self.locked:
            self.latest.out(SimpleNamespace(energy_consumed=self.kwh), None)


def test_codecarbon_totals_are_modelled_and_read_once_a_node() -> None:
    latest = LatestEnergy()
    tracker = FakeTracker(latest)
    source = CodeCarbonSource(tracker, latest, "node")
    assert not hasattr(tracker, "started"), "ranks that do not read must not start it"
    assert source.read_joules() == 0
    tracker.kwh = 1e-3
    assert source.read_joules() == pytest.approx(3600)
    assert (source.info.kind, source.info.scope) == ("modelled", "node")
    tracker.locked = True
    with pytest.raises(SourceLostError, match="gave no total"):
        source.read_joules()
