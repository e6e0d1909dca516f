"""Dense against sparse models at equal active parameters, FLOPs, memory or energy."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from operator import attrgetter
from statistics import fmean

from benchmarks.comparison.equality import count_as_equal, relative_gap
from benchmarks.comparison.seed_groups import SeedGroup
from moe.runs.run import Run

# A budget of at least this fraction of a run's training is taken as all of it.
COMPLETE = 0.999
# Quantities shown for both sides.
SIDE_COSTS = ("total_parameters", "active_parameters", "weight_bytes", "bytes_per_active",
         "flops_per_token", "energy_per_token", "money_per_token", "carbon_per_token")  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of the two models of a comparison."""

    group: SeedGroup
    loss: float | None
    """Held-out loss at the common budget, nats/token."""
    note: str
    """When in training that loss was reached."""


@dataclass(frozen=True)
class Comparison:
    """A dense and a sparse model compared at equal size or budget."""

    basis: str
    """What is equal: active parameters, training FLOPs, memory or energy."""
    dense: Side | None
    sparse: Side | None
    reason: str | None
    """Why there is no comparison; `None` where there is one."""


def comparisons(groups: Sequence[SeedGroup]) -> list[Comparison]:
    """Return the four comparisons; empty where there is not at least one model of each kind."""
    dense = [group for group in groups if not group.sparse]
    sparse = [group for group in groups if group.sparse]
    if not dense or not sparse:
        return []
    return [
        _of_equal_size("active parameters", dense, sparse, lambda run: run.active_parameters),
        _at_budget("training FLOPs", dense, sparse, "training_flops"),
        _of_equal_size("memory for weights", dense, sparse, lambda run: run.total_parameters),
        _at_budget("energy", dense, sparse, "energy"),
    ]


def _of_equal_size(
    basis: str, dense: Sequence[SeedGroup], sparse: Sequence[SeedGroup], size: Callable[[Run], int]
) -> Comparison:
    """Compare the pair nearest in size, at the end of training."""
    d, s = min(
        ((d, s) for d in dense for s in sparse),
        key=lambda pair: abs(log(size(pair[0].first) / size(pair[1].first))),
    )
    sizes = size(d.first), size(s.first)
    if not count_as_equal(*sizes):
        apart = f"the nearest pair is {relative_gap(*sizes):.0%} apart"
        return Comparison(basis, None, None, apart)
    return Comparison(basis, _finished(d), _finished(s), None)


def _finished(group: SeedGroup) -> Side:
    interval = group.interval("loss")
    return Side(group, None if interval is None else interval.mean, "at its end")


def _at_budget(
    basis: str, dense: Sequence[SeedGroup], sparse: Sequence[SeedGroup], budget_key: str
) -> Comparison:
    """Compare the best of each kind at the smaller of their two budgets, by their loss curves."""
    best = [min(kind, key=attrgetter("final_loss")) for kind in (dense, sparse)]
    totals = [group.interval(budget_key) for group in best]
    if totals[0] is None or totals[1] is None:
        lacking = best[0] if totals[0] is None else best[1]
        reason = lacking.measurement(budget_key).reason
        return Comparison(basis, None, None, f"{lacking.label}: {reason}")
    budget = min(totals[0].mean, totals[1].mean)
    sides = []
    for group, total in zip(best, totals, strict=True):
        assert total is not None
        fraction = budget / total.mean if total.mean else 1.0
        losses = [loss_at_fraction(run, fraction) for run in group.runs]
        known = [loss for loss in losses if loss is not None]
        loss = fmean(known) if len(known) == len(losses) else None
        note = "at its end" if fraction > COMPLETE else f"after {fraction:.0%} of its training"
        sides.append(Side(group, loss, note))
    return Comparison(basis, sides[0], sides[1], None)


def loss_at_fraction(run: Run, fraction: float) -> float | None:
    """Return held-out loss after a fraction of the run's tokens, interpolated between evaluations.

    Between two evaluations, loss is taken as a power law of tokens (arXiv:2001.08361). Before the
    first evaluation it is unknown, and so it is between numbers that no power law has.
    """
    known = {row["tokens"]: row["loss"] for row in run.evaluations if row["loss"] is not None}
    points = sorted(known.items())
    if run.final_loss is not None and (not points or points[-1][0] < run.tokens):
        points.append((run.tokens, run.final_loss))
    tokens = fraction * run.tokens
    if fraction > COMPLETE:
        return run.final_loss
    after = bisect_left([position for position, _ in points], tokens)
    if after == len(points):
        return None
    right_tokens, right_loss = points[after]
    if tokens == right_tokens:
        return float(right_loss)
    if after == 0:
        return None
    left_tokens, left_loss = points[after - 1]
    if min(left_tokens, left_loss, right_loss) <= 0:
        return None
    weight = log(tokens / left_tokens) / log(right_tokens / left_tokens)
    return float(left_loss * (right_loss / left_loss) ** weight)
