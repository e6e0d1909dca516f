"""Energy per token of what a benchmark times."""

import pytest

from benchmarks.bench import metering
from benchmarks.bench.metering import energy_per_token
from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.energy.sources.nvml import NvmlSource
from tests.support.fake_meters import FakeClock, one_gpu


def test_a_counter_that_did_not_move_gives_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "all_gather_objects", lambda own: [own])
    clock = FakeClock()
    gpu, nvml = one_gpu(clock)
    meter = PhaseMeter(NvmlSource("GPU-a", nvml, clock), clock)
    meter.enter("train")
    clock.advance(2)
    meter.enter("evaluate")
    clock.advance(0.01)
    meter.enter("idle")
    assert energy_per_token(meter, "train", 100).value == pytest.approx(10)
    unknown = energy_per_token(meter, "evaluate", 100)
    assert unknown.value is None and "did not move in the phase evaluate" in str(unknown.reason)
