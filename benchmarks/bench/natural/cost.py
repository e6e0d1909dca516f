"""What natural routing costs over forced, layer by layer: steps of both in turn, as pairs."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.natural.layer_timer import LayerTimer
from benchmarks.bench.natural.replay import Replay
from benchmarks.bench.session import print_status
from moe.routing.decision_hooks import sparse_layers
from parallel.engine.collectives import all_gather_objects
from parallel.measurement.intervals import median_interval

if TYPE_CHECKING:
    from benchmarks.bench.trainer import MeasuredTrainer

NATURAL, FORCED = RoutingProfile("natural"), RoutingProfile("forced")


class _Steps:
    """Steps under one routing."""

    def __init__(self, subject: "MeasuredTrainer", profile: RoutingProfile, replay: Replay | None):
        self._subject, self._profile, self._replay = subject, profile, replay
        self._timer = LayerTimer(subject.sparse_layers(), subject.engine.device)
        self.step_s: list[float] = []
        self.layer_s: list[dict[int, float]] = []
        self.loads: list[list[float]] = []

    def run(self) -> None:
        """Run a step."""
        self._subject.force_routing(self._profile, self._replay)
        with self._timer.timing():
            self.step_s.append(self._subject.step())
        self.layer_s.append(self._timer.pop())
        self.loads.append(self._subject.last_loads)

    def forget(self) -> None:
        """Forget the steps so far: they only warmed up."""
        for kept in (self.step_s, self.layer_s, self.loads):
            kept.clear()


def routing_cost(
    subject: "MeasuredTrainer", replay: Replay | None, *, warmup: int, repeats: int
) -> dict[str, Any]:
    """Return the times of natural over those of forced routing: of each sparse layer and the step.

    Natural and forced steps take turns, and who is first changes from pair to pair, so that drift
    meets both alike; each ratio is that of a pair. A layer's time is that of its feed-forward part
    (router, dispatch, experts), forward and backward, on its slowest rank. Every rank must call it.

    Args:
        subject: A trainer that routes naturally, if there is no `replay`.
        replay: Recorded decisions.
        warmup: Pairs before, which do not count.
        repeats: Pairs.
    """
    natural, forced = (_Steps(subject, profile, replay) for profile in (NATURAL, FORCED))
    for number in range(warmup + repeats):
        if subject.engine.is_main:
            print_status(f"natural beside forced: pair {number + 1} of {warmup + repeats}")
        if number == warmup:
            natural.forget()
            forced.forget()
        for steps in (natural, forced) if number % 2 else (forced, natural):
            steps.run()
    layers = sparse_layers(subject.experiment.model)
    times = [slowest(all_gather_objects(steps.layer_s)) for steps in (natural, forced)]
    loads = [[fmean(layer) for layer in zip(*steps.loads, strict=True)]
             for steps in (natural, forced)]  # fmt: skip
    rows = [
        {
            "layer": layer,
            "busiest_over_even": loads[0][index],
            "forced_busiest_over_even": loads[1][index],
            **_compared(*([repeat[layer] for repeat in one] for one in times)),
        }
        for index, layer in enumerate(layers)
    ]
    return {"layers": rows, "step": _compared(natural.step_s, forced.step_s)}


def _compared(natural_s: Sequence[float], forced_s: Sequence[float]) -> dict[str, Any]:
    ratios = [one / other for one, other in zip(natural_s, forced_s, strict=True)]
    return {
        "natural_s": median_interval(natural_s).to_json(),
        "forced_s": median_interval(forced_s).to_json(),
        "time_over_forced": median_interval(ratios).to_json(),
    }


def slowest(by_rank: Sequence[Sequence[Mapping[int, float]]]) -> list[dict[int, float]]:
    """Return the longest time of each layer in each repeat, over the ranks that have the layer."""
    merged: list[dict[int, float]] = []
    for repeat in zip(*by_rank, strict=True):
        longest: dict[int, float] = {}
        for times in repeat:
            for layer, seconds in times.items():
                longest[layer] = max(seconds, longest.get(layer, 0.0))
        merged.append(longest)
    return merged
