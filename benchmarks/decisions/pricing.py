"""How many tokens a model sees within the limits, where cost is FLOPs alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.limits import TOKENS_PER_PARAMETER, Limits
from benchmarks.laws.optimum import FLOPS_PER_PARAMETER_TOKEN, FLOPS_PER_SERVED
from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.budget import RunPlan
from parallel.planner.energy import Estimate

Active = Callable[[Candidate], float]
"""Active parameters of a model as a law counts them."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What training a model comes to within the limits."""

    tokens: Estimate
    """That it sees; an interval is the planner's, 80%."""
    bound_by: str
    """The limit that ends it."""
    served_tokens: float = 0.0
    """Training tokens that would cost as much as serving does."""
    utilisation: float | None = None
    """Tokens that the limits of cards pay for, over `ideal_tokens`."""
    plan: PlanAnswer | None = None
    """The best layout and its run; None where cost is FLOPs alone."""

    @property
    def run(self) -> RunPlan | None:
        """The run of the best layout."""
        return None if self.plan is None else self.plan.run

    def factor(self, tokens: float) -> float:
        """Return how much more of the limit training on so many tokens would take."""
        served = self.served_tokens
        return (tokens + served) / (self.tokens.value + served)


class Pricer(Protocol):
    """Prices models within limits."""

    def scaled(self, factor: float) -> "Pricer":
        """Return one with so many times the limits."""

    def optimistic_tokens(self, one: Candidate, utilisation: float) -> float:
        """Return the tokens that a model sees at that share of the cards' rate."""

    def most_tokens(self, one: Candidate) -> float:
        """Return tokens that no layout of a model exceeds: a wide bound, at once."""

    def most_planned_tokens(self, one: Candidate) -> float:
        """Return tokens that no layout of a model exceeds: a narrower bound, by the planner."""

    def served_tokens(self, one: Candidate, tokens: float) -> float:
        """Return training tokens that cost as much as serving, where `tokens` are left beside."""

    def price(self, one: Candidate) -> Price | None:
        """Return what a model comes to; None where it cannot be trained."""


@dataclass(frozen=True)
class FlopsPricer:
    """By FLOPs: 6 a training token and active parameter, and 2 a served one."""

    limits: Limits
    active: Active
    fixed_tokens: float | None = None
    """Of every run, where the law knows only these."""

    def scaled(self, factor: float) -> "FlopsPricer":
        """Return one with so many times the limits."""
        return replace(self, limits=self.limits.scaled(factor))

    def optimistic_tokens(self, one: Candidate, utilisation: float) -> float:
        """Return the tokens; FLOPs are taken to be reached."""
        return tokens_without_cards(self.limits, self.active(one), self.fixed_tokens)[0]

    def most_tokens(self, one: Candidate) -> float:
        """Return the tokens themselves."""
        return self.optimistic_tokens(one, 1.0)

    def most_planned_tokens(self, one: Candidate) -> float:
        """Return the tokens themselves."""
        return self.optimistic_tokens(one, 1.0)

    def served_tokens(self, one: Candidate, tokens: float) -> float:
        """Return training tokens that cost as much as serving, whatever the model."""
        return self.limits.serving.tokens * FLOPS_PER_SERVED / FLOPS_PER_PARAMETER_TOKEN

    def price(self, one: Candidate) -> Price | None:
        """Return what a model comes to."""
        active = self.active(one)
        tokens, bound_by = tokens_without_cards(self.limits, active, self.fixed_tokens)
        if tokens < 1:
            return None
        return Price(
            tokens=Estimate(value=tokens, low=tokens, high=tokens),
            bound_by=bound_by,
            served_tokens=self.served_tokens(one, tokens) if bound_by == "flops" else 0.0,
        )


def tokens_without_cards(
    limits: Limits, active: float, fixed_tokens: float | None
) -> tuple[float, str]:
    """Return the tokens that FLOPs and data allow, and which of them binds; infinite: neither.

    Where neither is limited, nor anything of cards, a rule tells the tokens. Where the law knows
    one number of tokens alone, more are of no use and fewer are none.
    """
    found: dict[str, float] = {}
    if limits.flops is not None:
        served = FLOPS_PER_SERVED * limits.serving.tokens
        found["flops"] = (limits.flops / active - served) / FLOPS_PER_PARAMETER_TOKEN
    if limits.tokens is not None:
        found["tokens"] = limits.tokens
    if not found and not limits.of_cards:
        found["memory_bytes"] = fixed_tokens or TOKENS_PER_PARAMETER * active
    bound_by = min(found, key=lambda name: found[name], default="")
    tokens = found.get(bound_by, inf)
    if fixed_tokens is None:
        return tokens, bound_by
    return (fixed_tokens if tokens >= fixed_tokens * (1 - 1e-9) else 0.0), bound_by or "tokens"


class RememberingPricer:
    """Prices a model once; asked again, it says the same."""

    def __init__(self, pricer: Pricer) -> None:
        """Take what prices models."""
        self._pricer = pricer
        self._known: dict[int, tuple[Candidate, Price | None]] = {}

    def scaled(self, factor: float) -> Pricer:
        """Return one with so many times the limits, which remembers nothing."""
        return self._pricer.scaled(factor)

    def optimistic_tokens(self, one: Candidate, utilisation: float) -> float:
        """Return the tokens that a model sees at that share of the cards' rate."""
        return self._pricer.optimistic_tokens(one, utilisation)

    def most_tokens(self, one: Candidate) -> float:
        """Return tokens that no layout of a model exceeds."""
        return self._pricer.most_tokens(one)

    def most_planned_tokens(self, one: Candidate) -> float:
        """Return fewer such tokens, by the planner."""
        return self._pricer.most_planned_tokens(one)

    def served_tokens(self, one: Candidate, tokens: float) -> float:
        """Return training tokens that cost as much as serving."""
        return self._pricer.served_tokens(one, tokens)

    def price(self, one: Candidate) -> Price | None:
        """Return what a model comes to; None where it cannot be trained."""
        if id(one) not in self._known:
            self._known[id(one)] = one, self._pricer.price(one)
        return self._known[id(one)][1]
