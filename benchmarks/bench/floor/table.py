"""A step's floor as a table for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.text_table import TextTable
from parallel.measurement.number_text import readable, significant

_COLUMNS = (
    "part", "measured", "of the step", "floor", "of it products", "of it memory", "above its floor",
    "measured/floor",
)  # fmt: skip
_SECONDS = ("floor_s", "compute_floor_s", "memory_floor_s", "above_floor_s")


def floor_tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[TextTable]:
    """Yield a table for each way of routing that was measured with a floor."""
    for row in rows:
        floor = row.get("floor")  # records of earlier versions have none
        if floor is not None:
            yield _table(row["routing"], floor)


def _table(routing: str, floor: Mapping[str, Any]) -> TextTable:
    if floor["reason"] is not None:
        return TextTable(f"no floor, routing {routing}: {floor['reason']}", ("",))
    ratio = floor["step_over_floor"]
    median, low, high = (significant(ratio[name]) for name in ("median", "low", "high"))
    table = TextTable(
        f"step and floor, routing {routing}: the step is {median} times its floor"
        f" (95%: {low} to {high})",
        _COLUMNS,
    )
    for part in floor["parts"]:
        measured_s, floor_s = part["measured_s"], part["floor_s"]
        over = "–" if not floor_s or measured_s is None else significant(measured_s / floor_s)
        table.add_row(
            part["part"],
            readable(measured_s, "s"),
            readable(part["step_share"], "share"),
            *(readable(part[name], "s") for name in _SECONDS),
            over,
        )
    step_s, floor_s = floor["step_s"]["median"], floor["floor_s"]["median"]
    table.add_row(
        "step (whole)", readable(step_s, "s"), "", readable(floor_s, "s"), "", "",
        readable(step_s - floor_s, "s"), median,
    )  # fmt: skip
    return table
