"""Results of `moe bench gemm` and `moe bench attention` as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.text_table import TextTable
from parallel.measurement.measurement import Measurement, measurement_text
from parallel.measurement.number_text import ratio, readable, significant


def gemm_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table of all products and implementations."""
    table = TextTable(
        "matrix products alone, forward",
        ("product", "m x n x k", "format", "implementation", "burst", "FLOP/s",
         "of measured peak", "of sheet", "sustained FLOP/s", "sustained/burst time", "power"),
    )  # fmt: skip
    for record in records:
        case = record["case"]
        groups = f", {case['groups']} groups" if case["groups"] > 1 else ""
        for row in record["result"]["implementations"]:
            held, watts = row["sustained_time_over_burst"], row["sustained_power"]
            table.add_row(
                f"{case['model']}: {case['role']}",
                f"{case['m']} x {case['n']} x {case['k']}{groups}",
                case["dtype"],
                row["implementation"],
                _microseconds(row["burst_s"]),
                readable(row["burst_flops_per_s"], "FLOP/s"),
                readable(row["share_of_measured_peak"], "share"),
                readable(row["share_of_datasheet"], "share"),
                readable(row["sustained_flops_per_s"], "FLOP/s"),
                "–" if held is None else ratio(held),
                "–" if watts is None else _power(watts),
            )
    return [table]


def _microseconds(spread: Mapping[str, Any]) -> str:
    """Return `median (low to high) µs`."""
    median, low, high = (significant(1e6 * spread[name]) for name in ("median", "low", "high"))
    return f"{median} ({low} to {high}) µs"


def _power(values: Mapping[str, Any]) -> str:
    power = Measurement.from_json(values)
    return "–" if power.value is None else measurement_text(power)


def attention_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table of all shapes and backends, and why backends are missing."""
    table = TextTable(
        "causal attention alone",
        ("attention", "batch x tokens", "heads x dim", "format", "backend", "forward", "backward",
         "forward FLOP/s", "backward FLOP/s", "of measured peak", "time/fastest"),
    )  # fmt: skip
    missing = TextTable(
        "not available here",
        ("attention", "batch x tokens", "heads x dim", "format", "backend", "reason"),
    )
    for record in records:
        case, result = record["case"], record["result"]
        what = (
            case["model"],
            f"{case['batch_size']} x {case['seq_len']}",
            f"{case['num_heads']}/{case['num_kv_heads']} x"
            f" {case['qk_head_dim']}/{case['v_head_dim']}",
            case["dtype"],
        )
        for row in result["backends"]:
            table.add_row(
                *what,
                row["backend"],
                _microseconds(row["forward_s"]),
                _microseconds(row["backward_s"]),
                readable(row["forward_flops_per_s"], "FLOP/s"),
                readable(row["backward_flops_per_s"], "FLOP/s"),
                readable(row["share_of_measured_peak"], "share"),
                ratio(row["time_over_fastest"]),
            )
        for row in result["not_available"]:
            missing.add_row(*what, row["backend"], row["reason"])
    return [table, missing] if missing.row_count else [table]
