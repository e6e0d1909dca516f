"""A checkpoint's weights without its optimizer: to use a model, or to start another run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe.checkpoint_format import INDEX, read_sharded, verify_files
from moe.checkpoint_store import (
    checkpoint_name,
    complete_checkpoints,
    latest_checkpoint,
    read_state,
    step_of,
)
from moe.errors import ConfigError
from moe.model import SHARDING


def find_checkpoint(path: Path, step: int | None = None) -> Path:
    """Return a run directory's newest checkpoint, or that of `step`, or `path` if it is one.

    Raises:
        ConfigError: There is none.
    """
    if step is None and (path / INDEX).is_file():
        return path
    root = path / "checkpoints"
    found = latest_checkpoint(root) if step is None else root / checkpoint_name(step)
    if found is None:
        raise ConfigError(f"{path}: no complete checkpoint: train the run, or resume it")
    if not (found / INDEX).is_file():
        kept = ", ".join(str(step_of(p)) for p in complete_checkpoints(root)) or "none"
        raise ConfigError(f"{path}: no checkpoint of step {step}: there are {kept}")
    return found


def load_weights(checkpoint: Path, chunks: Sequence[Any]) -> int:
    """Fill a model's chunks from a checkpoint saved under any layout; returns its step.

    Raises:
        ConfigError: A file is missing or damaged, or a tensor does not fit the model.
    """
    verify_files(checkpoint)
    wanted = {
        f"model{i}": chunk.sharded_state_dict(metadata=SHARDING) for i, chunk in enumerate(chunks)
    }
    loaded = read_sharded(checkpoint, wanted)
    for i, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"model{i}"])
    return int(read_state(checkpoint)["step"])
