"""The loader benchmark's records as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench.tables import interval
from benchmarks.text_table import TextTable
from parallel.measurement.number_text import readable, significant


def loader_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table each of random reads, batches, starts and stream hashes."""
    makers = {"reads": _reads, "batches": _batches, "starts": _starts, "streams": _streams}
    return [makers[record["case"]["what"]](record["case"], record["result"]) for record in records]


def _reads(case: Mapping[str, Any], result: Mapping[str, Any]) -> TextTable:
    table = TextTable(
        f"random reads of {case['seq_len']} tokens, {readable(case['tokens'], '')} in all",
        ("reader", "opened in", "M tokens/s", "over numpy memmap"),
    )
    for row in result["readers"]:
        table.add_row(
            row["reader"],
            readable(1e3 * row["open_s"], "ms"),
            _plain(row["tokens_per_s"], 1e-6),
            _plain(row["over_memmap"]),
        )
    for name, missing in result["absent"].items():
        table.add_row(name, f"absent: {', '.join(missing)} not installed", "–", "–")
    table.caption = result["note"]
    return table


def _batches(case: Mapping[str, Any], result: Mapping[str, Any]) -> TextTable:
    table = TextTable(f"complete batches of {case['seq_len']} tokens", ("feed", "M tokens/s"))
    for row in result["feeds"]:
        table.add_row(row["feed"], _plain(row["tokens_per_s"], 1e-6))
    for name, reason in result["absent"].items():
        table.add_row(name, f"absent: {reason}")
    return table


def _plain(spread: Mapping[str, Any], scale: float = 1.0) -> str:
    """Return `median (low to high)` without unit prefixes, so that a column compares easily."""
    median, low, high = (significant(spread[name] * scale) for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def _starts(_case: Mapping[str, Any], result: Mapping[str, Any]) -> TextTable:
    table = TextTable(
        "starts, each in a new process", ("", "time", "processor time", "memory growth")
    )
    for row in result["starts"]:
        times = (interval(row[name]) for name in ("seconds", "cpu_seconds"))
        table.add_row(row["what"], *times, readable(row["grown_bytes"], "B"))
    return table


def _streams(_case: Mapping[str, Any], result: Mapping[str, Any]) -> TextTable:
    equal = "all equal" if result["equal"] else "NOT equal"
    table = TextTable(f"one run's samples, hashed: {equal}", ("read by", "SHA-256"))
    for row in result["streams"]:
        table.add_row(row["read_by"], row["sha256"])
    return table
