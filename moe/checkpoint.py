"""Checkpoints: complete or absent on disk, readable under any layout, bit-equal to resume."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.optimizer import MegatronOptimizer

from moe.checkpoint_format import read_sharded, verify_files, write_sharded
from moe.errors import ConfigError
from moe.files import fsync_directory, write_json, write_text
from moe.model import SHARDING

STATE = "state.json"
LATEST = "latest"
_METADATA = SHARDING | {
    "distrib_optim_sharding_type": "fully_reshardable",
    "chained_optim_avoid_prefix": True,
}


def save_checkpoint(
    root: Path,
    step: int,
    chunks: Sequence[Any],
    optimizer: MegatronOptimizer,
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write `root/step-<step>` and point `latest` at it; a collective call.

    `state` are JSON values that rank 0 keeps beside the tensors (data position, totals).
    The directory appears under its name only when every file in it is on disk.
    """
    final = root / f"step-{step:08d}"
    partial = root / f".{final.name}.partial"
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    write_sharded(partial, _sharded_state(chunks, optimizer, is_loading=False))
    if dist.get_rank() == 0:
        write_json(partial / STATE, {"step": step, **state})
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        fsync_directory(root)
        write_text(root / LATEST, final.name)
        _remove_old(root, keep)
    dist.barrier()
    return final


def load_checkpoint(
    path: Path, chunks: Sequence[Any], optimizer: MegatronOptimizer
) -> dict[str, Any]:
    """Restore model, optimizer and random state from `path`; returns its `state`.

    Raises:
        ConfigError: A file is missing or damaged, or a tensor does not fit the model.
    """
    if dist.get_rank() == 0:
        verify_files(path)
    dist.barrier()
    loaded = read_sharded(path, _sharded_state(chunks, optimizer, is_loading=True))
    for i, chunk in enumerate(chunks):
        chunk.module.load_state_dict(loaded[f"model{i}"])
    optimizer.load_state_dict(loaded["optimizer"])
    state = read_state(path)
    if loaded["rng"] is not None:
        torch.set_rng_state(loaded["rng"])
    return state


def read_state(path: Path) -> dict[str, Any]:
    """Return the JSON values kept beside a checkpoint's tensors."""
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
        return state
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path / STATE}: missing or damaged: {error}") from None


def latest_checkpoint(root: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None where there is none."""
    complete = sorted(path for path in root.glob("step-*") if (path / STATE).is_file())
    return complete[-1] if complete else None


def _sharded_state(
    chunks: Sequence[Any], optimizer: MegatronOptimizer, *, is_loading: bool
) -> dict[str, Any]:
    state: dict[str, Any] = {
        f"model{i}": chunk.module.sharded_state_dict(metadata=_METADATA)
        for i, chunk in enumerate(chunks)
    }
    state["optimizer"] = optimizer.sharded_state_dict(
        {**state}, is_loading=is_loading, metadata=_METADATA
    )
    rank, ranks = dist.get_rank(), dist.get_world_size()
    state["rng"] = ShardedObject("rng", torch.get_rng_state(), (ranks,), (rank,))
    return state


def _remove_old(root: Path, keep: int) -> None:
    for path in sorted(root.glob("step-*"))[:-keep]:
        shutil.rmtree(path)
