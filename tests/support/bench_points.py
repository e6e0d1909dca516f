"""Records of `moe bench` as a machine would leave them that runs as a given card does."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parallel.hardware.card import Card
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.link_points import SECONDS
from parallel.planner.compute_time.attention import AttentionShape, attention_seconds
from parallel.planner.compute_time.expert_block import (
    ExpertBlock,
    expert_backward_seconds,
    expert_forward_seconds,
)
from parallel.planner.compute_time.gemm import gemm_seconds
from parallel.planner.compute_time.grouped_gemm import ExpertRows
from parallel.planner.compute_time.memory_bound import stream_seconds
from parallel.planner.step.data_parallel import UPDATE_BYTES
from parallel.planner.step.parameters import step_parameters, training_card

GPU = {"device": "cuda", "name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_000_000_000}
REPEATS = {"low": 1e-9, "high": 1.0, "repeats": 11, "confidence": 0.95}
OPERATIONS = tuple(SECONDS)


def record(
    bench: str, case: dict[str, Any], result: dict[str, Any], hardware: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return one line of a file of results."""
    conditions = {"hardware": {"ranks": 1, **(hardware or GPU)}, "commit": None, "cores": 8}
    return {"format": 1, "bench": bench, "case": case, "conditions": conditions, "result": result}


def time(seconds: float) -> dict[str, Any]:
    """Return repeats of one measurement."""
    return {"median": seconds, **REPEATS}


def gemm_record(
    card: Card, m: int, dtype: str = "bf16", *, factor: float = 1.0, n: int = 4096, groups: int = 1
) -> dict[str, Any]:
    """Return a product, run back to back, beside a slower implementation."""
    seconds = factor * gemm_seconds(card, m, n, 4096, dtype)
    rows = [
        {"implementation": "other", "burst_s": time(seconds), "sustained_s": 2 * seconds},
        {"implementation": "mm", "burst_s": time(seconds / 1.1), "sustained_s": seconds},
    ]
    case = {"m": m, "n": n, "k": 4096, "groups": groups, "dtype": dtype, "repeats": 11}
    return record("gemm", case, {"implementations": rows})


def attention_record(card: Card, seq_len: int, dtype: str = "bf16") -> dict[str, Any]:
    """Return a causal attention, with a backend that no model gets."""
    shape = AttentionShape(
        batch=1, seq=seq_len, heads=32, kv_heads=8, qk_dim=128, v_dim=128, precision=dtype
    )
    times = {
        f"{name}_s": time(attention_seconds(card, shape, backward=backward, repetitions=1))
        for name, backward in (("forward", False), ("backward", True))
    }
    slow = dict.fromkeys(times, time(1.0))
    case = {"batch_size": 1, "seq_len": seq_len, "num_heads": 32, "num_kv_heads": 8,
            "qk_head_dim": 128, "v_head_dim": 128, "dtype": dtype}  # fmt: skip
    backends = [{"backend": "math", **slow}, {"backend": "torch's choice", **times}]
    return record("attention", case, {"backends": backends})


def layer_record(card: Card, tokens: int, *, router_seconds: float = 0.0) -> dict[str, Any]:
    """Return an MoE layer in BF16 whose router takes no time, or what is given."""
    case = {"hidden_size": 4096, "expert_ffn_hidden_size": 4096, "num_experts": 8, "top_k": 2,
            "tokens": tokens, "shared_expert_ffn_hidden_size": 0, "routing": ["natural", "forced"],
            "precision": {"dtype": "bf16"}}  # fmt: skip
    block = ExpertBlock(
        hidden=4096, ffn=4096, rows=ExpertRows.even(8, 2 * tokens), tokens=tokens,
        entries=2 * tokens, looped=False,
    )  # fmt: skip
    times = {
        "forward_s": time(router_seconds + expert_forward_seconds(card, block, "bf16")),
        "backward_s": time(router_seconds + expert_backward_seconds(card, block, "bf16")),
    }
    slow = {"routing": "natural", **dict.fromkeys(times, time(1.0))}
    return record("layer", case, {"routing": [slow, {"routing": "forced", **times}]})


def step_record(card: Card, total_parameters: int) -> dict[str, Any]:
    """Return a step of one layer in BF16, of which only the optimizer's part is known."""
    parameters = step_parameters().on(card)
    moving = stream_seconds(training_card(card, parameters), UPDATE_BYTES * total_parameters)
    host = parameters.step_seconds + parameters.layer_step_seconds
    result = {
        "parameters": {"total_parameters": total_parameters},
        "split_s": {"optimizer": host + moving},
    }
    return record("step", {"model": "m", "layers": 1, "precision": {"dtype": "bf16"}}, result)


def collective_record(
    card: Card, operation: str, num_bytes: int, ranks: int = 8, nodes: int = 1
) -> dict[str, Any]:
    """Return a collective over nodes of one domain each."""
    assert card.links is not None
    seconds = SECONDS[operation](card.links, num_bytes, ranks, ranks // nodes)
    case = {"operation": operation, "bytes": num_bytes, "ranks": ranks, "nodes": nodes}
    return record("collectives", case, {"time_s": time(seconds)}, GPU | {"ranks": ranks})


def bench_records(rows: Iterable[dict[str, Any]]) -> list[BenchRecord]:
    """Return records as they are read from a file `f`."""
    return [
        BenchRecord(origin=f"f: line {number}", values=row) for number, row in enumerate(rows, 1)
    ]


def write_records(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write records as `moe bench --out` does; returns the file."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def published_products(rows: Iterable[dict[str, str]]) -> list[dict[str, Any]]:
    """Return forward products of SimuMax's B200 (gemm_train_b200_te.csv) as records."""
    hardware = {"device": "cuda", "name": "NVIDIA B200"}
    found = []
    for row in rows:
        seconds = float(row["us"]) * 1e-6
        case = {"m": int(row["m"]), "n": int(row["n"]), "k": int(row["k"])}
        burst = {"burst_s": time(seconds), "sustained_s": seconds}
        found.append(
            record(
                "gemm",
                case | {"groups": 1, "dtype": "bf16"},
                {"implementations": [burst]},
                hardware,
            )
        )
    return found
