"""One job on one kind of card: memory, seconds, energy, and what limits it."""

from dataclasses import asdict, dataclass
from typing import Any

from parallel.planner.device_memory import DeviceMemory
from parallel.planner.energy import StepEnergy
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
    energy: StepEnergy | None = None
    """None where the card's power is unknown, or not asked for."""
    limits: tuple[str, ...] = ()
    """What takes most time, and a full memory, largest first."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second and card."""
        batch = self.work.batch
        tokens = batch.global_batch_size * batch.seq_len
        return tokens / (self.step_seconds * self.work.placement.num_ranks)

    @property
    def joules_per_token(self) -> float | None:
        """Joules of a token at the nodes, AC: boards, hosts, fans and power supplies."""
        return None if self.energy is None else self.energy.per_token()["nodes"].value

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
            "memory_allocated_bytes": self.memory.allocated.total_bytes,
            "memory_stage": self.memory.allocated.stage,
            "step_time_s": self.step_seconds,
            "step_time_interval_s": list(self.interval),
            "tokens_per_s_per_gpu": self.tokens_per_second,
            "tflops_per_gpu": self.tflops,
            "energy_joules_per_token": self.joules_per_token,
            "energy": self._energy_json(),
            "limits": list(self.limits),
            "terms": self.terms,
            "kind": "modelled",
        }

    def _energy_json(self) -> dict[str, Any] | None:
        """Return joules a token by boundary with their 80% intervals."""
        if self.energy is None:
            return None
        estimates = self.energy.per_token()
        return {
            "joules_per_token": {name: asdict(each) for name, each in estimates.items()},
            "at_power_limit": self.energy.limit_joules / self.energy.tokens,
            "assumptions": list(self.energy.assumptions),
        }
