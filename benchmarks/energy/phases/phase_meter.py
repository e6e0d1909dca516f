"""One source's seconds and joules by phase of a run, metered at negligible cost."""

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.energy.source import Clock, EnergySource, SourceLostError
from moe.runs.callbacks import Phase
from parallel.measurement.measurement import Measurement

# A counter that has not moved at all for so long, or so many of its intervals, counts nothing: some
# virtual machines and second dies of boards show such ones. Nothing that computes draws no power.
STUCK_S, STUCK_INTERVALS = 10.0, 20
# Readings may take this fraction of the time: a slow counter is read less often.
MAX_OVERHEAD = 1e-3


@dataclass
class PhaseTotal:
    """Energy and time of one phase so far."""

    joules: float = 0.0
    seconds: float = 0.0
    segments: int = 0
    """Uninterrupted intervals; a counter reading at each end brings its quantization error."""


@dataclass
class PhaseMeter:
    """Splits a source's joules over phases; reads at phase changes and, when due, at steps."""

    source: EnergySource
    clock: Clock = time.monotonic
    phases: dict[Phase, PhaseTotal] = field(default_factory=dict)
    lost: str | None = None
    """Why the counter can no longer be read; `None` while it can."""
    peak_watts: float = 0.0
    """Highest mean power between two readings, W."""
    num_reads: int = 0
    read_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._phase: Phase = "idle"
        self._pending_joules = 0.0
        self._last_joules, self._last_s = self._read_source(), self.clock()
        self._first_joules, self._first_s = self._last_joules, self._last_s

    def enter(self, phase: Phase) -> None:
        """Close the running phase with a reading and begin another."""
        self._read()
        if phase != self._phase:
            self._phase = phase
            self.phases.setdefault(phase, PhaseTotal()).segments += 1

    def pop_train_joules(self) -> float | None:
        """Return joules of the phase `train` since the last answer; `None` if no reading is due.

        A counter is read no more often than it changes or `MAX_OVERHEAD` allows, so a row's
        joules may cover several short steps; the rows' sum is the phase's total. One that has not
        moved yet tells nothing.
        """
        if self.lost:
            return None
        mean_cost_s = self.read_seconds / max(1, self.num_reads)
        interval_s = max(self.source.info.resolution_s, mean_cost_s / MAX_OVERHEAD)
        if self.clock() - self._last_s < interval_s:
            return None
        self._read()
        if self.lost or self._is_still:
            return None
        joules, self._pending_joules = self._pending_joules, 0.0
        return joules

    def idle_watts(self, duration_s: float) -> float | None:
        """Wait `duration_s` (s) and return the mean power, W.

        `None` for a lost meter, and for a counter that changes too rarely to tell.
        """
        self.enter("idle")
        before_joules, before_s = self._last_joules, self._last_s
        time.sleep(duration_s)
        self._read()
        if self._last_joules is None or before_joules is None or self.lost or self._is_still:
            return None
        if duration_s < self.source.info.resolution_s:
            return None
        return (self._last_joules - before_joules) / (self._last_s - before_s)

    @property
    def quantum_joules(self) -> float | None:
        """Quantization error of one segment, J: that of two readings at the highest power.

        `None` for a model, which has no counter.
        """
        info = self.source.info
        peak = info.max_power_watts or self.peak_watts
        return 2 * info.resolution_s * peak if info.kind == "measured" else None

    def energy(self, phase: Phase) -> Measurement:
        """Return the energy of a phase that was entered, J, of this source alone."""
        total, quantum, info = self.phases[phase], self.quantum_joules, self.source.info
        if info.kind == "measured" and not total.joules:
            reason = f"the counter did not move in the phase {phase}"
            return Measurement.missing("J", info.name, reason)
        error = quantum * total.segments if quantum else None
        return info.origin.energy(total.joules, error)

    def finish(self) -> None:
        """Read for the last time: 0 J of a source without any bound on them is no measurement."""
        self._read()
        if self._is_still and not self.lost and not self.source.info.max_power_watts:
            still_s, apart_s = self._last_s - self._first_s, self.source.info.resolution_s
            self.lost = (
                f"the counter did not move in {still_s:.0f} s (its figures are {apart_s:g} s"
                " apart): too short a run, or it counts nothing"
            )

    def report(self) -> dict[str, Any]:
        """Return totals as JSON values, for gathering over ranks."""
        return {
            "device": self.source.info.device,
            "lost": self.lost,
            "quantum_joules": self.quantum_joules,
            "phases": {name: dict(vars(total)) for name, total in self.phases.items()},
            "num_reads": self.num_reads,
            "read_seconds": self.read_seconds,
        }

    @property
    def _is_still(self) -> bool:
        """Whether this is a counter that has not moved since the first reading."""
        return self.source.info.kind == "measured" and self._last_joules == self._first_joules

    def _read(self) -> None:
        joules, now = self._read_source(), self.clock()
        elapsed_s, self._last_s = now - self._last_s, now
        total = self.phases.setdefault(self._phase, PhaseTotal(segments=1))
        total.seconds += elapsed_s
        if joules is None or self._last_joules is None:
            return
        delta, self._last_joules = joules - self._last_joules, joules
        total.joules += delta
        if self._phase == "train":
            self._pending_joules += delta
        if elapsed_s > self.source.info.resolution_s:
            self.peak_watts = max(self.peak_watts, delta / elapsed_s)

    def _check_it_moves(self, joules: float) -> None:
        if self.num_reads == 0 or joules != self._first_joules:
            return
        info = self.source.info
        if info.kind != "measured":
            return
        still_s = self.clock() - self._first_s
        if still_s > max(STUCK_S, STUCK_INTERVALS * info.resolution_s):
            raise SourceLostError(
                f"the counter has not moved for {still_s:.0f} s: it counts nothing"
            )

    def _read_source(self) -> float | None:
        if self.lost:
            return None
        begin = time.perf_counter()
        try:
            joules = self.source.read_joules()
            self._check_it_moves(joules)
            return joules
        except SourceLostError as error:
            self.lost = str(error)
            return None
        finally:
            self.num_reads += 1
            self.read_seconds += time.perf_counter() - begin
