"""Recordings of routing decisions, as `moe eval --record-routing` writes them."""

from pathlib import Path
from typing import Any

import torch

from moe.routing.record import RecordOrigin, RoutingRecord


def origin(**changes: Any) -> RecordOrigin:
    """Return the description of a recording of 8 experts, top-2."""
    values = {"run": "runs/tests", "step": 7, "store": "store", "split": "held_out", "seq_len": 4,
              "micro_batch_size": 2, "num_experts": 8, "top_k": 2}  # fmt: skip
    return RecordOrigin.model_validate(values | changes)


def write_recording(
    path: Path, *, layers: tuple[int, ...] = (1, 2), tokens: int = 24, **changes: Any
) -> Path:
    """Write a recording in which token t of layer l goes to experts t + l and t + l + 1."""
    description = origin(**changes)
    experts, top_k = description.num_experts, description.top_k
    chosen = torch.arange(tokens)[:, None] + torch.arange(top_k)
    half = tokens // 2
    passes = {
        layer: list(((chosen + layer) % experts).int().split([half, tokens - half]))
        for layer in layers
    }
    RoutingRecord(passes, description).save(path)
    return path
