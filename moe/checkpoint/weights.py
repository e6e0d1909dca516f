"""A checkpoint's weights without its optimizer: to use a model, or to start another run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe.checkpoint.directory import read_state
from moe.checkpoint.format import read_sharded
from moe.checkpoint.index import verify_files


def load_weights(checkpoint: Path, chunks: Sequence[Any]) -> int:
    """Fill a model's chunks from a checkpoint saved under any layout; returns its step.

    Raises:
        ConfigError: A file is missing or damaged, or a tensor does not fit the model.
    """
    verify_files(checkpoint)
    requested = {f"model{i}": chunk.sharded_state_dict() for i, chunk in enumerate(chunks)}
    loaded = read_sharded(checkpoint, requested)
    for i, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"model{i}"])
    return int(read_state(checkpoint)["step"])
