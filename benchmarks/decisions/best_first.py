"""The best model: branch and bound over candidates, in the order of what they could reach.

Searching a model's layouts takes a tenth of a second; what a law says of it takes nothing. So
models are ranked by the law at tokens that none of their layouts exceeds: first at the cards' whole
rate; the best of them then by the planner's bound of all their layouts; and the best of those are
priced. That goes on until no other could be better by more than a tolerance.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.pricing import Price, Pricer

TOLERANCE = 2e-3
"""Nats by which a model must be able to be better to be priced; laws err by ten times that."""
MOST_PRICED = 24
"""Layout searches; where they do not suffice, the answer warns."""


@dataclass(frozen=True)
class Priced:
    """A model, its price, and its loss by the law."""

    candidate: Candidate
    price: Price
    loss: float


@dataclass
class Outcome:
    """What was priced, and what the rest could still be."""

    priced: list[Priced] = field(default_factory=list)
    """The best first."""
    candidates: int = 0
    """Models that were ranked."""
    bounded: int = 0
    """Of them, those whose layouts were bounded by the planner."""
    searches: int = 0
    """Of them, those whose best layout was searched, be there one or not."""
    best_left: float = inf
    """Loss that no other candidate undercuts."""

    @property
    def best(self) -> Priced | None:
        """The model of least loss."""
        return self.priced[0] if self.priced else None

    @property
    def gain_left(self) -> float:
        """Nats by which a model that was not priced could still be better."""
        return max(0.0, self.priced[0].loss - self.best_left) if self.priced else inf

    def add(self, one: Priced) -> None:
        """Put in a model that was priced."""
        self.priced.append(one)
        self.priced.sort(key=lambda found: found.loss)


class _Turn(NamedTuple):
    """What stands in the queue."""

    least_loss: float
    number: int
    """It breaks ties: who came first."""
    is_planned: bool
    """Whether the bound is the planner's."""
    one: Candidate


def best_first(
    candidates: Sequence[Candidate],
    pricer: Pricer,
    loss: Callable[[Candidate, float], float],
    *,
    beside: Callable[[Candidate], Iterable[Candidate]] = lambda _: (),
    most_priced: int = MOST_PRICED,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Return the candidates that were priced, the best first.

    Args:
        candidates: Models to choose from.
        pricer: What they cost.
        loss: Of a model after so many tokens, by the law; or what else shall be least. More tokens
            never raise it.
        beside: Further candidates that come in question once a model does.
        most_priced: Layout searches after which to stop; `Outcome.gain_left` then says what may
            have been missed.
        tolerance: By which a model must be able to be better to be priced.
    """
    outcome, queue = Outcome(), list[_Turn]()

    def rank(models: Iterable[Candidate]) -> None:
        for one in models:
            outcome.candidates += 1
            least = loss(one, pricer.most_tokens(one))
            heappush(queue, _Turn(least, outcome.candidates, False, one))

    rank(candidates)
    while queue:
        turn = heappop(queue)
        outcome.best_left, one = turn.least_loss, turn.one
        if turn.least_loss == inf or outcome.gain_left <= tolerance:
            break
        if not turn.is_planned:
            rank(beside(one))
            outcome.bounded += 1
            least = max(turn.least_loss, loss(one, pricer.most_planned_tokens(one)))
            heappush(queue, turn._replace(least_loss=least, is_planned=True))
            continue
        if outcome.searches >= most_priced:
            break
        outcome.searches += 1
        price = pricer.price(one)
        reached = inf if price is None else loss(one, price.tokens.value)
        if price is not None and reached < inf:
            outcome.add(Priced(one, price, reached))
    else:
        outcome.best_left = inf
    return outcome
