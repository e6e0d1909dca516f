"""What a model's best layout makes of the limits: seconds, joules, money and emissions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf

from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.least_cost import card_rate, cheapest_step, step_at_least
from benchmarks.decisions.limits import Limits
from benchmarks.decisions.pricing import Active, Price, tokens_without_cards
from benchmarks.errors import BenchmarkError
from benchmarks.laws.optimum import FLOPS_PER_SERVED
from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.budget import RunPlan, RunRequest, StepCost, run_plan, tokens_within
from benchmarks.planning.failures import Reliability
from benchmarks.planning.front import pareto_front
from benchmarks.planning.job import JobOptions, PlanJob, model_job
from benchmarks.planning.planner import Planner
from moe.config.model import ModelConfig
from parallel.measurement.units import SECONDS_PER_HOUR
from parallel.planner.energy import Estimate
from parallel.planner.prediction import LayoutPrediction

TYPICAL_UTILISATION = 0.4
"""Share of the cards' rate at which the batch is chosen, before anything is planned: about what
published steps reach (benchmarks/published/training_steps.csv)."""


@dataclass(frozen=True, kw_only=True)
class LayoutPricer:
    """Prices models by their best layouts on some cards."""

    limits: Limits
    active: Active
    options: JobOptions
    """Cards, precision, sequence length, assumptions."""
    batch: Callable[[float], int]
    """Sequences of a step for about so many tokens."""
    reliability: Reliability
    started: datetime | None
    fixed_tokens: float | None
    """Of every run, where the law knows only these."""
    ideal_flops: float
    """FLOPs of the cards at their rate, in the GPU-hours that the limits pay for; infinite: nothing
    of cards is limited."""
    _bounded: dict[int, tuple[Candidate, Planner]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Planners that have timed what a search of their layouts needs, until it is made."""

    def optimistic_tokens(self, one: Candidate, utilisation: float) -> float:
        """Return the tokens at a share of the cards' rate."""
        tokens = self._without_cards(one)[0]
        if self.ideal_flops == inf:
            return tokens
        paid = utilisation * (self.ideal_flops - self._serving_flops(one))
        return self._enough(min(tokens, paid / one.costs.training_flops_per_token))

    def most_tokens(self, one: Candidate) -> float:
        """Return the tokens at the card's whole rate."""
        planner = self._planner(one)
        return self._tokens_of(one, planner, cheapest_step(planner, one.costs))

    def most_planned_tokens(self, one: Candidate) -> float:
        """Return the tokens by the planner's bound of all layouts' seconds."""
        planner = self._planner(one)
        seconds = planner.least_step_seconds()
        if seconds == inf:
            return 0.0
        self._bounded[id(one)] = one, planner
        return self._tokens_of(one, planner, step_at_least(planner, one.costs, seconds))

    def served_tokens(self, one: Candidate, tokens: float) -> float:
        """Return training tokens that cost as much as serving, where `tokens` are left beside."""
        serving = self._serving_flops(one)
        return tokens * serving / (self.ideal_flops - serving) if self.ideal_flops < inf else 0.0

    def price(self, one: Candidate) -> Price | None:
        """Search the best layout, and let it run until a limit is reached."""
        known = self._bounded.pop(id(one), None)
        planner = self._planner(one) if known is None else known[1]
        found = planner.try_search(1)
        if not found.best:
            return None
        layout = found.best[0]
        tokens, bound_by = self._without_cards(one)
        served, utilisation = 0.0, None
        request = RunRequest(target_tokens=tokens, reliability=self.reliability)
        if self.ideal_flops < inf:
            full = self._run(self._request(self.limits.of_cards), layout, planner.job)
            paid = _tokens(full).value
            utilisation = self._utilisation(one, paid)
            served = utilisation * self._serving_flops(one) / one.costs.training_flops_per_token
            if paid - served < tokens:
                tokens, bound_by = self._enough(paid - served), full.bound_by
                limit = self.limits.of_cards[bound_by] * tokens / paid
                request = self._request({bound_by: limit})
        if not tokens >= layout.work.batch.tokens:
            return None
        run = self._run(request, layout, planner.job)
        return Price(
            tokens=_tokens(run),
            bound_by=bound_by,
            served_tokens=served,
            utilisation=utilisation,
            plan=PlanAnswer(
                job=planner.job,
                layouts=(layout,),
                found=found,
                front=tuple(pareto_front(found.fitting)),
                run=run,
            ),
        )

    def scaled(self, factor: float) -> "LayoutPricer":
        """Return one with so many times the limits."""
        limits = self.limits.scaled(factor)
        return replace(self, limits=limits, ideal_flops=self.ideal_flops * factor)

    def _enough(self, tokens: float) -> float:
        """Return tokens; none where the law knows only more of them."""
        return 0.0 if tokens < (self.fixed_tokens or 0.0) * (1 - 1e-9) else tokens

    def _without_cards(self, one: Candidate) -> tuple[float, str]:
        return tokens_without_cards(self.limits, self.active(one), self.fixed_tokens)

    def _serving_flops(self, one: Candidate) -> float:
        """Return FLOPs at the cards' rate that take as long as serving does."""
        serving = self.limits.serving
        flops = FLOPS_PER_SERVED * one.costs.active_parameters * serving.tokens
        return flops / serving.utilisation

    def _request(self, limits: dict[str, float]) -> RunRequest:
        return RunRequest(**limits, reliability=self.reliability)

    def _run(self, request: RunRequest, layout: LayoutPrediction, job: PlanJob) -> RunPlan:
        return run_plan(request, layout, job.energy, self.started)

    def _tokens_of(self, one: Candidate, planner: Planner, step: StepCost) -> float:
        """Return the tokens where a step costs so much."""
        utilisation = 1.0
        if self.ideal_flops < inf:
            request, energy = self._request(self.limits.of_cards), planner.job.energy
            utilisation = self._utilisation(one, tokens_within(request, step, energy))
        return self.optimistic_tokens(one, utilisation)

    def _utilisation(self, one: Candidate, paid: float) -> float:
        """Return tokens that the limits of cards pay for over those at the cards' rate."""
        return paid * one.costs.training_flops_per_token / self.ideal_flops

    def _planner(self, one: Candidate) -> Planner:
        return Planner(self._job(one))

    def _job(self, one: Candidate) -> PlanJob:
        size = self.options.global_batch_size
        if size is None:
            size = self.batch(self.optimistic_tokens(one, TYPICAL_UTILISATION))
        job = model_job("chosen", one.model, replace(self.options, global_batch_size=size))
        limit = self.limits.memory_bytes
        if limit is None or self.limits.memory != "training":
            return job
        memory = max(1, int(min(job.card.memory_bytes, limit)))
        return replace(job, card=job.card.model_copy(update={"memory_bytes": memory}))


def ideal_flops(
    limits: Limits, options: JobOptions, reliability: Reliability, reference: ModelConfig
) -> float:
    """Return FLOPs of the cards at their data sheet's rate within the limits.

    Joules, money and emissions are taken to buy as many GPU-hours as those of a small reference
    model do: it is a scale for what models reach, and no result.

    Raises:
        BenchmarkError: A price, a grid or the card's power is unknown; the cards are too small.
    """
    job = model_job("reference", reference, replace(options, global_batch_size=options.gpus))
    if not limits.of_cards:
        return inf
    found = Planner(job).search(1)
    request = RunRequest(**limits.of_cards, reliability=reliability)
    hours = run_plan(request, found.best[0], job.energy, None).quantities["gpu_hours"]
    if hours is None:
        raise BenchmarkError(f"{job.card.name}: no GPU-hours follow from the limits")
    return hours.value * SECONDS_PER_HOUR * card_rate(job.card, job.precision)


def _tokens(run: RunPlan) -> Estimate:
    tokens = run.quantities["tokens"]
    assert tokens is not None  # they cost themselves
    return tokens
