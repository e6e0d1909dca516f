"""The best layouts of a model on a number of cards: branch and bound over all legal ones.

Layouts are looked at in the order of bounds of their seconds; once as many rows were found as were
asked for, those whose bound is slower than the last of them cannot be among the best. The bounds
are refined in turn: that of a mean stage without recomputation, which all layouts of the same sizes
share; that of all stages with the bubble; that of a way to recompute; and the whole prediction, of
those that a bound of memory leaves. Of each way to recompute, the fastest exchange of tokens that
fits is taken.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from parallel.errors import ParallelError
from parallel.layout.placement import place
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import Bounds, Candidate, Sizes, groups
from parallel.planner.search.choices import Choice
from parallel.planner.search.ranking import Front, Ranking, Row
from parallel.planner.search.ways import WITHOUT, Way, Ways
from parallel.planner.workload import Workload

Predict = Callable[[Workload], LayoutPrediction]
Among = Callable[[Sizes], bool]
"""Whether layouts of these sizes are looked at."""
Keep = Callable[[Choice], bool]
"""Whether a way to run a layout is looked at."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    rows: tuple[Row, ...]
    """Those that fit, fastest first, with what is nearly like them."""
    fitting: tuple[LayoutPrediction, ...]
    """All that were predicted and fit, in no promised order."""
    candidates: int
    """Layouts and micro-batches that are legal and asked about, each with every recomputation."""
    predicted: int
    """Of them, those whose bounds left them worth a whole prediction."""
    too_large: int
    """Those that were found not to fit, by a bound or a prediction."""

    @property
    def best(self) -> list[LayoutPrediction]:
        """The rows themselves."""
        return [row.one for row in self.rows]


def search(  # noqa: PLR0913 - what a search depends on
    work: Workload,
    bounds: Bounds,
    ways: Ways,
    *,
    predict: Predict,
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
        ways: The ways to run it.
        predict: Predicts one job in full.
        memory_bytes: Of a card.
        count: Rows to return.
        among: Which sizes; default: all.
        keep: Which ways to run them; default: all.
        horizon: Over the fastest's seconds: up to there, what needs less memory than all that is
            faster, by `MEMORY_STEP` of a card's, is looked for too.
    """
    return _Search(work, bounds, ways, predict, memory_bytes, keep).run(among, count, horizon)


class _Recomputed(NamedTuple):
    """A candidate with a way to recompute, not yet timed."""

    candidate: Candidate
    recomputation: int


class _Attempt(NamedTuple):
    """A candidate with ways to run it, to be tried in turn until one fits."""

    candidate: Candidate
    ways: tuple[Way, ...]


class _Turn(NamedTuple):
    """What stands in the queue."""

    seconds: float
    """A bound of its step."""
    number: int
    """It breaks ties: who came first."""
    least_bytes: float
    """A bound of its memory."""
    what: list[Candidate] | Candidate | _Recomputed | _Attempt
    """All candidates of the same sizes, or one of them, ever nearer to a prediction."""


class _Search:
    """One search: its queue, and what it has counted."""

    def __init__(  # noqa: PLR0913, PLR0917 - of `search` alone
        self,
        work: Workload,
        bounds: Bounds,
        ways: Ways,
        predict: Predict,
        memory_bytes: float,
        keep: Keep | None,
    ) -> None:
        self._work, self._bounds, self._ways, self._keep = work, bounds, ways, keep
        self._predict, self._memory_bytes = predict, memory_bytes
        self._recomputations = range(len(ways.recomputations))
        self._queue: list[_Turn] = []
        self._pushed = self._candidates = self._predicted = self._too_large = 0

    def run(self, among: Among | None, count: int, horizon: float) -> Found:
        """Look at layouts until no other can be among the best."""
        room = self._memory_bytes
        ranking, front = Ranking(count, room), Front(room)
        fitting: list[LayoutPrediction] = []
        passed_over: list[_Turn] = []
        self._fill(among)
        while self._queue:
            turn = heapq.heappop(self._queue)
            last = ranking.slowest_row
            if turn.seconds > last:
                if turn.seconds > horizon * front.fastest:
                    break
                if front.is_behind(turn.seconds, turn.least_bytes):
                    passed_over.append(turn)
                    continue
            prediction = self._refined(turn)
            if prediction is None:
                continue
            fitting.append(prediction)
            front.add(prediction)
            ranking.add(prediction)
            if ranking.slowest_row > last:
                # It made a row one that is like it, and another has come up: look again.
                for each in passed_over:
                    heapq.heappush(self._queue, each)
                passed_over = []
        return Found(
            rows=tuple(ranking.rows()),
            fitting=tuple(fitting),
            candidates=self._candidates,
            predicted=self._predicted,
            too_large=self._too_large,
        )

    def _fill(self, among: Among | None) -> None:
        """Queue the candidates whose states can fit, those of the same sizes together."""
        least = self._ways.least
        for sizes, alike in groups(self._work.shape, self._bounds):
            if among is not None and not among(sizes):
                continue
            number = len(alike) * len(self._recomputations)
            self._candidates += number
            deepest = alike[-1]  # more stages hold less each
            states = least.state_bytes(deepest)
            if states > self._memory_bytes:
                self._too_large += number
                continue
            seconds = self._ways.least_seconds(deepest, self._bounds.global_batch_size)
            self._push(seconds, states, alike)

    def _push(
        self,
        seconds: float,
        least_bytes: float,
        what: list[Candidate] | Candidate | _Recomputed | _Attempt,
    ) -> None:
        self._pushed += 1
        heapq.heappush(self._queue, _Turn(seconds, self._pushed, least_bytes, what))

    def _refined(self, turn: _Turn) -> LayoutPrediction | None:
        """Queue what follows from a turn with better bounds; return a prediction that fits."""
        what = turn.what
        if isinstance(what, _Attempt):
            return self._prediction(turn, what)
        if isinstance(what, _Recomputed):
            self._time(turn, what)
        elif isinstance(what, Candidate):
            self._recompute(turn, what)
        else:
            self._part(what)
        return None

    def _part(self, alike: list[Candidate]) -> None:
        """Queue each candidate whose states can fit, bounded by all its stages."""
        for candidate in alike:
            states = self._ways.least.state_bytes(candidate)
            if states > self._memory_bytes:
                self._too_large += len(self._recomputations)
                continue
            paired = candidate.stages.is_interleaved
            way = self._ways.fastest_first(candidate.sizes, WITHOUT, paired=paired)[0]
            self._push(self._bound(candidate, way), states, candidate)

    def _recompute(self, turn: _Turn, candidate: Candidate) -> None:
        """Queue each way to recompute that can fit; none is faster than to recompute nothing."""
        for number in self._recomputations:
            least = self._least_bytes(candidate, number)
            if least > self._memory_bytes:
                self._too_large += 1
                continue
            self._push(turn.seconds, least, _Recomputed(candidate, number))

    def _time(self, turn: _Turn, what: _Recomputed) -> None:
        """Queue the ways to exchange tokens, bounded by the fastest that can fit."""
        candidate, number = what
        paired = candidate.stages.is_interleaved
        ways = tuple(
            way
            for way in self._ways.fastest_first(candidate.sizes, number, paired=paired)
            if self._keep is None or self._keep(way.choice)
        )
        if ways:
            self._attempt(candidate, ways, turn.least_bytes)

    def _attempt(self, candidate: Candidate, ways: tuple[Way, ...], least_bytes: float) -> None:
        self._push(self._bound(candidate, ways[0]), least_bytes, _Attempt(candidate, ways))

    def _prediction(self, turn: _Turn, what: _Attempt) -> LayoutPrediction | None:
        """Return the whole prediction; where it does not fit, queue what holds less."""
        candidate, (way, *others) = what
        layout = candidate.layout(self._work.layout, way.choice)
        prediction = self._predict(
            replace(
                self._work,
                placement=place(layout, self._bounds.ranks),
                batch=replace(self._work.batch, micro_batch_size=candidate.sizes.micro_batch_size),
            )
        )
        self._predicted += 1
        if prediction.fits:
            return prediction
        smaller = tuple(other for other in others if other.holds_less(way))
        if smaller:
            self._attempt(candidate, smaller, turn.least_bytes)
        else:
            self._too_large += 1
        return None

    def _micro_batches(self, candidate: Candidate) -> int:
        return candidate.micro_batches(self._bounds.global_batch_size)

    def _bound(self, candidate: Candidate, way: Way) -> float:
        return way.bound.of_all_stages(candidate.stages, self._micro_batches(candidate))

    def _least_bytes(self, candidate: Candidate, recomputation: int) -> float:
        saved = self._ways.saved_bytes(candidate.sizes, recomputation)
        count = self._micro_batches(candidate)
        return self._ways.least.total_bytes(candidate, saved, count)


def checked(found: Found, ranks: int, card: str) -> Found:
    """Return what was found on so many of a card.

    Raises:
        ParallelError: Nothing fits, or nothing is legal.
    """
    if found.rows:
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
