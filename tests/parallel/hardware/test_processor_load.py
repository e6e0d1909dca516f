"""Processor time of this program and of everything, by a clock moved by hand and by the kernel."""

import pytest

from parallel.hardware.processor_load import LoadWindows, ProcessorSeconds, processor_seconds
from tests.support.fake_meters import FakeClock


class FakeMachine:
    """Two processors, of which we use one; how much others use is set."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.others, self.reads = clock, 0.0, 0

    def __call__(self) -> ProcessorSeconds:
        self.reads += 1
        own = self.clock.now
        return ProcessorSeconds(processors=(0, 1), busy=own + self.others, own=own)


def test_windows_add_up_and_short_ones_wait() -> None:
    clock = FakeClock()
    machine = FakeMachine(clock)
    windows = LoadWindows(machine, clock)
    for _ in range(25):
        clock.advance(1)
        machine.others += 0.5
        windows.sample()
    assert machine.reads == 3, "at the start, and every ten seconds"
    windows.sample(is_last=True)
    assert (windows.seconds, windows.own_s) == (25, 25)
    assert windows.busy_s - windows.own_s == pytest.approx(12.5)


def test_a_window_too_short_for_the_kernels_ticks_tells_nothing() -> None:
    clock = FakeClock()
    windows = LoadWindows(FakeMachine(clock), clock)
    clock.advance(0.5)
    windows.sample(is_last=True)
    assert windows.seconds == 0


def test_this_programs_time_is_its_own() -> None:
    before = processor_seconds()
    while (now := processor_seconds()).own < before.own + 0.05:
        sum(range(100_000))
    assert now.processors == before.processors
    assert now.busy >= before.busy
