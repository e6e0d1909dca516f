"""The report's plots of routing: measures over time, experts by source, experts together."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.comparison.seed_groups import SeedGroup
from moe.routing.specialization import affinity, source_load, specialization
from moe.runs.run import Run

MAX_POINTS = 400
MEASURES = (
    ("load_entropy", "Evenness of expert load",
     "Entropy of the load over experts, share of the largest: 1 is even.", "share"),
    ("token_entropy", "Indecision of routers",
     "Entropy of the router's probabilities for a token, share of the largest.", "share"),
    ("drop_rate", "Choices dropped for want of room", "Share of all choices.", "share"),
    ("router_z", "Router z", "Mean square of the logits' log-sum-exp.", "z"),
)  # fmt: skip


def measure_figures(groups: Sequence[SeedGroup]) -> list[dict[str, Any]]:
    """Return a line plot of each measure, its mean over layers; of drops only where there are."""
    figures = []
    for key, title, caption, unit in MEASURES:
        traces = [
            trace for group in groups for run in group.runs if (trace := _line(group, run, key))
        ]
        if key == "drop_rate" and not any(any(trace["y"]) for trace in traces):
            continue
        figures.append(
            {
                "id": f"routing-{key}",
                "title": title,
                "caption": f"{caption} Mean over layers.",
                "x": {"title": "Tokens", "si": True},
                "y": {"title": unit, "si": False},
                "traces": traces,
                "logs": ["x"],
                "bars": False,
                "stacked": False,
                "front": False,
                "loglog": False,
            }
        )
    return figures


def _line(group: SeedGroup, run: Run, key: str) -> dict[str, Any] | None:
    tokens = {row["step"]: row["tokens"] for row in run.metrics}
    rows = [row for row in run.routing if key in row and row["step"] in tokens]
    rows = rows[:: -(-len(rows) // MAX_POINTS) or 1]
    if not rows:
        return None
    return {
        "type": "scatter",
        "mode": "lines",
        "name": group.label,
        "legendgroup": group.key,
        "showlegend": run is group.first,
        "meta": {"group": group.key},
        "x": [tokens[row["step"]] for row in rows],
        "y": [fmean(row[key]) for row in rows],
        "hovertemplate": f"<b>{run.name}</b><br>%{{x:~s}} tokens: %{{y:.3f}}<extra></extra>",
    }


def map_figures(run: Run) -> dict[str, Any]:
    """Return heat maps of the most specialised layer (the last without sources), or Nones."""
    maps = run.routing_maps
    if not maps.get("layers"):
        return {"sources": None, "together": None, "note": ""}
    shares = [specialization(counts) for counts in maps["counts"]]
    known = [share if share is not None else -1.0 for share in shares]
    place = max(range(len(known)), key=lambda i: (known[i], i))
    counts, together = maps["counts"][place], maps["together"][place]
    experts = list(range(len(together)))
    top_k = int(run.experiment.get("model", {}).get("moe", {}).get("top_k", 1))
    share = shares[place]
    told = "" if share is None else f", whose experts tell {share:.0%} of a token's source"
    return {
        "note": f"Layer {maps['layers'][place]}{told}; held-out text.",
        "sources": _heat(
            experts, maps["sources"], source_load(counts),
            "%{y}, expert %{x}: %{z:.2f} of the even share<extra></extra>",
        ),
        "together": _heat(
            experts, experts, affinity(together, top_k),
            "experts %{x} and %{y}: %{z:.2f} of what chance would do<extra></extra>",
        ) if top_k > 1 else None,
    }  # fmt: skip


def _heat(x: Sequence[Any], y: Sequence[Any], z: list[list[float]], hover: str) -> dict[str, Any]:
    rounded = [[round(value, 3) for value in row] for row in z]
    return {"type": "heatmap", "x": list(x), "y": list(y), "z": rounded, "hovertemplate": hover}


def routing_rows(run: Run) -> list[dict[str, Any]]:
    """Return `routing.jsonl` as flat rows."""
    return [
        {"run": run.run_id, "step": row["step"], "layer": layer,
         **{key: row[key][i] for key, *_ in MEASURES if key in row}}
        for row in run.routing
        for i, layer in enumerate(row["layers"])
    ]  # fmt: skip


def source_rows(run: Run) -> list[dict[str, Any]]:
    """Return each source's choices by layer and expert as flat rows."""
    maps = run.routing_maps
    return [
        {"run": run.run_id, "layer": layer, "source": source, "expert": expert, "choices": count}
        for layer, by_source in zip(maps.get("layers", []), maps.get("counts", []), strict=True)
        for source, counts in zip(maps["sources"], by_source, strict=True)
        for expert, count in enumerate(counts)
    ]
