"""Modelled joules of processors and GPUs."""

from pathlib import Path

import pytest

from benchmarks.energy.sources.model import (
    WATTS_PER_CORE,
    CpuModelSource,
    GpuModelSource,
    processor_seconds,
)
from tests.support.fake_meters import FakeClock


def test_model_is_power_times_processor_time_and_says_so(tmp_path: Path) -> None:
    busy = iter([10.0, 14.0])
    source = CpuModelSource("node", None, 8, lambda: next(busy))
    first = source.read_joules()
    assert source.read_joules() - first == pytest.approx(4 * WATTS_PER_CORE)
    assert source.info.kind == "modelled"
    assert "Cloud Carbon Footprint" in (source.info.note or "")
    stated = CpuModelSource("node", 240.0, 8, lambda: 2.0)
    assert stated.read_joules() == pytest.approx(60.0)


def test_processor_time_grows_with_work() -> None:
    before = processor_seconds()
    sum(i * i for i in range(300_000))
    assert processor_seconds() > before


def test_a_gpu_is_modelled_only_when_asked_and_says_so() -> None:
    clock = FakeClock()
    source = GpuModelSource("GPU 0 of node", 700, 0.5, "data sheet", clock)
    begin = source.read_joules()
    clock.advance(10)
    assert source.read_joules() - begin == pytest.approx(3500)
    assert source.info.kind == "modelled"
    assert source.info.note == "700 W (data sheet) x utilization 0.5 x wall time"
