"""zeus and codecarbon behind our interface, by doubles of the calls that are used."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.source_codecarbon import CodeCarbonSource, LatestEnergy
from benchmarks.energy.source_selection import OPENERS, choose_source
from benchmarks.energy.source_zeus import ZeusSource
from benchmarks.errors import BenchmarkError
from moe.config.energy import EnergyConfig
from tests.support.fake_meters import FakeClock, FakeGpu, Rank, Ranks


class FakeZeus:
    """The part of zeus's GPU manager that is used."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def supports_get_total_energy_consumption(self, index: int) -> bool:
        return index == 0

    def get_total_energy_consumption(self, index: int) -> int:
        if self.gpu.vanished:
            raise ValueError("No GPUs available.")
        return self.gpu.energy_mj


def test_zeus_counts_and_notices_loss() -> None:
    clock = FakeClock()
    gpu = FakeGpu(clock, 400.0)
    source = ZeusSource(FakeZeus(gpu), 0, "GPU-a", clock)
    source.read_joules()
    clock.advance(5)
    assert source.read_joules() == pytest.approx(2000)
    gpu.vanished = True
    with pytest.raises(SourceLostError, match="zeus: No GPUs"):
        source.read_joules()
    with pytest.raises(SourceUnavailableError, match="no energy counter"):
        ZeusSource(FakeZeus(gpu), 1, "GPU-b", clock)


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


def test_every_source_of_the_configuration_has_a_meter() -> None:
    """A name that the schema allows must not end in a traceback."""
    names: Any = EnergyConfig.model_fields["source"].annotation
    assert set(names.__args__) == set(OPENERS) | {"auto", "none"}


@pytest.mark.parametrize("name", ["zeus", "codecarbon"])
def test_an_extra_that_is_not_installed_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "codecarbon", None)
    monkeypatch.setitem(__import__("sys").modules, "zeus.device", None)
    place = Ranks([Rank(lambda: None, FakeClock())], tmp_path).place(0)
    with pytest.raises(BenchmarkError, match=rf"moescale\[{name}\]"):
        choose_source(EnergyConfig(source=name), replace(place, device="cuda"))  # type: ignore[arg-type]
