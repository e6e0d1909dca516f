"""What iso designs hold, and what follows from it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.rungs import FARTHEST, NothingNearError
from benchmarks.sweeps.axes import Settings
from benchmarks.sweeps.design import HELD_DIALS, Design
from benchmarks.sweeps.make_point import make_point
from benchmarks.sweeps.point import Held, Point, flops_per_token
from benchmarks.sweeps.speed import JOULES_BOUNDARY
from moe.config.experiment import Experiment
from moe.cost.model_shape import batch_of, shape_of
from parallel.layout.placement import place
from parallel.planner.memory import peak_memory
from parallel.planner.workload import Workload

JoulesPerToken = Callable[[Experiment], float]
MEANING = {
    "iso-flop": "training FLOPs by the cost ledger are held; tokens follow",
    "iso-active": "active parameters are held; width and depth follow",
    "iso-total": "total parameters are held; width and depth follow",
    "iso-memory": "bytes that the busiest rank allocates in training are held, by the planner's"
    " memory model in the experiment's own layout; width and depth follow",
    "iso-energy": f"joules of a run ({JOULES_BOUNDARY}) are held; tokens follow",
}
NEAREST_STEPS = 24
"""Bisections of the active parameters, on a logarithmic scale, to a number of bytes."""
SMALLEST, LARGEST = 1e3, 1e14


def held_points(
    design: Design, settings: Settings, joules_per_token: JoulesPerToken | None
) -> Iterator[Point]:
    """Return the points of one combination of axes, one for each value that is held.

    Args:
        design: The design.
        settings: Values of its axes.
        joules_per_token: Of an experiment, for `iso-energy`.

    Raises:
        InputError: A point is no legal experiment, or what it needs is not known.
    """
    for value in design.file.hold:
        point = _held_point(design, settings, value, joules_per_token)
        real = _real(design.file.kind, point, joules_per_token)
        yield replace(point, held=Held(value, real))


def _held_point(
    design: Design, settings: Settings, value: float, joules_per_token: JoulesPerToken | None
) -> Point:
    kind = design.file.kind
    if kind in HELD_DIALS:
        return make_point(design, {**settings, HELD_DIALS[kind]: value})
    held = {**settings, kind: value}
    if kind == "iso-flop":
        return make_point(design, held, lambda one: value / flops_per_token(one))
    if kind == "iso-memory":
        return _of_memory(design, held, value)
    if joules_per_token is None:
        raise BenchmarkError(
            f'{design.path}: kind = "iso-energy" needs the joules of a token: give --measured RUN'
            " (of a run with a meter) or --gpu"
        )
    return make_point(design, held, lambda one: value / joules_per_token(one))


def _real(kind: str, point: Point, joules_per_token: JoulesPerToken | None) -> float:
    """Return what a point really has of what is held."""
    if kind in HELD_DIALS and point.rung is not None:
        return point.rung.real
    if kind == "iso-memory":
        return training_bytes(point.experiment)
    if joules_per_token is not None and kind == "iso-energy":
        return point.tokens * joules_per_token(point.experiment)
    return point.flops


def training_bytes(experiment: Experiment) -> int:
    """Return what the busiest rank allocates, *modelled*, on as few ranks as the layout takes."""
    layout = experiment.parallel
    ranks = layout.pp * math.lcm(layout.tp * layout.cp, layout.expert_tp * layout.ep)
    work = Workload(
        shape=shape_of(experiment.model),
        placement=place(layout, ranks),
        batch=batch_of(experiment.train),
        precision=experiment.precision,
    )
    return peak_memory(work).total_bytes


def _of_memory(design: Design, settings: Settings, asked: float) -> Point:
    """Return the point whose training memory is nearest to some bytes."""
    best: tuple[float, Point, float] | None = None
    low, high = math.log(SMALLEST), math.log(LARGEST)
    for _ in range(NEAREST_STEPS):
        size = math.exp((low + high) / 2)
        try:
            point = make_point(design, {**settings, "active_parameters": size})
        except NothingNearError:  # no model is so small, or so large
            is_small = best is None or size < best[2]
            low, high = (math.log(size), high) if is_small else (low, math.log(size))
            continue
        ratio = training_bytes(point.experiment) / asked
        if best is None or abs(math.log(ratio)) < best[0]:
            best = abs(math.log(ratio)), point, size
        low, high = (low, math.log(size)) if ratio > 1 else (math.log(size), high)
    if best is None or best[0] > math.log(FARTHEST):
        raise BenchmarkError(f"{design.path}: hold {asked:.6g} bytes: no model is near: change it")
    return best[1]
