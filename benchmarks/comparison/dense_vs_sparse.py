"""Dense against sparse on equal footing: the same active size, FLOPs, memory or joules."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

from benchmarks.comparison.equality import count_as_equal, relative_gap
from benchmarks.comparison.seed_groups import SeedGroup
from moe.runs.run import Run

# A budget this near to a run's whole is its whole.
AT_END = 0.999
# Per-token and per-parameter costs shown for both, by quantity.
SIDE_COSTS = ("total_parameters", "active_parameters", "weight_bytes", "bytes_per_active",
         "flops_per_token", "energy_per_token", "money_per_token", "carbon_per_token")  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of the two models of a comparison."""

    group: SeedGroup
    loss: float | None
    """Held-out loss at the common budget, nats/token."""
    note: str


@dataclass(frozen=True)
class Comparison:
    """A dense and a sparse model made equal in one thing."""

    basis: str
    """What is equal: active parameters, training FLOPs, memory, energy."""
    dense: Side | None
    sparse: Side | None
    reason: str | None
    """Why there is no comparison."""


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
    """Pair the two nearest in size, at the end of their training."""
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
    """Compare the best of each kind at the smaller of the two budgets, read off their curves."""
    best = [min(kind, key=_final_loss) for kind in (dense, sparse)]
    totals = [group.interval(budget_key) for group in best]
    if totals[0] is None or totals[1] is None:
        lacking = best[0] if totals[0] is None else best[1]
        reason = lacking.measurement(budget_key).reason
        return Comparison(basis, None, None, f"{lacking.label}: {reason}")
    budget = min(totals[0].mean, totals[1].mean)
    sides = []
    for group, total in zip(best, totals, strict=True):
        assert total is not None
        share = budget / total.mean if total.mean else 1.0
        losses = [loss_at_fraction(run, share) for run in group.runs]
        known = [loss for loss in losses if loss is not None]
        loss = fmean(known) if len(known) == len(losses) else None
        note = "at its end" if share > AT_END else f"after {share:.0%} of its training"
        sides.append(Side(group, loss, note))
    return Comparison(basis, sides[0], sides[1], None)


def _final_loss(group: SeedGroup) -> float:
    interval = group.interval("loss")
    return interval.mean if interval else float("inf")


def loss_at_fraction(run: Run, share: float) -> float | None:
    """Return held-out loss after a share of the run's tokens, between evaluations by log-log.

    The curve is taken as a power law of tokens between two evaluations (arXiv:2001.08361).
    Before the first evaluation it is unknown.
    """
    points = [(row["tokens"], row["loss"]) for row in run.evaluations if row["loss"] is not None]
    if run.final_loss is not None and (not points or points[-1][0] < run.tokens):
        points.append((run.tokens, run.final_loss))
    tokens = share * run.tokens
    if share > AT_END:
        return run.final_loss
    after = bisect_left([place for place, _ in points], tokens)
    if after == len(points):
        return None
    right_tokens, right_loss = points[after]
    if tokens == right_tokens:
        return float(right_loss)
    if after == 0:
        return None
    left_tokens, left_loss = points[after - 1]
    weight = log(tokens / left_tokens) / log(right_tokens / left_tokens)
    return float(left_loss * (right_loss / left_loss) ** weight)
