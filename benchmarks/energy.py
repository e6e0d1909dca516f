"""The run's energy meter: an observer that never touches the arithmetic it watches."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.carbon import zone
from benchmarks.energy_choice import Choice, choose_source
from benchmarks.energy_meter import PhaseMeter
from benchmarks.energy_record import energy_record
from benchmarks.energy_source import Clock, boot_id
from benchmarks.energy_totals import Totals, add_reports, first_of_each_device
from moe.config.energy import EnergyConfig
from moe.observe import Phase, RunPlace

# With several ranks a row's joules need a collective: at every so many calls of `step`.
GATHER_CALLS = 32


class EnergyObserver:
    """Joules by phase, summed over devices, with their origin (an `Observer` of moe/observe.py).

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

    def start(self, place: RunPlace, state: Mapping[str, Any] | None) -> None:
        """Open the meter and measure idle power; a collective call.

        Raises:
            BenchmarkError: The meter asked for by name is not there.
        """
        self._place = place
        self._choice = self._choose(self._config, place)
        self._meter = self._open_meter(self._choice)
        self._idle_watts = self._measure_idle_watts()
        self._before = Totals.from_state(state) if state else Totals()
        if not state and _has_rows(place):
            self._before.reasons.append(
                "resumed from a checkpoint without meter totals: earlier joules are unknown"
            )
        self._collect()

    def phase(self, name: Phase) -> None:
        """Close the running phase and begin `name`; a collective call."""
        if self._meter is not None:
            self._meter.enter(name)
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
        return self._totals.to_state()

    def finish(self) -> Mapping[str, Any]:
        """Return the record's `energy` section (rank 0; others an empty one). Collective."""
        self.phase("idle")
        if self._place.rank != 0:
            return {}
        return {
            "energy": energy_record(
                self._totals,
                self._reports,
                config=self._config,
                choice=self._choice,
                tokens=self._tokens,
                own_seconds=self._own_seconds,
            )
        }

    def _open_meter(self, choice: Choice) -> PhaseMeter | None:
        source = choice.source
        # A node's counter is read by one rank of it, whatever their number.
        if source is None or (source.info.node_wide and self._place.local_rank != 0):
            return None
        return PhaseMeter(source, self._clock)

    def _measure_idle_watts(self) -> float | None:
        seconds = self._config.idle_seconds
        if self._meter is None or self._meter.source.info.kind != "measured" or seconds <= 0:
            return None
        return self._meter.idle_watts(seconds)

    def _interval_joules(self) -> float | None:
        if self._place.world_size == 1:
            return self._meter.take_train_joules() if self._meter else None
        if self._calls % GATHER_CALLS:
            return None
        joules = self._meter.take_train_joules() if self._meter else None
        reports = self._place.gather(self._report({"joules": joules}))
        if reports is None:
            return None
        parts = [report["joules"] for report in first_of_each_device(reports)]
        known = parts and None not in parts and not self._totals.reasons
        return sum(parts) if known else None

    def _collect(self) -> None:
        """Gather every rank's totals to rank 0."""
        report = self._meter.report() if self._meter else {"device": None}
        reports = self._place.gather(self._report({**report, "idle_watts": self._idle_watts}))
        self._reports: Sequence[Mapping[str, Any] | None] = reports or []
        self._totals = self._before
        if self._place.rank == 0:
            self._totals = add_reports(self._before, self._reports, self._place.world_size)

    def _report(self, values: Mapping[str, Any]) -> dict[str, Any]:
        source = self._choice.source
        node_wide = source is not None and source.info.node_wide
        node = boot_id(self._place.hostname)
        return {
            "device": self._meter.source.info.device if self._meter else None,
            "source": source.info.name if source else None,
            "covers": f"node {node}" if node_wide else f"rank {self._place.rank}",
            "reason": self._choice.reason if source is None else "its node's meter is missing",
            **values,
        }


def _has_rows(place: RunPlace) -> bool:
    """Say whether earlier steps of this run were logged."""
    try:
        with (place.run_dir / "metrics.jsonl").open(encoding="utf-8") as rows:
            return bool(json.loads(next(rows, "null")))
    except (OSError, ValueError):
        return False
