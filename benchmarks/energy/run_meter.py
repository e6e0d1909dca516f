"""Metering one start of a run: all ranks' joules gathered to rank 0, and the record's section."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.energy.phases.phase_log import RENEW_S, state_with_rows, write_totals
from benchmarks.energy.phases.totals import Totals, add_reports, first_of_each_device
from benchmarks.energy.rank_meter import RankMeter
from benchmarks.energy.record import energy_section, own_meter
from moe.runs.callbacks import Phase

# With several ranks a row's joules need a collective: at every so many calls of `step`.
GATHER_CALLS = 32


@dataclass(frozen=True)
class Gathered:
    """All ranks' reports at one moment. On other ranks than 0: none, and the totals before."""

    reports: Sequence[Mapping[str, Any] | None]
    totals: Totals
    at_s: float
    """When they were gathered, by the meter's clock, s."""


def gather(rank: RankMeter, metering_seconds: float, joules: float | None = None) -> Gathered:
    """Gather every rank's report to rank 0, which writes the totals; a collective call.

    `metering_seconds` (s) is what metering took between steps since this start, `joules` (J) what
    this rank's device took since the last metrics row.
    """
    context, totals = rank.context, rank.before
    reports = context.gather(rank.report(joules)) or []
    if context.rank == 0:
        totals = add_reports(rank.before, reports, context.world_size)
        totals.metering_seconds += metering_seconds
        write_totals(context.run_dir, totals)
    return Gathered(reports, totals, rank.clock())


class RunMeter:
    """Meters one start of a run on this rank, and knows what was gathered last."""

    def __init__(self, rank: RankMeter) -> None:
        """Begin with the phase `idle`; a collective call."""
        self._rank = rank
        self._tokens = self._calls = 0
        self._metering_seconds = 0.0
        self._latest = gather(rank, 0.0)

    def enter(self, phase: Phase) -> None:
        """Close the running phase and begin another; a collective call."""
        self._rank.enter(phase)
        self._latest = gather(self._rank, self._metering_seconds)

    def step_joules(self, tokens: int) -> float | None:
        """Return joules over all devices since the last answer (rank 0); `None` if none is due.

        `tokens` is the number of tokens trained on so far.
        """
        begin = time.perf_counter()
        self._tokens = tokens
        self._calls += 1
        joules = self._interval_joules()
        self._metering_seconds += time.perf_counter() - begin
        return joules

    def state(self) -> Mapping[str, Any]:
        """Return rank 0's totals up to the last phase change, as JSON values."""
        return state_with_rows(self._latest.totals, self._rank.log)

    def finish(self) -> Mapping[str, Any]:
        """Return the record's `energy` and `load` sections (rank 0; others none). Collective."""
        rank = self._rank
        rank.load.sample(is_last=True)
        if rank.meter is not None:
            rank.meter.finish()
        self.enter("idle")
        latest = self._latest
        if rank.log is None:
            return {}
        rank.log.end()
        write_totals(rank.context.run_dir, latest.totals, closed=True)
        asked, source = rank.config.source, rank.selection.source
        section = energy_section(
            latest.totals,
            source.info if source else None,
            asked=asked,
            tokens=self._tokens,
            own=own_meter(latest.totals, rank.selection, latest.reports, asked),
        )
        return {"energy": section, "load": latest.totals.load.others.to_json()}

    def _interval_joules(self) -> float | None:
        rank = self._rank
        is_only_rank = rank.context.world_size == 1
        if not is_only_rank and self._calls % GATHER_CALLS:
            return None
        joules = rank.meter.pop_train_joules() if rank.meter else None
        if not is_only_rank or rank.clock() - self._latest.at_s > RENEW_S:
            self._latest = gather(rank, self._metering_seconds, joules)
        if is_only_rank:
            return joules
        parts = [report["joules"] for report in first_of_each_device(self._latest.reports)]
        known = parts and None not in parts and not self._latest.totals.reasons
        return sum(parts) if known else None
