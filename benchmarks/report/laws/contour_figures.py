"""Contours of equal loss: over active and total parameters, experts, or tokens, as a law allows."""

from collections.abc import Sequence

import numpy as np

from benchmarks.laws.curves import best_curve, predicted
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import FloatArray, Space
from benchmarks.laws.leverage_curve import DENSE
from benchmarks.laws.marked_models import MarkedModel
from benchmarks.laws.optimum import FLOPS_PER_PARAMETER_TOKEN, Compute, columns_at
from benchmarks.report.laws.drawing import column_axis, column_name, is_log, marks, numbers
from benchmarks.report.plotly_figure import Figure, Trace, figure
from parallel.measurement.number_text import plain_number

STEPS = 60
LEVELS = 14
ALIKE = 1.2
"""Marked models of at most so many times the contours' FLOPs, or as few, are drawn over them."""


def contour_figure(
    fitted: FittedLaw,
    flops: float,
    points: tuple[FloatArray, FloatArray] | None,
    marked: Sequence[MarkedModel],
) -> Figure | str:
    """Return contours of equal loss: over active and total parameters where the law knows both.

    Args:
        fitted: The law.
        flops: Training FLOPs, from which tokens follow where they are no axis.
        points: Sizes and tokens of measured runs, drawn where these are the axes.
        marked: Models to set beside it, drawn where the contours are of their tokens.
    """
    space = fitted.law.space
    if space is None:
        return "contours of equal loss: the law does not tell active parameters and tokens"
    dial = next((n for n in space.dials if n in DENSE or n == "granularity"), None)
    if dial is None and (space.dials or space.fixed_tokens is not None):
        return "contours of equal loss: the law has no second axis that this page knows"
    if dial is None:
        return _size_and_tokens(fitted, space, flops, points, marked)
    alike = [m for m in marked if flops / ALIKE <= m.sizes.get("flops", 0) <= flops * ALIKE]
    best = best_curve(fitted, space, [{dial: v} for v in _range(fitted, dial, 3)],
                      np.array([flops]))  # fmt: skip
    centre = float(best.sizes[0, 0])
    if not np.isfinite(centre):
        return "contours of equal loss: the law has no best size at these FLOPs"
    if dial == "sparsity":  # its size is the total, of which a part is active
        return _active_and_total(fitted, space, flops, centre, alike)
    sizes, second = np.geomspace(centre / 30, centre * 30, STEPS), _range(fitted, dial, STEPS)
    values = {n: np.array([[v]]) for n, v in fitted.values.items()}
    at = (columns_at(space, sizes, {dial: float(v)}, Compute(flops)) for v in second)
    losses = np.array([predicted(fitted.law, columns, values)[0] for columns in at])
    reason = (
        "The law counts experts and not total parameters, so they are the second axis."
        if dial == "experts"
        else f"The law's second axis is {column_name(dial).lower()}."
    )
    found = _contours(
        sizes, second, losses, (space.size, dial),
        f"At {plain_number(flops, 2)} training FLOPs (6 x active parameters x tokens). {reason}",
    )  # fmt: skip
    found["traces"] += _unlisted(marks(alike, space.size, dial))
    return found


def _range(fitted: FittedLaw, dial: str, steps: int) -> FloatArray:
    """Return values of a dial over the range of its candidates."""
    assert fitted.law.space is not None
    known = [*((fitted.candidates or {}).get(dial) or fitted.law.space.dials[dial])]
    if fitted.ranges and dial in fitted.ranges:
        known += fitted.ranges[dial]
    return (np.geomspace if is_log(dial) else np.linspace)(min(known), max(known), steps)


def _active_and_total(
    fitted: FittedLaw, space: Space, flops: float, centre: float, alike: Sequence[MarkedModel]
) -> Figure:
    highest = float(_range(fitted, "sparsity", 2)[-1])
    active = np.geomspace(centre * (1 - highest) / 10, centre * 3, STEPS)
    total = np.geomspace(active[0], active[-1] / (1 - highest), STEPS)
    sizes = np.broadcast_to(total[:, None], (STEPS, STEPS))
    sparsity = 1 - active[None] / sizes
    columns = {
        "parameters": sizes.reshape(-1),
        "sparsity": np.clip(sparsity, 0, None).reshape(-1),
        "tokens": np.tile(flops / (FLOPS_PER_PARAMETER_TOKEN * active), STEPS),
    }
    values = {n: np.array([[v]]) for n, v in fitted.values.items()}
    losses = predicted(fitted.law, columns, values)[0].reshape(STEPS, STEPS)
    outside = (sparsity < -1e-9) | (sparsity > max(highest, 0.5) + 1e-9)
    found = _contours(
        active, total, np.where(outside, np.nan, losses), ("active_parameters", "parameters"),
        f"At {plain_number(flops, 2)} training FLOPs (6 x active parameters x tokens), from dense"
        f" models to the sparsest that were looked at ({highest:.3g}).",
    )  # fmt: skip
    found["traces"] += _unlisted(marks(alike, "active_parameters", "parameters"))
    return found


def _size_and_tokens(
    fitted: FittedLaw,
    space: Space,
    flops: float,
    points: tuple[FloatArray, FloatArray] | None,
    marked: Sequence[MarkedModel],
) -> Figure:
    budgets = np.geomspace(flops / 1e4, flops * 1e2, 25)
    best = best_curve(fitted, space, [{}], budgets)
    known = np.isfinite(best.sizes[:, 0])
    sizes, tokens = best.sizes[known, 0], best.tokens[known, 0]
    lows = [sizes.min(), tokens.min()]
    highs = [sizes.max(), tokens.max()]
    if points is not None:
        lows = [min(low, float(p.min())) for low, p in zip(lows, points, strict=True)]
        highs = [max(high, float(p.max())) for high, p in zip(highs, points, strict=True)]
    for model in marked:
        own = model.sizes[space.size], model.sizes["tokens"]
        lows = [min(pair) for pair in zip(lows, own, strict=True)]
        highs = [max(pair) for pair in zip(highs, own, strict=True)]
    x, y = (np.geomspace(low, high, STEPS) for low, high in zip(lows, highs, strict=True))
    columns = {space.size: np.tile(x, STEPS), "tokens": np.repeat(y, STEPS)}
    values = {n: np.array([[v]]) for n, v in fitted.values.items()}
    losses = predicted(fitted.law, columns, values)[0].reshape(STEPS, STEPS)
    found = _contours(
        x, y, losses, (space.size, "tokens"),
        "Over size and tokens: the law is of dense models. Dotted: the best size for each number"
        " of FLOPs." + ("" if points is None else " Dots: measured runs."),
    )  # fmt: skip
    found["traces"].append(
        {"type": "scatter", "mode": "lines", "x": numbers(sizes), "y": numbers(tokens),
         "text": [f"{plain_number(b, 2)} FLOPs" for b in budgets[known]], "showlegend": False,
         "hovertemplate": "%{text}: %{x:.3s}, %{y:.3s} tokens<extra></extra>",
         "meta": {"role": "path"}}
    )  # fmt: skip
    if points is not None:
        found["traces"].append(
            {"type": "scatter", "mode": "markers", "x": numbers(points[0]),
             "y": numbers(points[1]), "hoverinfo": "skip", "showlegend": False,
             "meta": {"role": "cloud"}}
        )  # fmt: skip
    found["traces"] += _unlisted(marks(marked, space.size, "tokens"))
    return found


def _unlisted(traces: list[Trace]) -> list[Trace]:
    return [trace | {"showlegend": False} for trace in traces]


def _contours(
    x: FloatArray, y: FloatArray, losses: FloatArray, names: Sequence[str], caption: str
) -> Figure:
    least = float(np.nanmin(losses))
    top = float(np.nanquantile(losses, 0.85))
    step = float(f"{max(top - least, 1e-6) / LEVELS:.1g}")
    trace: Trace = {
        "type": "contour",
        "x": numbers(x),
        "y": numbers(y),
        "z": [numbers(row) for row in losses],
        "zmin": least,
        "zmax": top,
        "contours": {"start": float(np.ceil(least / step) * step), "end": top, "size": step},
        "hovertemplate": "%{x:.3s}, %{y:.3s}: %{z:.3f} nats<extra></extra>",
        "meta": {"role": "contour"},
    }
    found = figure(
        "isoloss",
        "Contours of equal loss",
        f"Nats per token by the law (modelled). {caption}",
        [trace],
        x=column_axis(names[0]),
        y=column_axis(names[1]),
        loglog=True,
    )
    return found | {"logx": True, "logy": is_log(names[1])}
