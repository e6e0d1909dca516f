"""A design to its points: combinations, what is held, duplicates, and the budget."""

from collections.abc import Iterator

from benchmarks.errors import BenchmarkError
from benchmarks.sweeps.axes import Settings, drawn, grid
from benchmarks.sweeps.design import Design
from benchmarks.sweeps.expansion import LIMITS, Expansion, Planned
from benchmarks.sweeps.held import JoulesPerToken, held_points
from benchmarks.sweeps.make_point import make_point
from benchmarks.sweeps.point import Point
from benchmarks.sweeps.speed import Speed
from data.errors import InputError
from moe.config.experiment import Experiment


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
            if not _is_same_run(known.experiment, point.experiment):
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


def _is_same_run(one: Experiment, other: Experiment) -> bool:
    """Return whether two experiments of one hash train alike, as they should."""
    sections = ("model", "data", "parallel", "precision", "train")
    return all(getattr(one, name) == getattr(other, name) for name in sections)


def _text(settings: Settings) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
