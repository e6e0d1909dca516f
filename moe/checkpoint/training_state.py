"""Checkpoints: complete or absent on disk, readable under any layout, bit-equal to resume."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.optimizer import MegatronOptimizer

from moe.checkpoint.directory import checkpoint_name, read_state
from moe.checkpoint.format import Snapshot, read_sharded, take_snapshot
from moe.checkpoint.index import INDEX, read_index, verify_files
from moe.checkpoint.index_format import CheckpointIndex
from moe.checkpoint.writer import Checkpointer
from moe.errors import ConfigError
from moe.model.fp8.primary_weights import load_values, with_masters, with_plain_tensors

_METADATA = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "chained_optim_avoid_prefix": True,
}


def snapshot(chunks: Sequence[Any], optimizer: MegatronOptimizer) -> Snapshot:
    """Copy this rank's shards of model, optimizer and random state; a collective call."""
    return take_snapshot(_sharded_state(chunks, optimizer, is_loading=False))


def save_checkpoint(
    root: Path,
    step: int,
    chunks: Sequence[Any],
    optimizer: MegatronOptimizer,
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write `root/step-<step>`, wait until it is on disk, and return it; a collective call.

    `state` are JSON values that rank 0 keeps beside the tensors (data position, totals).

    Raises:
        StorageError: It could not be written; what was there before still is.
    """
    writer = Checkpointer(root, keep=keep)
    writer.save(step, snapshot(chunks, optimizer), state)
    writer.wait()
    return root / checkpoint_name(step)


def load_checkpoint(
    path: Path, chunks: Sequence[Any], optimizer: MegatronOptimizer, *, verified: bool = False
) -> dict[str, Any]:
    """Restore model, optimizer and random state from `path`; returns its `state`.

    `verified` says that checksums have just been compared (`checkpoint_to_resume`).

    Raises:
        ConfigError: A file is missing or damaged, or a tensor does not fit the model.
    """
    if not verified:
        _verify_on_one_rank(path)
    state = read_state(path)
    index = read_index(path)
    _name_what_is_not_read(path, index)
    requested = _sharded_state(chunks, optimizer, is_loading=True, stored=index.keys)
    loaded = read_sharded(path, requested)
    _check_random_state(path, loaded["rng"])
    # Scales first: weights that are kept in FP8 are rounded by them.
    for key, shard in requested.get("fp8", {}).items():
        shard.data.copy_(loaded["fp8"][key])
    for i, chunk in enumerate(chunks):
        load_values(chunk.module, loaded[f"model{i}"])
    try:
        optimizer.load_state_dict(loaded["optimizer"])
    except (
        AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError
    ):  # fmt: skip
        raise ConfigError(
            f"{path / INDEX}: `common` does not fit this run's optimizer: restore the checkpoint"
        ) from None
    if loaded["rng"] is not None:
        torch.set_rng_state(loaded["rng"])
    return state


def _check_random_state(path: Path, state: torch.Tensor | None) -> None:
    expected = torch.get_rng_state()
    if state is not None and (state.dtype, state.shape) != (expected.dtype, expected.shape):
        raise ConfigError(
            f"{path}: tensor rng is {state.dtype} {list(state.shape)}, which is no random state of"
            " this torch: restore the checkpoint"
        )


def _name_what_is_not_read(path: Path, index: CheckpointIndex) -> None:
    pickled = [part.key for part in index.parts if part.is_pickled and 0 not in part.shape]
    if pickled and dist.get_rank() == 0:
        print(
            f"moe: {path}: {pickled[0]} and others like it are pickled, and not read: Transformer"
            " Engine's FP8 scales begin anew",
            file=sys.stderr,
            flush=True,
        )


def _verify_on_one_rank(path: Path) -> None:
    """Compare checksums on rank 0; an error is raised on every rank."""
    failure: list[Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            verify_files(path)
        except Exception as error:
            failure = [error]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]


def _sharded_state(
    chunks: Sequence[Any],
    optimizer: MegatronOptimizer,
    *,
    is_loading: bool,
    stored: Collection[str] = (),
) -> dict[str, Any]:
    state: dict[str, Any] = {
        f"model{i}": chunk.module.sharded_state_dict(metadata=_METADATA)
        for i, chunk in enumerate(chunks)
    }
    state["optimizer"] = optimizer.sharded_state_dict(
        {**state}, is_loading=is_loading, metadata=_METADATA
    )
    if is_loading:
        with_plain_tensors(state)
    else:
        with_masters(state)
    scales = {k: v for c in chunks for k, v in c.module.sharded_fp8_state(stored).items()}
    if scales:
        state["fp8"] = scales
    rank, ranks = dist.get_rank(), dist.get_world_size()
    state["rng"] = ShardedObject("rng", torch.get_rng_state(), (ranks,), (rank,))
    return state
