"""The build benchmark's records as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench.tables import interval
from benchmarks.text_table import TextTable


def build_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return the tools' speed, and ours over the best of the others."""
    return [_table(record["case"], record["result"]) for record in records]


def _table(case: Mapping[str, Any], result: Mapping[str, Any]) -> TextTable:
    ratios = result["over_best_peer"]
    title = f"{case['megabytes']:g} MB of JSON lines to tokens, {case['workers']} workers"
    if ratios["by_wall_time"] is not None:
        title += (
            f": {ratios['by_wall_time']:.2f} times the best other by the clock,"
            f" {ratios['by_processor_time']:.2f} times by processor time"
        )
    table = TextTable(title, ("tool", "tokens/s a core", "tokens a processor second"))
    for row in result["tools"]:
        per_core = {
            name: row["tokens_per_s"][name] / case["workers"] for name in ("median", "low", "high")
        }
        table.add_row(row["tool"], interval(per_core, ""), interval(row["tokens_per_cpu_s"], ""))
    for name in result["absent"]:
        table.add_row(name, "absent: not installed", "–")
    return table
