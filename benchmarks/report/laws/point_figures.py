"""Points against their law: predicted and measured, and residuals along columns."""

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.residual_trends import Trend
from benchmarks.report.laws.drawing import (
    column_axis,
    column_name,
    drawn_points,
    drawn_words,
    is_log,
    numbers,
    point_groups,
    ramp,
)
from benchmarks.report.plotly_figure import Axis, Figure, Trace, figure

PERCENT = 100
RESIDUALS_SHOWN = 4


def predicted_figure(one: LawFit) -> Figure:
    """Return what the law predicts for each point against what was measured."""
    fit = one.fit
    measured = fit.problem.target
    predicted = measured * np.exp(fit.residuals)
    groups = point_groups(fit.problem.columns, drawn_points(measured))
    ends = [
        float(min(measured.min(), predicted.min())),
        float(max(measured.max(), predicted.max())),
    ]
    traces: list[Trace] = [
        {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends,
         "hoverinfo": "skip", "meta": {"role": "limit"}},
    ]  # fmt: skip
    for number, (label, index) in enumerate(groups):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": numbers(measured[index]),
                "y": numbers(predicted[index]),
                "text": [f"point {i + 1}, {PERCENT * np.expm1(fit.residuals[i]):+.2f}%"
                         for i in index],
                "hovertemplate": "%{text}<br>measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
                "meta": {"role": "point", **ramp(number, len(groups))},
            }
        )  # fmt: skip
    rms = one.document["residuals"]["rms_log"]
    return figure(
        "predicted",
        "Predicted against measured",
        f"Each run ({column_name(fit.law.target).lower()}): measured across, by the fitted law"
        f" upwards (modelled); rms of ln {rms:.2g}.{drawn_words(measured.size)}",
        traces,
        x=Axis(title="measured"),
        y=Axis(title="predicted"),
        loglog=fit.law.target != "loss",
    )


def residual_figures(one: LawFit) -> list[Figure]:
    """Return residuals along the columns on which the law stands, those with structure first."""
    order = sorted(one.trends, key=lambda trend: not trend.found)
    known = [trend for trend in order if trend.column in one.fit.problem.columns]
    return [_residuals(one, trend) for trend in known[:RESIDUALS_SHOWN]]


def _residuals(one: LawFit, trend: Trend) -> Figure:
    fit, column = one.fit, one.fit.problem.columns[trend.column]
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
