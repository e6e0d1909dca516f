"""The `memory` section of a run's record: what was modelled, and the peak that was measured."""

from typing import Any

import torch

from moe.config.experiment import Experiment
from moe.cost.memory_need import learns_whole, reference_bytes, workload_of
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine
from parallel.hardware.host_memory import forget_process_peak, process_bytes
from parallel.layout.placement import place
from parallel.planner.memory import peak_memory


class MemoryMeter:
    """Measures the peak memory of this rank from now on."""

    def __init__(self, experiment: Experiment, engine: Engine) -> None:
        """Begin: before the model is built."""
        self._experiment, self._engine = experiment, engine
        self._counts_peak = True
        if engine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(engine.device)
            self._start_bytes = torch.cuda.memory_allocated(engine.device)
            return
        try:
            forget_process_peak()
        except OSError:  # an earlier run of this process may have had more
            self._counts_peak = False
        self._start_bytes = process_bytes("VmRSS")

    def section(self) -> dict[str, Any]:
        """Return the modelled peak of the fullest stage, and the fullest rank's; collective."""
        ranks = all_gather_objects(self._measured())
        known = [rank for rank in ranks if rank["peak_bytes"] is not None]
        measured = max(known or ranks, key=lambda rank: rank["peak_bytes"] or 0)
        return {"memory": {"modelled": self._modelled(), "measured": measured}}

    def _measured(self) -> dict[str, Any]:
        on_gpu = self._engine.device.type == "cuda"
        peak: int | None = None
        if on_gpu:
            peak = torch.cuda.max_memory_allocated(self._engine.device)
        elif self._counts_peak:
            peak = process_bytes("VmHWM")
        return {
            "peak_bytes": peak,
            "start_bytes": self._start_bytes,
            "rank": self._engine.rank,
            "boundary": "device memory allocated" if on_gpu else "process resident size",
            "kind": "measured",
        }

    def _modelled(self) -> dict[str, Any] | None:
        """Return the terms of `peak_memory`; None where parameters are frozen: not modelled."""
        if not learns_whole(self._experiment):
            return None
        work = workload_of(
            self._experiment, place(self._experiment.parallel, self._engine.world_size)
        )
        memory = peak_memory(work)
        reference = reference_bytes(self._experiment, work, memory.stage)
        terms = memory.as_json() | {"reference_bytes": reference}
        return terms | {"total_bytes": memory.total_bytes + reference}
