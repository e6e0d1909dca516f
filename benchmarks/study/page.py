"""The study as one page that needs no network, in the report's style."""

import json
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.report.page_template import render_page
from benchmarks.report.write import packed_plotly
from benchmarks.study.figures import study_figures
from benchmarks.study.finding import finding
from benchmarks.study.laws import FORM
from benchmarks.study.study import Study
from data.plain_text import printable_values
from data.storage.atomic import write_text


def write_study_page(path: Path, study: Study) -> None:
    """Write finding and figures."""
    figures, words = study_figures(study), finding(study)
    section: dict[str, Any] = {
        "name": "study",
        "title": "Runs and laws",
        "formula": f"L = {FORM}, for each number of experts",
        "source": "Hoffmann et al. 2022 (arXiv 2203.15556), in active parameters",
        "words": words[1:],
        "figures": figures,
        "left_out": [],
        "tables": [],
        "conventions": {"active parameters": "embeddings in", "FLOPs": "moe cost", "loss": "nats"},
    }
    # A "<" inside the data could end the script element.
    embedded = json.dumps(printable_values({"figures": figures}), allow_nan=False)
    values = printable_values(
        {
            "title": "Dense and sparse models at equal FLOPs",
            "source": f"{len(study.rows)} runs of make study",
            "loss": "huber",
            "finding": words[0],
            "tables": [],
            "sections": [section],
            "moescale": metadata.version("moescale"),
            "written_at": f"{datetime.now(UTC):%Y-%m-%d}",
        }
    ) | {"plotly": packed_plotly(), "data": embedded.replace("<", "\\u003c")}
    write_text(path, render_page("law.html.j2", values))
