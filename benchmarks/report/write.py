"""Writing the efficiency report: an offline page, its Markdown twin, and every figure's data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.dense_vs_sparse import SIDE_COSTS
from benchmarks.comparison.equality import EQUAL_WITHIN
from benchmarks.comparison.flop_convention import refuse_unlike_conventions
from benchmarks.comparison.quantities import BY_KEY
from benchmarks.comparison.seed_groups import SeedGroup, group_runs
from benchmarks.errors import BenchmarkError
from benchmarks.footprint.footprint import assumptions, read_runs_under
from benchmarks.report.bench_results import read_bench_files, step_splits
from benchmarks.report.content import report_content
from benchmarks.report.escaping import markdown_text, plot_text
from benchmarks.report.figures import report_figures
from benchmarks.report.figures_cost import pareto_figures
from benchmarks.report.figures_experts import expert_figures
from benchmarks.report.laws.runs_section import RunsSection, runs_section
from benchmarks.report.page_template import embedded_json, packed_plotly
from benchmarks.report.tables import DataTable, report_tables
from data.plain_text import printable_values
from data.storage.atomic import atomic_file, write_text
from moe.runs.run import Run

# Columns of the table of quantities where too many models are compared to have a column each.
HEADLINE = ("loss", "tokens", "total_parameters", "active_parameters", "training_flops",
            "tokens_per_s", "energy_per_token", "energy", "carbon", "money")  # fmt: skip


# Beside each number in a table; a legend says what they mean.
MARKS = {"measured": "●", "modelled": "○", "published": "◆"}


@dataclass(frozen=True)
class ReportPaths:
    """Paths of a written report."""

    html: Path
    markdown: Path
    json: Path
    figures: Path
    """Directory of CSV and Parquet files, one pair for each table."""


def write_report(
    run_dirs: Sequence[Path],
    out_dir: Path,
    changes: Mapping[str, Any] | None = None,
    bench_files: Sequence[Path] = (),
    law: str | None = None,
) -> ReportPaths:
    """Compare 1 to 200 runs and write the report, replacing an older one.

    Runs that failed at their start, are damaged, or whose `[energy]` is invalid, stand in it with
    the reason.

    Args:
        run_dirs: The runs.
        out_dir: Where to write; created if missing.
        changes: Keys of `[energy]` (region, pue, prices, ...) in place of the runs' own.
        bench_files: Results of `moe bench -o FILE` to show beside the runs.
        law: A law to set beside them: output of `moe fit --json`, or a published name.

    Raises:
        ConfigError: No run can be read, one is given twice, or there are none or too many.
        BenchmarkError: Runs count FLOPs or money differently, there is no such law, or the
            directory cannot be written.
    """
    runs, unreadable = read_runs_under(run_dirs, changes or {})
    refuse_unlike_conventions(runs)
    _refuse_unlike_currencies(runs)
    groups = group_runs(runs)
    bench = read_bench_files(bench_files)
    beside = None if law is None else runs_section(law, runs)
    content = printable_values(
        report_content(runs, groups, bench, unreadable)
        | {"law": None if beside is None else beside.content}
    )
    tables = report_tables(runs, groups)
    tables.append(DataTable("law", [] if beside is None else printable_values(beside.rows)))
    paths = ReportPaths(
        html=out_dir / "report.html",
        markdown=out_dir / "report.md",
        json=out_dir / "report.json",
        figures=out_dir / "figures",
    )
    texts = {
        paths.json: json.dumps(content, indent=1, allow_nan=False),
        paths.markdown: _render("report.md.j2", content),
        paths.html: _page(content, groups, step_splits(bench), beside),
    }
    try:
        paths.figures.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_text(path, text)
        for table in tables:
            _write_table(paths.figures / f"{table.name}.csv", table)
    except OSError as error:
        raise BenchmarkError(f"report {out_dir}: {error.strerror or error}") from None
    return paths


def _refuse_unlike_currencies(runs: Sequence[Run]) -> None:
    configs = {run.name: assumptions(run) for run in runs}
    priced = {
        name: config.currency
        for name, config in configs.items()
        if config.price_per_device_hour is not None or config.price_per_kwh is not None
    }
    if len(set(priced.values())) > 1:
        named = ", ".join(f"{name} in {currency}" for name, currency in priced.items())
        raise BenchmarkError(f"prices in unlike currencies: {named}: state one with --currency")


def _page(
    content: dict[str, Any],
    groups: Sequence[SeedGroup],
    splits: Mapping[str, Mapping[str, float]],
    beside: RunsSection | None,
) -> str:
    law_figures = [] if beside is None else beside.figures
    drawn = [SeedGroup(plot_text(group.label), group.runs) for group in groups]
    data = {
        "groups": [
            {"key": g.key, "label": g.label, "sparse": g.sparse, "runs": len(g.runs)}
            for g in groups
        ],
        "figures": report_figures(drawn, splits),
        "pareto": pareto_figures(drawn) if len(groups) > 2 else [],
        "load": expert_figures(drawn),
        "law": law_figures,
    }
    page = {
        "plotly": packed_plotly(),
        "data": embedded_json(data),
        "figures": data["figures"],
        "pareto": data["pareto"],
    }
    if beside is not None:
        page["law"] = content["law"] | {"figures": law_figures}
    return _render("report.html.j2", {**content, **page})


def _render(template: str, values: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks.report"),
        autoescape=template.endswith("html.j2"),
        finalize=markdown_text if template.endswith("md.j2") else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = {quantity["key"] for quantity in values["quantities"]}
    costs = [{"key": key, "label": BY_KEY[key].label} for key in SIDE_COSTS if key in known]
    return environment.get_template(template).render(
        {
            **values,
            "side_costs": costs,
            "headline": HEADLINE,
            "equal_within": f"{EQUAL_WITHIN:.0%}",
            "marks": MARKS,
        }
    )


def _write_table(path: Path, table: DataTable) -> None:
    """Write a table as CSV and Parquet; for an empty table, delete the older report's files."""
    import pyarrow as pa
    from pyarrow import parquet

    twin = path.with_suffix(".parquet")
    if not table.rows:
        path.unlink(missing_ok=True)
        twin.unlink(missing_ok=True)
        return
    write_text(path, table.to_csv())
    with atomic_file(twin) as file:  # a path that is not UTF-8 is none to pyarrow
        parquet.write_table(pa.Table.from_pylist(table.rows), file)
