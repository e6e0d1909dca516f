"""What ranks do in the tests of conversion: load checkpoints, run them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from moe.config.experiment import Experiment
from moe.convert.hugging_face import checkpoint_model
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision
from tests.support.layout_equivalence import Shard, started

ALONE = Layout(device="cpu")


def load(checkpoint: Path, layout: Layout) -> Any:
    """Build a checkpoint's model in a started engine; returns this rank's part."""
    from moe.checkpoint.weights import load_weights
    from moe.model.build import build_model

    chunks = build_model(checkpoint_model(checkpoint), layout, Precision(), seed=9)
    load_weights(checkpoint, chunks)
    return chunks[0].eval()


def start(layout: Layout) -> None:
    from parallel.engine.start import start_engine

    start_engine(layout, seed=0)


def run_model(
    checkpoint: Path, tokens: torch.Tensor, cu_seqlens: torch.Tensor
) -> dict[str, np.ndarray[Any, Any] | float | list[Shard]]:
    """Return logits of whole rows, of documents, the loss and its gradients, in one process."""
    from tests.support.layout_equivalence import shards

    start(ALONE)
    chunk = load(checkpoint, ALONE)
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    with torch.no_grad():
        logits = chunk(tokens, positions, None)
        documents = chunk(tokens, positions, cu_seqlens)
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
        "gradients": shards([holder]),
    }


def all_logits(
    checkpoints: dict[str, Path], layout: dict[str, int], tokens: torch.Tensor
) -> dict[str, Any]:
    """Return this rank's logits of each, [B, S, V / tp] on the last pipeline stage, else None."""
    given = Layout(device="cpu", **layout)
    start(given)
    return {kind: _logits(load(path, given), given, tokens) for kind, path in checkpoints.items()}


def _logits(chunk: Any, layout: Layout, tokens: torch.Tensor) -> Any:
    import torch.distributed as dist

    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    with torch.no_grad():
        if layout.pp > 1 and dist.get_rank() == 1:
            hidden = torch.empty(tokens.shape[1], tokens.shape[0], chunk.config.hidden_size)
            dist.recv(hidden, src=0)
            chunk.set_input_tensor(hidden)
        output = chunk(tokens, positions, None)
        if layout.pp > 1 and dist.get_rank() == 0:
            dist.send(output, dst=1)
            return None
    return output.numpy()


def all_losses(checkpoints: dict[str, Path], tokens: torch.Tensor) -> dict[str, float]:
    """Return the mean loss of each model on the tokens, in one process."""
    start(ALONE)
    positions = torch.arange(tokens.shape[1] - 1).expand(tokens.shape[0], -1)
    found = {}
    for name, checkpoint in checkpoints.items():
        chunk = load(checkpoint, ALONE)
        with torch.no_grad():
            losses = chunk(tokens[:, :-1], positions, None, labels=tokens[:, 1:])
        found[name] = float(losses.double().mean())
    return found


def train_one_step(run: Path, experiment: Experiment) -> None:
    """Train a step and keep its checkpoint, as a run does."""
    from moe.checkpoint.training_state import save_checkpoint
    from moe.training.step import train_step

    with started(experiment) as trainer:
        train_step(trainer, 0)
        save_checkpoint(run / "checkpoints", 1, trainer.chunks, trainer.optimizer, {}, keep=1)
