"""How the tasks of `make gpu` ended, as a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.text_table import TextTable
from parallel.measurement.number_text import readable


def evidence_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table of all tasks, each as it ended last."""
    table = TextTable("gathered on this device", ("task", "part", "state", "time", "reason"))
    last = {(record["case"]["part"], record["case"]["task"]): record for record in records}
    for (part, task), record in last.items():
        result = record["result"]
        table.add_row(
            task,
            str(part),
            result["state"],
            readable(result.get("wall_s"), "s"),
            result.get("reason") or result.get("summary") or "",
        )
    return [table]
