"""Timing of one kernel alone: in short bursts, and back to back until the board's power settles."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.bench.instruments import synchronize
from benchmarks.energy.phases.phase_meter import PhaseMeter

Kernel = Callable[[], object]
"""Queues the work once."""

BURST_S = 1e-3
"""Least duration of one timed repeat: short calls are repeated, so that no clock matters."""
QUEUED_S = 0.05
"""Work that is queued at once while it runs back to back, at most."""


@dataclass(frozen=True)
class Sustained:
    """A kernel run back to back, once its first half has warmed the board."""

    call_s: float
    """Mean duration of one call, s."""
    measured_s: float
    """Time in which they were counted, s."""


def burst_times(kernel: Kernel, device: torch.device, repeats: int, warmup: int) -> list[float]:
    """Return the durations of a call, s, one for each repeat.

    A repeat lasts a millisecond or little more, too short for the board to lower its clocks.
    """
    kernel()
    calls = max(1, round(BURST_S / _mean_s(kernel, device, 1)))
    return [_mean_s(kernel, device, calls) for _ in range(warmup + repeats)][warmup:]


def sustained_time(
    kernel: Kernel,
    device: torch.device,
    seconds: float,
    call_s: float,
    meter: PhaseMeter | None = None,
) -> Sustained:
    """Run a kernel back to back for `seconds` s and time the second half.

    Args:
        kernel: What runs.
        device: Where.
        seconds: Duration of both halves.
        call_s: About how long a call takes, s.
        meter: Counts the second half's energy as its phase `evaluate`.
    """
    queued = max(1, round(min(QUEUED_S, seconds / 2) / call_s))
    _run_for(kernel, device, seconds / 2, queued)
    if meter is not None:
        meter.enter("evaluate")
    calls, measured_s = _run_for(kernel, device, seconds / 2, queued)
    if meter is not None:
        meter.enter("idle")
    return Sustained(measured_s / calls, measured_s)


def _run_for(
    kernel: Kernel, device: torch.device, seconds: float, queued: int
) -> tuple[int, float]:
    """Return calls and time, s, of at least one group of `queued` calls."""
    calls, elapsed_s = 0, 0.0
    while not calls or elapsed_s < seconds:
        elapsed_s += queued * _mean_s(kernel, device, queued)
        calls += queued
    return calls, elapsed_s


def _mean_s(kernel: Kernel, device: torch.device, calls: int) -> float:
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(calls):
        kernel()
    synchronize(device)
    return (time.perf_counter() - begin) / calls
