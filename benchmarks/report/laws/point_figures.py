"""Points against their law: predicted and measured, and residuals along columns."""

from collections.abc import Sequence

import numpy as np

from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.law import Law
from benchmarks.laws.marked_models import MarkedModel
from benchmarks.laws.residual_trends import Trend
from benchmarks.report.laws.drawing import (
    column_axis,
    column_name,
    drawn_points,
    drawn_words,
    is_log,
    marks,
    numbers,
    point_groups,
    ramp,
)
from benchmarks.report.plotly_figure import Axis, Figure, Trace, figure

PERCENT = 100
RESIDUALS_SHOWN = 4


def predicted_figure(law: Law, fit: Fit | None, marked: Sequence[MarkedModel]) -> Figure | str:
    """Return what the law predicts for points of the fit and for runs, against what was measured.

    Args:
        law: The law.
        fit: Its fit with the points; `None` where they are not known.
        marked: Models to set beside it; only measured ones are drawn.
    """
    runs = [model for model in marked if model.measured is not None]
    if fit is None and not runs:
        return "predicted against measured: the law comes without its points"
    points = [] if fit is None else _points(fit)
    traces = points + marks(runs, "measured", "predicted")
    values = [v for trace in traces for v in (*trace["x"], *trace["y"]) if v is not None]
    ends = [min(values), max(values)]
    equal = {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends,
             "hoverinfo": "skip", "meta": {"role": "limit"}}  # fmt: skip
    said = f"{column_name(law.target)}: measured across, by the law upwards (modelled)."
    if fit is not None:
        rms = float(np.sqrt(np.mean(fit.residuals**2)))
        said += f" Dots: the points of the fit, rms of ln {rms:.2g}."
        said += drawn_words(fit.problem.target.size)
    if runs:
        said += " Diamonds: the runs of this report; bars: 95% of resampled fits."
    return figure(
        "predicted",
        "Predicted against measured",
        said,
        [equal, *traces],
        x=Axis(title="measured"),
        y=Axis(title="predicted"),
        loglog=law.target != "loss",
    )


def _points(fit: Fit) -> list[Trace]:
    measured = fit.problem.target
    predicted = measured * np.exp(fit.residuals)
    groups = point_groups(fit.problem.columns, drawn_points(measured))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": label,
            "x": numbers(measured[index]),
            "y": numbers(predicted[index]),
            "text": [f"point {i + 1}, {PERCENT * np.expm1(fit.residuals[i]):+.2f}%" for i in index],
            "hovertemplate": "%{text}<br>measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
            "meta": {"role": "point", **ramp(number, len(groups))},
        }
        for number, (label, index) in enumerate(groups)
    ]


def residual_figures(fit: Fit, trends: Sequence[Trend]) -> list[Figure]:
    """Return residuals along the columns on which the law stands, those with structure first."""
    order = sorted(trends, key=lambda trend: not trend.found)
    known = [trend for trend in order if trend.column in fit.problem.columns]
    return [_residuals(fit, trend) for trend in known[:RESIDUALS_SHOWN]]


def _residuals(fit: Fit, trend: Trend) -> Figure:
    column = fit.problem.columns[trend.column]
    index = drawn_points(fit.problem.target)
    middles = [float(np.sqrt(g.low * g.high)) if is_log(trend.column) else (g.low + g.high) / 2
               for g in trend.groups]  # fmt: skip
    percents = PERCENT * np.expm1(fit.residuals)
    ends = [float(column.min()), float(column.max())]
    traces: list[Trace] = [
        {"type": "scatter", "mode": "lines", "x": ends, "y": [0, 0], "name": "no error",
         "hoverinfo": "skip", "showlegend": False, "meta": {"role": "limit"}},
        {
            "type": "scatter",
            "mode": "markers",
            "name": "runs",
            "x": numbers(column[index]),
            "y": numbers(percents[index]),
            "text": [f"point {i + 1}" for i in index],
            "hovertemplate": "%{text}: %{y:+.2f}%<extra></extra>",
            "meta": {"role": "cloud"},
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "medians of alike runs",
            "x": numbers(middles),
            "y": numbers([PERCENT * np.expm1(g.median_log) for g in trend.groups]),
            "hovertemplate": "median %{y:+.2f}%<extra></extra>",
            "meta": {"role": "trend"},
        },
    ]  # fmt: skip
    words = trend.words
    return figure(
        f"residuals-{trend.column}",
        f"Residuals along {column_name(trend.column).split(' (')[0].lower()}",
        f"{words[0].upper()}{words[1:]}. Above 0: predicted too high.{drawn_words(column.size)}",
        traces,
        x=column_axis(trend.column),
        y=Axis(title="predicted / measured - 1, %"),
        log_x=is_log(trend.column),
    )
