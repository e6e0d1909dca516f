"""Benchmark records as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench.floor.table import floor_tables
from benchmarks.bench.natural.source_text import routing_text
from benchmarks.text_table import TextTable
from parallel.measurement.measurement import Measurement, measurement_text
from parallel.measurement.number_text import readable, significant


def step_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return speed by routing, then floors, time breakdown and memory, for each model."""
    return [
        table
        for record in records
        for table in (
            _speed_table(record),
            *floor_tables(record["result"]["routing"]),
            _time_table(record),
            _memory_table(record),
        )
    ]


def layer_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table of all layers and profiles."""
    table = TextTable(
        "MoE layer alone",
        ("hidden x expert", "experts", "top-k", "tokens", "routing", "busiest/even", "forward",
         "backward", "tokens/s", "of measured peak", "time/forced"),
    )  # fmt: skip
    for record in records:
        case = record["case"]
        for row in record["result"]["routing"]:
            table.add_row(
                f"{case['hidden_size']} x {case['expert_ffn_hidden_size']}",
                str(case["num_experts"]),
                str(case["top_k"]),
                str(case["tokens"]),
                routing_text(row),
                _number(row["busiest_over_even"]),
                interval(row["forward_s"]),
                interval(row["backward_s"]),
                readable(row["tokens_per_s"], ""),
                readable(row["share_of_measured_peak"], "share"),
                _number(row["time_over_forced"]),
            )
        for row in record["result"].get("published", []):
            table.add_row(
                f"{row['hidden_size']} x {row['expert_ffn_hidden_size']}",
                row["num_experts"],
                row["top_k"],
                row["seq_len"],
                row["routing"],
                "",
                f"{row['forward_ms']} ms",
                f"{row['backward_ms']} ms",
                f"published: {row['gpus']} x H100, EP{row['ep']}, {row['dispatcher']},"
                f" {row['precision']}",
            )
    return [table]


def inference_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table a model, beside dense models of equal active and total size."""
    tables = []
    for record in records:
        case = record["case"]
        table = TextTable(
            f"{case['model']}, {case['layers']} layers, {case['batch_size']} prompts of"
            f" {case['prompt_len']} tokens, {case['new_tokens']} new",
            ("model", "total", "active", "prefill tokens/s", "decode tokens/s", "one step",
             "prefill time/model", "decode time/model", "energy/generated token"),
        )  # fmt: skip
        for name, row in record["result"]["variants"].items():
            energy = Measurement.from_json(row["energy_per_generated_token"])
            table.add_row(
                name,
                readable(row["total_parameters"], ""),
                readable(row["active_parameters"], ""),
                readable(row["prefill_tokens_per_s"], ""),
                readable(row["decode_tokens_per_s"], ""),
                readable(1e3 * row["decode_step_s"], "ms"),
                _number(row["prefill_time_over_model"]),
                _number(row["decode_time_over_model"]),
                measurement_text(energy) if energy.value is not None else "–",
            )
        tables.append(table)
    return tables


def checkpoint_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table of all models."""
    table = TextTable(
        "checkpoints",
        ("model", "layers", "size", "pause", "save", "load", "saving", "loading"),
    )
    for record in records:
        case, result = record["case"], record["result"]
        table.add_row(
            case["model"],
            str(case["layers"]),
            readable(result["bytes"], "B"),
            interval(result["pause_s"]),
            interval(result["save_s"]),
            interval(result["load_s"]),
            f"{readable(result['save_bytes_per_s'], 'B')}/s",
            f"{readable(result['load_bytes_per_s'], 'B')}/s",
        )
    return [table]


def collective_tables(records: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return one table of all operations and sizes."""
    table = TextTable("collectives", ("operation", "ranks", "size", "time", "on the wire"))
    for record in records:
        case, result = record["case"], record["result"]
        table.add_row(
            case["operation"],
            str(case["ranks"]),
            readable(case["bytes"], "B"),
            interval(result["time_s"]),
            f"{readable(result['bus_bytes_per_s'], 'B')}/s",
        )
    return [table]


def interval(spread: Mapping[str, Any], unit: str = "s") -> str:
    """Return `median (low to high)`, each with its unit."""
    median, low, high = (readable(spread[name], unit) for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def _title(record: Mapping[str, Any]) -> str:
    case = record["case"]
    cut = f", {case['layers']} of {case['of_layers']} layers"
    return (
        f"{case['model']}{cut if case['layers'] != case['of_layers'] else ''},"
        f" {case['global_batch_size']} x {case['seq_len']} tokens a step"
    )


def _speed_table(record: Mapping[str, Any]) -> TextTable:
    table = TextTable(
        _title(record),
        ("routing", "implementation", "step", "tokens/s", "FLOP/s", "MFU measured", "MFU sheet",
         "busiest/even", "data stall", "energy/token"),
    )  # fmt: skip
    for row in record["result"]["routing"]:
        energy = Measurement.from_json(row["energy_per_token"])
        text = measurement_text(energy) if energy.value is not None else "–"
        table.add_row(
            routing_text(row), "moescale", *_speed_cells(row["moescale"]),
            _number(row["busiest_over_even"]), readable(row["data_stall_share"], "share"), text,
        )  # fmt: skip
        if "peer" in row:
            peer = row["peer"]
            table.add_row(routing_text(row), peer["name"], *_speed_cells(peer), "", "", "")
            table.add_row("", "speed over peer", interval(row["speed_over_peer"], "x"))
    return table


def _speed_cells(speed: Mapping[str, Any]) -> list[str]:
    return [
        interval(speed["step_s"]),
        readable(speed["tokens_per_s"], ""),
        readable(speed["flops_per_s_per_device"], "FLOP/s"),
        readable(speed["mfu_of_measured_peak"], "share"),
        readable(speed["mfu_of_datasheet"], "share"),
    ]


def _time_table(record: Mapping[str, Any]) -> TextTable:
    seconds_by_name = record["result"]["split_s"]
    step_s, communication_s = seconds_by_name["step"], seconds_by_name["communication"]
    table = TextTable(
        "time by component (separate steps, forward and backward)", ("component", "time", "share")
    )
    for name, seconds in seconds_by_name.items():
        if name not in ("step", "communication"):
            table.add_row(name, readable(seconds, "s"), readable(seconds / step_s, "share"))
    text = "one rank" if communication_s is None else readable(communication_s / step_s, "share")
    table.add_row("of these in collectives", "", text)
    return table


def _memory_table(record: Mapping[str, Any]) -> TextTable:
    memory = record["result"]["memory"]
    table = TextTable("memory of a rank", ("kind", "bytes"))
    for name, value in memory.items():
        if name.endswith("_bytes"):
            label = name.removesuffix("_bytes").replace("_", " ")
            label += f" ({memory['peak_is']})" if label == "peak" else ""
            table.add_row(label, readable(value, "B"))
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else significant(value)
