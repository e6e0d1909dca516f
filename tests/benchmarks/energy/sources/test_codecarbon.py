"""codecarbon as a source, by a fake of the calls that are used."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.sources.codecarbon import CodeCarbonSource, LatestEnergy, open_codecarbon
from tests.support.fake_powercap import make_zone


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


def test_codecarbon_is_refused_where_it_would_sum_one_counter_twice(tmp_path: Path) -> None:
    for die in range(2):
        make_zone(tmp_path, f"intel-rapl:{die}", f"package-0-die-{die}", 7_000_000)
    with pytest.raises(SourceUnavailableError, match=r'codecarbon#1379.*energy.source = "rapl"'):
        open_codecarbon("node", tmp_path)
