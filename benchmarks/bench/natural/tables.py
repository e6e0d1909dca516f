"""What natural routing costs, as a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import tables
from benchmarks.bench.natural.source_text import routing_text
from benchmarks.text_table import TextTable
from parallel.measurement.number_text import readable, significant


def step_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return each model's tables of a step, and what natural routing costs over forced."""
    return [
        table
        for record in records
        for table in [*tables.step_tables([record]), *_cost_tables(record["result"])]
    ]


def _cost_tables(result: Mapping[str, Any]) -> list[TextTable]:
    cost = result.get("routing_cost")
    if cost is None:
        return []
    natural = next(row for row in result["routing"] if row["routing"] == "natural")
    step = cost["step"]
    interval = step["time_over_forced"]
    table = TextTable(
        f"{routing_text(natural)} beside forced routing: {interval['repeats']:.0f} pairs of steps,"
        f" intervals of {readable(interval['confidence'], 'share')}",
        ("sparse layer", "busiest/even", "forced", "time", "time/forced"),
    )
    for row in cost["layers"]:
        table.add_row(
            str(row["layer"]),
            significant(row["busiest_over_even"]),
            significant(row["forced_busiest_over_even"]),
            readable(row["natural_s"]["median"], "s"),
            tables.interval(row["time_over_forced"], "x"),
        )
    table.add_row(
        "whole step", "", "", readable(step["natural_s"]["median"], "s"),
        tables.interval(interval, "x"),
    )  # fmt: skip
    return [table]
