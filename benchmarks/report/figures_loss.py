"""Loss curves: held-out loss against tokens and FLOPs, training loss against tokens."""

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.comparison.quantities import BY_KEY
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.report.escaping import plot_text
from benchmarks.report.plotly_figure import (
    LOSS_AXIS,
    MAX_POINTS,
    Axis,
    Figure,
    Trace,
    figure,
    thinned,
)
from moe.runs.run import Run
from parallel.measurement.number_text import readable

Curve = list[tuple[float, float]]
# A training-loss curve is smoothed to this many means.
NUM_MEANS = 100
# Points of all lines of one figure, so that it still zooms smoothly.
MAX_FIGURE_POINTS = 16_000
# Points of a line that are marked, and most lines with marks.
MAX_MARKED_POINTS, MAX_MARKED_LINES = 40, 6


def loss_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Return held-out loss at equal tokens and at equal FLOPs, and training loss."""
    return [
        _held_out_loss(groups, "tokens", "tokens", "Compares models at equal training data."),
        _held_out_loss(groups, "training_flops", "FLOPs", "Compares models at equal compute."),
        _training_loss(groups),
    ]


def _held_out_loss(groups: Sequence[SeedGroup], key: str, against: str, caption: str) -> Figure:
    def curve(run: Run) -> Curve:
        known = (row for row in run.evaluations if row["loss"] is not None)
        flops = key == "training_flops"
        return [(run.training_flops(row) if flops else row["tokens"], row["loss"]) for row in known]

    return figure(
        f"loss-{key}",
        f"Held-out loss against {against}",
        caption,
        _lines(groups, curve, BY_KEY[key].unit),
        x=Axis(title=BY_KEY[key].label, si=True),
        y=LOSS_AXIS,
        log_buttons=("x", "y"),
    )


def _training_loss(groups: Sequence[SeedGroup]) -> Figure:
    def curve(run: Run) -> Curve:
        known = [row for row in run.metrics if row.get("loss") is not None]
        size = max(1, -(-len(known) // NUM_MEANS))
        windows = [known[i : i + size] for i in range(0, len(known), size)]
        return [(w[-1]["tokens"], fmean(row["loss"] for row in w)) for w in windows]

    return figure(
        "training-loss",
        "Training loss against tokens",
        f"Each point is a mean over at least {1 / NUM_MEANS:.0%} of training.",
        _lines(groups, curve, "tokens"),
        x=Axis(title=BY_KEY["tokens"].label, si=True),
        y=Axis(title="Training loss, nats/token"),
        log_buttons=("x", "y"),
    )


def _lines(groups: Sequence[SeedGroup], curve: Callable[[Run], Curve], unit: str) -> list[Trace]:
    """Return a line for each run; the more runs, the fewer points each."""
    num_runs = sum(len(group.runs) for group in groups)
    most = min(MAX_POINTS, MAX_FIGURE_POINTS // num_runs)
    traces = []
    for group in groups:
        for number, run in enumerate(group.runs):
            points = thinned(curve(run), most)
            if not points:
                continue
            marked = len(points) <= MAX_MARKED_POINTS and num_runs <= MAX_MARKED_LINES
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if marked else "lines",
                    "name": group.label,
                    "legendgroup": group.key,
                    "showlegend": number == 0,
                    "meta": {"group": group.key},
                    "x": [x for x, _ in points],
                    "y": [y for _, y in points],
                    "customdata": [[plot_text(run.name), readable(x, unit)] for x, _ in points],
                    "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]}"
                    "<br>loss %{y:.3f} nats/token<extra></extra>",
                }
            )
    return traces
