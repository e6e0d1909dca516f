"""A small layer's configuration and inputs, for tests of the kernel set `torch` in one rank."""

import os
from typing import Any

import torch
from torch import Tensor

SEQ, BATCH, HEADS, KV_HEADS, DIM = 16, 2, 4, 2, 8


def start_on_cpu(**layout: Any) -> Any:
    """Start the engine on a CPU; returns it."""
    from parallel.engine.start import start_engine
    from parallel.layout.layout import Layout

    return start_engine(Layout(device="cpu", **layout), seed=0)


def layer_config(**values: Any) -> Any:
    """Return megatron-core's configuration of one small layer."""
    from megatron.core.transformer.transformer_config import TransformerConfig

    return TransformerConfig(
        num_layers=1, hidden_size=HEADS * DIM, num_attention_heads=HEADS,
        num_query_groups=KV_HEADS, **values,
    )  # fmt: skip


def random_tensor(*shape: int, seed: int) -> Tensor:
    """Return normal values that depend on the seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def worst_difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference over the largest magnitude, or over 1 where that is less."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0)) if one.numel() else 0


def world_size() -> int:
    """Return the ranks of this process's job."""
    return int(os.environ["WORLD_SIZE"])
