"""The report's plots as plotly traces; colours and layout belong to the page's script."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

from benchmarks.comparison.expert_load import LoadMaps, load_maps
from benchmarks.comparison.pareto import PARETO_COSTS
from benchmarks.comparison.quantities import BY_KEY
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.published.rows import published_rows
from benchmarks.report.figures_routing import map_figures, measure_figures
from benchmarks.report.figures_time import phase_figure, step_figure
from moe.runs.run import Run
from parallel.measurement.measurement import Measurement
from parallel.measurement.number_text import readable, short
from parallel.measurement.units import JOULES_PER_MWH

Trace = dict[str, Any]
Figure = dict[str, Any]
Point = TypeVar("Point")
MAX_POINTS = 400
# A training-loss curve is smoothed to so many means.
MEAN_POINTS = 100
# Points that one line plot can hold and still move smoothly.
MAX_PLOT_POINTS = 16_000
MAX_BARS = 30
MAX_LOAD_MAPS = 40
_BARS = (
    ("tokens_per_s", "Higher is faster."),
    ("energy_per_token", "Lower is better; the label says how it is known."),
    ("flops_per_token", "By the cost ledger's convention; lower is cheaper."),
    ("carbon", "Lower is better; under the stated grid and PUE."),
    ("money", "Lower is better; at the stated prices."),
)


def report_figures(
    groups: Sequence[SeedGroup], splits: Mapping[str, Mapping[str, float]] | None = None
) -> list[Figure]:
    """Return figures in the page's order: `id`, `title`, `caption`, axes and traces.

    `splits` are shares of a training step by model and part, as a benchmark measured them.

    A trace names its group in `meta`, by which the page colours and filters it.
    """
    figures = [
        _loss_figure(groups, "tokens", "Equal training seen from the data's side."),
        _loss_figure(groups, "training_flops", "Equal training seen from the arithmetic's side."),
        _training_loss(groups),
        _published_energy(groups),
        *(_bars(groups, key, caption) for key, caption in _BARS),
        _parameter_bars(groups),
        *measure_figures(groups),
    ]
    drawn = [figure for figure in figures if any("group" in t["meta"] for t in figure["traces"])]
    times = [phase_figure(groups), step_figure(splits or {})]
    return [*drawn, *(figure for figure in times if figure is not None)]


def pareto_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Return loss against each cost; the page draws the front through what is visible."""
    figures = []
    for cost in PARETO_COSTS:
        traces = [trace for group in groups if (trace := _pareto_point(group, cost))]
        if len(traces) > 1:
            quantity = BY_KEY[cost]
            unit = quantity.unit or groups[0].measurement(cost).unit
            figures.append(
                _figure(f"pareto-{cost}", quantity.label, "", f"{quantity.label}, {unit}", traces)
                | {"y": {"title": "Held-out loss, nats/token", "si": False}, "front": True}
            )
    return figures


def load_figures(groups: Sequence[SeedGroup]) -> list[dict[str, Any]]:
    """Return heat maps of one run a model, of the best models where there are too many."""
    sparse = [group for group in groups if group.sparse and load_maps(group.first)]
    if len(sparse) > MAX_LOAD_MAPS:
        sparse = sorted(sparse, key=_final_loss)[:MAX_LOAD_MAPS]
    return [_load_figure(group) for group in sparse]


def _load_figure(group: SeedGroup) -> dict[str, Any]:
    maps = load_maps(group.first)
    assert maps is not None
    place = "layer %{y}, "
    return {
        "run": group.first.run_id,
        "name": group.first.name,
        "summary": _load_summary(maps),
        "experts": _heat_map(
            list(range(len(maps.by_expert[0]))),
            maps.layers,
            maps.by_expert,
            place + "expert %{x}: %{z:.2f} of the even share<extra></extra>",
        ),
        "time": _heat_map(
            maps.steps,
            maps.layers,
            maps.busiest,
            place + "step %{x}: busiest %{z:.2f} of the even share<extra></extra>",
        ),
        **map_figures(group.first),
    }


def _final_loss(group: SeedGroup) -> float:
    interval = group.interval("loss")
    return interval.mean if interval else float("inf")


def _figure(name: str, title: str, caption: str, x_title: str, traces: list[Trace]) -> Figure:
    return {
        "id": name.replace("_", "-"),
        "title": title,
        "caption": caption,
        "x": {"title": x_title, "si": True},
        "y": {"title": "", "si": False},
        "traces": traces,
        "logs": ["x"],
        "bars": False,
        "stacked": False,
        "front": False,
        "loglog": False,
    }


def _loss_figure(groups: Sequence[SeedGroup], axis: str, caption: str) -> Figure:
    def curve(run: Run) -> list[tuple[float, float]]:
        known = (row for row in run.evaluations if row["loss"] is not None)
        flops = axis == "training_flops"
        return [(run.training_flops(row) if flops else row["tokens"], row["loss"]) for row in known]

    title = f"Held-out loss against {'tokens' if axis == 'tokens' else 'FLOPs'}"
    traces = _curves(groups, curve, BY_KEY[axis].unit)
    figure = _figure(f"loss-{axis}", title, caption, BY_KEY[axis].label, traces)
    return figure | {"y": {"title": "Held-out loss, nats/token", "si": False}, "logs": ["x", "y"]}


def _training_loss(groups: Sequence[SeedGroup]) -> Figure:
    def curve(run: Run) -> list[tuple[float, float]]:
        known = [row for row in run.metrics if row.get("loss") is not None]
        size = max(1, -(-len(known) // MEAN_POINTS))
        windows = [known[i : i + size] for i in range(0, len(known), size)]
        return [(w[-1]["tokens"], fmean(row["loss"] for row in w)) for w in windows]

    caption = f"Means over at least a {MEAN_POINTS}th of training each."
    traces = _curves(groups, curve, "tokens")
    figure = _figure("training-loss", "Training loss against tokens", caption,
                     BY_KEY["tokens"].label, traces)  # fmt: skip
    return figure | {"y": {"title": "Training loss, nats/token", "si": False}, "logs": ["x", "y"]}


def _curves(
    groups: Sequence[SeedGroup], curve: Callable[[Run], list[tuple[float, float]]], unit: str
) -> list[Trace]:
    """Return a line a run, of at most so many points that the plot still moves smoothly."""
    num_runs = sum(len(group.runs) for group in groups)
    most = min(MAX_POINTS, MAX_PLOT_POINTS // num_runs)
    traces = []
    for group in groups:
        for number, run in enumerate(group.runs):
            points = thinned(curve(run), most)
            if not points:
                continue
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(points) <= 40 and num_runs <= 6 else "lines",
                    "name": group.label,
                    "legendgroup": group.key,
                    "showlegend": number == 0,
                    "meta": {"group": group.key},
                    "x": [x for x, _ in points],
                    "y": [y for _, y in points],
                    "customdata": [[run.name, readable(x, unit)] for x, _ in points],
                    "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]}"
                    "<br>loss %{y:.3f} nats/token<extra></extra>",
                }
            )
    return traces


def _bars(groups: Sequence[SeedGroup], key: str, caption: str) -> Figure:
    quantity = BY_KEY[key]
    known = [(m, group) for group in groups if (m := group.measurement(key)).value is not None]
    if len(known) > MAX_BARS:
        known.sort(key=lambda pair: pair[0].value or 0, reverse=quantity.better == "higher")
        caption = f"{caption} The {MAX_BARS} best of {len(known)}."
        known = known[:MAX_BARS]
    traces = []
    for measurement, group in known:
        text = readable(measurement.value, measurement.unit)
        traces.append(
            _bar(group, measurement.value)
            | {
                "error_x": _error(measurement),
                "text": [f"{short(measurement.value, measurement.unit)} · {measurement.kind}"],
                "hovertemplate": f"<b>{group.label}</b><br>{text} ({measurement.kind}:"
                f" {measurement.source})<extra></extra>",
            }
        )
    unit = known[0][0].unit if known else quantity.unit
    return _figure(key, quantity.label, caption, unit, traces) | {"bars": True}


def _parameter_bars(groups: Sequence[SeedGroup]) -> Figure:
    traces = []
    for group in groups[:MAX_BARS]:
        active, total = group.first.active_parameters, group.first.total_parameters
        for part, value in (("active", active), ("resting", total - active)):
            label = readable(value, "")
            traces.append(
                _bar(group, value)
                | {
                    "meta": {"group": group.key, "faint": part == "resting"},
                    "text": [f"{label}{' resting' if part == 'resting' else ''}" if value else ""],
                    "hovertemplate": f"<b>{group.label}</b><br>{label} {part} of"
                    f" {readable(total, '')}<extra></extra>",
                }
            )
    caption = "A token meets the active ones; the rest wait in memory."
    figure = _figure("parameters", "Parameters, active and resting", caption, "parameters", traces)
    return figure | {"bars": True, "stacked": True, "logs": []}


def _bar(group: SeedGroup, value: float | None) -> Trace:
    return {
        "type": "bar",
        "name": group.label,
        "meta": {"group": group.key},
        "x": [value],
        "y": [group.label],
        "orientation": "h",
    }


def _pareto_point(group: SeedGroup, cost: str) -> Trace | None:
    price, loss = group.measurement(cost), group.measurement("loss")
    if price.value is None or loss.value is None:
        return None
    return {
        "type": "scatter",
        "mode": "markers",
        "name": group.label,
        "meta": {"group": group.key},
        "x": [price.value],
        "y": [loss.value],
        "error_x": _error(price),
        "error_y": _error(loss),
        "hovertemplate": f"<b>{group.label}</b><br>{readable(price.value, price.unit)}"
        f" ({price.kind})<br>loss {loss.value:.3f} nats/token<extra></extra>",
    }


def _published_energy(groups: Sequence[SeedGroup]) -> Figure:
    """Return energy per token over active parameters, beside published training runs."""
    traces = [trace for group in groups if (trace := _energy_point(group))]
    rows = published_rows("training_energy")
    joules = [float(r["energy_mwh"]) * JOULES_PER_MWH / float(r["tokens"]) for r in rows]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "published",
            "meta": {"published": True},
            "x": [float(row["active_parameters"]) for row in rows],
            "y": joules,
            "hovertemplate": [
                f"<b>{row['model']}</b><br>{readable(value, 'J/token')} (published:"
                f" {row['method']})<br>{row['source']}<extra></extra>"
                for row, value in zip(rows, joules, strict=True)
            ],
        }
    )
    figure = _figure(
        "energy-active",
        "Energy per token against active parameters",
        "Beside published training runs (grey): large models on GPUs.",
        "Active parameters",
        traces,
    )
    return figure | {"y": {"title": "J/token", "si": True}, "logs": [], "loglog": True}


def _energy_point(group: SeedGroup) -> Trace | None:
    energy = group.measurement("energy_per_token")
    if energy.value is None:
        return None
    return {
        "type": "scatter",
        "mode": "markers",
        "name": group.label,
        "meta": {"group": group.key},
        "x": [group.first.active_parameters],
        "y": [energy.value],
        "hovertemplate": f"<b>{group.label}</b><br>{readable(energy.value, 'J/token')}"
        f" ({energy.kind}: {energy.source})<extra></extra>",
    }


def _heat_map(x: list[int], y: list[int], z: list[list[float]], hover: str) -> Trace:
    rounded = [[round(value, 3) for value in row] for row in z]
    return {"type": "heatmap", "x": x, "y": y, "z": rounded, "hovertemplate": hover}


def _load_summary(maps: LoadMaps) -> str:
    idle = maps.idle_experts
    experts = "no expert" if not idle else f"{idle} expert{'s' if idle > 1 else ''}"
    return (
        f"In the last quarter of training the busiest expert of any layer got"
        f" {maps.worst:.2f} times the even share; {experts} got under a tenth of it."
    )


def _error(measurement: Measurement) -> dict[str, Any]:
    """Return an error bar that stops at zero: no quantity here can be less."""
    value, half = measurement.value, measurement.uncertainty
    if not half or value is None:
        return {"visible": False}
    return {"type": "data", "symmetric": False, "array": [half], "arrayminus": [min(half, value)]}


def thinned(points: list[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return at most `most` points, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[round(i * last / (most - 1))] for i in range(most)]
