"""What a run will take before it runs, and who can tell."""

from dataclasses import dataclass
from typing import Protocol

from moe.config.experiment import Experiment

JOULES_BOUNDARY = "equipment, without PUE"
"""What joules of a sweep count: measured, planned, held and in its results alike. Which equipment
a source knows, it says itself."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What one run takes; None is not known, and `reason` says why."""

    seconds: float | None = None
    """Of training; starting a process and evaluating are not counted."""
    joules: float | None = None
    """Of the equipment, as a meter of the run counts them: `JOULES_BOUNDARY`."""
    money: float | None = None
    reason: str | None = None


class Speed(Protocol):
    """Tells what runs take."""

    @property
    def source(self) -> str | None:
        """Where the numbers come from; None: they are unknown."""

    def cost(self, experiment: Experiment) -> RunCost:
        """Return what an experiment takes for its steps."""


class UnknownSpeed:
    """Nothing was measured and no card is named."""

    source: str | None = None

    def cost(self, experiment: Experiment) -> RunCost:
        """Return nothing but the reason."""
        return RunCost(reason="no speed: give --measured RUN, or --gpu and --gpus to plan it")
