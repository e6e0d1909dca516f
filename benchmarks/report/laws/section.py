"""One law as a section of a page: its words, figures and tables, with models set beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.marked_models import MarkedModel
from benchmarks.laws.optimum import training_flops
from benchmarks.laws.residual_trends import Trend
from benchmarks.laws.tables import fit_tables
from benchmarks.report.laws.compute_figures import frontier_curve, frontier_figure, sizes_figure
from benchmarks.report.laws.contour_figures import contour_figure
from benchmarks.report.laws.iso_flop_figure import iso_flop_figure
from benchmarks.report.laws.leverage_figure import leverage_figure
from benchmarks.report.laws.point_figures import predicted_figure, residual_figures
from benchmarks.report.laws.words import law_words
from benchmarks.report.plotly_figure import Figure

CONTOUR_FLOPS = 1e22
"""Of contours of a law that comes without points, and without models beside it."""


@dataclass(frozen=True)
class LawSection:
    """A section as a template takes it."""

    content: Mapping[str, Any]
    """Words and tables, as JSON values."""
    figures: Sequence[Figure]

    def as_json(self) -> dict[str, Any]:
        """Return both, for a template."""
        return {**self.content, "figures": self.figures}


def law_section(
    fitted: FittedLaw, number: int = 0, marked: Sequence[MarkedModel] = ()
) -> LawSection:
    """Return the section of one law.

    Args:
        fitted: The law.
        number: Of the section on its page.
        marked: Models to set beside the law.

    Raises:
        BenchmarkError: The file that the law is from is damaged.
    """
    law = fitted.law
    try:
        figures, left_out, words = _drawn(fitted, marked)
        tables = [] if fitted.document is None else fit_tables(fitted.document)
    except (KeyError, TypeError) as error:
        raise BenchmarkError(f"{fitted.origin}: damaged ({error!r}): fit again") from None
    conventions = law.conventions.as_json()
    content = {
        "name": law.name,
        "title": law.title,
        "formula": law.formula,
        "source": law.source,
        "origin": fitted.origin,
        "coefficients": fitted.values,
        "words": words,
        "left_out": left_out,
        "tables": [table.as_json() for table in tables],
        "conventions": {name: text for name, text in conventions.items() if text is not None},
    }
    return LawSection(content, [one | {"id": f"law{number}-{one['id']}"} for one in figures])


def _drawn(
    fitted: FittedLaw, marked: Sequence[MarkedModel]
) -> tuple[list[Figure], list[str], list[str]]:
    """Return the figures that have something to show, why others do not, and words."""
    law, fit = fitted.law, fitted.fit
    flops = pairs = None
    found: list[Figure | str] = [predicted_figure(law, fit, marked)]
    if fit is not None:
        columns = fit.problem.columns
        flops = training_flops(law, columns)
        if law.space is not None and law.space.size in columns and "tokens" in columns:
            pairs = columns[law.space.size], columns["tokens"]
        found += [*residual_figures(fit, _trends(fitted)), iso_flop_figure(fitted, fit)]
    else:
        found.append("residuals and iso-FLOP parabolas: the law comes without its points")
    curve = frontier_curve(fitted, flops, marked)
    if isinstance(curve, str):
        found.append(curve)
    else:
        runs = None if fit is None or flops is None else (flops, fit.problem.target)
        found.append(frontier_figure(fitted, curve, runs, marked))
        found.append(sizes_figure(fitted, curve, marked))
    most = [float(flops.max())] if flops is not None else []
    most = [model.sizes["flops"] for model in marked if "flops" in model.sizes] or most
    found.append(contour_figure(fitted, max([*most, 0]) or CONTOUR_FLOPS, pairs, marked))
    found.append(leverage_figure(fitted, flops))
    reasons = [reason for reason in found if isinstance(reason, str)]
    return [f for f in found if not isinstance(f, str)], reasons, law_words(fitted, curve)


def _trends(fitted: FittedLaw) -> list[Trend]:
    document = fitted.document or {"residuals": {"trends": []}}
    return [Trend.from_json(trend) for trend in document["residuals"]["trends"]]
