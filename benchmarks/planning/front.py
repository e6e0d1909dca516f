"""The Pareto front of layouts: speed, memory left, joules a token."""

from collections.abc import Iterable, Sequence

from parallel.planner.prediction import LayoutPrediction


def pareto_front(predictions: Iterable[LayoutPrediction]) -> list[LayoutPrediction]:
    """Return the layouts that no other beats in one of the three without losing in another.

    Fastest first. Joules count where all have them.
    """
    ordered = sorted(predictions, key=lambda one: (one.step_seconds, one.memory.total_bytes))
    counts_joules = all(one.joules_per_token is not None for one in ordered)
    front: list[LayoutPrediction] = []
    costs: list[tuple[float, ...]] = []
    for one in ordered:
        cost = _costs(one, counts_joules)
        if not any(_at_least_as_good(other, cost) for other in costs):
            front.append(one)
            costs.append(cost)
    return front


def _costs(prediction: LayoutPrediction, counts_joules: bool) -> tuple[float, ...]:
    """Return what less of is better; seconds decide the order already."""
    joules = prediction.joules_per_token if counts_joules else 0.0
    return float(prediction.memory.total_bytes), joules or 0.0


def _at_least_as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
