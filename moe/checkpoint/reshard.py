"""A checkpoint resharded for another layout, offline: no GPU, one rank's shards in memory.

Every layout reads every checkpoint as it is; from files cut for its own, a rank reads whole files
instead of slices. megatron-core tells what each rank will hold, acting as that rank.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.storage.atomic import write_text
from data.storage.checksums import file_sha256
from data.storage.new_directory import new_directory
from data.storage.regular_file import copy_tree
from data.tokenization.hub_folder import copy_hub_files
from moe.checkpoint.directory import STATE, checkpoint_name, read_state, use_checkpoint
from moe.checkpoint.format import Block, blocks_of, index_of
from moe.checkpoint.index import (
    INDEX,
    StoredTensors,
    read_index,
    verify_files,
    write_index,
    write_tensors,
)
from moe.checkpoint.index_format import TensorShard
from moe.config.experiment import Experiment, load_experiment, load_model, make_experiment
from moe.config.locating import EXPERIMENT_FILE, HUB_DIRECTORY, MODEL_FILE, model_file
from moe.config.model import ModelConfig
from moe.config.tensor_names import FP8_STATE
from moe.cost.model_shape import shape_of
from moe.errors import ConfigError, disk_errors
from moe.model.build import build_model
from moe.runs.files import CHECKPOINTS
from parallel.engine.start import fake_rank
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.validation import checked_placement
from parallel.precision.recipes import Precision

ReshardProgress = Callable[[int, int], None]
_OPTIMIZER = re.compile(r"^optimizer\.state\.\w+\.")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
           "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}  # fmt: skip


@dataclass(frozen=True)
class Resharded:
    """What resharding wrote."""

    path: Path
    step: int
    files: int
    tensors: int


def reshard(  # noqa: PLR0913 - one command
    source: Path,
    out: Path,
    layout: Layout,
    num_ranks: int,
    *,
    step: int | None = None,
    progress: ReshardProgress | None = None,
) -> Resharded:
    """Write a run's checkpoint as `num_ranks` ranks of `layout` would have; optimizer included.

    Of a run, `out` becomes a run directory to resume, its experiment in the new layout; of another
    checkpoint, a checkpoint. Per-rank random state stays behind: nothing trained here draws on it.

    Raises:
        ConfigError: The checkpoint is missing or damaged, or `out` exists.
        ParallelError: The layout does not fit the model or the ranks.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: choose another --out")

    def use(checkpoint: Path) -> Resharded:
        return _resharded(source, checkpoint, out, layout, num_ranks, progress)

    return use_checkpoint(source, step, use)


def _resharded(  # noqa: PLR0913, PLR0917
    source: Path,
    checkpoint: Path,
    out: Path,
    layout: Layout,
    num_ranks: int,
    progress: ReshardProgress | None,
) -> Resharded:
    moved = _experiment_of(source, layout)
    verify_files(checkpoint)
    model = _model_of(source, checkpoint)
    # Batches do not matter here: one that divides everything.
    ranks = num_ranks * layout.vpp
    batch = BatchSize(
        seq_len=2 * layout.cp * layout.tp, micro_batch_size=1, global_batch_size=ranks
    )
    checked_placement(layout, shape_of(model), batch, num_ranks)
    step = int(read_state(checkpoint)["step"])
    with disk_errors(out), new_directory(out) as made:
        target = made
        if moved is not None:
            write_text(made / EXPERIMENT_FILE, moved.to_toml())
            if (source / HUB_DIRECTORY).is_dir():
                (made / HUB_DIRECTORY).mkdir()
                copy_hub_files(source / HUB_DIRECTORY, made / HUB_DIRECTORY, ("*",))
            target = made / CHECKPOINTS / checkpoint_name(step)
            target.mkdir(parents=True)
        done = _write(checkpoint, target, model, layout, num_ranks, progress)
    return Resharded(out, step, num_ranks, done)


def _experiment_of(source: Path, layout: Layout) -> Experiment | None:
    """Return a run's experiment in the new layout, by the rules that opening it has; None: no run.

    Raises:
        ConfigError: The experiment is damaged, or breaks a rule in that layout.
    """
    file = source / EXPERIMENT_FILE
    if not file.is_file():
        return None
    values = load_experiment(file, follow_link=False).model_dump(mode="json", exclude_none=True)
    parallel = layout.model_dump(mode="json", exclude_none=True)
    return make_experiment(values | {"parallel": parallel}, origin=str(file))


def _model_of(source: Path, checkpoint: Path) -> ModelConfig:
    """Return the model: of the run, or of what `moe convert` made."""
    file = model_file(source) or model_file(checkpoint)
    if file is None:
        raise ConfigError(
            f"{source}: no {EXPERIMENT_FILE} or {MODEL_FILE} says which model this is"
        )
    return load_model(str(file), follow_link=False)


def _write(  # noqa: PLR0913
    source: Path,
    target: Path,
    model: ModelConfig,
    layout: Layout,
    num_ranks: int,
    progress: ReshardProgress | None,
) -> int:
    """Write all ranks' files, the state and the index; returns the number of tensors."""
    index = read_index(source)
    stored = StoredTensors(source, index)
    states = _states_by_weight(stored)
    seen: set[tuple[Any, ...]] = set()
    written: list[tuple[dict[str, str], list[TensorShard]]] = []
    for rank in range(num_ranks):
        file = f"rank-{rank:05d}.safetensors"
        shards: list[TensorShard] = []
        tensors: dict[str, torch.Tensor] = {}
        with fake_rank(layout, rank, num_ranks):
            blocks = _blocks_of_rank(model, layout)
        if rank == 0:
            blocks += _fp8_blocks(stored)
        for block in blocks:
            for key in states.get(block.key, ()):
                position = (key, block.offset, block.shape)
                if position not in seen:
                    seen.add(position)
                    shard = TensorShard(
                        key=key,
                        global_shape=block.global_shape,
                        offset=block.offset,
                        shape=block.shape,
                        file=file,
                        name=str(len(shards)),
                    )
                    shards.append(shard)
                    tensors[shard.name] = _read(stored, shard)
        if tensors:
            write_tensors(target / file, tensors)
        written.append(({file: file_sha256(target / file)} if tensors else {}, shards))
        if progress:
            progress(rank + 1, num_ranks)
    _check_complete(source, states, {shard.key for _, shards in written for shard in shards})
    for extra in source.iterdir():
        if extra.suffix != ".safetensors" and extra.name != INDEX:
            copy_tree(extra, target / extra.name)
    made = index_of(index.common.values(), written)
    made["files"][STATE] = file_sha256(target / STATE)
    write_index(target, made)
    return len({key for key, *_ in seen})


def _blocks_of_rank(model: ModelConfig, layout: Layout) -> list[Block]:
    chunks = build_model(model, layout, Precision(), seed=None)
    return [b for chunk in chunks for b in blocks_of(chunk.sharded_state_dict())]


def _fp8_blocks(stored: StoredTensors) -> list[Block]:
    """Return whole tensors of FP8 state, which any layout reads; they are few and small."""
    shapes = {key: stored.shape(key) for key in stored.shards if key.startswith(FP8_STATE)}
    return [Block(key, shape, (0,) * len(shape), shape) for key, shape in shapes.items()]


def _states_by_weight(stored: StoredTensors) -> dict[str, list[str]]:
    """Return each weight's key with those of its optimizer state, which is sharded alike."""
    states: dict[str, list[str]] = {}
    for key in stored.shards:
        if not key.startswith("rng/"):
            states.setdefault(_OPTIMIZER.sub("", key), []).append(key)
    return states


def _read(stored: StoredTensors, shard: TensorShard) -> torch.Tensor:
    dtype = stored.dtype(shard.key)
    if dtype not in _DTYPES:
        raise ConfigError(f"{stored.directory}: tensor {shard.key} is {dtype}: no format of ours")
    target = torch.empty(shard.shape, dtype=_DTYPES[dtype])
    if stored.shape(shard.key) != shard.global_shape or not stored.read_block(
        target, shard.key, shard.offset, shard.shape
    ):
        raise ConfigError(f"{stored.directory}: tensor {shard.key} does not fit the model")
    return target


def _check_complete(source: Path, states: dict[str, list[str]], written: set[str]) -> None:
    missing = sorted({key for keys in states.values() for key in keys} - written)
    if missing:
        raise ConfigError(f"{source}: tensor {missing[0]} is in no rank of this model and layout")
