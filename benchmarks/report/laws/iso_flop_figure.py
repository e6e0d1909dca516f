"""Iso-FLOP parabolas with the runs behind them."""

import numpy as np

from benchmarks.laws.curves import best_curve, own_losses
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.law import FloatArray, Space
from benchmarks.laws.optimum import Compute, columns_at, training_flops
from benchmarks.report.laws.drawing import (
    Indices,
    column_axis,
    column_name,
    drawn_points,
    numbers,
    ramp,
    short,
)
from benchmarks.report.plotly_figure import LOSS_AXIS, Figure, Trace, figure
from parallel.measurement.number_text import plain_number

WITHIN = 1.2
"""Runs of one budget: the largest has at most so many times the FLOPs of the smallest."""
LEAST_SIZES = 3
MAX_BUDGETS = 7
STEPS = 60
SPREAD = 30.0
"""A curve reaches so many times beyond its runs' sizes at most, its minimum included."""


def iso_flop_figure(fitted: FittedLaw, fit: Fit) -> Figure | str:
    """Return runs of equal FLOPs over their size, with the law's curve and its minimum."""
    columns, space = fit.problem.columns, fit.law.space
    flops = training_flops(fit.law, columns)
    if space is None or flops is None or space.fixed_tokens is not None:
        return "iso-FLOP parabolas: the law has no size and tokens to exchange"
    dials, inside = _usual_dials(fit, space)
    budgets = _budgets(flops, columns[space.size], inside)
    if not budgets:
        return (
            f"iso-FLOP parabolas: no {LEAST_SIZES} sizes of runs share their FLOPs within"
            f" {WITHIN - 1:.0%}"
        )
    traces: list[Trace] = []
    for number, index in enumerate(budgets):
        meta = ramp(number, len(budgets))
        budget = float(np.exp(np.log(flops[index]).mean()))
        traces += _parabola(fitted, fit, dials, index, budget)
        for trace in traces[-3:]:
            trace["meta"] |= meta
    said = "".join(
        f" Runs of {column_name(n).split(' (')[0].lower()} {short(v)}." for n, v in dials.items()
    )
    return figure(
        "isoflop",
        "Iso-FLOP parabolas",
        "Measured runs (dots) of about equal 6 x active parameters x tokens, the fitted law at"
        f" those FLOPs (line, modelled) and its minimum (star).{said}",
        traces,
        x=column_axis(space.size),
        y=LOSS_AXIS,
        log_x=True,
    )


def _usual_dials(fit: Fit, space: Space) -> tuple[dict[str, float], Indices]:
    """Return the combination of dials that most points have, and those points."""
    columns = fit.problem.columns
    names = [name for name in space.dials if name in columns]
    everything = np.arange(fit.problem.target.size)
    if not names:
        return {}, everything
    rows, place, counts = np.unique(
        np.stack([columns[n] for n in names], axis=1), axis=0, return_inverse=True,
        return_counts=True,
    )  # fmt: skip
    # of equally many points the sparsest: a dense model is what every law can draw
    best = counts.size - 1 - int(counts[::-1].argmax())
    dials = dict(zip(names, map(float, rows[best]), strict=True))
    return dials, everything[place.reshape(-1) == best]


def _budgets(flops: FloatArray, sizes: FloatArray, inside: Indices) -> list[Indices]:
    """Return groups of points of about equal FLOPs and several sizes, ascending."""
    order = inside[np.argsort(flops[inside], kind="stable")]
    groups: list[Indices] = []
    start = 0
    while start < order.size:
        end = int(np.searchsorted(flops[order], flops[order[start]] * WITHIN, side="right"))
        if np.unique(sizes[order[start:end]]).size >= LEAST_SIZES:
            groups.append(order[start:end])
            start = end
        else:
            start += 1
    if len(groups) > MAX_BUDGETS:
        groups = [groups[i] for i in np.linspace(0, len(groups) - 1, MAX_BUDGETS).astype(int)]
    return groups


def _parabola(
    fitted: FittedLaw, fit: Fit, dials: dict[str, float], index: Indices, flops: float
) -> list[Trace]:
    space = fit.law.space
    assert space is not None
    sizes = fit.problem.columns[space.size][index]
    best = best_curve(fitted, space, [dials], np.array([flops]))
    size, loss = float(best.sizes[0, 0]), float(best.losses[0, 0])
    low, high = float(sizes.min()), float(sizes.max())
    if np.isfinite(size):
        low, high = max(min(low, size / 2), low / SPREAD), min(max(high, size * 2), high * SPREAD)
    grid = np.geomspace(low, high, STEPS)
    curve = own_losses(fit, columns_at(space, grid, dials, Compute(flops)))
    name = f"{plain_number(flops, 2)} FLOPs"
    shown = low <= size <= high
    common = {"type": "scatter", "legendgroup": name}
    where = drawn_points(sizes)
    return [
        {**common, "mode": "lines", "name": name, "showlegend": False, "x": numbers(grid),
         "y": numbers(curve), "hoverinfo": "skip", "meta": {"role": "line"}},
        {**common, "mode": "markers", "name": name, "x": numbers(sizes[where]),
         "y": numbers(fit.problem.target[index][where]), "meta": {"role": "point"},
         "hovertemplate": f"measured %{{y:.4g}}, size %{{x:.3s}}<extra>{name}</extra>"},
        {**common, "mode": "markers", "name": "minimum", "showlegend": False,
         "x": numbers([size] if shown else []), "y": numbers([loss] if shown else []),
         "hovertemplate": f"least {loss:.4g} at %{{x:.3s}} (modelled)<extra>{name}</extra>",
         "meta": {"role": "star"}},
    ]  # fmt: skip
