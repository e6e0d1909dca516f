"""One rank's meter: opened when the run starts, unchanged until it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.energy.phases.phase_log import PhaseLog, read_totals, resume_totals
from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.energy.phases.totals import Totals
from benchmarks.energy.source import Clock, boot_id
from benchmarks.energy.sources.selection import SourceSelection
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import Phase, RankContext
from moe.runs.files import METRICS
from moe.runs.json_lines import last_rows
from parallel.hardware.processor_load import LoadWindows


@dataclass(frozen=True, kw_only=True)
class RankMeter:
    """One rank's meter and everything its reports need; made by `open_rank_meter`."""

    config: EnergyConfig
    context: RankContext
    selection: SourceSelection
    clock: Clock
    meter: PhaseMeter | None
    """`None` without a source, or where another rank reads the same device, node or job."""
    idle_watts: float | None
    """Mean power before the run, W; `None` where it was not measured."""
    before: Totals
    """Totals of earlier starts of this run."""
    log: PhaseLog | None
    """Phase times on disk; rank 0 writes them, others have `None`."""
    load: LoadWindows
    """What everything on this rank's processors took of them, and what this rank did."""

    def enter(self, phase: Phase) -> None:
        """Begin a phase: read the meter, write the log."""
        if self.meter is not None:
            self.meter.enter(phase)
        if self.log is not None:
            self.log.begin(phase)

    def report(self, joules: float | None) -> dict[str, Any]:
        """Return this rank's totals and its `joules` since the last report, for rank 0 to sum."""
        self.load.sample()
        source = self.selection.source
        scope = source.info.scope if source else "device"
        covers = {
            "device": f"rank {self.context.rank}",
            "node": f"node {boot_id(self.context.hostname)}",
            "job": "job",
        }
        missing = f"its {scope}'s meter is missing" if source else self.selection.reason
        return {
            "device": None,
            "source": source.info.name if source else None,
            "covers": covers[scope],
            "reason": missing,
            **(self.meter.report() if self.meter else {}),
            "idle_watts": self.idle_watts,
            "joules": joules,
            "load": {
                "node": boot_id(self.context.hostname),
                "processors": self.load.processors,
                "busy_s": self.load.busy_s,
                "own_s": self.load.own_s,
                "seconds": self.load.seconds,
            },
        }


def open_rank_meter(
    config: EnergyConfig,
    selection: SourceSelection,
    context: RankContext,
    state: Mapping[str, Any] | None,
    clock: Clock,
) -> RankMeter:
    """Open this rank's meter, measure idle power, and read what earlier starts metered."""
    meter = _open_phase_meter(selection, context, clock)
    idle_watts = _measure_idle_watts(meter, config.idle_seconds)
    before = _totals_before(context, state)
    log = _begin_log(context, state)
    return RankMeter(
        config=config,
        context=context,
        selection=selection,
        clock=clock,
        meter=meter,
        idle_watts=idle_watts,
        before=before,
        log=log,
        load=LoadWindows(),
    )


def _begin_log(context: RankContext, state: Mapping[str, Any] | None) -> PhaseLog | None:
    if context.rank != 0:
        return None
    log = PhaseLog(context.run_dir, int((state or {}).get("phase_rows", 0)))
    log.begin("idle")
    return log


def _open_phase_meter(
    selection: SourceSelection, context: RankContext, clock: Clock
) -> PhaseMeter | None:
    """Return a meter on the one rank that reads the source; `None` on others that it covers."""
    source = selection.source
    readers = {"device": 0, "node": context.local_rank, "job": context.rank}
    if source is None or readers[source.info.scope] != 0:
        return None
    return PhaseMeter(source, clock)


def _measure_idle_watts(meter: PhaseMeter | None, seconds: float) -> float | None:
    if meter is None or meter.source.info.kind != "measured" or seconds <= 0:
        return None
    return meter.idle_watts(seconds)


def _totals_before(context: RankContext, state: Mapping[str, Any] | None) -> Totals:
    """Return the totals of earlier starts: the checkpoint's, and what came after it."""
    newest = read_totals(context.run_dir)
    if state or newest:
        return resume_totals(
            Totals.from_state(state, "the checkpoint's meter state") if state else Totals(), newest
        )
    before = Totals()
    if last_rows(context.run_dir / METRICS, 1):
        before.reasons.append(
            "resumed from a checkpoint without meter totals: earlier joules are unknown"
        )
    return before
