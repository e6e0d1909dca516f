"""The run's energy meter: an observer that never touches the arithmetic it watches."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.energy.phase_log import (
    RENEW_S,
    PhaseLog,
    read_totals,
    state_with_rows,
    taken_up,
    write_totals,
)
from benchmarks.energy.phase_meter import PhaseMeter
from benchmarks.energy.record import energy_record
from benchmarks.energy.source import Clock, boot_id
from benchmarks.energy.source_selection import Choice, choose_source
from benchmarks.energy.totals import Totals, add_reports, first_of_each_device
from benchmarks.footprint.carbon_intensity import zone
from moe.config.energy import EnergyConfig
from moe.runs.observers import Phase, RunPlace

# With several ranks a row's joules need a collective: at every so many calls of `step`.
GATHER_CALLS = 32


class EnergyObserver:
    """Joules by phase, summed over devices, with their origin (an `Observer`).

    Counters are read at step and phase boundaries without synchronising the device: a GPU's
    queued work falls into the next interval, never out of the total.
    """

    def __init__(
        self,
        config: EnergyConfig,
        choose: Callable[[EnergyConfig, RunPlace], Choice] = choose_source,
        clock: Clock = time.monotonic,
    ) -> None:
        """Meter as `config` says; the meter is opened in `start`, by `choose`.

        Raises:
            BenchmarkError: `energy.region` is no zone of the carbon table.
        """
        if config.region is not None:
            zone(config.region)
        self._config = config
        self._choose = choose
        self._clock = clock
        self._tokens = 0
        self._calls = 0
        self._own_seconds = 0.0
        self._log: PhaseLog | None = None

    def start(self, place: RunPlace, state: Mapping[str, Any] | None) -> None:
        """Open the meter and measure idle power; a collective call.

        Raises:
            BenchmarkError: The meter asked for by name is not there.
        """
        self._place = place
        self._choice = self._choose(self._config, place)
        self._meter = self._open_meter(self._choice)
        self._idle_watts = self._measure_idle_watts()
        self._before = _before_this_start(place, state)
        if place.rank == 0:
            self._log = PhaseLog(place.run_dir, int((state or {}).get("phase_rows", 0)))
            self._log.begin("idle")
        self._collect()

    def phase(self, name: Phase) -> None:
        """Close the running phase and begin `name`; a collective call."""
        if self._meter is not None:
            self._meter.enter(name)
        if self._log is not None:
            self._log.begin(name)
        self._collect()

    def step(self, step: int, tokens: int) -> Mapping[str, float | None]:
        """Return `energy_joules` since the last row that had it, over all devices (rank 0)."""
        begin = time.perf_counter()
        self._tokens = tokens
        self._calls += 1
        joules = self._interval_joules()
        self._own_seconds += time.perf_counter() - begin
        return {"energy_joules": joules}

    def state(self) -> Mapping[str, Any]:
        """Return rank 0's totals up to the last phase change, as JSON values."""
        return state_with_rows(self._totals, self._log)

    def finish(self) -> Mapping[str, Any]:
        """Return the record's `energy` section (rank 0; others an empty one). Collective."""
        self.phase("idle")
        if self._log is None:
            return {}
        self._log.end()
        write_totals(self._place.run_dir, self._totals, closed=True)
        return {
            "energy": energy_record(
                self._totals,
                self._reports,
                config=self._config,
                choice=self._choice,
                tokens=self._tokens,
            )
        }

    def _open_meter(self, choice: Choice) -> PhaseMeter | None:
        source = choice.source
        # A node's counter is read by one rank of it, whatever their number; a job's by one of all.
        readers = {"device": 0, "node": self._place.local_rank, "job": self._place.rank}
        if source is None or readers[source.info.scope] != 0:
            return None
        return PhaseMeter(source, self._clock)

    def _measure_idle_watts(self) -> float | None:
        seconds = self._config.idle_seconds
        if self._meter is None or self._meter.source.info.kind != "measured" or seconds <= 0:
            return None
        return self._meter.idle_watts(seconds)

    def _interval_joules(self) -> float | None:
        alone = self._place.world_size == 1
        if not alone and self._calls % GATHER_CALLS:
            return None
        joules = self._meter.take_train_joules() if self._meter else None
        if not alone or self._clock() - self._written_s > RENEW_S:
            self._collect(joules)
        if alone:
            return joules
        parts = [report["joules"] for report in first_of_each_device(self._reports)]
        known = parts and None not in parts and not self._totals.reasons
        return sum(parts) if known else None

    def _collect(self, joules: float | None = None) -> None:
        """Gather every rank's totals and `joules` of the interval to rank 0, which writes them."""
        report = self._meter.report() if self._meter else {"device": None}
        report |= {"idle_watts": self._idle_watts, "joules": joules}
        self._reports: Sequence[Mapping[str, Any] | None]
        self._reports = self._place.gather(self._report(report)) or []
        self._totals = self._before
        if self._place.rank == 0:
            self._totals = add_reports(self._before, self._reports, self._place.world_size)
            self._totals.own_seconds += self._own_seconds
            write_totals(self._place.run_dir, self._totals)
        self._written_s = self._clock()

    def _report(self, values: Mapping[str, Any]) -> dict[str, Any]:
        source = self._choice.source
        scope = source.info.scope if source else "device"
        covers = {
            "device": f"rank {self._place.rank}",
            "node": f"node {boot_id(self._place.hostname)}",
            "job": "job",
        }
        return {
            "device": self._meter.source.info.device if self._meter else None,
            "source": source.info.name if source else None,
            "covers": covers[scope],
            "reason": self._choice.reason if source is None else f"its {scope}'s meter is missing",
            **values,
        }


def _before_this_start(place: RunPlace, state: Mapping[str, Any] | None) -> Totals:
    """Return what earlier starts metered: the checkpoint's totals and what came after it."""
    newest = read_totals(place.run_dir)
    if state or newest:
        return taken_up(Totals.from_state(state) if state else Totals(), newest)
    before = Totals()
    if _has_rows(place):
        before.reasons.append(
            "resumed from a checkpoint without meter totals: earlier joules are unknown"
        )
    return before


def _has_rows(place: RunPlace) -> bool:
    """Say whether earlier steps of this run were logged."""
    try:
        with (place.run_dir / "metrics.jsonl").open(encoding="utf-8") as rows:
            return bool(json.loads(next(rows, "null")))
    except (OSError, ValueError):
        return False
