"""What a checkpoint's model computes for the tokens of the fixtures of Megatron's files."""

from pathlib import Path
from typing import Any


def logits_of(checkpoint: Path) -> Any:
    """Return the logits [2, 16, V] for the tokens `arange(32) * 7 % 100`, on this rank's CPU."""
    import torch

    from moe.evaluation.loading import loaded_model

    tokens = (torch.arange(32) * 7 % 100).view(2, 16)
    positions = torch.arange(16).expand(2, 16).contiguous()
    with torch.no_grad(), loaded_model(checkpoint, device="cpu") as model:
        return model.chunk(tokens, positions, None).numpy()
