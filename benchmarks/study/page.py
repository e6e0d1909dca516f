"""The study as one page that needs no network, in the report's style."""

from pathlib import Path

from benchmarks.report.laws.page import write_page
from benchmarks.report.laws.section import LawSection
from benchmarks.study.figures import study_figures
from benchmarks.study.finding import finding
from benchmarks.study.laws import FORM
from benchmarks.study.study import Study


def write_study_page(path: Path, study: Study) -> None:
    """Write finding and figures."""
    figures, words = study_figures(study), finding(study)
    section = {
        "name": "study",
        "title": "Runs and laws",
        "formula": f"L = {FORM}, for each number of experts",
        "source": "Hoffmann et al. 2022 (arXiv 2203.15556), in active parameters",
        "words": words[1:],
        "left_out": [],
        "tables": [],
        "conventions": {"active parameters": "embeddings in", "FLOPs": "moe cost", "loss": "nats"},
    }
    header = {
        "title": "Dense and sparse models at equal FLOPs",
        "finding": words[0],
        "summary": [f"Points: {len(study.rows)} runs. Loss of the fit: huber."],
        "command": "make study",
    }
    write_page(path, header, [], [LawSection(section, figures)])
