"""A run's totals from all ranks' reports: each device once, a reason for whatever is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, StrictBool, ValidationError

from benchmarks.energy.phases.machine_load import MachineLoad
from benchmarks.energy.source import EnergyOrigin
from benchmarks.errors import BenchmarkError
from moe.config.explain import explain
from moe.runs.format import Amount, Count, Number, Text
from parallel.measurement.measurement import Measurement


class PhaseTotal(BaseModel):
    """Totals of a phase."""

    joules: Number
    seconds: Number
    quantisation_joules: Number = 0.0


class LoadState(BaseModel):
    """A `MachineLoad` as files hold it."""

    others_s: Number = 0.0
    capacity_s: Number = 0.0


class TotalsState(BaseModel):
    """Totals as files hold them; spelled as in those of older runs. Unknown keys are ignored."""

    phases: dict[str, PhaseTotal]
    reasons: list[Text]
    starts: Count
    own_seconds: Amount = 0.0
    killed: Count = 0
    closed: StrictBool = True
    phase_rows: Count = 0
    quantization_joules: Number | None = None
    load: LoadState | None = None


@dataclass
class Totals:
    """Joules and seconds by phase over all devices, of this start and all earlier ones."""

    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    """`joules` over all devices, `seconds` on rank 0's clock, and `quantisation_joules`, which is
    spelled as in the files of older runs."""
    reasons: list[str] = field(default_factory=list)
    """Why joules are missing; empty where the totals are complete."""
    starts: int = 1
    """How often the run was started or resumed."""
    metering_seconds: float = 0.0
    """Time that metering took between training steps on rank 0, s."""
    killed: int = 0
    """Starts that were killed; the last seconds of each are not metered."""
    quantization_joules: float = 0.0
    """Quantization error of the sum over all phases. A reading between two phases ends one and
    begins the other, so its error cancels: only those of each start's two ends are left."""

    load: MachineLoad = MachineLoad()
    """What other programs took of the run's processors."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any], origin: str) -> "Totals":
        """Continue from the totals of an earlier start (`to_state`), which `origin` held.

        Raises:
            BenchmarkError: They are damaged.
        """
        try:
            held = TotalsState.model_validate(state)
        except ValidationError as error:
            raise BenchmarkError(
                f"{origin}: {explain(error, TotalsState, by_hand=False)}: restore it"
            ) from None
        # An older state has only the phases' errors; their sum is the coarser bound.
        coarser = sum(phase.quantisation_joules for phase in held.phases.values())
        exact = held.quantization_joules
        return cls(
            {name: phase.model_dump() for name, phase in held.phases.items()},
            held.reasons,
            held.starts + 1,
            held.own_seconds,
            held.killed + (not held.closed),
            coarser if exact is None else exact,
            MachineLoad() if held.load is None else MachineLoad(**held.load.model_dump()),
        )

    def to_state(self) -> dict[str, Any]:
        """Return JSON values from which `from_state` continues."""
        return {
            "phases": self.phases,
            "reasons": self.reasons,
            "starts": self.starts,
            "own_seconds": self.metering_seconds,
            "killed": self.killed,
            "quantization_joules": self.quantization_joules,
            "load": self.load.to_json(),
        }

    @property
    def train_seconds(self) -> float:
        """Time in the train phase, s."""
        return self.phases.get("train", {}).get("seconds", 0.0)

    def add(
        self, phase: str, *, joules: float = 0.0, seconds: float = 0.0, quantization: float = 0.0
    ) -> None:
        """Add to a phase: energy (J), time (s), and the energy's quantization error (J)."""
        total = self.phases.setdefault(
            phase, {"joules": 0.0, "seconds": 0.0, "quantisation_joules": 0.0}
        )
        total["joules"] += joules
        total["seconds"] += seconds
        total["quantisation_joules"] += quantization

    def energy(self, origin: EnergyOrigin, phase: str | None = None) -> Measurement:
        """Return a phase's energy (all phases: `None`), J."""
        if self.reasons:
            return Measurement.missing("J", origin.source, "; ".join(self.reasons))
        totals = [t for name, t in self.phases.items() if phase in (None, name)]
        if not totals:
            return Measurement.missing("J", origin.source, f"the run had no phase {phase}")
        joules = sum(total["joules"] for total in totals)
        if phase is None:
            return origin.energy(joules, self.quantization_joules, self._limit())
        return origin.energy(joules, sum(total["quantisation_joules"] for total in totals))

    def _limit(self) -> str | None:
        if not self.killed:
            return None
        times = "once" if self.killed == 1 else f"{self.killed} times"
        return f"killed {times}: the last seconds of work that was then redone are not metered"


def first_of_each_device(reports: Sequence[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """Return one report for each physical device; a device read by two ranks counts once."""
    by_device: dict[str, Mapping[str, Any]] = {}
    for report in reports:
        if report is not None and report["device"] is not None:
            by_device.setdefault(report["device"], report)
    return list(by_device.values())


def missing_reasons(reports: Sequence[Mapping[str, Any] | None], world_size: int) -> list[str]:
    """Return why the reported energy is incomplete; empty where it is complete.

    A rank without a meter of its own is covered if another rank reads its node or job.
    """
    reasons = []
    if len(reports) != world_size:
        reasons.append(f"{len(reports)} of {world_size} ranks reported")
    present = [report for report in reports if report is not None]
    covered = {report["covers"] for report in present if report["device"] is not None}
    names = {report["source"] for report in present if report["device"] is not None}
    if len(names) > 1:
        reasons.append(f"ranks took different meters: {', '.join(sorted(names))}")
    for rank, report in enumerate(reports):
        if report is None:
            reasons.append(f"rank {rank} did not report")
        elif report.get("lost"):
            reasons.append(f"rank {rank}: {report['lost']}")
        elif report["device"] is None and report["covers"] not in covered:
            reasons.append(f"rank {rank}: {report['reason']}")
    return reasons


def add_reports(
    before: Totals, reports: Sequence[Mapping[str, Any] | None], world_size: int
) -> Totals:
    """Return `before` plus the reports of this start, one for each rank."""
    totals = replace(
        before,
        phases={name: dict(total) for name, total in before.phases.items()},
        reasons=list(before.reasons),
        load=before.load.plus(reports),
    )
    for report in first_of_each_device(reports):
        quantum = report["quantum_joules"] or 0.0
        totals.quantization_joules += quantum
        for name, phase in report["phases"].items():
            totals.add(name, joules=phase["joules"], quantization=quantum * phase["segments"])
    rank_0 = reports[0] or {}
    for name, phase in rank_0.get("phases", {}).items():
        totals.add(name, seconds=phase["seconds"])
    for reason in missing_reasons(reports, world_size):
        if reason not in totals.reasons:
            totals.reasons.append(reason)
    return totals
