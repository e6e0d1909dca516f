"""Pricers without a planner, and questions that need none."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.limits import Limits
from benchmarks.decisions.pricing import Price
from benchmarks.decisions.question import Question
from benchmarks.laws.fitted_law import find_fitted
from parallel.planner.energy import Estimate


def question(law: str, **limits: float) -> Question:
    """Return a question whose cost is FLOPs alone."""
    return Question(fitted=find_fitted(law), limits=Limits(**limits))  # type: ignore[arg-type]


@dataclass
class FakePricer:
    """Every model reaches a share of the cards' rate that is known beforehand."""

    ideal_flops: float
    active: Callable[[Candidate], float]
    utilisation: Callable[[Candidate], float]
    largest: float = float("inf")
    """Total parameters that fit."""
    asked: list[Candidate] = field(default_factory=list)

    def scaled(self, factor: float) -> "FakePricer":
        return replace(self, ideal_flops=self.ideal_flops * factor)

    def optimistic_tokens(self, one: Candidate, utilisation: float) -> float:
        return utilisation * self.ideal_flops / (6 * self.active(one))

    def most_tokens(self, one: Candidate) -> float:
        return self.optimistic_tokens(one, 1.0)

    def most_planned_tokens(self, one: Candidate) -> float:
        """Return a quarter more than what is reached, of models that fit or not."""
        return self.optimistic_tokens(one, min(1.0, 1.25 * self.utilisation(one)))

    def served_tokens(self, one: Candidate, tokens: float) -> float:
        return 0.0

    def price(self, one: Candidate) -> Price | None:
        self.asked.append(one)
        if one.costs.total_parameters > self.largest:
            return None
        reached = self.utilisation(one)
        tokens = self.optimistic_tokens(one, reached)
        return Price(
            tokens=Estimate(value=tokens, low=tokens, high=tokens),
            bound_by="gpu_hours",
            utilisation=reached,
        )
