"""A report's content as JSON values: shared by the page, its Markdown twin and `report.json`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from benchmarks.comparison.conditions import conditions
from benchmarks.comparison.dense_vs_sparse import SIDE_COSTS, Comparison, Side, comparisons
from benchmarks.comparison.equality import noise_of_one_seed
from benchmarks.comparison.finding import finding
from benchmarks.comparison.machine import doubt
from benchmarks.comparison.pareto import PARETO_COSTS, pareto_front
from benchmarks.comparison.quantities import BY_KEY, QUANTITIES, Quantity
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.comparison.summary import summary
from benchmarks.report.bench_results import bench_content
from benchmarks.report.figures_experts import expert_figures
from benchmarks.report.published_results import published_energy, published_speed
from moe.runs.reader import UnreadableRun
from moe.runs.run import Run
from parallel.measurement.intervals import difference_of_means
from parallel.measurement.measurement import Measurement, comparable
from parallel.measurement.number_text import readable, scale_beside, short

REPORT_FORMAT = 1


def report_content(
    runs: Sequence[Run],
    groups: Sequence[SeedGroup],
    bench: Sequence[Mapping[str, Any]] = (),
    unreadable: Sequence[UnreadableRun] = (),
) -> dict[str, Any]:
    """Return what `report.json` holds: everything that a reader of the page sees in words."""
    scales = {
        q.key: scale_beside(group.measurement(q.key).value for group in groups) for q in QUANTITIES
    }
    group_of = {run.path: group.key for group in groups for run in group.runs}
    known = [q for q in QUANTITIES if any(g.measurement(q.key).value is not None for g in groups)]
    return {
        "format": REPORT_FORMAT,
        "moescale": metadata.version("moescale"),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "title": _title(groups),
        "finding": finding(runs),
        "summary": summary(groups),
        "groups": [_group_content(group, scales) for group in groups],
        "runs": [
            {"id": run.run_id, "name": run.name, "seed": run.seed, "group": group_of[run.path]}
            for run in runs
        ],
        "quantities": [
            {"key": q.key, "section": q.section, "label": q.label, "unit": q.unit,
             "better": q.better}
            for q in known
        ],
        "best": {quantity.key: _best(quantity, groups) for quantity in QUANTITIES},
        "fronts": _fronts(groups),
        "comparisons": [_comparison_content(c) for c in comparisons(groups)],
        "unknown": _unknown(groups),
        "load": [{k: f[k] for k in ("run", "name", "summary")} for f in expert_figures(groups)],
        "bench": bench_content(bench),
        "published": published_energy(),
        "published_speed": published_speed(),
        "conditions": conditions(runs),
        "unreadable": [{"run": str(run.path), "reason": run.reason} for run in unreadable],
    }  # fmt: skip


def _title(groups: Sequence[SeedGroup]) -> str:
    if len(groups) == 1:
        return groups[0].label
    if len(groups) == 2:
        return f"{groups[0].label} and {groups[1].label}"
    dense = sum(not group.sparse for group in groups)
    return f"{len(groups)} models: {dense} dense, {len(groups) - dense} sparse"


def _group_content(group: SeedGroup, scales: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "key": group.key,
        "label": group.label,
        "sparse": group.sparse,
        "runs": [run.run_id for run in group.runs],
        "measurements": {
            q.key: _shown(group.measurement(q.key), scales[q.key]) for q in QUANTITIES
        },
    }


def _shown(measurement: Measurement, beside: float | None) -> dict[str, Any]:
    """Return a measurement with its value as text, in the prefix of what it stands beside."""
    spread, unit = measurement.uncertainty, measurement.unit
    text = readable(measurement.value, unit, beside)
    return {
        **measurement.to_json(),
        "text": text,
        # "Throughput" does not say of what.
        "short": text if unit == "tokens/s" else short(measurement.value, unit, beside),
        "spread": readable(spread, unit) if spread else None,
    }


def _best(quantity: Quantity, groups: Sequence[SeedGroup]) -> list[str]:
    """Return the best groups: the one with the best mean, and those within noise of it over seeds.

    Empty if the quantity has no direction, a group lacks it, meters or the machine's load differ,
    or all are equally good.
    """
    values = {group.key: [quantity.of(run).value for run in group.runs] for group in groups}
    known = {key: [v for v in of_runs if v is not None] for key, of_runs in values.items()}
    complete = all(len(known[key]) == len(values[key]) for key in values)
    same_meters = comparable([quantity.of(run) for group in groups for run in group.runs])
    if quantity.better == "neither" or len(groups) < 2 or not complete or not same_meters:
        return []
    if doubt(quantity.key, [run for group in groups for run in group.runs]):
        return []
    sign = 1 if quantity.better == "lower" else -1
    best = min(known, key=lambda key: sign * sum(known[key]) / len(known[key]))
    members = [key for key in known if not _differs(quantity, known[key], known[best])]
    return members if len(members) < len(groups) else []


def _differs(quantity: Quantity, values: list[float], best: list[float]) -> bool:
    """Return whether two means differ by more than noise: over seeds, or what one seed leaves."""
    gap = difference_of_means(values, best)
    noise = noise_of_one_seed(quantity.key, best) if gap.half_width is None else gap.half_width
    return abs(gap.mean) > noise


def _fronts(groups: Sequence[SeedGroup]) -> list[dict[str, Any]]:
    """Return the models on each Pareto front; none for fewer than three models."""
    if len(groups) < 3:
        return []
    fronts = [(cost, pareto_front(groups, cost)) for cost in PARETO_COSTS]
    return [
        {"cost": cost, "label": BY_KEY[cost].label, "models": [group.label for group in members]}
        for cost, members in fronts
        if members
    ]


def _comparison_content(comparison: Comparison) -> dict[str, Any]:
    sides = [side for side in (comparison.dense, comparison.sparse) if side is not None]
    scales = {
        key: scale_beside(side.group.measurement(key).value for side in sides) for key in SIDE_COSTS
    }
    return {
        "basis": comparison.basis,
        "reason": comparison.reason,
        "sides": [_side_content(side, scales) for side in sides],
    }


def _side_content(side: Side, scales: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "group": side.group.key,
        "label": side.group.label,
        "sparse": side.group.sparse,
        "loss": side.loss,
        "loss_text": readable(side.loss, "nats/token"),
        "note": side.note,
        "costs": {key: _shown(side.group.measurement(key), scales[key]) for key in SIDE_COSTS},
    }


def _unknown(groups: Sequence[SeedGroup]) -> list[dict[str, str]]:
    """Return which quantities are unknown of which models, grouped by reason."""
    by_reason: dict[str, tuple[list[str], list[str]]] = {}
    for quantity in QUANTITIES:
        for group in groups:
            measurement = group.measurement(quantity.key)
            if measurement.value is None:
                labels, models = by_reason.setdefault(measurement.reason or "", ([], []))
                labels += [quantity.label] if quantity.label not in labels else []
                models += [group.label] if group.label not in models else []
    return [
        {
            "quantity": ", ".join(labels),
            "reason": reason,
            "models": "all models" if len(models) == len(groups) else ", ".join(models),
        }
        for reason, (labels, models) in by_reason.items()
    ]
