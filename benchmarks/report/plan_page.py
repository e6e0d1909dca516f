"""The page of `moe plan --html`: one offline file in the report's style."""

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.planning import tables
from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.interval import error_band
from benchmarks.planning.layout_text import layout_text
from benchmarks.planning.planner import Planner
from benchmarks.report.page_template import embedded_json, packed_plotly, render_page
from benchmarks.report.plan_figures import plan_figures
from data.plain_text import printable_values
from data.storage.atomic import write_text
from parallel.measurement.number_text import readable, significant


def write_plan_page(path: Path, planner: Planner, answer: PlanAnswer) -> None:
    """Write the page.

    Raises:
        BenchmarkError: It cannot be written.
    """
    figures = plan_figures(planner, answer)
    values = printable_values(_content(answer)) | {
        "figures": figures,
        "plotly": packed_plotly(),
        "data": embedded_json({"figures": figures}),
    }
    try:
        write_text(path, render_page("plan.html.j2", values))
    except OSError as error:
        raise BenchmarkError(f"--html {path}: {error.strerror or error}") from None


def _content(answer: PlanAnswer) -> dict[str, Any]:
    job, best = answer.job, answer.best
    band = error_band(job.shape, job.card, job.calibrated)
    joules = best.joules_per_token
    finding = (
        f"{layout_text(best.work).replace(',', ' ')}: {readable(best.step_seconds, 's')} a step,"
        f" {best.tokens_per_second:,.0f} tokens/s and {significant(best.tflops)} TFLOP/s a card"
        + ("" if joules is None else f", {significant(joules)} J a token")
        + ("" if best.fits else "; it does not fit in memory")
        + "."
    )
    shown = [tables.layout_table(answer), tables.detail_table(best)]
    notes = [tables.search_line(answer), *tables.format_lines(answer)]
    if job.calibrated is not None:
        shown.append(tables.calibration_table(job.calibrated))
        notes += tables.calibration_lines(job)
    if answer.run is not None:
        shown.append(tables.run_table(answer.run))
        notes += tables.run_lines(answer.run)
    shown += [tables.scaling_table(curve) for curve in answer.scaling]
    notes += [curve.verdict for curve in answer.scaling]
    notes.append(
        f"Every number is modelled. Intervals hold 80%: of published {band.group} layouts whose"
        f" flags are known, measured seconds are {significant(band.low)} to"
        f" {significant(band.high)} times the predicted ones"
        f"{'' if band.card_is_measured else ', with more for a card that none of them ran on'}."
    )
    if best.energy is not None:
        notes += best.energy.assumptions
    return {
        "title": f"{job.name} on {job.num_gpus:,} {job.card.name}",
        "job": tables.job_line(job),
        "measured": "No step" if job.calibrated is not None else "Nothing",
        "finding": finding,
        "tables": [table.as_json() for table in shown],
        "notes": [note for note in notes if note],
        "moescale": metadata.version("moescale"),
        "written_at": f"{datetime.now(UTC):%Y-%m-%d}",
    }
