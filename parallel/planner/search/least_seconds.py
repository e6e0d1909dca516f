"""Seconds of a step that no layout of a job undercuts: the first bound of a search, and no more."""

from collections.abc import Callable
from math import inf

from parallel.planner.search.candidates import Bounds, Sizes, groups
from parallel.planner.search.ways import Ways
from parallel.planner.workload import Workload


def least_seconds(
    work: Workload,
    bounds: Bounds,
    ways: Ways,
    *,
    memory_bytes: float,
    among: Callable[[Sizes], bool],
) -> float:
    """Return the least bound of all layouts whose states can fit; infinite where none can.

    Arguments are as of `search`, which predicts nothing faster.
    """
    return min(
        (
            ways.least_seconds(alike[-1], bounds.global_batch_size)
            for sizes, alike in groups(work.shape, bounds)
            if among(sizes) and ways.least.state_bytes(alike[-1]) <= memory_bytes
        ),
        default=inf,
    )
