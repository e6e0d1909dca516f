"""The best model: candidates in the order of what they could reach, priced while one may still win.

Pricing a model takes a search over its layouts, about a second; what a law says of it takes
nothing. So models are ranked by the law at a cost that no layout undercuts, and the first is
priced. How much of the cards' rate it reached is then what others of its proportions are taken to
reach, with some slack. That is repeated until no other could be better by more than a tolerance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from benchmarks.decisions.candidates import Candidate, Proportions
from benchmarks.decisions.pricing import Price, Pricer, TooLargeError

MOST_UTILISATION = 0.75
"""Share of a card's data-sheet rate beyond which no layout is looked for: published steps reach at
most 0.49 in BF16 and 0.43 in FP8 (benchmarks/published/training_steps.csv), predicted ones 0.6."""
SLACK = 1.15
"""How much more of the rate than the best of its proportions so far a model may reach; and than
the worst of those whose experts are fewer and coarser."""
FAR_SLACK = 2.0
"""The same beside the best of all proportions."""
TOLERANCE = 2e-3
"""Nats by which a model must be able to be better to be priced; laws err by ten times that."""
MOST_PRICED = 14


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
    searches: int = 0
    """Searches for a layout, those that found none among them."""
    best_left: float = inf
    """Least loss that any other candidate could have, by the rule above."""

    @property
    def best(self) -> Priced | None:
        """The model of least loss."""
        return self.priced[0] if self.priced else None

    @property
    def gain_left(self) -> float:
        """Nats by which a model that was not priced could still be better."""
        return max(0.0, self.priced[0].loss - self.best_left) if self.priced else inf


class Utilisation:
    """Share of the cards' rate that models of the same proportions have reached."""

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[Proportions, float] = {}

    def add(self, one: Priced) -> None:
        """Learn from a priced model."""
        reached = one.price.utilisation
        if reached is not None:
            known = self._known.get(one.candidate.proportions, 0.0)
            self._known[one.candidate.proportions] = max(known, reached)

    def most(self, one: Candidate) -> float:
        """Return what a model may reach at most."""
        if not self._known:
            return MOST_UTILISATION
        mine, own = one.proportions, self._known.get(one.proportions)
        coarser = [
            reached
            for other, reached in self._known.items()
            if other.expansion <= mine.expansion and other.granularity <= mine.granularity
        ]
        near = [SLACK * (own or min(coarser))] if coarser else []
        return min(MOST_UTILISATION, FAR_SLACK * max(self._known.values()), *near)


def best_first(
    candidates: Sequence[Candidate],
    pricer: Pricer,
    loss: Callable[[Candidate, float], float],
    *,
    most_priced: int = MOST_PRICED,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Return the candidates that were priced, the best first.

    Args:
        candidates: Models to choose from.
        pricer: What they cost.
        loss: Of a model after so many tokens, by the law; or what else shall be least.
        most_priced: Where to stop; `Outcome.gain_left` then says what may have been missed.
        tolerance: By which a model must be able to be better to be priced.
    """
    outcome, known = Outcome(candidates=len(candidates)), Utilisation()
    left = list(candidates)
    while left:
        reachable = [loss(one, pricer.optimistic_tokens(one, known.most(one))) for one in left]
        number = min(range(len(left)), key=lambda i: reachable[i])
        outcome.best_left = reachable[number]
        if reachable[number] == inf or outcome.gain_left <= tolerance:
            break
        if len(outcome.priced) >= most_priced:
            break
        one = left.pop(number)
        outcome.searches += 1
        try:
            price = pricer.price(one)
        except TooLargeError:
            left = [other for other in left if not _is_larger(other, one)]
            continue
        if price is None:
            continue
        priced = Priced(one, price, loss(one, price.tokens.value))
        if priced.loss < inf:
            outcome.priced.append(priced)
            outcome.priced.sort(key=lambda found: found.loss)
            known.add(priced)
    if not left:
        outcome.best_left = inf
    return outcome


def _is_larger(other: Candidate, one: Candidate) -> bool:
    same = other.proportions == one.proportions
    return same and other.costs.total_parameters >= one.costs.total_parameters
