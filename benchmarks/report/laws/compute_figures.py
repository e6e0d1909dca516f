"""What follows from a law for a number of FLOPs: the frontier and the best sizes."""

from collections.abc import Sequence

import numpy as np

from benchmarks.laws.curves import Curve, best_curve, combinations, dial_values
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import FloatArray
from benchmarks.laws.marked_models import MarkedModel
from benchmarks.report.laws.drawing import (
    band,
    column_name,
    drawn_points,
    marks,
    numbers,
)
from benchmarks.report.plotly_figure import LOSS_AXIS, Axis, Figure, Trace, figure

STEPS = 25
BEYOND = 100.0
"""The frontier goes so many times beyond the runs' FLOPs."""
PUBLISHED_FLOPS = (1e18, 1e25)
"""Of a law without points."""
FLOPS_AXIS = Axis(title="Training FLOPs, 6 x active parameters x tokens")


def frontier_curve(
    fitted: FittedLaw, flops: FloatArray | None, marked: Sequence[MarkedModel]
) -> Curve | str:
    """Return the best losses and sizes from the least FLOPs of the runs to 100 times the most.

    Marked models are within it as well.
    """
    if fitted.law.space is None:
        return f"frontier: law {fitted.law.name!r} does not tell sizes from FLOPs alone"
    low, high = PUBLISHED_FLOPS if flops is None else (flops.min(), flops.max() * BEYOND)
    own = [model.sizes["flops"] for model in marked if "flops" in model.sizes]
    low, high = min([low, *own]), max([high, *own])
    dials = combinations(dial_values(fitted))
    return best_curve(fitted, fitted.law.space, dials, np.geomspace(low, high, STEPS))


def frontier_figure(
    fitted: FittedLaw,
    curve: Curve,
    runs: tuple[FloatArray, FloatArray] | None,
    marked: Sequence[MarkedModel],
) -> Figure:
    """Return the least loss for each number of FLOPs, with its band, and the runs.

    Args:
        fitted: The law.
        curve: Its frontier.
        runs: FLOPs and losses of the measured runs that it was fitted to.
        marked: Models to set beside it.
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
                "hovertemplate": "%{plain_number(x, 2)} FLOPs: %{y:.4g} (modelled)<extra></extra>",
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
    traces += marks(marked, "flops", "loss")
    return figure(
        "frontier",
        "Loss against compute",
        f"The least loss for a number of FLOPs ({kind(fitted)})"
        + (f", with the band of {LEVEL:.0%} of resampled fits" if has_band else "")
        + (f"; dots: {count:,} measured runs" if count else "")
        + ("; diamonds: runs of this report" if any(m.measured for m in marked) else "")
        + ".",
        [trace for trace in traces if trace["x"]],
        x=FLOPS_AXIS,
        y=LOSS_AXIS,
        log_x=True,
    )


def sizes_figure(fitted: FittedLaw, curve: Curve, marked: Sequence[MarkedModel]) -> Figure | str:
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
                "hovertemplate": "%{plain_number(x, 2)} FLOPs: %{y:.3s}<extra></extra>",
                "meta": {"role": "line", "part": part},
            }
        )
    for part, column in enumerate((space.size, "tokens")):
        for trace in marks(marked, "flops", column):
            trace["meta"]["part"] = part
            traces.append(trace | {"showlegend": False})
    return figure(
        "sizes",
        "Best sizes",
        f"Size and tokens of least loss ({kind(fitted)}), with bands of {LEVEL:.0%} of resampled"
        " fits."
        if any(t["meta"]["role"] == "band" for t in traces)
        else f"Size and tokens of least loss ({kind(fitted)}).",
        traces,
        x=FLOPS_AXIS,
        y=Axis(title="parameters or tokens", si=True),
        loglog=True,
    )


def kind(fitted: FittedLaw) -> str:
    """Return of which kind a law's curves are, in words."""
    return "modelled by published coefficients" if fitted.fit is None else "modelled by the fit"
