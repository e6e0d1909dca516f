"""zeus as a source, by a fake of the calls that are used."""

import pytest

from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.sources.zeus import ZeusSource
from tests.support.fake_meters import FakeClock, FakeGpu


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
