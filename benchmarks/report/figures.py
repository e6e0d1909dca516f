"""All figures of the report's page, in its order."""

from collections.abc import Mapping, Sequence

from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.report.figures_cost import cost_bars, energy_figure, parameter_bars
from benchmarks.report.figures_loss import loss_figures
from benchmarks.report.figures_routing import routing_figures
from benchmarks.report.figures_time import phase_figure, step_figure
from benchmarks.report.plotly_figure import Figure


def report_figures(
    groups: Sequence[SeedGroup], splits: Mapping[str, Mapping[str, float]] | None = None
) -> list[Figure]:
    """Return the figures that have something to show.

    `splits` are fractions of a training step by model and part, as a benchmark measured them.
    """
    figures = [
        *loss_figures(groups),
        energy_figure(groups),
        *cost_bars(groups),
        parameter_bars(groups),
        *routing_figures(groups),
    ]
    shown = [figure for figure in figures if any("group" in t["meta"] for t in figure["traces"])]
    times = [phase_figure(groups), step_figure(splits or {})]
    return [*shown, *(figure for figure in times if figure is not None)]
