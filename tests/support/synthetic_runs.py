"""Run directories made up for tests: the files that `moe train` writes, with chosen numbers."""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

LAYERS, EXPERTS, TOP_K = 4, 8, 2


def measurement(value: float | None, unit: str, **more: Any) -> dict[str, Any]:
    values = {
        "value": value,
        "unit": unit,
        "source": "model",
        "boundary": "CPU cores used by this run",
        "kind": "modelled" if value is not None else None,
        "uncertainty": None,
        "reason": None if value is not None else "no meter works here",
    }
    return {**values, **more}


def energy_section(joules: float | None, tokens: int, seconds: float) -> dict[str, Any]:
    train = None if joules is None else 0.9 * joules
    per_token = None if train is None else train / tokens
    return {
        "source": "model",
        "kind": "modelled",
        "boundary": "CPU cores used by this run",
        "note": "3.5 W per busy core",
        "total": measurement(joules, "J"),
        "train": measurement(train, "J"),
        "per_token": measurement(per_token, "J/token"),
        "mean_power": measurement(None if train is None else train / seconds, "W"),
        "idle_power": measurement(None, "W", reason="only a counter measures idle power"),
        "phases": {"train": {"seconds": seconds, **measurement(train, "J")}},
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(
    path: Path,
    *,
    sparse: bool,
    final_loss: float = 4.0,
    seed: int = 0,
    steps: int = 200,
    tokens_per_step: int = 4096,
    tokens_per_s: float = 9000.0,
    joules: float | None = 900.0,
    energy: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run whose held-out loss falls to `final_loss` along a power law."""
    path.mkdir(parents=True)
    total = 7_400_000 if sparse else 2_110_000
    rng = random.Random(f"{path.name}{seed}")
    tokens, seconds = steps * tokens_per_step, steps * tokens_per_step / tokens_per_s

    def loss(step: int) -> float:
        return final_loss * (steps / step) ** 0.09

    model: dict[str, Any] = {"num_layers": LAYERS, "hidden_size": 192, "vocab_size": 4096}
    if sparse:
        model["moe"] = {"num_experts": EXPERTS, "top_k": TOP_K}
    experiment = {"name": path.name, "model": model, "train": {"seed": seed, "steps": steps}}
    experiment["energy"] = dict(energy or {})
    (path / "experiment.toml").write_text(tomli_w.dumps(experiment))
    record = {
        "format": 1,
        "run_id": f"{path.name}-{rng.getrandbits(32):08x}",
        "name": path.name,
        "status": "finished",
        "started_at": "2026-11-23T10:00:00+00:00",
        "finished_at": "2026-11-23T10:03:00+00:00",
        "command": f"moe train {path.name}.toml",
        "environment": {
            "python": "3.11.2",
            "platform": "Linux",
            "packages": {"torch": "2.13.0", "megatron-core": "0.16.1"},
        },
        "git": {"commit": "3e898e9aa0b1c2d3", "dirty": False},
        "hardware": {"device": "cpu", "name": "AMD EPYC", "threads": 2, "ranks": 1},
        "execution": {
            "kernels": "torch",
            "dispatcher": "alltoall" if sparse else None,
            "optimizer": "AdamW",
            "dtype": "float32",
        },
        "layout": {"tp": 1, "pp": 1, "ep": 1, "dp": 1},
        "ledger": {
            "total_parameters": total,
            "bf16_weight_bytes": 2 * total,
            "bf16_training_state_bytes": 18 * total,
            "active_parameters": 2_104_000 if sparse else 2_110_000,
            "training_flops_per_token": 13.2e6 if sparse else 13.1e6,
        },
        "steps": steps,
        "tokens": tokens,
        "wall_time_s": seconds * 1.1,
        "tokens_per_s": tokens_per_s,
        "final_loss": final_loss,
        "train_loss": final_loss - 0.1,
        "flops_per_s": tokens_per_s * 13.1e6,
        "mfu": 0.31,
        "peak": {"flops_per_s": 3.8e11, "source": "measured matrix product"},
        "energy": energy_section(joules, tokens, seconds),
    }
    (path / "record.json").write_text(json.dumps({**record, **(changes or {})}))
    every = range(1, steps + 1)
    write_rows(
        path / "metrics.jsonl",
        [
            {
                "step": step,
                "tokens": step * tokens_per_step,
                "loss": loss(step) + rng.gauss(0, 0.03),
                "load_balancing_loss": 1.02 if sparse else None,
                "z_loss": None,
                "grad_norm": 1.0 + math.exp(-step / 20),
                "learning_rate": 1e-3,
                "step_time_s": tokens_per_step / tokens_per_s,
                "tokens_per_s": tokens_per_s,
                "flops_per_s": tokens_per_s * 13.1e6,
                "mfu": 0.31,
                "data_stall_s": 0.0,
                "energy_joules": None if joules is None else 0.9 * joules / steps,
            }
            for step in every
        ],
    )
    write_rows(
        path / "evaluations.jsonl",
        [
            {"step": step, "tokens": step * tokens_per_step, "loss": loss(step)}
            for step in every
            if step % max(1, steps // 20) == 0
        ],
    )
    if sparse:
        write_rows(path / "expert_load.jsonl", [load_row(step, steps, rng) for step in every])
        write_rows(path / "routing.jsonl", [routing_row(step, steps) for step in every])
        (path / "routing_maps.json").write_text(json.dumps(routing_maps(steps)))
    return path


def load_row(step: int, steps: int, rng: random.Random) -> dict[str, Any]:
    def counts(layer: int) -> list[int]:
        skew = 1.2 * math.exp(-4 * step / steps) + 0.05 * layer
        weights = [math.exp(skew * rng.gauss(0, 0.2) + skew * (e % 3)) for e in range(EXPERTS)]
        return [round(8192 * w / sum(weights)) for w in weights]

    layers = list(range(1, LAYERS))
    return {"step": step, "layers": layers, "counts": [counts(layer) for layer in layers]}


def routing_row(step: int, steps: int) -> dict[str, Any]:
    layers = list(range(1, LAYERS))
    measures = ("load_entropy", "max_over_mean", "token_entropy", "drop_rate", "router_z")
    numbers = {name: [0.5 + 0.1 * step / steps for _ in layers] for name in measures}
    return {"step": step, "layers": layers, **numbers, "drop_rate": [0.0 for _ in layers]}


def routing_maps(step: int) -> dict[str, Any]:
    """Two sources: the first prefers even experts, more so in later layers."""
    layers = list(range(1, LAYERS))
    even = [[100 + 20 * layer * (1 - e % 2) for e in range(EXPERTS)] for layer in layers]
    odd = [[100 + 20 * layer * (e % 2) for e in range(EXPERTS)] for layer in layers]
    together = [[[300 if i == j else 40 for j in range(EXPERTS)] for i in range(EXPERTS)]] * len(
        layers
    )
    counts = [list(pair) for pair in zip(even, odd, strict=True)]
    return {"step": step, "split": "held_out", "layers": layers, "sources": ["prose", "code"],
            "counts": counts, "together": together}  # fmt: skip
