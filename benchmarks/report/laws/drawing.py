"""What figures of laws share: names of columns, groups of points, bands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import Columns, FloatArray
from benchmarks.laws.marked_models import MarkedModel
from benchmarks.report.escaping import plot_text
from benchmarks.report.plotly_figure import Axis, Trace
from parallel.measurement.number_text import plain_number, readable

MAX_DRAWN = 1000
"""Points of one figure: of more, evenly many over the measured values are drawn."""
MAX_GROUPS = 8
DIGITS = 6
SPARSE = ("experts", "sparsity", "activation_ratio", "granularity", "hidden_granularity", "bits")
SIZES = ("active_parameters", "parameters", "non_embedding_parameters")
_NAMES = {
    "active_parameters": "Active parameters",
    "parameters": "Total parameters",
    "tokens": "Training tokens",
    "flops": "Training FLOPs",
    "experts": "Experts",
    "sparsity": "Sparsity (E - K) / E",
    "loss": "Loss, nats/token",
}
_LINEAR = {"sparsity", "shared_ratio", "bits"}

Indices = NDArray[np.intp]


def drawn_points(target: FloatArray) -> Indices:
    """Return the indices of the points that are drawn: all, or evenly many by their target."""
    order = np.argsort(target, kind="stable")
    if order.size <= MAX_DRAWN:
        return order
    return order[np.linspace(0, order.size - 1, MAX_DRAWN).astype(np.intp)]


def drawn_words(points: int) -> str:
    """Return how many points are drawn, where not all are; with a space before it."""
    return f" {MAX_DRAWN:,} of {points:,} points are drawn." if points > MAX_DRAWN else ""


def column_name(name: str) -> str:
    """Return a column's name for an axis."""
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def column_axis(name: str) -> Axis:
    """Return a column's axis; sizes have SI prefixes."""
    return Axis(title=column_name(name), si=name not in {"flops", "loss", *_LINEAR})


def is_log(name: str) -> bool:
    """Whether a column is drawn on a logarithmic scale."""
    return name not in _LINEAR


def numbers(values: Any) -> list[float | None]:
    """Return numbers of six digits; `None` for what is none."""
    return [
        float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None
        for v in np.asarray(values, dtype=float)
    ]


def point_groups(columns: Columns, index: Indices) -> list[tuple[str, Indices]]:
    """Return points by how sparse they are, else by size, each group with its name."""
    for name in (*SPARSE, *SIZES):
        column = columns.get(name)
        if column is None or np.unique(column).size < 2:
            continue
        chosen, label = column[index], column_name(name).split(" (")[0].lower()
        values = np.unique(chosen)
        if values.size <= MAX_GROUPS:
            return [(f"{label} {short(v)}", index[chosen == v]) for v in values]
        edges = np.quantile(chosen, np.linspace(0, 1, MAX_GROUPS - 1))
        place = np.clip(np.searchsorted(edges, chosen, side="right") - 1, 0, edges.size - 2)
        parts = [(i, index[place == i]) for i in range(edges.size - 1) if (place == i).any()]
        return [(f"{label} {short(edges[i])} to {short(edges[i + 1])}", p) for i, p in parts]
    return [("runs", index)]


def short(value: float) -> str:
    """Return a number of few letters: 17.6M, 0.95, 1e21."""
    if value >= 1e15 or value < 1000:
        return plain_number(value, 3 if value < 1000 else 2)
    return readable(float(value), "").replace(" ", "")


def band(x: Sequence[float] | FloatArray, rows: FloatArray, **meta: Any) -> list[Trace]:
    """Return the interval [C, B] of resamples as two edges, filled between; none without them."""
    if rows.shape[1] < 3:
        return []
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    usable = np.isfinite(rows).mean(axis=1) > 0.5
    if usable.sum() < 2:
        return []
    low, high = np.nanpercentile(rows[usable], tails, axis=1)
    edges = {"type": "scatter", "mode": "lines", "x": numbers(np.asarray(x)[usable])}
    common = {**edges, "hoverinfo": "skip", "showlegend": False}
    return [
        {**common, "y": numbers(low), "meta": {"role": "edge", **meta}},
        {**common, "y": numbers(high), "fill": "tonexty", "meta": {"role": "band", **meta}},
    ]


def ramp(number: int, count: int) -> dict[str, Any]:
    """Return the `meta` of one of several ordered traces: the page colors them by their place."""
    return {"ramp": number / (count - 1) if count > 1 else 0.0}


def marks(models: Sequence[MarkedModel], x: str, y: str) -> list[Trace]:
    """Return models as diamonds, or as stars where nothing of them is measured.

    Args:
        models: The models; those without a value on an axis are left out.
        x: A column, or `measured`, `predicted` or `loss` (the measured one, else the predicted).
        y: The same.
    """
    drawn = [m for m in models if None not in (_on_axis(m, x), _on_axis(m, y))]
    found = []
    for role, name in (("mark", "these runs"), ("star", "the best")):
        chosen = [model for model in drawn if (model.measured is None) == (role == "star")]
        if chosen:
            found.append(_mark_trace(chosen, x, y) | {"name": name, "meta": {"role": role}})
    return found


def _mark_trace(models: Sequence[MarkedModel], x: str, y: str) -> Trace:
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers([_on_axis(model, x) for model in models]),
        "y": numbers([_on_axis(model, y) for model in models]),
        "text": [_hover(model) for model in models],
        "hovertemplate": "%{text}<extra></extra>",
    }
    if y == "predicted" and all(model.interval for model in models):
        ends = [(m.predicted, *(m.interval or (0.0, 0.0))) for m in models]
        trace["error_y"] = {
            "type": "data", "symmetric": False,
            "array": numbers([max(0.0, high - value) for value, _, high in ends]),
            "arrayminus": numbers([max(0.0, value - low) for value, low, _ in ends]),
        }  # fmt: skip
    return trace


def _on_axis(model: MarkedModel, name: str) -> float | None:
    if name == "loss":
        return model.predicted if model.measured is None else model.measured
    known = {"measured": model.measured, "predicted": model.predicted}
    return known[name] if name in known else model.sizes.get(name)


def _hover(model: MarkedModel) -> str:
    text = f"{plot_text(model.name)}<br>"
    if model.measured is not None:
        text += f"measured {model.measured:.4f}, "
    return f"{text}predicted {model.predicted:.4f} (modelled)"
