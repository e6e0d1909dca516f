"""What follows from a law for a number of FLOPs: the frontier, best sizes, leverage of sparsity."""

import numpy as np

from benchmarks.laws.curves import Curve, best_curve, combinations, dial_values
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import FloatArray
from benchmarks.laws.leverage_curve import LeverageCurve, leverage_curve, leverage_dial
from benchmarks.report.laws.drawing import (
    band,
    column_axis,
    column_name,
    drawn_points,
    is_log,
    numbers,
    ramp,
)
from benchmarks.report.plotly_figure import LOSS_AXIS, Axis, Figure, Trace, figure

STEPS = 25
BEYOND = 100.0
"""The frontier goes so many times beyond the runs' FLOPs."""
PUBLISHED_FLOPS = (1e18, 1e25)
"""Of a law without points."""
FLOPS_AXIS = Axis(title="Training FLOPs, 6 x active parameters x tokens")
RATIO_BUDGETS = (1e20, 1e21, 1e22)


def frontier_curve(fitted: FittedLaw, flops: FloatArray | None) -> Curve | str:
    """Return the best losses and sizes from the least FLOPs of the runs to 100 times the most."""
    if fitted.law.space is None:
        return f"frontier: law {fitted.law.name!r} does not tell sizes from FLOPs alone"
    low, high = PUBLISHED_FLOPS if flops is None else (flops.min(), flops.max() * BEYOND)
    dials = combinations(dial_values(fitted))
    return best_curve(fitted, fitted.law.space, dials, np.geomspace(low, high, STEPS))


def frontier_figure(
    fitted: FittedLaw, curve: Curve, runs: tuple[FloatArray, FloatArray] | None
) -> Figure:
    """Return the least loss for each number of FLOPs, with its band, and the runs.

    Args:
        fitted: The law.
        curve: Its frontier.
        runs: FLOPs and losses of the measured runs.
    """
    traces: list[Trace] = band(curve.flops, curve.losses)
    split = curve.flops.size if runs is None else int((curve.flops <= runs[0].max()).sum()) + 1
    for name, part, role in (
        ("best by the law", slice(0, split), "line"),
        ("beyond the runs", slice(split - 1, None), "beyond"),
    ):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": numbers(curve.flops[part]),
                "y": numbers(curve.losses[part, 0]),
                "hovertemplate": "%{x:.2g} FLOPs: %{y:.4g} (modelled)<extra></extra>",
                "meta": {"role": role},
            }
        )
    count = 0
    if runs is not None:
        where = drawn_points(runs[1])
        count = runs[1].size
        traces.insert(
            0,
            {"type": "scatter", "mode": "markers", "name": "measured runs",
             "x": numbers(runs[0][where]), "y": numbers(runs[1][where]),
             "hovertemplate": "measured %{y:.4g}<extra></extra>", "meta": {"role": "cloud"}},
        )  # fmt: skip
    has_band = any(trace["meta"]["role"] == "band" for trace in traces)
    return figure(
        "frontier",
        "Loss against compute",
        f"The least loss for a number of FLOPs ({_kind(fitted)})"
        + (", with the band of 95% of resampled fits" if has_band else "")
        + (f"; dots: {count:,} measured runs" if count else "")
        + ".",
        [trace for trace in traces if trace["x"]],
        x=FLOPS_AXIS,
        y=LOSS_AXIS,
        log_x=True,
    )


def sizes_figure(fitted: FittedLaw, curve: Curve) -> Figure | str:
    """Return the best size and tokens for each number of FLOPs."""
    space = fitted.law.space
    assert space is not None
    known = np.isfinite(curve.sizes[:, 0])
    if known.sum() < 2 or space.fixed_tokens is not None:
        return "best sizes: the law has no least loss between small and large sizes"
    traces: list[Trace] = []
    for part, (rows, name) in enumerate(
        ((curve.sizes, column_name(space.size)), (curve.tokens, "Training tokens"))
    ):
        traces += band(curve.flops, rows, part=part)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name.lower(),
                "x": numbers(curve.flops[known]),
                "y": numbers(rows[known, 0]),
                "hovertemplate": "%{x:.2g} FLOPs: %{y:.3s}<extra></extra>",
                "meta": {"role": "line", "part": part},
            }
        )
    return figure(
        "sizes",
        "Best sizes",
        f"Size and tokens of least loss ({_kind(fitted)}), with bands of 95% of resampled fits."
        if any(t["meta"]["role"] == "band" for t in traces)
        else f"Size and tokens of least loss ({_kind(fitted)}).",
        traces,
        x=FLOPS_AXIS,
        y=Axis(title="parameters or tokens", si=True),
        loglog=True,
    )


def leverage_figure(fitted: FittedLaw, flops: FloatArray | None) -> Figure | str:
    """Return how many times the FLOPs a dense model of equal loss takes, by sparsity."""
    if fitted.law.target == "leverage":
        return _ling(fitted)
    dial = leverage_dial(fitted)
    if dial is None:
        return (
            "leverage against sparsity: no column of the law tells a dense model from a sparse one"
        )
    low, high = (1e20, 1e24) if flops is None else (flops.min(), flops.max())
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
        f" sizes ({_kind(fitted)})"
        + ("; bars: 95% of resampled fits" if fitted.resamples is not None else "")
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
        "name": f"{curve.flops:.1e} FLOPs",
        "x": numbers(x),
        "y": numbers(rows[:, 0]),
        "hovertemplate": "%{x:.3g}: %{y:.3g} times (modelled)<extra></extra>",
        "meta": {"role": "leverage", **ramp(number, count)},
    }
    if rows.shape[1] > 2:
        low, high = np.nanpercentile(rows, [2.5, 97.5], axis=1)
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": numbers(np.maximum(high - rows[:, 0], 0)),
            "arrayminus": numbers(np.maximum(rows[:, 0] - low, 0)),
        }  # fmt: skip
    return [trace]


def _ling(fitted: FittedLaw) -> Figure:
    ratios = np.geomspace(*(fitted.ranges or {}).get("activation_ratio", (1 / 128, 1.0)), STEPS)
    cut = float(np.median([*(fitted.candidates or {}).get("hidden_granularity", (12.0,))]))
    low, high = (fitted.ranges or {}).get("flops", (RATIO_BUDGETS[0], RATIO_BUDGETS[-1]))
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
                "name": f"{budget:.1e} FLOPs",
                "x": numbers(1 / ratios),
                "y": numbers(fitted.law.predict(columns, fitted.values)),
                "hovertemplate": "%{x:.3g}: %{y:.3g} times (modelled)<extra></extra>",
                "meta": {"role": "line", **ramp(number, 3)},
            }
        )
    return figure(
        "leverage",
        "Leverage of sparsity",
        f"FLOPs of the dense model of equal loss over those of the sparse one ({_kind(fitted)}), at"
        f" a granularity 2 d_model / d_expert of {cut:g}.",
        traces,
        x=Axis(title="Experts over active experts, 1 / activation ratio"),
        y=Axis(title="times the FLOPs"),
        log_x=is_log("activation_ratio"),
    )


def _kind(fitted: FittedLaw) -> str:
    return "modelled by published coefficients" if fitted.fit is None else "modelled by the fit"
