"""Joules split over phases: their stated uncertainty, and the cost of reading."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.energy.phases import phase_meter
from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.energy.source import SourceInfo
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


class SlowCounter:
    """A counter with a figure every 30 s, 0 before the first, whose highest power is unknown."""

    def __init__(self, clock: FakeClock, watts: float) -> None:
        self.clock, self.watts, self.begin_s = clock, watts, clock.now
        self.info = SourceInfo(
            name="slurm",
            kind="measured",
            boundary="all the job's nodes, whole",
            device="SLURM step 17.0",
            resolution_s=30.0,
            max_power_watts=None,
            scope="job",
        )

    def read_joules(self) -> float:
        return self.watts * ((self.clock.now - self.begin_s) // 30 * 30)


def test_a_counter_without_a_figure_yet_is_tried_again(clock: FakeClock) -> None:
    meter = PhaseMeter(SlowCounter(clock, watts=400.0), clock)
    clock.advance(3)
    meter.enter("train")
    rows = []
    for _ in range(90):
        clock.advance(1)
        rows.append(meter.pop_train_joules())
    meter.finish()
    known = [row for row in rows if row is not None]
    assert meter.lost is None
    assert 0 not in known
    assert sum(known) == meter.phases["train"].joules == 90 * 400


@given(periods=st.integers(0, 40), is_first_seen=st.booleans())
def test_what_stays_0_is_lost_at_the_latest_at_the_end(periods: int, is_first_seen: bool) -> None:
    clock = FakeClock()
    meter = PhaseMeter(SlowCounter(clock, watts=400.0 if is_first_seen else 0.0), clock)
    meter.enter("train")
    for _ in range(periods):
        clock.advance(30)
        row = meter.pop_train_joules()
        assert row is None or row > 0
    assert (meter.lost is None) == (is_first_seen or periods <= phase_meter.STUCK_INTERVALS)
    meter.finish()
    assert (meter.lost is None) == (is_first_seen and periods > 0)
    assert (meter.energy("train").value is None) == (meter.lost is not None)


def test_a_counter_that_changes_too_rarely_tells_no_idle_power(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase_meter.time, "sleep", clock.advance)
    meter = PhaseMeter(SlowCounter(clock, watts=400.0), clock)
    assert meter.idle_watts(2) is None
    assert meter.idle_watts(29) is None
    assert meter.idle_watts(30) == pytest.approx(400)
