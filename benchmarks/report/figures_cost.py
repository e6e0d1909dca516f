"""What models cost: bars by quantity, loss against each cost, energy beside published runs."""

from collections.abc import Sequence

from benchmarks.comparison.machine import doubt
from benchmarks.comparison.pareto import PARETO_COSTS
from benchmarks.comparison.quantities import BY_KEY
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.published.rows import published_rows
from benchmarks.report.escaping import plot_text
from benchmarks.report.plotly_figure import (
    LOSS_AXIS,
    MAX_BARS,
    Axis,
    Figure,
    Trace,
    error_bar,
    figure,
)
from benchmarks.report.published_results import published_joules_per_token
from parallel.measurement.number_text import readable, scale_beside, short

BAR_CAPTIONS = {
    "tokens_per_s": "Higher is better.",
    "energy_per_token": "Lower is better; labels say whether it is measured or modelled.",
    "flops_per_token": "Lower is cheaper; by moescale's FLOP convention.",
    "carbon": "Lower is better; at the stated grid intensity and PUE.",
    "money": "Lower is better; at the stated prices.",
}


def cost_bars(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Return a bar for each model of each quantity in `BAR_CAPTIONS`."""
    return [_bars(groups, key, caption) for key, caption in BAR_CAPTIONS.items()]


def pareto_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Return loss against each cost; the page draws the front of the models that are shown."""
    figures = []
    for cost in PARETO_COSTS:
        traces = [trace for group in groups if (trace := _pareto_point(group, cost))]
        if len(traces) > 1:
            label, unit = BY_KEY[cost].label, BY_KEY[cost].unit
            title = f"{label}, {unit or groups[0].measurement(cost).unit}"
            x = Axis(title=title, si=True)
            figures.append(
                figure(f"pareto-{cost}", label, "", traces, x=x, y=LOSS_AXIS, log_buttons=("x",))
            )
    return figures


def _bars(groups: Sequence[SeedGroup], key: str, caption: str) -> Figure:
    quantity = BY_KEY[key]
    known = [(m, group) for group in groups if (m := group.measurement(key)).value is not None]
    if len(known) > MAX_BARS:
        known.sort(key=lambda pair: pair[0].value or 0, reverse=quantity.better == "higher")
        caption = f"{caption} The {MAX_BARS} best of {len(known)}."
        known = known[:MAX_BARS]
    if reason := doubt(key, [run for _, group in known for run in group.runs]):
        caption = f"Not comparable: {reason}."
    traces = []
    beside = scale_beside(measurement.value for measurement, _ in known)
    for measurement, group in known:
        text = readable(measurement.value, measurement.unit, beside)
        label = short(measurement.value, measurement.unit, beside)
        traces.append(
            _bar(group, measurement.value)
            | {
                "error_x": error_bar(measurement),
                "text": [f"{label} · {measurement.kind}"],
                "hovertemplate": f"<b>{group.label}</b><br>{text} ({measurement.kind}:"
                f" {plot_text(measurement.source)})<extra></extra>",
            }
        )
    x = Axis(title=known[0][0].unit if known else quantity.unit, si=True)
    return figure(key, quantity.label, caption, traces, x=x, log_buttons=("x",), bars=True)


def parameter_bars(groups: Sequence[SeedGroup]) -> Figure:
    """Return active and inactive parameters of each model, stacked."""
    traces = []
    for group in groups[:MAX_BARS]:
        active, total = group.first.active_parameters, group.first.total_parameters
        for part, value in (("active", active), ("inactive", total - active)):
            label = readable(value, "")
            traces.append(
                _bar(group, value)
                | {
                    "meta": {"group": group.key, "faint": part == "inactive"},
                    "text": [f"{label}{' inactive' if part == 'inactive' else ''}"]
                    if value
                    else [""],
                    "hovertemplate": f"<b>{group.label}</b><br>{label} {part} of"
                    f" {readable(total, '')}<extra></extra>",
                }
            )
    return figure(
        "parameters",
        "Active and inactive parameters",
        "A token uses only the active ones; all of them take memory.",
        traces,
        x=Axis(title="parameters", si=True),
        bars=True,
        stacked=True,
    )


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
    return _point(group, price.value, loss.value) | {
        "error_x": error_bar(price),
        "error_y": error_bar(loss),
        "hovertemplate": f"<b>{group.label}</b><br>{readable(price.value, price.unit)}"
        f" ({price.kind})<br>loss {loss.value:.3f} nats/token<extra></extra>",
    }


def energy_figure(groups: Sequence[SeedGroup]) -> Figure:
    """Return energy per token against active parameters, with published training runs."""
    traces = [trace for group in groups if (trace := _energy_point(group))]
    return figure(
        "energy-active",
        "Energy per token against active parameters",
        "With published training runs (grey), which are large models on GPUs.",
        [*traces, _published_points()],
        x=Axis(title="Active parameters", si=True),
        y=Axis(title="J/token", si=True),
        loglog=True,
    )


def _energy_point(group: SeedGroup) -> Trace | None:
    energy = group.measurement("energy_per_token")
    if energy.value is None:
        return None
    return _point(group, group.first.active_parameters, energy.value) | {
        "hovertemplate": f"<b>{group.label}</b><br>{readable(energy.value, 'J/token')}"
        f" ({energy.kind}: {plot_text(energy.source)})<extra></extra>",
    }


def _point(group: SeedGroup, x: float, y: float) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": group.label,
        "meta": {"group": group.key},
        "x": [x],
        "y": [y],
    }


def _published_points() -> Trace:
    rows = published_rows("training_energy")
    joules = [published_joules_per_token(row) for row in rows]
    return {
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
