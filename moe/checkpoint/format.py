"""megatron-core's sharded state as safetensors and JSON files: no pickle, any layout.

Every rank writes the shards it owns to one safetensors file. `index.json` has the position of each
shard in its global tensor, the plain values (`common`), and a SHA-256 of every file. What
was saved under one layout is read under any other by copying overlaps. megatron-core gives the
description of the sharding (`sharded_state_dict`); its own file formats pickle, start helper
processes, and differ between 0.16 and 0.19.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.dict_utils import (
    dict_list_map_outplace,
    merge,
    nested_values,
)
from megatron.core.dist_checkpointing.mapping import (
    ShardedObject,
    ShardedStateDict,
    ShardedTensor,
    apply_factories,
    apply_factory_merges,
    is_main_replica,
)
from megatron.core.dist_checkpointing.state_dict_utils import load_preprocess, save_preprocess
from megatron.core.dist_checkpointing.utils import extract_sharded_base

from data.storage.checksums import file_sha256
from moe.checkpoint.index import INDEX, StoredTensors, read_index, write_tensors
from moe.checkpoint.index_format import FORMAT, CheckpointIndex, TensorShard
from moe.checkpoint.param_groups import complete_groups
from moe.errors import ConfigError

_INTEGER = re.compile("[0-9]{1,9}")


class Block(NamedTuple):
    """A block of a global tensor; `offset` and `shape` in elements."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """What one rank will write of a checkpoint, copied so that training may go on."""

    tensors: dict[str, torch.Tensor]
    shards: list[TensorShard]
    common: dict[str, Any]


def take_snapshot(state: ShardedStateDict) -> Snapshot:
    """Copy the shards that this rank owns to the CPU.

    Raises:
        TypeError: A plain value is not JSON, or a per-rank object is not a tensor.
    """
    sharded, common = save_preprocess(state)
    file = f"rank-{dist.get_rank():05d}.safetensors"
    shards: list[TensorShard] = []
    tensors: dict[str, torch.Tensor] = {}
    for value in nested_values(sharded):
        data = value.data
        if data is None or not is_main_replica(value.replica_id):
            continue
        if not isinstance(data, torch.Tensor):
            raise TypeError(f"{value.key}: cannot store a {type(data).__name__}")
        name = str(len(shards))
        shards.append(_shard(value, data, file, name))
        tensors[name] = data.detach().to("cpu", copy=True).contiguous()
    return Snapshot(tensors, shards, json.loads(json.dumps(common)))


def write_shards(directory: Path, snapshot: Snapshot) -> dict[str, str]:
    """Write this rank's file and force it to disk; returns its name and SHA-256 (or nothing)."""
    if not snapshot.tensors:
        return {}
    file = snapshot.shards[0].file
    write_tensors(directory / file, snapshot.tensors)
    return {file: file_sha256(directory / file)}


def index_of(
    common: dict[str, Any], ranks: Sequence[tuple[dict[str, str], list[TensorShard]]]
) -> dict[str, Any]:
    """Return the index of what all ranks wrote: files' checksums, and shards."""
    return {
        "format": FORMAT,
        "common": common,
        "files": {name: digest for digests, _ in ranks for name, digest in digests.items()},
        "parts": [shard.as_json() for _, shards in ranks for shard in shards],
    }


def blocks_of(state: ShardedStateDict) -> list[Block]:
    """Return the blocks of global tensors that a rank holds."""
    apply_factories(state)
    shards = (value for value in nested_values(state) if isinstance(value, ShardedTensor))
    return [Block(s.key, tuple(s.global_shape), tuple(s.global_offset), _shape(s)) for s in shards]


def _shard(
    value: ShardedTensor | ShardedObject, data: torch.Tensor, file: str, name: str
) -> TensorShard:
    if isinstance(value, ShardedObject):
        shape = tuple(data.shape)
        zeros = (0,) * len(shape)
        return TensorShard(
            key=value.unique_key,
            global_shape=shape,
            offset=zeros,
            shape=shape,
            file=file,
            name=name,
        )
    return TensorShard(
        key=value.key,
        global_shape=tuple(value.global_shape),
        offset=tuple(value.global_offset),
        shape=_shape(value),
        file=file,
        name=name,
    )


def _shape(value: ShardedTensor) -> tuple[int, ...]:
    """Shape of this rank's shard, with the leading axes of the global tensor."""
    lead: tuple[int, ...] = (1,) * value.prepend_axis_num
    return lead + tuple(value.local_shape)


def read_sharded(directory: Path, requested: ShardedStateDict) -> dict[str, Any]:
    """Return `requested` with every sharded value replaced by what `directory` holds of it.

    Objects that were saved per rank (random state) are None under another number of ranks.

    Raises:
        ConfigError: A tensor is missing or has another shape.
    """
    index = read_index(directory)
    requested, local, factories = load_preprocess(requested)
    sharded, current = extract_sharded_base(requested)
    reader = _Reader(directory, index)
    common = {k: value for k, value in index.common.values().items() if k in requested}
    state: dict[str, Any] = _with_integer_keys(common)
    complete_groups(state, current)
    tensors = dict_list_map_outplace(reader.read, sharded)
    try:
        merge(state, local)
        merge(state, tensors)
    except ValueError:
        # megatron-core's message prints both values, tensors included.
        raise ConfigError(
            f"{directory / INDEX}: `common` does not fit the model and its optimizer: restore the"
            " checkpoint"
        ) from None
    result: dict[str, Any] = apply_factory_merges(state, factories)
    return result


def _with_integer_keys(value: Any) -> Any:
    """Undo what JSON does to megatron-core's numbered optimizers: keys 0, 1 become text."""
    if isinstance(value, dict):
        items = ((int(k) if _INTEGER.fullmatch(k) else k, v) for k, v in value.items())
        return {key: _with_integer_keys(item) for key, item in items}
    return [_with_integer_keys(item) for item in value] if isinstance(value, list) else value


class _Reader:
    def __init__(self, directory: Path, index: CheckpointIndex) -> None:
        self.directory = directory
        self.stored = StoredTensors(directory, index)

    def read(self, requested: Any) -> Any:
        if isinstance(requested, ShardedObject):
            shards = self.stored.shards.get(requested.unique_key)
            return self.stored.get(next(iter(shards.values()))) if shards else None
        return self._read_tensor(requested) if isinstance(requested, ShardedTensor) else requested

    def _read_tensor(self, requested: ShardedTensor) -> torch.Tensor:
        stored, expected = self.stored.shape(requested.key), tuple(requested.global_shape)
        if stored != expected and not requested.allow_shape_mismatch:
            raise ConfigError(
                f"{self.directory}: tensor {requested.key} is {list(stored)} in the"
                f" checkpoint and {list(expected)} in the model"
            )
        if requested.data is None:
            requested.init_data("cpu")
        target = torch.empty_like(requested.data)
        is_complete = self.stored.read_block(
            target, requested.key, tuple(requested.global_offset), _shape(requested)
        )
        if not is_complete and not requested.allow_shape_mismatch:
            raise ConfigError(f"{self.directory}: parts of tensor {requested.key} are missing")
        return target
