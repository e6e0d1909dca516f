"""What ranks do in the tests of conversion: load a checkpoint, run it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from training import Block

from moe.convert import checkpoint_model
from parallel.layout import Layout
from parallel.precision import Precision


def load(checkpoint: Path, layout: Layout) -> list[Any]:
    """Start the engine and build a checkpoint's model under a layout."""
    from moe.checkpoint_format import read_sharded
    from moe.model import SHARDING, build_model
    from parallel.engine import start_engine

    start_engine(layout, seed=0)
    return load_more(checkpoint, layout, read_sharded, SHARDING, build_model)


def load_more(
    checkpoint: Path, layout: Layout, read_sharded: Any, sharding: Any, build_model: Any
) -> list[Any]:
    """Build another checkpoint's model in a started engine."""
    chunks: list[Any] = build_model(checkpoint_model(checkpoint), layout, Precision(), seed=9)
    wanted = {f"m{i}": c.sharded_state_dict(metadata=sharding) for i, c in enumerate(chunks)}
    loaded = read_sharded(checkpoint, wanted)
    for i, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"m{i}"])
        chunk.eval()
    return chunks


def run_model(
    checkpoint: Path, tokens: torch.Tensor, borders: torch.Tensor
) -> dict[str, np.ndarray[Any, Any] | float | list[Block]]:
    """Return logits of whole rows, of documents, the loss and its gradients, in one process."""
    from training import blocks

    (chunk,) = load(checkpoint, Layout(device="cpu"))
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    with torch.no_grad():
        logits = chunk(tokens, positions, None)
        documents = chunk(tokens, positions, borders)
    losses = chunk(tokens[:, :-1], positions[:, :-1], None, labels=tokens[:, 1:])
    losses.mean().backward()
    with torch.no_grad():
        for weight in chunk.parameters():
            weight.copy_(weight.grad)
    holder = type("Holder", (), {"module": chunk})
    return {
        "logits": logits.numpy(),
        "documents": documents.numpy(),
        "loss": float(losses.detach().mean()),
        "gradients": blocks([holder]),
    }


def layout_logits(checkpoint: Path, layout: dict[str, int], tokens: torch.Tensor) -> Any:
    """Return this rank's logits, [B, S, V / tp] on the last pipeline stage, else None."""
    import torch.distributed as dist

    given = Layout(device="cpu", **layout)
    (chunk,) = load(checkpoint, given)
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    with torch.no_grad():
        if given.pp > 1 and dist.get_rank() == 1:
            hidden = torch.empty(tokens.shape[1], tokens.shape[0], chunk.config.hidden_size)
            dist.recv(hidden, src=0)
            chunk.set_input_tensor(hidden)
        output = chunk(tokens, positions, None)
        if given.pp > 1 and dist.get_rank() == 0:
            dist.send(output, dst=1)
            return None
    return output.numpy()
