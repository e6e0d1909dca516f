"""A report's runs beside a law: what it predicts for them, and its figures with them marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.laws.fitted_law import find_fitted
from benchmarks.laws.marked_models import MarkedModel, runs_by_law
from benchmarks.laws.tables import runs_table
from benchmarks.report.laws.section import law_section
from benchmarks.report.laws.words import runs_finding
from benchmarks.report.plotly_figure import Figure
from moe.runs.run import Run


@dataclass(frozen=True)
class RunsSection:
    """What a report says of its runs by a law."""

    content: dict[str, Any]
    """Words, tables and predictions, as `report.json` holds them."""
    figures: Sequence[Figure]
    rows: list[dict[str, Any]]
    """One flat row a run, for CSV."""


def runs_section(law: str, runs: Sequence[Run]) -> RunsSection:
    """Return runs beside a law.

    Args:
        law: Output of `moe fit --json`, or a published law's name.
        runs: The runs; those that the law cannot tell are left out with the reason.

    Raises:
        BenchmarkError: There is no such law, or its file is damaged.
    """
    fitted = find_fitted(law)
    found = runs_by_law(fitted, runs)
    section = law_section(fitted, 0, found.models)
    content = {
        **section.content,
        "finding": runs_finding(found.models),
        "runs": [model.as_json() for model in found.models],
        "runs_left_out": list(found.left_out),
        "runs_warnings": list(found.warnings),
        "runs_table": runs_table(found.models).as_json(),
    }
    return RunsSection(content, section.figures, [_row(law, model) for model in found.models])


def _row(law: str, model: MarkedModel) -> dict[str, Any]:
    low, high = model.interval or (None, None)
    return {
        "run": model.name,
        "law": law,
        "measured_loss": model.measured,
        "predicted_loss": model.predicted,
        "predicted_low": low,
        "predicted_high": high,
        "error": model.error,
        "in_fit": model.in_fit,
        "beyond_points_in": " ".join(model.beyond),
    }
