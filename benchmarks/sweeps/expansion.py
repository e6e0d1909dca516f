"""All points of a design, and what they take together."""

from dataclasses import dataclass
from typing import Any

from benchmarks.sweeps.design import Design
from benchmarks.sweeps.held import MEANING
from benchmarks.sweeps.point import Point
from benchmarks.sweeps.speed import JOULES_BOUNDARY, RunCost

LIMITS = ("runs", "flops", "hours", "joules", "money")


@dataclass(frozen=True)
class Planned:
    """A point and what it will take."""

    point: Point
    cost: RunCost

    def spent(self, limit: str) -> float | None:
        """Return what it adds to a limit of the budget; None is not known."""
        if limit == "runs":
            return 1
        if limit == "flops":
            return self.point.flops
        if limit == "hours":
            return None if self.cost.seconds is None else self.cost.seconds / 3600
        value: float | None = getattr(self.cost, limit)
        return value


@dataclass(frozen=True)
class Expansion:
    """All points of a design."""

    design: Design
    points: tuple[Planned, ...]
    duplicates: int
    """Combinations that make a run which another makes too: each runs once."""
    illegal: tuple[str, ...]
    """Random combinations that make no legal experiment, and why."""
    cut: str | None
    """What the budget left out; None: nothing."""
    speed_source: str | None

    def total(self, limit: str) -> float | None:
        """Return what all points take; None where one is not known."""
        values = [one.spent(limit) for one in self.points]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    @property
    def reason(self) -> str | None:
        """Why some number is not known."""
        return next((one.cost.reason for one in self.points if one.cost.reason), None)

    def as_json(self) -> dict[str, Any]:
        """Return the document of `moe sweep --json`."""
        kind = self.design.file.kind
        return {
            "name": self.design.name,
            "kind": kind,
            "held": MEANING.get(kind),
            "points": [
                one.point.as_json()
                | {"seconds": one.cost.seconds, "joules": one.cost.joules, "money": one.cost.money}
                for one in self.points
            ],
            "totals": {limit: self.total(limit) for limit in LIMITS},
            "joules_boundary": JOULES_BOUNDARY,
            "currency": None if self.total("money") is None else self.design.base.energy.currency,
            "costs": "modelled" if self.speed_source else None,
            "speed": self.speed_source,
            "reason": self.reason,
            "duplicates": self.duplicates,
            "illegal": list(self.illegal),
            "cut": self.cut,
        }
