"""The pages of `moe fit --html` and `moe predict --html`: offline files in the report's style."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import LawFit, comparison
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.marked_models import marked_model
from benchmarks.laws.points import Points
from benchmarks.laws.tables import comparison_table
from benchmarks.report.laws.section import LawSection, law_section
from benchmarks.report.laws.words import finding, prediction_finding
from benchmarks.report.page_template import embedded_json, packed_plotly, render_page
from benchmarks.text_table import TextTable
from data.plain_text import printable_values
from data.storage.atomic import write_text


def write_law_page(path: Path, points: Points, fits: Sequence[LawFit]) -> None:
    """Write the page of one law, or of several on the same points.

    Raises:
        BenchmarkError: It cannot be written.
    """
    compared = comparison(fits)
    words = {
        "title": f"{' and '.join(one.fit.law.name for one in fits)} on {len(points):,} runs",
        "finding": finding(fits, compared["comparison"]),
        "summary": [f"Points: {points.source}. Loss of the fit: {compared['loss']}."],
        "command": "moe fit",
    }
    tables = [comparison_table(compared)] if len(fits) > 1 else []
    sections = [law_section(one.fitted, number) for number, one in enumerate(fits)]
    _write(path, words, tables, sections)


def write_prediction_page(
    path: Path, fitted: FittedLaw, found: Mapping[str, Any], tables: Sequence[TextTable]
) -> None:
    """Write the page of a prediction: the law's figures with the best model marked.

    Args:
        path: Of the page.
        fitted: The law.
        found: What `moe predict` prints.
        tables: Its tables.

    Raises:
        BenchmarkError: It cannot be written.
    """
    # Under limits of cards, sizes as the law counts them stand apart from the model's own.
    sizes = found["best"] | found.get("law_sizes", {})
    columns = {name: np.array([float(sizes[name])]) for name in fitted.law.columns}
    best = marked_model(fitted, "the best", columns)
    words = {
        "title": f"The best model by {fitted.law.name}",
        "finding": prediction_finding(found),
        "summary": [f"Law: {fitted.origin}.", *(f"Warning: {text}." for text in found["warnings"])],
        "command": "moe predict",
    }
    _write(path, words, tables, [law_section(fitted, 0, [best])])


def _write(
    path: Path,
    words: Mapping[str, Any],
    tables: Sequence[TextTable],
    sections: Sequence[LawSection],
) -> None:
    try:
        write_page(path, words, tables, sections)
    except OSError as error:
        raise BenchmarkError(f"--html {path}: {error.strerror or error}") from None


def write_page(
    path: Path,
    words: Mapping[str, Any],
    tables: Sequence[TextTable],
    sections: Sequence[LawSection],
) -> None:
    """Write a page of sections, each with its figures.

    Args:
        path: Of the page.
        words: `title`, `finding`, `summary` (sentences) and `command` (what wrote it).
        tables: Before the sections.
        sections: In their order.

    Raises:
        OSError: It cannot be written.
    """
    figures = [figure for section in sections for figure in section.figures]
    values = printable_values(
        {
            **words,
            "tables": [table.as_json() for table in tables],
            "sections": [section.as_json() for section in sections],
            "moescale": metadata.version("moescale"),
            "written_at": f"{datetime.now(UTC):%Y-%m-%d}",
        }
    ) | {"plotly": packed_plotly(), "data": embedded_json({"figures": figures})}
    write_text(path, render_page("law.html.j2", values))
