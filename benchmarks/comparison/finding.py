"""The report's finding: dense against sparse in one sentence, whichever way it went."""

import math
from collections.abc import Sequence
from operator import attrgetter

from benchmarks.comparison.equality import count_as_equal, relative_gap
from benchmarks.comparison.machine import doubt
from benchmarks.comparison.seed_groups import SeedGroup, group_runs
from moe.runs.run import Run
from parallel.measurement.intervals import difference_of_means
from parallel.measurement.measurement import comparable
from parallel.measurement.number_text import ratio, readable, significant


def finding(runs: Sequence[Run]) -> str:
    """Return one sentence on dense against sparse, or on the best run if there is only one kind."""
    groups = [group for group in group_runs(runs) if group.interval("loss") is not None]
    pair = closest_pair(groups)
    if pair is not None:
        return _pair_sentence(*pair)
    if not groups:
        return "No run has a held-out loss yet, so nothing can be compared."
    kind = "sparse" if groups[0].sparse else "dense"
    best = min(groups, key=attrgetter("final_loss"))
    text = f"{best.label} reached a held-out loss of {best.final_loss:.3f} nats/token"
    if len(groups) == 1:
        return f"{text}; there is no run to compare it with."
    second = min((group for group in groups if group is not best), key=attrgetter("final_loss"))
    gap, noise = _loss_gap(best, second)
    return (
        f"Of {len(groups)} {kind} models, {text}, {gap} than {second.label}"
        f" ({second.final_loss:.3f}); {noise}."
    )


def closest_pair(groups: Sequence[SeedGroup]) -> tuple[SeedGroup, SeedGroup] | None:
    """Return the dense and the sparse group nearest in active parameters, then in tokens."""
    pairs = [(d, s) for d in groups for s in groups if s.sparse and not d.sparse]

    def distance(pair: tuple[SeedGroup, SeedGroup]) -> tuple[float, float, float]:
        dense, sparse = pair
        active = relative_gap(dense.first.active_parameters, sparse.first.active_parameters)
        tokens = relative_gap(dense.first.tokens, sparse.first.tokens)
        return round(active, 2), round(tokens, 2), dense.final_loss + sparse.final_loss

    return min(pairs, key=distance) if pairs else None


def _pair_sentence(dense: SeedGroup, sparse: SeedGroup) -> str:
    gap, noise = _loss_gap(sparse, dense)
    return (
        f"{_basis(dense, sparse)}, the sparse model {_size(sparse)} reached a held-out loss of"
        f" {sparse.final_loss:.3f} nats/token against {dense.final_loss:.3f} for the dense one,"
        f" {gap}, taking {_costs(dense, sparse)} per token; {noise}."
    )


def _basis(dense: SeedGroup, sparse: SeedGroup) -> str:
    """Return whether the two are equal in active parameters and tokens, in words."""
    d, s = dense.first, sparse.first
    sizes = f"{readable(d.active_parameters, '')} dense, {readable(s.active_parameters, '')} sparse"
    if count_as_equal(d.active_parameters, s.active_parameters):
        active = f"At equal active parameters ({sizes})"
    else:
        active = f"At unequal active parameters ({sizes})"
    if count_as_equal(d.tokens, s.tokens):
        return f"{active} after {readable(s.tokens, 'tokens')} each"
    return (
        f"{active} and unequal training ({readable(d.tokens, 'tokens')} dense,"
        f" {readable(s.tokens, 'tokens')} sparse)"
    )


def _size(sparse: SeedGroup) -> str:
    run = sparse.first
    experts = "" if run.num_experts is None else f"{run.num_experts} experts, "
    return f"({experts}{readable(run.total_parameters, '')} parameters in all)"


def _loss_gap(first: SeedGroup, second: SeedGroup) -> tuple[str, str]:
    """Return how the loss of `first` differs from `second`, and whether that is beyond noise."""
    values = [
        [math.nan if run.final_loss is None else run.final_loss for run in group.runs]
        for group in (first, second)
    ]
    gap = difference_of_means(*values)
    size = f"{significant(abs(gap.mean), 2)} {'lower' if gap.mean < 0 else 'higher'}"
    text = size if abs(gap.mean) >= 5e-4 else "the same to three decimals"
    if gap.half_width is None:
        return text, "with one seed there is no telling how much of the difference is noise"
    seeds = f"{len(values[0])} and {len(values[1])} seeds"
    if abs(gap.mean) <= gap.half_width:
        return text, f"over {seeds} the difference is within noise (95% ± {gap.half_width:.2g})"
    return text, f"over {seeds} the difference is beyond noise (95% ± {gap.half_width:.2g})"


def _costs(dense: SeedGroup, sparse: SeedGroup) -> str:
    d, s = dense.first.flops_per_trained_token, sparse.first.flops_per_trained_token
    flops = f"{ratio(s / d)} the FLOPs" if d else "an unknown number of FLOPs"
    return f"{flops}, {_time(dense, sparse)} and {_energy(dense, sparse)}"


def _time(dense: SeedGroup, sparse: SeedGroup) -> str:
    rates = [group.interval("tokens_per_s") for group in (dense, sparse)]
    if rates[0] is None or rates[1] is None or not rates[1].mean:
        return "an unknown time"
    if dense.first.record.get("hardware") != sparse.first.record.get("hardware"):
        return "a time not comparable (unlike machines)"
    if reason := doubt("tokens_per_s", [*dense.runs, *sparse.runs]):
        return f"a time not comparable ({reason})"
    return f"{ratio(rates[0].mean / rates[1].mean)} the time"


def _energy(dense: SeedGroup, sparse: SeedGroup) -> str:
    d, s = dense.measurement("energy_per_token"), sparse.measurement("energy_per_token")
    if d.value is None or s.value is None:
        return "an unknown energy"
    if not comparable([d, s]):
        return "an energy not comparable (unlike meters)"
    if reason := doubt("energy_per_token", [*dense.runs, *sparse.runs]):
        return f"an energy not comparable ({reason})"
    return f"{ratio(s.value / d.value)} the energy ({s.kind})" if d.value else "an unknown energy"


def _loss(group: SeedGroup) -> float:
    interval = group.interval("loss")
    return interval.mean if interval else math.inf
