"""The best layouts of a model on a number of cards: branch and bound over all legal ones.

Every candidate has a bound, cheap to compute: the seconds of its layers on the mean stage with the
bubble of its schedule, and nothing else. Candidates are looked at in the order of their bounds;
once as many were found that fit as were asked for, those whose bound is slower than the slowest of
them cannot be among the best.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import lcm

from parallel.errors import ParallelError
from parallel.layout.layout import Layout
from parallel.layout.placement import place
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import Bounds, Candidate, candidates
from parallel.planner.search.choices import Choice, exchanges, recomputations
from parallel.planner.search.state import least_state_bytes
from parallel.planner.workload import Workload

TimeLayers = Callable[[Workload], float]
"""Seconds of all layers of one micro-batch, forward and backward, had one stage them all."""
Predict = Callable[[Workload], LayoutPrediction]
Keep = Callable[[Candidate, Choice], bool]
"""Whether a candidate, run in a way, is looked at."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    best: tuple[LayoutPrediction, ...]
    """Those that fit, fastest first."""
    candidates: int
    """Layouts and micro-batches that are legal, each with every recomputation."""
    predicted: int
    """Of them, those whose bound left them worth a whole prediction."""
    too_large: int
    """Of those, the ones that do not fit."""
    fitting: tuple[LayoutPrediction, ...]
    """Of those, the ones that fit, in no promised order."""


def search(
    work: Workload,
    bounds: Bounds,
    *,
    predict: Predict,
    layers: TimeLayers,
    memory_bytes: float,
    count: int,
    keep: Keep | None = None,
) -> Found:
    """Return the `count` fastest layouts that fit.

    Args:
        work: The job; its layout says what a search leaves as it is.
        bounds: What may be tried.
        predict: Predicts one job in full.
        layers: Seconds of layers, which jobs share.
        memory_bytes: Of a card.
        count: Layouts to return.
        keep: Which candidates; default: all.
    """
    queue = sorted(_bounded(work, bounds, layers, memory_bytes, keep), key=lambda item: item[:2])
    best: list[tuple[float, int, LayoutPrediction]] = []
    fitting: list[LayoutPrediction] = []
    predicted = too_large = 0
    for seconds, number, candidate, choice in queue:
        if len(best) == count and seconds > -best[0][0]:
            break
        predicted += 1
        prediction = predict(_job(work, candidate, choice, bounds.ranks))
        if not prediction.fits:
            too_large += 1
            continue
        fitting.append(prediction)
        heapq.heappush(best, (-prediction.step_seconds, -number, prediction))
        if len(best) > count:
            heapq.heappop(best)
    ordered = tuple(prediction for _, _, prediction in sorted(best, key=lambda item: -item[0]))
    return Found(ordered, len(queue), predicted, too_large, tuple(fitting))


def _bounded(
    work: Workload,
    bounds: Bounds,
    layers: TimeLayers,
    memory_bytes: float,
    keep: Keep | None,
) -> Iterator[tuple[float, int, Candidate, Choice]]:
    """Yield every candidate with a lower bound of its seconds."""
    known: dict[tuple[object, ...], tuple[float, Choice]] = {}
    recomputed = recomputations(work.shape)
    number = 0
    state_bytes = least_state_bytes(work.shape)
    for candidate in candidates(work.shape, bounds):
        if state_bytes(candidate) > memory_bytes:
            continue
        steps = bounds.global_batch_size // (candidate.micro_batch_size * candidate.dp)
        rounds = (steps + (candidate.pp - 1) / candidate.vpp) / candidate.pp
        overlaps = candidate.pp == 1 or candidate.vpp > 1
        for index, recomputation in enumerate(recomputed):
            key = (
                candidate.tp, candidate.cp, candidate.ep, candidate.etp,
                candidate.micro_batch_size, overlaps, index,
            )  # fmt: skip
            if key not in known:
                known[key] = _fastest_exchange(
                    work, bounds, candidate, recomputation, layers
                )
            seconds, choice = known[key]
            if keep is not None and not keep(candidate, choice):
                continue
            number += 1
            yield seconds * rounds, number, candidate, choice


def _fastest_exchange(
    work: Workload,
    bounds: Bounds,
    candidate: Candidate,
    recomputation: Choice,
    layers: TimeLayers,
) -> tuple[float, Choice]:
    """Return the seconds of all layers on one stage with the fastest way to exchange tokens."""
    one_stage = replace(candidate, pp=1, vpp=1, ends_count_as_layers=False, stage_layers=None)
    ranks = lcm(candidate.tp * candidate.cp, candidate.ep * candidate.etp)
    best: tuple[float, Choice] = (float("inf"), {})
    for exchange in exchanges(
        work.shape, bounds.exchange_libraries, candidate, recomputation
    ):
        choice = recomputation | exchange
        seconds = layers(_job(work, one_stage, choice, ranks))
        if seconds < best[0]:
            best = seconds, choice
    return best


def _job(work: Workload, candidate: Candidate, choice: Choice, ranks: int) -> Workload:
    layout: Layout = candidate.layout(work.layout, choice)
    return replace(
        work,
        placement=place(layout, ranks),
        batch=replace(work.batch, micro_batch_size=candidate.micro_batch_size),
    )


def checked(found: Found, ranks: int) -> Found:
    """Return what was found.

    Raises:
        ParallelError: Nothing fits, or nothing is legal.
    """
    if found.best:
        return found
    if not found.candidates:
        raise ParallelError(
            f"gpus={ranks}: no layout of this model and batch is legal: change gpus or"
            " train.global_batch_size"
        )
    raise ParallelError(
        f"gpus={ranks}: none of {found.candidates:,} layouts fits in memory: take more cards, or"
        " larger ones"
    )
