"""Routing statistics against tokens, one line for each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.report.escaping import plot_text
from benchmarks.report.plotly_figure import Axis, Figure, Trace, figure, thinned
from moe.runs.run import Run


@dataclass(frozen=True)
class RoutingStatistic:
    """One column of `routing.jsonl`, as a figure shows it."""

    key: str
    title: str
    caption: str
    unit: str


STATISTICS = (
    RoutingStatistic(
        "load_entropy",
        "Expert load entropy",
        "Entropy of the load over experts, as a fraction of its maximum: 1 is a uniform load.",
        "fraction of log E",
    ),
    RoutingStatistic(
        "token_entropy",
        "Router entropy",
        "Entropy of the router's probabilities for a token, as a fraction of its maximum.",
        "fraction of log E",
    ),
    RoutingStatistic(
        "drop_rate",
        "Drop rate",
        "Fraction of assignments dropped because an expert's capacity was full.",
        "fraction",
    ),
    RoutingStatistic(
        "router_z",
        "Router z-loss",
        "Mean squared log-sum-exp of the router's logits, before the loss coefficient.",
        "z-loss",
    ),
)


def routing_figures(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Return each statistic's mean over layers; the drop rate only if anything was dropped."""
    figures = []
    for statistic in STATISTICS:
        traces = [
            trace
            for group in groups
            for run in group.runs
            if (trace := _line(group, run, statistic.key))
        ]
        if statistic.key == "drop_rate" and not any(any(trace["y"]) for trace in traces):
            continue
        figures.append(
            figure(
                f"routing-{statistic.key}",
                statistic.title,
                f"{statistic.caption} Mean over layers.",
                traces,
                x=Axis(title="Tokens", si=True),
                y=Axis(title=statistic.unit),
                log_buttons=("x",),
            )
        )
    return figures


def _line(group: SeedGroup, run: Run, key: str) -> Trace | None:
    tokens = {row["step"]: row["tokens"] for row in run.metrics}
    rows = [row for row in run.routing if key in row and row["step"] in tokens]
    rows = [row for row in rows if None not in row[key]]  # null where it was no number
    if not rows:
        return None
    rows = thinned(rows)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": group.label,
        "legendgroup": group.key,
        "showlegend": run is group.first,
        "meta": {"group": group.key},
        "x": [tokens[row["step"]] for row in rows],
        "y": [fmean(row[key]) for row in rows],
        "hovertemplate": f"<b>{plot_text(run.name)}</b><br>%{{x:~s}} tokens: %{{y:.3f}}"
        "<extra></extra>",
    }
