"""The data behind every figure as flat tables, for CSV and Parquet."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.comparison.loss_difference import loss_differences
from benchmarks.comparison.quantities import QUANTITIES
from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.report.escaping import spreadsheet_text
from benchmarks.report.figures_routing import STATISTICS
from benchmarks.report.figures_time import phase_seconds
from data.plain_text import printable_values
from moe.runs.run import Run

Row = dict[str, Any]


@dataclass(frozen=True)
class DataTable:
    """A named table; all rows have the same keys, which carry the units."""

    name: str
    rows: list[Row]

    def to_csv(self) -> str:
        """Return CSV text; unknown values are empty, and no text is a formula to a spreadsheet."""
        text = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {key: spreadsheet_text(value) for key, value in row.items()} for row in self.rows
            )
        return text.getvalue()


def report_tables(runs: Sequence[Run], groups: Sequence[SeedGroup]) -> list[DataTable]:
    """Return all tables of a report; their texts are one printable line each."""
    tables = [
        DataTable("summary", [_summary_row(group) for group in groups]),
        DataTable("runs", [row for run in runs for row in _quantity_rows(run)]),
        DataTable("held_out_loss", [row for run in runs for row in _evaluation_rows(run)]),
        DataTable("held_out_loss_difference", list(_difference_rows(groups))),
        DataTable("training", [row for run in runs for row in _training_rows(run)]),
        DataTable("time", [row for run in runs for row in _time_rows(run)]),
        DataTable("energy_phases", [row for run in runs for row in _phase_rows(run)]),
        DataTable("expert_load", [row for run in runs for row in _load_rows(run)]),
        DataTable("routing", [row for run in runs for row in _routing_rows(run)]),
        DataTable("routing_sources", [row for run in runs for row in _source_rows(run)]),
    ]
    return [replace(table, rows=printable_values(table.rows)) for table in tables]


def _summary_row(group: SeedGroup) -> Row:
    row: Row = {"model": group.label, "sparse": group.sparse, "seeds": len(group.runs)}
    for quantity in QUANTITIES:
        measurement = group.measurement(quantity.key)
        row[quantity.key] = measurement.value
        row[f"{quantity.key}_half_width"] = measurement.uncertainty
        row[f"{quantity.key}_kind"] = measurement.kind
    return row


def _quantity_rows(run: Run) -> Iterable[Row]:
    for quantity in QUANTITIES:
        yield {
            "run": run.run_id,
            "name": run.name,
            "quantity": quantity.key,
            **quantity.of(run).to_json(),
        }


def _evaluation_rows(run: Run) -> Iterable[Row]:
    for row in run.evaluations:
        yield {
            "run": run.run_id,
            "step": row["step"],
            "tokens": row["tokens"],
            "training_flops": run.training_flops(row),
            "loss": row["loss"],
        }


def _difference_rows(groups: Sequence[SeedGroup]) -> Iterable[Row]:
    for group, curve in zip(groups[1:], loss_differences(groups), strict=True):
        for one in curve:
            yield {
                "model": group.label,
                "minus": groups[0].label,
                "tokens": one.tokens,
                "loss_difference": one.nats.mean,
                "half_width": one.nats.half_width,
            }


_METRICS = ("loss", "load_balancing_loss", "z_loss", "grad_norm", "learning_rate", "step_time_s",
            "tokens_per_s", "flops_per_s", "mfu", "data_stall_s", "energy_joules")  # fmt: skip


def _training_rows(run: Run) -> Iterable[Row]:
    for row in run.metrics:
        keys: dict[str, Any] = {name: row.get(name) for name in _METRICS}
        if (keys["mfu"] or 0) > 1:  # of an older run: the peak was measured under load
            keys["mfu"] = None
        yield {"run": run.run_id, "step": row["step"], "tokens": row["tokens"], **keys}


def _phase_rows(run: Run) -> Iterable[Row]:
    for name, phase in ((run.record.get("energy") or {}).get("phases") or {}).items():
        yield {
            "run": run.run_id,
            "phase": name,
            "seconds": phase["seconds"],
            "energy_joules": phase.get("value"),
            "kind": phase.get("kind"),
            "source": phase["source"],
        }


def _time_rows(run: Run) -> Iterable[Row]:
    for name, seconds in phase_seconds(run).items():
        yield {"run": run.run_id, "part": name, "seconds": seconds}


def _load_rows(run: Run) -> Iterable[Row]:
    for row in run.expert_load:
        for layer, counts in zip(row["layers"], row["counts"], strict=True):
            for expert, count in enumerate(counts):
                yield {
                    "run": run.run_id,
                    "step": row["step"],
                    "layer": layer,
                    "expert": expert,
                    "tokens": count,
                }


def _routing_rows(run: Run) -> list[Row]:
    return [
        {"run": run.run_id, "step": row["step"], "layer": layer,
         **{s.key: row[s.key][i] if s.key in row else None for s in STATISTICS}}
        for row in run.routing
        for i, layer in enumerate(row["layers"])
    ]  # fmt: skip


def _source_rows(run: Run) -> list[Row]:
    """Return each source's assignments by layer and expert."""
    maps = run.routing_maps
    return [
        {"run": run.run_id, "layer": layer, "source": source, "expert": expert, "choices": count}
        for layer, by_source in zip(maps.get("layers", []), maps.get("counts", []), strict=True)
        for source, counts in zip(maps["sources"], by_source, strict=True)
        for expert, count in enumerate(counts)
    ]
