"""The study's figures: iso-FLOP runs, loss against compute, leverage against experts."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.curves import own_losses
from benchmarks.laws.law import FloatArray
from benchmarks.report.laws.drawing import band, column_axis, numbers
from benchmarks.report.plotly_figure import LOSS_AXIS, Axis, Figure, Trace, figure
from benchmarks.study.kinds import DENSE, kind_name
from benchmarks.study.ladder_curve import Ladder, best_of_ladder
from benchmarks.study.leverage import Leverage
from benchmarks.study.minima import Minimum
from benchmarks.study.prediction import Outcome
from benchmarks.study.study import Study
from parallel.measurement.number_text import plain_number

STEPS = 40
BEYOND = 3.0
"""Curves go so many times beyond the largest runs' FLOPs."""


def study_figures(study: Study) -> list[Figure]:
    """Return the figures that have something to show."""
    found = [_iso_flop_figure(study), _compute_figure(study)]
    measured = [one for one in study.leverage if one.source == "minimum" and one.value]
    return [*found, _leverage_figure(measured)] if measured else found


def _iso_flop_figure(study: Study) -> Figure:
    traces: list[Trace] = []
    for one in study.minima:
        if one.experts in study.apart:
            traces += _budget(one, study.apart[one.experts], study.ladders[one.experts])
    for outcome in study.outcomes:
        traces.append(_largest(outcome))
    return figure(
        "study-isoflop",
        "Loss over active parameters at equal FLOPs",
        "Measured runs (dots: means over seeds), the law of their kind at those FLOPs (lines,"
        " modelled), its minimum by the runs alone (small stars); bars: the largest runs as"
        " predicted before they ran, their dots as measured.",
        _named_once(traces),
        x=column_axis("active_parameters"),
        y=LOSS_AXIS,
        log_x=True,
    )


def _budget(one: Minimum, law: LawFit, ladder: Ladder) -> list[Trace]:
    sizes = ladder.active_parameters
    inside = (sizes >= min(one.active_parameters) / 1.5) & (
        sizes <= max(one.active_parameters) * 1.5
    )
    columns = {
        "active_parameters": sizes[inside],
        "tokens": one.flops / ladder.flops_per_token[inside],
    }
    curve = own_losses(law.fit, columns)
    name, meta = kind_name(one.experts), {"part": int(one.experts != DENSE)}
    common = {"type": "scatter", "name": name, "legendgroup": name}
    said = f"<extra>{name}, {plain_number(one.flops, 2)} FLOPs</extra>"
    best = one.best_active_parameters
    return [
        {**common, "mode": "lines", "showlegend": False, "hoverinfo": "skip",
         "x": numbers(sizes[inside]), "y": numbers(curve), "meta": {"role": "line", **meta}},
        {**common, "mode": "markers", "x": numbers(one.active_parameters),
         "y": numbers(one.losses), "hovertemplate": f"measured %{{y:.4g}}{said}",
         "meta": {"role": "point", **meta}},
        {**common, "mode": "markers", "showlegend": False, "x": numbers([best] if best else []),
         "y": numbers([one.best_loss] if one.best_loss else []),
         "hovertemplate": f"least %{{y:.4g}} at %{{x:.3s}}{said}",
         "meta": {"role": "star", **meta}},
    ]  # fmt: skip


def _largest(one: Outcome) -> Trace:
    """Return the largest runs, with the interval that was predicted for them."""
    size, mean = one.active_parameters, float(np.mean(one.measured))
    name = kind_name(one.experts)
    bars = {
        "type": "data", "symmetric": False,
        "array": [max(0.0, one.predicted.high - mean)],
        "arrayminus": [max(0.0, mean - one.predicted.low)],
    }  # fmt: skip
    return {
        "type": "scatter", "mode": "markers", "name": name, "legendgroup": name,
        "x": numbers([size]), "y": numbers([mean]), "error_y": bars,
        "hovertemplate": f"measured %{{y:.4g}}, predicted {one.predicted.loss:.4g}"
        f"<extra>{name}, {plain_number(one.flops, 2)} FLOPs</extra>",
        "meta": {"role": "point", "part": int(one.experts != DENSE)},
    }  # fmt: skip


def _named_once(traces: Sequence[Trace]) -> list[Trace]:
    """Return traces of which each kind is named once in the legend."""
    named: set[str] = set()
    found = []
    for trace in traces:
        shown = trace.get("showlegend", True) and trace["name"] not in named
        named |= {trace["name"]} if shown else set()
        found.append(trace | {"showlegend": shown})
    return found


def _compute_figure(study: Study) -> Figure:
    """Return the least loss over FLOPs of each kind."""
    traces: list[Trace] = []
    measured = [*(m.flops for m in study.minima), *(one.flops for one in study.outcomes)]
    flops = np.geomspace(min(measured), max(measured) * BEYOND, STEPS)
    for experts, law in study.apart.items():
        traces += _frontier(experts, law, study.ladders[experts], flops)
        traces += _least(experts, study.minima)
    return figure(
        "study-compute",
        "Least loss against FLOPs",
        "The best model of the ladder at given FLOPs by each kind's law (lines, modelled; bands:"
        " 95% of resampled fits), and the least measured loss of each budget (dots).",
        _named_once(traces),
        x=Axis(title="Training FLOPs, by moe cost"),
        y=LOSS_AXIS,
        log_x=True,
    )


def _frontier(experts: int, law: LawFit, ladder: Ladder, flops: FloatArray) -> list[Trace]:
    losses = best_of_ladder(law, ladder, flops).losses
    meta = {"part": int(experts != DENSE)}
    name = kind_name(experts)
    line = {
        "type": "scatter", "mode": "lines", "name": name, "legendgroup": name,
        "x": numbers(flops), "y": numbers(losses[:, 0]),
        "hovertemplate": f"%{{x:.2g}} FLOPs: %{{y:.4g}} (modelled)<extra>{name}</extra>",
        "meta": {"role": "line", **meta},
    }  # fmt: skip
    edges = [trace | {"name": name} for trace in band(flops, losses, **meta)]
    return [*edges, line]


def _least(experts: int, minima: Sequence[Minimum]) -> list[Trace]:
    own = [one for one in minima if one.experts == experts]
    return [
        {"type": "scatter", "mode": "markers", "name": kind_name(experts), "showlegend": False,
         "x": numbers([one.flops for one in own]), "y": numbers([min(one.losses) for one in own]),
         "hovertemplate": "measured %{y:.4g}<extra></extra>",
         "meta": {"role": "point", "part": int(experts != DENSE)}}
    ]  # fmt: skip


def _leverage_figure(found: Sequence[Leverage]) -> Figure:
    """Return the leverage of each number of experts, one line a budget."""
    budgets: Mapping[float, list[Leverage]] = {
        flops: sorted((one for one in found if one.flops == flops), key=lambda one: one.experts)
        for flops in sorted({one.flops for one in found})
    }
    traces: list[Trace] = []
    for number, (flops, group) in enumerate(budgets.items()):
        values = np.array([one.value for one in group], dtype=float)
        ends = np.array([one.interval or (one.value, one.value) for one in group], dtype=float)
        bars = {
            "type": "data",
            "symmetric": False,
            "array": numbers(ends[:, 1] - values),
            "arrayminus": numbers(values - ends[:, 0]),
        }
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": f"{plain_number(flops, 2)} FLOPs",
             "x": numbers([one.experts for one in group]), "y": numbers(values), "error_y": bars,
             "hovertemplate": "%{x} experts: %{y:.3g} times<extra></extra>",
             "meta": {"role": "leverage", "part": number}}
        )  # fmt: skip
    return figure(
        "study-leverage",
        "Leverage against experts",
        "FLOPs that a dense model needs, by the dense law, for the least measured loss of a sparse"
        " model, over the sparse model's; bars: 95% of resampled dense fits.",
        traces,
        x=Axis(title="Experts"),
        y=Axis(title="FLOPs dense / sparse"),
        log_x=True,
    )
