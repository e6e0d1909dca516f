"""What one rank of a run meters with, opened at its start and unchanged until its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.energy.phase_log import PhaseLog, read_totals, taken_up
from benchmarks.energy.phase_meter import PhaseMeter
from benchmarks.energy.source import Clock, boot_id
from benchmarks.energy.source_selection import Choice
from benchmarks.energy.totals import Totals
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import Phase, RankContext
from moe.runs.files import METRICS
from moe.runs.json_lines import last_rows


@dataclass(frozen=True, kw_only=True)
class RankMeter:
    """One rank's meter with what it needs to report: see `open_rank_meter`."""

    config: EnergyConfig
    context: RankContext
    choice: Choice
    clock: Clock
    meter: PhaseMeter | None
    """Opened on one rank of each device, node or job, whatever the source covers."""
    idle_watts: float | None
    """Mean power before the run, W; `None` where it was not measured."""
    before: Totals
    """What earlier starts of this run metered."""
    log: PhaseLog | None
    """Phase times on disk; written by rank 0."""

    def enter(self, phase: Phase) -> None:
        """Begin a phase on the meter and in the log."""
        if self.meter is not None:
            self.meter.enter(phase)
        if self.log is not None:
            self.log.begin(phase)

    def report(self, joules: float | None) -> dict[str, Any]:
        """Return this rank's totals and its `joules` of the interval, for gathering to rank 0."""
        source = self.choice.source
        scope = source.info.scope if source else "device"
        covers = {
            "device": f"rank {self.context.rank}",
            "node": f"node {boot_id(self.context.hostname)}",
            "job": "job",
        }
        return {
            "device": None,
            "source": source.info.name if source else None,
            "covers": covers[scope],
            "reason": self.choice.reason if source is None else f"its {scope}'s meter is missing",
            **(self.meter.report() if self.meter else {}),
            "idle_watts": self.idle_watts,
            "joules": joules,
        }


def open_rank_meter(
    config: EnergyConfig,
    choice: Choice,
    context: RankContext,
    state: Mapping[str, Any] | None,
    clock: Clock,
) -> RankMeter:
    """Open this rank's meter, measure idle power, and read what earlier starts metered."""
    meter = _open_phase_meter(choice, context, clock)
    idle_watts = _measure_idle_watts(meter, config.idle_seconds)
    before = _totals_before(context, state)
    log = (
        PhaseLog(context.run_dir, int((state or {}).get("phase_rows", 0)))
        if context.rank == 0
        else None
    )
    if log is not None:
        log.begin("idle")
    return RankMeter(
        config=config,
        context=context,
        choice=choice,
        clock=clock,
        meter=meter,
        idle_watts=idle_watts,
        before=before,
        log=log,
    )


def _begin_log(context: RankContext, state: Mapping[str, Any] | None) -> PhaseLog | None:
    if context.rank != 0:
        return None
    log = PhaseLog(context.run_dir, int((state or {}).get("phase_rows", 0)))
    log.begin("idle")
    return log


def _open_phase_meter(choice: Choice, context: RankContext, clock: Clock) -> PhaseMeter | None:
    """Return a meter on the one rank that reads the source, whatever number of ranks it covers."""
    source = choice.source
    readers = {"device": 0, "node": context.local_rank, "job": context.rank}
    if source is None or readers[source.info.scope] != 0:
        return None
    return PhaseMeter(source, clock)


def _measure_idle_watts(meter: PhaseMeter | None, seconds: float) -> float | None:
    if meter is None or meter.source.info.kind != "measured" or seconds <= 0:
        return None
    return meter.idle_watts(seconds)


def _totals_before(context: RankContext, state: Mapping[str, Any] | None) -> Totals:
    """Return what earlier starts metered: the checkpoint's totals and what came after it."""
    newest = read_totals(context.run_dir)
    if state or newest:
        return taken_up(Totals.from_state(state) if state else Totals(), newest)
    before = Totals()
    if last_rows(context.run_dir / METRICS, 1):
        before.reasons.append(
            "resumed from a checkpoint without meter totals: earlier joules are unknown"
        )
    return before
