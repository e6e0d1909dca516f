"""What a report says, as JSON values: the page, its Markdown twin and `report.json` share it."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from benchmarks.comparison.conditions import conditions
from benchmarks.comparison.dense_vs_sparse import SIDE_COSTS, Comparison, Side, comparisons
from benchmarks.comparison.finding import finding
from benchmarks.comparison.pareto import PARETO_COSTS, pareto_front
from benchmarks.comparison.quantities import BY_KEY, QUANTITIES, Quantity
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.comparison.summary import summary
from benchmarks.published.rows import published_rows
from benchmarks.report.bench_results import bench_content
from benchmarks.report.figures import load_figures
from moe.runs.run import Run
from parallel.measurement.intervals import difference_of_means
from parallel.measurement.measurement import Measurement, comparable
from parallel.measurement.number_text import readable, short
from parallel.measurement.units import BILLION, JOULES_PER_MWH

FORMAT = 1
# The peak that publications' MFU is of (dense BF16).
H100_TFLOPS = 989.5


def report_content(
    runs: Sequence[Run], groups: Sequence[SeedGroup], bench: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return what `report.json` holds: everything a reader of the page sees in words."""
    group_of = {run.path: group.key for group in groups for run in group.runs}
    known = [q for q in QUANTITIES if any(g.measurement(q.key).value is not None for g in groups)]
    return {
        "format": FORMAT,
        "moescale": metadata.version("moescale"),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "title": _title(groups),
        "finding": finding(runs),
        "summary": summary(groups),
        "groups": [_group_content(group) for group in groups],
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
        "load": [{k: f[k] for k in ("run", "name", "summary")} for f in load_figures(groups)],
        "bench": bench_content(bench),
        "published": _published(),
        "published_speed": published_speed(),
        "conditions": conditions(runs),
    }  # fmt: skip


def _title(groups: Sequence[SeedGroup]) -> str:
    if len(groups) == 1:
        return groups[0].label
    if len(groups) == 2:
        return f"{groups[0].label} and {groups[1].label}"
    dense = sum(not group.sparse for group in groups)
    return f"{len(groups)} models: {dense} dense, {len(groups) - dense} sparse"


def _group_content(group: SeedGroup) -> dict[str, Any]:
    return {
        "key": group.key,
        "label": group.label,
        "sparse": group.sparse,
        "runs": [run.run_id for run in group.runs],
        "measurements": {q.key: _shown(group.measurement(q.key)) for q in QUANTITIES},
    }


def _shown(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement with its texts for people."""
    spread = measurement.uncertainty
    return {
        **measurement.to_json(),
        "text": readable(measurement.value, measurement.unit),
        "short": short(measurement.value, measurement.unit),
        "spread": readable(spread, measurement.unit) if spread else None,
    }


def _best(quantity: Quantity, groups: Sequence[SeedGroup]) -> list[str]:
    """Return the best groups, with those that noise over seeds does not tell from the best.

    Empty where the quantity has no direction, a group lacks it, meters are unlike, or all are
    equally good.
    """
    values = {group.key: [quantity.of(run).value for run in group.runs] for group in groups}
    lists = {key: [v for v in found if v is not None] for key, found in values.items()}
    complete = all(len(lists[key]) == len(values[key]) for key in values)
    same_way = comparable([quantity.of(run) for group in groups for run in group.runs])
    if quantity.better == "neither" or len(groups) < 2 or not complete or not same_way:
        return []
    sign = 1 if quantity.better == "lower" else -1
    best = min(lists, key=lambda key: sign * sum(lists[key]) / len(lists[key]))
    found = [key for key in lists if not _is_worse(lists[key], lists[best])]
    return found if len(found) < len(groups) else []


def _is_worse(values: list[float], best: list[float]) -> bool:
    gap = difference_of_means(values, best)
    return abs(gap.mean) > (gap.half_width or 0.0)


def _fronts(groups: Sequence[SeedGroup]) -> list[dict[str, Any]]:
    """Return the models on each front, where there are at least three to choose from."""
    if len(groups) < 3:
        return []
    found = [(cost, pareto_front(groups, cost)) for cost in PARETO_COSTS]
    return [
        {"cost": cost, "label": BY_KEY[cost].label, "models": [group.label for group in members]}
        for cost, members in found
        if members
    ]


def _comparison_content(comparison: Comparison) -> dict[str, Any]:
    sides = [side for side in (comparison.dense, comparison.sparse) if side is not None]
    return {
        "basis": comparison.basis,
        "reason": comparison.reason,
        "sides": [_side_content(side) for side in sides],
    }


def _side_content(side: Side) -> dict[str, Any]:
    return {
        "group": side.group.key,
        "label": side.group.label,
        "sparse": side.group.sparse,
        "loss": side.loss,
        "loss_text": readable(side.loss, "nats/token"),
        "note": side.note,
        "costs": {key: _shown(side.group.measurement(key)) for key in SIDE_COSTS},
    }


def _unknown(groups: Sequence[SeedGroup]) -> list[dict[str, str]]:
    """Return what some models lack, with the reason, each reason once."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for quantity in QUANTITIES:
        for group in groups:
            measurement = group.measurement(quantity.key)
            if measurement.value is None:
                labels, models = found.setdefault(measurement.reason or "", ([], []))
                labels += [quantity.label] if quantity.label not in labels else []
                models += [group.label] if group.label not in models else []
    return [
        {
            "quantity": ", ".join(labels),
            "reason": reason,
            "models": "all models" if len(models) == len(groups) else ", ".join(models),
        }
        for reason, (labels, models) in found.items()
    ]


def _published() -> list[dict[str, str]]:
    """Return published energy per token, recomputed from each row's own figures."""
    rows = []
    for row in published_rows("training_energy"):
        joules = float(row["energy_mwh"]) * JOULES_PER_MWH / float(row["tokens"])
        active = float(row["active_parameters"])
        rows.append(
            {
                "model": row["model"],
                "active": readable(active, ""),
                "tokens": readable(float(row["tokens"]), "tokens"),
                "energy_per_token": readable(joules, "J/token"),
                "per_billion": readable(joules / active * BILLION, "J/token"),
                "method": row["method"],
                "source": row["source"],
            }
        )
    return rows


def published_speed() -> list[dict[str, str]]:
    """Return the fastest published training run of each model, precision and routing mode."""
    fastest: dict[tuple[str, ...], tuple[float, dict[str, str]]] = {}
    for row in published_rows("training_speed"):
        key = (_plain_name(row["model"]), row["precision"][:3], row["routing"])
        rate = _printed_rate(row)
        if rate is not None and rate > fastest.get(key, (0.0, {}))[0]:
            fastest[key] = rate, row
    ordered = [row for _, (_, row) in sorted(fastest.items(), key=lambda pair: pair[0])]
    return [
        {
            "model": row["model"],
            "devices": f"{row['gpus']} x {row['gpu']}",
            "layout": _published_layout(row),
            "seq_len": row["seq_len"],
            "precision": row["precision"],
            "routing": row["routing"] or "not stated",
            "flops_per_s": f"{row['tflops_per_gpu']} TFLOP/s"
            if row["tflops_per_gpu"]
            else f"{row['mfu_pct']}% MFU",
            "tokens_per_s": row["tokens_per_s_per_gpu"],
            "source": row["source"],
        }
        for row in ordered
    ]


def _printed_rate(row: Mapping[str, str]) -> float | None:
    """Return TFLOP/s a device as a number: the first printed, or the printed share of the peak."""
    for name, scale in (("tflops_per_gpu", 1.0), ("mfu_pct", H100_TFLOPS / 100)):
        if number := re.search(r"[0-9.]+", row[name]):
            return float(number[0]) * scale
    return None


def _plain_name(model: str) -> str:
    """Return a model's name without the marks in which publications differ."""
    return "".join(c for c in model.partition("(")[0].lower() if c.isalnum())


def _published_layout(row: Mapping[str, str]) -> str:
    sizes = ((name, row[name]) for name in ("tp", "pp", "vpp", "cp", "ep", "etp"))
    return " ".join(f"{name}={n}" for name, n in sizes if n not in ("", "1", "n/a")) or "dp only"
