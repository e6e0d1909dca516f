"""How much of the processors other programs took while this one ran."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

# The kernel counts in ticks of 10 ms on each processor: a shorter window tells nothing.
MIN_WINDOW_S = 1.0
# Looking takes milliseconds, since all processes are listed: a thousandth of the time at most.
WINDOW_S = 10.0


@dataclass(frozen=True, kw_only=True)
class ProcessorSeconds:
    """Processor time so far, s: of everything on these processors, and of this program."""

    processors: tuple[int, ...]
    """Those this process may run on."""
    busy: float
    """Time in which they were not idle, or a hypervisor gave them to others."""
    own: float
    """Of this process, its descendants and those that ended."""


def processor_seconds() -> ProcessorSeconds:
    """Read the kernel's counters (Linux)."""
    processors = tuple(sorted(os.sched_getaffinity(0)))
    by_processor = psutil.cpu_times(percpu=True)
    # User time includes that of guests.
    busy = sum(
        t.user + t.nice + t.system + t.irq + t.softirq + t.steal
        for t in (by_processor[n] for n in processors if n < len(by_processor))
    )
    return ProcessorSeconds(processors=processors, busy=busy, own=_own_seconds())


def _own_seconds() -> float:
    process = psutil.Process()
    seconds = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:  # it ended, and its parent's time of children has it
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


@dataclass
class LoadWindows:
    """Reads processor time from window to window; each is long enough to tell something."""

    read: Callable[[], ProcessorSeconds] = processor_seconds
    clock: Callable[[], float] = time.monotonic
    busy_s: float = 0.0
    own_s: float = 0.0
    seconds: float = 0.0
    """Wall time of all windows so far."""
    processors: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._last, self._last_s = self.read(), self.clock()
        self.processors = self._last.processors

    def sample(self, *, is_last: bool = False) -> None:
        """Close the window if it is long enough, or is the last."""
        elapsed_s = self.clock() - self._last_s
        if elapsed_s < (MIN_WINDOW_S if is_last else WINDOW_S):
            return
        now = self.read()
        self.busy_s += now.busy - self._last.busy
        self.own_s += max(0.0, now.own - self._last.own)
        self.seconds += elapsed_s
        self._last, self._last_s = now, self.clock()
