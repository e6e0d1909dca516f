"""Loss curves: held-out loss, its difference between models, and training loss."""

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.comparison.equality import SEEDS_DIFFER_NATS
from benchmarks.comparison.loss_difference import LossDifference, loss_differences
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
    """Return held-out loss at equal tokens (its difference too) and FLOPs, and training loss."""
    return [
        _held_out_loss(groups, "tokens", "tokens", "Compares models at equal training data."),
        _loss_difference(groups),
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


def _loss_difference(groups: Sequence[SeedGroup]) -> Figure:
    """Return each model's held-out loss minus the first one's: lines that merge, drawn apart."""
    most = min(MAX_POINTS, MAX_FIGURE_POINTS // len(groups))
    curves = [thinned(curve, most) for curve in loss_differences(groups)]
    tokens = [one.tokens for curve in curves for one in curve]
    traces = []
    if tokens:
        zero = [(min(tokens), 0.0), (max(tokens), 0.0)]
        traces.append(_line(groups[0], zero, [[groups[0].label]] * 2, "others minus this one"))
    for group, curve in zip(groups[1:], curves, strict=True):
        points = [(one.tokens, one.nats.mean) for one in curve]
        texts = [[group.label, readable(one.tokens, "tokens"), _half_width(one)] for one in curve]
        hover = "%{customdata[1]}<br>%{y:+.3f}%{customdata[2]} nats/token"
        if points:
            traces.append(_line(group, points, texts, hover))
    return figure(
        "loss-difference",
        "Held-out loss difference against tokens",
        "Held-out loss minus that of the model drawn at zero, after equal tokens: lower is better."
        f" Models with one seed each are not told apart within {SEEDS_DIFFER_NATS} nats.",
        traces,
        x=Axis(title=BY_KEY["tokens"].label, si=True),
        y=Axis(title="Difference, nats/token"),
        log_buttons=("x",),
    )


def _half_width(difference: LossDifference) -> str:
    half = difference.nats.half_width
    return "" if half is None else f" ± {half:.3f}"


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
            texts = [[plot_text(run.name), readable(x, unit)] for x, _ in points]
            hover = "%{customdata[1]}<br>loss %{y:.3f} nats/token"
            line = _line(group, points, texts, hover)
            mode = "lines+markers" if marked else "lines"
            traces.append({**line, "mode": mode, "showlegend": number == 0})
    return traces


def _line(
    group: SeedGroup, points: Sequence[tuple[float, float]], texts: list[list[str]], hover: str
) -> Trace:
    """Return a line; `hover` is shown below the first of a point's `texts`."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": group.label,
        "legendgroup": group.key,
        "meta": {"group": group.key},
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "customdata": texts,
        "hovertemplate": f"<b>%{{customdata[0]}}</b><br>{hover}<extra></extra>",
    }
