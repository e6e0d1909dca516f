"""Heat maps of one run's experts: load by layer and over time, by data source, coactivation."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from benchmarks.comparison.expert_load import LoadMaps, load_maps
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.report.escaping import plot_text
from benchmarks.report.plotly_figure import heat_map
from moe.routing.specialization import affinity, source_load, specialization
from moe.runs.run import Run

# Models with heat maps; the best by loss where there are more.
MAX_LOAD_MAPS = 40


def expert_figures(groups: Sequence[SeedGroup]) -> list[dict[str, Any]]:
    """Return the heat maps of each sparse model's first run, with a summary in words."""
    sparse = [group for group in groups if group.sparse and load_maps(group.first)]
    if len(sparse) > MAX_LOAD_MAPS:
        sparse = sorted(sparse, key=attrgetter("final_loss"))[:MAX_LOAD_MAPS]
    return [_expert_figure(group.first) for group in sparse]


def _expert_figure(run: Run) -> dict[str, Any]:
    maps = load_maps(run)
    assert maps is not None
    num_experts = len(maps.by_expert[0])
    return {
        "run": run.run_id,
        "name": run.name,
        "summary": _load_summary(maps),
        "experts": heat_map(
            range(num_experts),
            maps.layers,
            maps.by_expert,
            "layer %{y}, expert %{x}: %{z:.2f} x the even share<extra></extra>",
        ),
        "time": heat_map(
            maps.steps,
            maps.layers,
            maps.busiest,
            "layer %{y}, step %{x}: busiest %{z:.2f} x the even share<extra></extra>",
        ),
        **source_figures(run),
    }


def source_figures(run: Run) -> dict[str, Any]:
    """Return load by source and coactivation of the most specialized layer, and a note on it.

    That is the last layer where specialization is unknown. The figures are `None` for a run
    without routing maps, and coactivation for top-1 routing.
    """
    maps = run.routing_maps
    if not maps.get("layers"):
        return {"sources": None, "coactivation": None, "note": ""}
    known = [specialization(counts) for counts in maps["counts"]]
    index = max(range(len(known)), key=lambda i: (-1.0 if known[i] is None else known[i], i))
    coactivation = maps["together"][index]
    experts = range(len(coactivation))
    top_k = int(run.experiment.get("model", {}).get("moe", {}).get("top_k", 1))
    return {
        "note": _layer_note(maps["layers"][index], known[index]),
        "sources": heat_map(
            experts,
            [plot_text(str(source)) for source in maps["sources"]],
            source_load(maps["counts"][index]),
            "%{y}, expert %{x}: %{z:.2f} x the even share<extra></extra>",
        ),
        "coactivation": heat_map(
            experts,
            experts,
            affinity(coactivation, top_k),
            "experts %{x} and %{y}: %{z:.2f} x chance<extra></extra>",
        )
        if top_k > 1
        else None,
    }


def _layer_note(layer: int, known: float | None) -> str:
    text = f"Layer {layer}, on held-out text."
    if known is None:
        return text
    return f"{text} It is the most specialized: its experts reveal {known:.0%} of a token's source."


def _load_summary(maps: LoadMaps) -> str:
    idle = maps.idle_experts
    experts = "no expert" if not idle else f"{idle} expert{'s' if idle > 1 else ''}"
    return (
        f"In the last quarter of training the busiest expert of any layer got"
        f" {maps.worst:.2f} times the even share; {experts} got under a tenth of it."
    )
