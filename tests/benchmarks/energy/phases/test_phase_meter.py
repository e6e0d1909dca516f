"""Joules split over phases: their stated uncertainty, and the cost of reading."""

import random

import pytest

from benchmarks.energy.phases import phase_meter
from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.energy.sources.model import (
    CpuModelSource,
)
from benchmarks.energy.sources.nvml import NvmlSource
from tests.support.fake_meters import FakeClock, one_gpu


def test_stated_uncertainty_covers_the_quantization(clock: FakeClock) -> None:
    rng = random.Random(1)
    for _ in range(200):
        gpu, nvml = one_gpu(clock, watts=rng.uniform(50, 700))
        clock.advance(rng.random())
        meter = PhaseMeter(NvmlSource("GPU-a", nvml, clock), clock)
        clock.advance(rng.random())
        meter.enter("train")
        begin = clock.now
        clock.advance(rng.uniform(0.01, 3))
        meter.enter("idle")
        end = clock.now
        total = meter.phases["train"]
        bound = meter.report()["quantum_joules"] * total.segments
        assert abs(total.joules - gpu.watts * (end - begin)) <= bound


def test_a_meter_states_a_phase_with_its_quantization(clock: FakeClock) -> None:
    _, nvml = one_gpu(clock, watts=500.0)
    meter = PhaseMeter(NvmlSource("GPU-a", nvml, clock), clock)
    meter.enter("evaluate")
    clock.advance(4)
    meter.enter("idle")
    energy = meter.energy("evaluate")
    assert energy.value == pytest.approx(2000)
    # Two readings, each up to 0.1 s old, at the board's limit of 700 W.
    assert energy.uncertainty == pytest.approx(2 * 0.1 * 700)
    assert (energy.kind, energy.source, energy.boundary) == ("measured", "nvml", "GPU board")
    modelled = PhaseMeter(CpuModelSource("node", None, 2, lambda: clock.now), clock)
    modelled.enter("evaluate")
    assert modelled.energy("evaluate").uncertainty is None


def test_readings_take_less_than_a_thousandth_of_the_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that takes 5 ms to read, steps of 10 ms: most steps go unread, none is lost."""
    monkeypatch.setattr(phase_meter.time, "perf_counter", clock)
    gpu, nvml = one_gpu(clock)
    source = NvmlSource("GPU-a", nvml, clock)
    read = source.read_joules

    def slow_read() -> float:
        clock.advance(0.005)
        return read()

    monkeypatch.setattr(source, "read_joules", slow_read)
    meter = PhaseMeter(source, clock)
    meter.enter("train")
    begin, seconds_before = clock.now, meter.read_seconds
    rows = []
    for _ in range(5000):
        clock.advance(0.01)
        rows.append(meter.pop_train_joules())
    share = (meter.read_seconds - seconds_before) / (clock.now - begin)
    assert 0 < share < 1e-3
    known = [row for row in rows if row is not None]
    assert sum(known) == pytest.approx(meter.phases["train"].joules)
    assert sum(known) == pytest.approx(500 * (meter._last_s - begin), rel=0.01)


def test_a_counter_that_never_moves_is_no_zero(clock: FakeClock) -> None:
    gpu, nvml = one_gpu(clock, watts=0.0)
    meter = PhaseMeter(NvmlSource("GPU-a", nvml, clock), clock)
    meter.enter("train")
    clock.advance(9)
    meter.enter("evaluate")
    assert meter.lost is None
    clock.advance(9)
    meter.enter("idle")
    assert meter.lost == "the counter has not moved for 18 s: it counts nothing"
    # One that moved before may stand still: that its device sleeps now is no fault.
    gpu.watts, gpu.start_mj, gpu.born = 300.0, gpu.energy_mj, clock.now
    moved = PhaseMeter(NvmlSource("GPU-a", nvml, clock), clock)
    clock.advance(5)
    moved.enter("train")
    gpu.start_mj, gpu.born, gpu.watts = gpu.energy_mj, clock.now, 0.0
    clock.advance(50)
    moved.enter("idle")
    assert moved.lost is None
