"""Leverage: how many times a sparse model's FLOPs the dense model of equal loss takes."""

import numpy as np

from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import FloatArray
from benchmarks.laws.leverage_curve import LeverageCurve, leverage_curve, leverage_dial
from benchmarks.report.laws.compute_figures import kind
from benchmarks.report.laws.drawing import column_axis, numbers, ramp
from benchmarks.report.plotly_figure import Axis, Figure, Trace, figure
from parallel.measurement.number_text import plain_number

STEPS = 25
PUBLISHED_FLOPS = (1e20, 1e24)
"""Of a law without points."""


def leverage_figure(fitted: FittedLaw, flops: FloatArray | None) -> Figure | str:
    """Return how many times the FLOPs a dense model of equal loss takes, by sparsity."""
    if fitted.law.target == "leverage":
        return _ling(fitted)
    dial = leverage_dial(fitted)
    if dial is None:
        return (
            "leverage against sparsity: no column of the law tells a dense model from a sparse one"
        )
    low, high = PUBLISHED_FLOPS if flops is None else (flops.min(), flops.max())
    budgets = np.unique(np.geomspace(low, high, 3))
    curves = [leverage_curve(fitted, dial, float(budget)) for budget in budgets]
    traces: list[Trace] = []
    for number, curve in enumerate(curves):
        traces += _leverage_traces(curve, number, len(curves))
    if not traces:
        return "leverage against sparsity: no dense model within reach has the sparse ones' loss"
    axis = column_axis(dial)
    if dial == "sparsity":
        axis = Axis(title="Total over active parameters, 1 / (1 - sparsity)")
    return figure(
        "leverage",
        "Leverage of sparsity",
        f"FLOPs of the dense model of equal loss over those of the sparse one, both at their best"
        f" sizes ({kind(fitted)})"
        + (f"; bars: {LEVEL:.0%} of resampled fits" if fitted.resamples is not None else "")
        + ". Above 1 the sparse model wins.",
        traces,
        x=axis,
        y=Axis(title="times the FLOPs"),
        loglog=True,
    )


def _leverage_traces(curve: LeverageCurve, number: int, count: int) -> list[Trace]:
    known = np.isfinite(curve.leverage[:, 0])
    if known.sum() < 2:
        return []
    values, rows = curve.values[known], curve.leverage[known]
    x = 1 / (1 - values) if curve.column == "sparsity" else values
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{plain_number(curve.flops, 2)} FLOPs",
        "x": numbers(x),
        "y": numbers(rows[:, 0]),
        "hovertemplate": "%{x:.3g}: %{y:.3g} times (modelled)<extra></extra>",
        "meta": {"role": "leverage", **ramp(number, count)},
    }
    if rows.shape[1] > 2:
        low, high = np.nanpercentile(rows, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=1)
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": numbers(np.maximum(high - rows[:, 0], 0)),
            "arrayminus": numbers(np.maximum(rows[:, 0] - low, 0)),
        }  # fmt: skip
    return [trace]


def _ling(fitted: FittedLaw) -> Figure:
    ratios = np.geomspace(*(fitted.ranges or {}).get("activation_ratio", (1 / 128, 1.0)), STEPS)
    cut = float(np.median([*(fitted.candidates or {}).get("hidden_granularity", (12.0,))]))
    low, high = (fitted.ranges or {}).get("flops", PUBLISHED_FLOPS)
    traces: list[Trace] = []
    for number, budget in enumerate(np.geomspace(low, high, 3)):
        columns = {
            "activation_ratio": ratios,
            "hidden_granularity": np.full(STEPS, cut),
            "flops": np.full(STEPS, budget),
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{plain_number(budget, 2)} FLOPs",
                "x": numbers(1 / ratios),
                "y": numbers(fitted.law.predict(columns, fitted.values)),
                "hovertemplate": "%{x:.3g}: %{y:.3g} times (modelled)<extra></extra>",
                "meta": {"role": "line", **ramp(number, 3)},
            }
        )
    return figure(
        "leverage",
        "Leverage of sparsity",
        f"FLOPs of the dense model of equal loss over those of the sparse one ({kind(fitted)}), at"
        f" a granularity 2 d_model / d_expert of {cut:g}.",
        traces,
        x=Axis(title="Experts over active experts, 1 / activation ratio"),
        y=Axis(title="times the FLOPs"),
        log_x=True,
    )
