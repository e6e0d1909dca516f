"""The best layouts of a model on a number of cards: branch and bound over all legal ones.

Layouts are looked at in the order of bounds of their seconds; once as many were found that fit as
were asked for, those whose bound is slower than the slowest of them cannot be among the best. The
bounds are refined in turn: that of a mean stage without recomputation, which all ways to recompute
share as none of them is faster; that of a way to recompute, by all stages and with the bubble; and
the whole prediction, of those that a bound of memory leaves.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from math import inf, lcm
from typing import NamedTuple

from parallel.errors import ParallelError
from parallel.layout.placement import place
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import Bounds, Candidate, candidates
from parallel.planner.search.choices import Choice, exchanges, recomputations
from parallel.planner.search.least_memory import LeastMemory
from parallel.planner.search.shared_times import ModelSeconds
from parallel.planner.search.stage_bound import StageBound
from parallel.planner.workload import Workload

TimeModel = Callable[[Workload], ModelSeconds]
"""Seconds of a model's parts; more where something is recomputed."""
Predict = Callable[[Workload], LayoutPrediction]
Among = Callable[[Candidate], bool]
"""Whether a candidate is one of those that are asked about."""
Keep = Callable[[Candidate, Choice], bool]
"""Whether a candidate, run in a way, is looked at."""
MEMORY_STEP = 0.05
"""Share by which a slower layout's memory must be smaller to be worth a look."""
WITHOUT = 0
"""Of `recomputations`, the one that recomputes nothing."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    best: tuple[LayoutPrediction, ...]
    """Those that fit, fastest first."""
    fitting: tuple[LayoutPrediction, ...]
    """All that were predicted and fit, in no promised order."""
    candidates: int
    """Layouts and micro-batches that are legal and asked about, each with every recomputation."""
    predicted: int
    """Of them, those whose bounds left them worth a whole prediction."""
    too_large: int
    """Of all, those that were found not to fit, by a bound or a prediction."""


@dataclass(frozen=True)
class _Way:
    """The fastest way to exchange tokens for some sizes and a recomputation."""

    bound: StageBound
    choice: Choice
    work: Workload
    """The job as it was timed, on one stage."""


class _Turn(NamedTuple):
    """What stands in the queue: a candidate, and how far its bound is refined."""

    seconds: float
    number: int
    """Of the candidate times the ways to recompute, and of the way; it breaks ties."""
    refined: bool
    candidate: Candidate
    least_bytes: float
    """A bound of its memory."""


def search(  # noqa: PLR0913 - what a search depends on
    work: Workload,
    bounds: Bounds,
    *,
    predict: Predict,
    model: TimeModel,
    memory_bytes: float,
    count: int,
    among: Among | None = None,
    keep: Keep | None = None,
    horizon: float = 1.0,
) -> Found:
    """Return the `count` fastest layouts that fit, and slower ones that need less memory.

    Args:
        work: The job; its layout says what a search leaves as it is.
        bounds: What may be tried.
        predict: Predicts one job in full.
        model: Seconds of a model's parts, which jobs share.
        memory_bytes: Of a card.
        count: Layouts to return.
        among: Which candidates; default: all.
        keep: Which of their ways; default: all.
        horizon: Over the fastest's seconds: up to there, what needs less memory than all that is
            faster, by `MEMORY_STEP`, is looked for too.
    """
    return _Search(work, bounds, predict, model, memory_bytes, among, keep).run(count, horizon)


class _Front:
    """Seconds and memory of the layouts that were found and that no other beats in both."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._bytes: list[int] = []

    @property
    def fastest(self) -> float:
        """Seconds of the fastest; infinite while there is none."""
        return self._seconds[0] if self._seconds else inf

    def least_memory(self, seconds: float) -> float:
        """Return the least bytes of those that take at most `seconds`; infinite without one."""
        number = bisect_right(self._seconds, seconds)
        return self._bytes[number - 1] if number else inf

    def add(self, prediction: LayoutPrediction) -> None:
        """Add a layout, and drop those that it beats."""
        seconds, needed = prediction.step_seconds, prediction.memory.total_bytes
        if self.least_memory(seconds) <= needed:
            return
        number = last = bisect_left(self._seconds, seconds)
        while last < len(self._seconds) and self._bytes[last] >= needed:
            last += 1
        self._seconds[number:last] = [seconds]
        self._bytes[number:last] = [needed]


class _Search:
    """One search: its queue, what it has timed, what it has found."""

    def __init__(  # noqa: PLR0913, PLR0917 - of `search` alone
        self,
        work: Workload,
        bounds: Bounds,
        predict: Predict,
        model: TimeModel,
        memory_bytes: float,
        among: Among | None,
        keep: Keep | None,
    ) -> None:
        self._work, self._bounds, self._among, self._keep = work, bounds, among, keep
        self._predict, self._model, self._memory_bytes = predict, model, memory_bytes
        self._recomputations = recomputations(work.shape, has_te=work.precision.kernels == "te")
        self._least = LeastMemory(work)
        self._ways: dict[Hashable, _Way] = {}
        self._exchanges: dict[Hashable, _Way] = {}
        self._candidates = self._predicted = self._too_large = 0

    def run(self, count: int, horizon: float) -> Found:
        """Look at layouts until no other can be among the best."""
        queue = self._queue()
        best: list[tuple[float, int, LayoutPrediction]] = []
        fitting: list[LayoutPrediction] = []
        front = _Front()
        while queue:
            turn = heapq.heappop(queue)
            if len(best) == count and turn.seconds > -best[0][0]:
                if turn.seconds > horizon * front.fastest:
                    break
                if front.least_memory(turn.seconds) * (1 - MEMORY_STEP) <= turn.least_bytes:
                    continue
            if not turn.refined:
                self._refine(turn, queue)
                continue
            prediction = self._prediction(turn)
            if prediction is None:
                continue
            fitting.append(prediction)
            front.add(prediction)
            heapq.heappush(best, (-prediction.step_seconds, -turn.number, prediction))
            if len(best) > count:
                heapq.heappop(best)
        ordered = sorted(best, key=lambda item: -item[0])
        return Found(
            best=tuple(prediction for _, _, prediction in ordered),
            fitting=tuple(fitting),
            candidates=self._candidates,
            predicted=self._predicted,
            too_large=self._too_large,
        )

    def _queue(self) -> list[_Turn]:
        """Return every candidate whose states can fit, bounded by a mean stage."""
        ways, queue = len(self._recomputations), []
        for order, candidate in enumerate(candidates(self._work.shape, self._bounds)):
            if self._among is not None and not self._among(candidate):
                continue
            self._candidates += ways
            least = self._least.state_bytes(candidate)
            if least > self._memory_bytes:
                self._too_large += ways
                continue
            bound = self._way(candidate, WITHOUT).bound
            seconds = bound.of_mean_stage(candidate, self._micro_batches(candidate))
            queue.append(_Turn(seconds, ways * order, False, candidate, least))
        heapq.heapify(queue)
        return queue

    def _refine(self, turn: _Turn, queue: list[_Turn]) -> None:
        """Put a candidate's ways to recompute into the queue that are asked for and can fit."""
        candidate, count = turn.candidate, self._micro_batches(turn.candidate)
        for index in range(len(self._recomputations)):
            way = self._way(candidate, index)
            if self._keep is not None and not self._keep(candidate, way.choice):
                continue
            least = self._least.total_bytes(candidate, way.work, count)
            if least > self._memory_bytes:
                self._too_large += 1
                continue
            seconds = way.bound.of_all_stages(candidate, count)
            number = turn.number + index
            heapq.heappush(queue, _Turn(seconds, number, True, candidate, least))

    def _micro_batches(self, candidate: Candidate) -> int:
        return self._bounds.global_batch_size // (candidate.micro_batch_size * candidate.dp)

    def _way(self, candidate: Candidate, index: int) -> _Way:
        sizes = (
            candidate.tp, candidate.cp, candidate.ep, candidate.etp, candidate.micro_batch_size,
            index,
        )  # fmt: skip
        key = (sizes, candidate.pp == 1 or candidate.vpp > 1)
        if key not in self._ways:
            libraries = self._bounds.exchange_libraries
            recomputation = self._recomputations[index]
            self._ways[key] = min(
                (
                    self._timed(sizes, candidate, recomputation | exchange)
                    for exchange in exchanges(self._work.shape, libraries, candidate, recomputation)
                ),
                key=lambda way: way.bound.total,
            )
        return self._ways[key]

    def _timed(self, sizes: Hashable, candidate: Candidate, choice: Choice) -> _Way:
        """Return a way to exchange tokens with its seconds on one stage."""
        key = (
            sizes, choice["dispatcher"], choice.get("flex_backend"), choice["overlap_experts"]
        )  # fmt: skip
        if key not in self._exchanges:
            one_stage = replace(
                candidate, pp=1, vpp=1, ends_count_as_layers=False, stage_layers=None
            )
            ranks = lcm(candidate.tp * candidate.cp, candidate.ep * candidate.etp)
            job = _job(self._work, one_stage, choice, ranks)
            self._exchanges[key] = _Way(StageBound(self._model(job)), choice, job)
        return self._exchanges[key]

    def _prediction(self, turn: _Turn) -> LayoutPrediction | None:
        """Return the whole prediction; None where it does not fit."""
        way = self._way(turn.candidate, turn.number % len(self._recomputations))
        job = _job(self._work, turn.candidate, way.choice, self._bounds.ranks)
        prediction = self._predict(job)
        self._predicted += 1
        if prediction.fits:
            return prediction
        self._too_large += 1
        return None


def _job(work: Workload, candidate: Candidate, choice: Choice, ranks: int) -> Workload:
    layout = candidate.layout(work.layout, choice)
    return replace(
        work,
        placement=place(layout, ranks),
        batch=replace(work.batch, micro_batch_size=candidate.micro_batch_size),
    )


def checked(found: Found, ranks: int, card: str) -> Found:
    """Return what was found on so many of a card.

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
        f"gpus={ranks}: none of {found.candidates:,} layouts fits in memory of {card}: take more"
        " cards, or larger ones"
    )
