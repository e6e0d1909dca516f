"""The page of `moe fit --html`: one offline file in the report's style."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import LawFit, comparison
from benchmarks.laws.points import Points
from benchmarks.laws.tables import comparison_table, fit_tables
from benchmarks.report.laws.compute_figures import (
    frontier_curve,
    frontier_figure,
    sizes_figure,
)
from benchmarks.report.laws.contour_figures import contour_figure
from benchmarks.report.laws.iso_flop_figure import iso_flop_figure, run_flops
from benchmarks.report.laws.leverage_figure import leverage_figure
from benchmarks.report.laws.point_figures import predicted_figure, residual_figures
from benchmarks.report.laws.words import finding, fit_words
from benchmarks.report.page_template import render_page
from benchmarks.report.plotly_figure import Figure
from benchmarks.report.write import packed_plotly
from data.plain_text import printable_values
from data.storage.atomic import write_text


def write_law_page(path: Path, points: Points, fits: Sequence[LawFit]) -> None:
    """Write the page of one law, or of several on the same points.

    Raises:
        BenchmarkError: It cannot be written.
    """
    sections = [_section(one, number) for number, one in enumerate(fits)]
    figures = [figure for section in sections for figure in section["figures"]]
    # A "<" inside the data could end the script element.
    embedded = json.dumps(printable_values({"figures": figures}), allow_nan=False)
    compared = comparison(fits)
    several = len(fits) > 1
    values = printable_values(
        {
            "title": f"{' and '.join(one.fit.law.name for one in fits)} on {len(points):,} runs",
            "source": points.source,
            "loss": compared["loss"],
            "finding": finding(fits, compared["comparison"]),
            "tables": [comparison_table(compared).as_json()] if several else [],
            "sections": sections,
            "moescale": metadata.version("moescale"),
            "written_at": f"{datetime.now(UTC):%Y-%m-%d}",
        }
    ) | {"plotly": packed_plotly(), "data": embedded.replace("<", "\\u003c")}
    try:
        write_text(path, render_page("law.html.j2", values))
    except OSError as error:
        raise BenchmarkError(f"--html {path}: {error.strerror or error}") from None


def _section(one: LawFit, number: int) -> dict[str, Any]:
    figures, left_out, lines = _drawn(one)
    return {
        "name": one.fit.law.name,
        "title": one.fit.law.title,
        "formula": one.fit.law.formula,
        "source": one.fit.law.source,
        "words": lines,
        "figures": [figure | {"id": f"law{number}-{figure['id']}"} for figure in figures],
        "left_out": left_out,
        "tables": [table.as_json() for table in fit_tables(one.document)],
        "conventions": {n: v for n, v in one.document["conventions"].items() if v is not None},
    }


def _drawn(one: LawFit) -> tuple[list[Figure], list[str], list[str]]:
    """Return the figures that have something to show, why others do not, and words."""
    fitted, flops = one.fitted, run_flops(one)
    columns, losses = one.fit.problem.columns, one.fit.problem.target
    found: list[Figure | str] = [predicted_figure(one), *residual_figures(one)]
    curve = frontier_curve(fitted, flops)
    found.append(iso_flop_figure(one))
    if not isinstance(curve, str):
        runs = None if flops is None else (flops, losses)
        found += [frontier_figure(fitted, curve, runs), sizes_figure(fitted, curve)]
    else:
        found.append(curve)
    space = fitted.law.space
    pairs = None
    if space is not None and space.size in columns and "tokens" in columns:
        pairs = columns[space.size], columns["tokens"]
    found.append(contour_figure(fitted, 1e22 if flops is None else float(flops.max()), pairs))
    found.append(leverage_figure(fitted, flops))
    reasons = [reason for reason in found if isinstance(reason, str)]
    return [f for f in found if not isinstance(f, str)], reasons, fit_words(one, curve)
