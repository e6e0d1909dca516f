"""A design to its points: combinations, what is held, duplicates, and the budget."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.sweeps.axes import Settings, drawn, grid
from benchmarks.sweeps.design import Design
from benchmarks.sweeps.held import MEANING, JoulesPerToken, held_points
from benchmarks.sweeps.point import Point, make_point
from benchmarks.sweeps.speed import RunCost, Speed
from data.errors import InputError
from moe.config.experiment import Experiment

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
            "currency": self.design.base.energy.currency,
            "costs": "modelled" if self.speed_source else None,
            "speed": self.speed_source,
            "reason": self.reason,
            "duplicates": self.duplicates,
            "illegal": list(self.illegal),
            "cut": self.cut,
        }


def expand(design: Design, speed: Speed) -> Expansion:
    """Return the points of a design within its budget.

    Raises:
        BenchmarkError: No point is left; the budget is exceeded, or in a quantity not known.
        InputError: A combination of a design that is not random makes no legal experiment.
    """
    points: dict[str, Point] = {}
    duplicates, illegal = 0, []
    for settings in _combinations(design):
        try:
            found = list(_points(design, settings, speed))
        except InputError as error:
            if design.file.kind != "random":
                raise type(error)(f"{error} (with {_text(settings)})") from None
            illegal.append(f"{_text(settings)}: {error}")
            continue
        for point in found:
            known = points.setdefault(point.run_name, point)
            duplicates += known is not point
            if not known.experiment.may_continue_as(point.experiment):
                raise BenchmarkError(
                    f"{design.path}: two runs would be called {point.run_name}: change train.seed"
                )
    if not points:
        raise BenchmarkError(f"{design.path}: no legal point: {illegal[0]}")
    planned = tuple(Planned(one, speed.cost(one.experiment)) for one in points.values())
    kept, cut = _within_budget(design, planned)
    return Expansion(design, kept, duplicates, tuple(illegal), cut, speed.source)


def _combinations(design: Design) -> Iterator[Settings]:
    if design.file.random is not None:
        return drawn(design.axes, design.file.random)
    return grid(design.axes, str(design.path))


def _points(design: Design, settings: Settings, speed: Speed) -> Iterator[Point]:
    if design.file.hold:
        return held_points(design, settings, _joules_per_token(speed))
    return iter([make_point(design, settings)])


def _joules_per_token(speed: Speed) -> JoulesPerToken | None:
    if speed.source is None:
        return None

    def joules(experiment: Experiment) -> float:
        cost, train = speed.cost(experiment), experiment.train
        if not cost.joules:
            raise BenchmarkError(f"the joules of a token are not known: {cost.reason}")
        return cost.joules / (train.steps * train.positions_per_step)

    return joules


def _within_budget(
    design: Design, points: tuple[Planned, ...]
) -> tuple[tuple[Planned, ...], str | None]:
    """Return the first points within all limits, and what was left out.

    Raises:
        BenchmarkError: A limit is exceeded that refuses, or by the first point; or what counts to
            it is not known.
    """
    budget, kept = design.file.budget, points
    cut: str | None = None
    for limit in LIMITS:
        most = getattr(budget, f"max_{limit}")
        if most is None:
            continue
        total, count = 0.0, 0
        for one in kept:
            spent = one.spent(limit)
            if spent is None:
                raise BenchmarkError(
                    f"{design.path}: budget.max_{limit} needs {limit}: {one.cost.reason}"
                )
            total += spent
            count += total <= most * (1 + 1e-9)
        if count == len(kept):
            continue
        said = f"budget.max_{limit}={most:.6g}: {len(kept)} points take {total:.6g}"
        if budget.beyond == "refuse" or not count:
            raise BenchmarkError(
                f'{design.path}: {said}: raise it, turn fewer values, or set budget.beyond = "cut"'
            )
        cut = f"{said}: the last {len(points) - count} of {len(points)} are left out"
        kept = kept[:count]
    return kept, cut


def _text(settings: Settings) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
