"""Figures of the report's page: plotly traces, with what the page's script needs to lay them out.

Colors, fonts and sizes belong to the script (`templates/report.js`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from parallel.measurement.measurement import Measurement

Trace = dict[str, Any]
Figure = dict[str, Any]
Point = TypeVar("Point")
# Most points of one line.
MAX_POINTS = 400
# Most bars of one figure.
MAX_BARS = 30


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis's title and the form of its ticks."""

    title: str = ""
    si: bool = False
    """SI prefixes: 3k, 5M."""
    percent: bool = False
    """Fractions from 0 to 1 as percentages."""


LOSS_AXIS = Axis(title="Held-out loss, nats/token")


def figure(
    name: str,
    title: str,
    caption: str,
    traces: list[Trace],
    *,
    x: Axis,
    y: Axis | None = None,
    log_buttons: Sequence[str] = (),
    **flags: bool,
) -> Figure:
    """Return a figure as JSON values.

    A trace names its group in `meta`, by which the page colors and filters it.

    Args:
        name: Unique; underscores become hyphens.
        title: The heading.
        caption: One or two sentences below it.
        traces: Plotly traces.
        x: The horizontal axis.
        y: The vertical axis.
        log_buttons: Axes ("x", "y") that the reader may switch to a logarithmic scale.
        flags: `bars` (horizontal), `stacked` (bars), `loglog` (both axes, always), `log_x`.
    """
    return {
        "id": name.replace("_", "-"),
        "title": title,
        "caption": caption,
        "x": asdict(x),
        "y": asdict(y or Axis()),
        "traces": traces,
        "logs": list(log_buttons),
        "bars": flags.get("bars", False),
        "stacked": flags.get("stacked", False),
        "loglog": flags.get("loglog", False),
        "logx": flags.get("log_x", False),
    }


def heat_map(x: Sequence[Any], y: Sequence[Any], z: Sequence[Sequence[float]], hover: str) -> Trace:
    """Return a heat map of `z` [y][x], with plotly's template of the text on hovering."""
    rounded = [[round(value, 3) for value in row] for row in z]
    return {"type": "heatmap", "x": list(x), "y": list(y), "z": rounded, "hovertemplate": hover}


def error_bar(measurement: Measurement) -> dict[str, Any]:
    """Return an error bar that stops at zero: no quantity of a report is negative."""
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
