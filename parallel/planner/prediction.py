"""One job on one kind of card: memory, seconds, energy, and what limits it."""

from dataclasses import dataclass
from typing import Any

from parallel.planner.device_memory import DeviceMemory
from parallel.planner.flops import TERA
from parallel.planner.workload import Workload


@dataclass(frozen=True, kw_only=True)
class LayoutPrediction:
    """What the planner says of one job. Everything is *modelled*."""

    work: Workload
    memory: DeviceMemory
    fits: bool
    step_seconds: float
    interval: tuple[float, float]
    """80% interval of the seconds."""
    terms: dict[str, float]
    """Seconds of the busiest stage by term; they add up to `step_seconds`."""
    flops_per_token: int
    joules_per_token: float | None
    limits: tuple[str, ...]
    """What takes most time beside matrix products, largest first."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second and card."""
        batch = self.work.batch
        tokens = batch.global_batch_size * batch.seq_len
        return tokens / (self.step_seconds * self.work.placement.num_ranks)

    @property
    def tflops(self) -> float:
        """TFLOP/s a card, by the ledger's convention."""
        return self.tokens_per_second * self.flops_per_token / TERA

    def as_json(self) -> dict[str, Any]:
        """Return an entry of `moe plan --json` (a stable contract)."""
        layout, placement = self.work.layout, self.work.placement
        return {
            "layout": {
                **placement.sizes,
                "vpp": layout.vpp,
                "sp": bool(layout.sp),
                "micro_batch_size": self.work.batch.micro_batch_size,
                "global_batch_size": self.work.batch.global_batch_size,
                "recompute": layout.recompute,
                "recompute_modules": list(layout.recompute_modules)
                if layout.recompute == "selective"
                else [],
                "dispatcher": layout.exchange_library,
                "overlap_experts": layout.overlap_experts,
                "ends_count_as_layers": layout.ends_count_as_layers,
                "stage_layers": None if layout.stage_layers is None else list(layout.stage_layers),
            },
            "fits": self.fits,
            "memory_bytes": self.memory.total_bytes,
            "memory": self.memory.as_json(),
            "step_time_s": self.step_seconds,
            "step_time_interval_s": list(self.interval),
            "tokens_per_s_per_gpu": self.tokens_per_second,
            "tflops_per_gpu": self.tflops,
            "energy_joules_per_token": self.joules_per_token,
            "limits": list(self.limits),
            "terms": self.terms,
            "kind": "modelled",
        }
