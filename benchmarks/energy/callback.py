"""The energy meter of a training run, as a callback."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.energy.preflight import check_energy
from benchmarks.energy.rank_meter import open_rank_meter
from benchmarks.energy.run_meter import RunMeter
from benchmarks.energy.source import Clock
from benchmarks.energy.sources.selection import SourceSelection, select_source
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import Phase, RankContext


class EnergyCallback:
    """Meters joules by phase, summed over devices (a `Callback`).

    Counters are read at step and phase boundaries without synchronizing the device: a GPU's
    queued work falls into the next interval, never out of the total.
    """

    def __init__(
        self,
        config: EnergyConfig,
        select: Callable[[EnergyConfig, RankContext], SourceSelection] = select_source,
        clock: Clock = time.monotonic,
    ) -> None:
        """Set up metering; `start` opens the source that `select` returns.

        Raises:
            InputError: `energy.region` is not a zone of the carbon table, or `energy.power_csv`
                cannot be read.
        """
        check_energy(config)
        self._config = config
        self._select = select
        self._clock = clock
        self._run: RunMeter | None = None

    def start(self, context: RankContext, state: Mapping[str, Any] | None) -> None:
        """Open the meter and measure idle power; a collective call.

        Raises:
            BenchmarkError: The source requested by name is not available.
        """
        selection = self._select(self._config, context)
        self._run = RunMeter(open_rank_meter(self._config, selection, context, state, self._clock))

    def phase(self, name: Phase) -> None:
        """End the current phase and begin `name`; a collective call."""
        self._started().enter(name)

    def step(self, step: int, tokens: int) -> Mapping[str, float | None]:
        """Return `energy_joules` since the last row that had it, over all devices (rank 0)."""
        return {"energy_joules": self._started().step_joules(tokens)}

    def state(self) -> Mapping[str, Any]:
        """Return rank 0's totals up to the last phase change, as JSON values."""
        return self._started().state()

    def finish(self) -> Mapping[str, Any]:
        """Return the record's `energy` and `load` (rank 0; others nothing); a collective call."""
        return self._started().finish()

    def _started(self) -> RunMeter:
        if self._run is None:
            raise RuntimeError("the energy meter was not started: call `start` first")
        return self._run
