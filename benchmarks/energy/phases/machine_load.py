"""What other programs took of a run's processors while it ran: its speed depends on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from parallel.measurement.measurement import Measurement

SOURCE = "/proc/stat"


@dataclass(frozen=True)
class MachineLoad:
    """Processor time on all nodes of a run, over all its starts."""

    others_s: float = 0.0
    """Taken by other programs, or by a hypervisor for other machines, s."""
    capacity_s: float = 0.0
    """Processors times wall time, s."""

    def to_json(self) -> dict[str, float]:
        """Return JSON values, one key for each field."""
        return asdict(self)

    def plus(self, reports: Sequence[Mapping[str, Any] | None]) -> "MachineLoad":
        """Return this load with that of a start, as its ranks report it.

        Ranks that share processors count them once; what every rank used itself is no load.
        """
        loads = [report["load"] for report in reports if report and report.get("load")]
        shared = {(load["node"], tuple(load["processors"])): load for load in loads}
        busy_s = sum(load["busy_s"] for load in shared.values())
        own_s = sum(load["own_s"] for load in loads)
        capacity_s = sum(load["seconds"] * len(load["processors"]) for load in shared.values())
        return MachineLoad(self.others_s + max(0.0, busy_s - own_s), self.capacity_s + capacity_s)

    @property
    def others(self) -> Measurement:
        """Share of the processors that others took."""
        if not self.capacity_s:
            return Measurement.missing("share", SOURCE, "the run was too short to tell")
        return Measurement(
            value=self.others_s / self.capacity_s,
            unit="share",
            source=SOURCE,
            boundary="processors that the run may use",
            kind="measured",
        )
