"""What a step of a model costs at least, in whatever layout: bounds that end a search of models."""

from benchmarks.planning.budget import StepCost
from benchmarks.planning.planner import Planner
from moe.cost.ledger import Ledger
from parallel.hardware.card import Card
from parallel.hardware.power import Phase
from parallel.planner.step.parameters import step_parameters, training_card
from parallel.precision.recipes import Precision

FLOPS_PER_PRODUCT_PARAMETER = 6
"""FLOPs of a training token and parameter of matrix products."""


def card_rate(card: Card, precision: Precision) -> float:
    """Return a card's FLOP/s in a precision, by its data sheet."""
    if precision.is_native_fp8:
        return card.rates.fp8 or card.rates.bf16
    return card.rates.fp32 if precision.dtype == "fp32" else card.rates.bf16


def cheapest_step(planner: Planner, costs: Ledger) -> StepCost:
    """Return what a step would cost whose FLOPs ran at the card's rate, with nothing beside them.

    No layout undercuts it: kernels are timed at shares of that rate, at most 1.
    """
    job = planner.job
    flops = costs.training_flops_per_token * job.batch.tokens
    return step_at_least(planner, costs, flops / (job.num_gpus * _fastest_rate(planner)))


def step_at_least(planner: Planner, costs: Ledger, seconds: float) -> StepCost:
    """Return what a step costs at least that takes at least so many seconds.

    Matrix products draw what they draw for at least their FLOPs at the card's rate; whatever fills
    the other seconds draws at least what the thriftiest phase does.
    """
    job, power, joules = planner.job, planner.job.card.power, None
    if power is not None and power.phases:
        phases = power.phases
        flops = FLOPS_PER_PRODUCT_PARAMETER * costs.active_matmul_parameters * job.batch.tokens
        products = min(seconds, flops / (job.num_gpus * _fastest_rate(planner)))
        thriftiest = min(phases, key=lambda phase: phases[phase].typical)
        spent: dict[Phase, float] = {"matrix_product": products}
        spent[thriftiest] = spent.get(thriftiest, 0.0) + seconds - products
        energy = planner.energy(spent)
        joules = None if energy is None else energy.facility.value
    return StepCost(num_gpus=job.num_gpus, tokens=job.batch.tokens, seconds=seconds, joules=joules)


def _fastest_rate(planner: Planner) -> float:
    """Return FLOP/s that no kernel of a step exceeds, by the card's file."""
    job = planner.job
    card = training_card(job.card, step_parameters().on(job.card))
    return card_rate(card, job.precision) / min(1.0, *card.kernels.machine_factors.values())
