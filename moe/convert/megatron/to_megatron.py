"""Checkpoints out: weights and arguments as Megatron-LM and Megatron-Bridge load them."""

import re
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from data.storage.atomic import write_text
from data.storage.new_directory import new_directory
from moe.checkpoint.directory import use_checkpoint
from moe.checkpoint.index import StoredTensors, read_index, verify_files
from moe.config.model import ModelConfig
from moe.config.tensor_names import ROUTED_EXPERTS
from moe.convert.companions import Companions, companions_of
from moe.convert.hugging_face import ConvertProgress, check_checkpoint, checkpoint_model
from moe.convert.megatron.arguments import arguments_of
from moe.convert.megatron.dist_directory import RELEASE, TOKENIZER, TRACKER
from moe.convert.megatron.dist_writer import DistWriter
from moe.convert.tensor_map import Names, tensor_map
from moe.errors import ConfigError, disk_errors
from moe.storage.safetensors_io import DTYPES, TensorShape, tensor_bytes

CONTENT = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
"""How tensors are named and cut, in the words of megatron-core's `content_metadata`."""
_LAYER = re.compile(r"(decoder\.layers\.)([0-9]{1,9})\.(.*)")
_STATEFUL = re.compile(r".*\.(linear_\w+|eh_proj|enorm|hnorm|\w+_layernorm)\.weight")
"""Modules that have an extra state, linear layers in every spec, norms in Transformer Engine's;
without FP8 it holds nothing. A loader that wants none passes over it."""


@dataclass(frozen=True, kw_only=True)
class MegatronExport:
    """What was converted."""

    path: Path
    tensors: int
    parameters: int
    notes: tuple[str, ...] = ()
    """What an export lacks, a line each."""


def to_megatron(
    checkpoint: Path,
    out: Path,
    *,
    dtype: str | None = None,
    progress: ConvertProgress | None = None,
) -> MegatronExport:
    """Convert a checkpoint into one that Megatron-LM loads from `out` as a release.

    Args:
        checkpoint: A checkpoint, or a run (its newest).
        out: The directory to make.
        dtype: `F32` or `BF16`; none: as stored. Balancing biases stay as they are.
        progress: Told of bytes written.

    Raises:
        ConfigError: Megatron-LM has no such model, or the checkpoint lacks a tensor.
        DataError: `out` exists, or another process is making it.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: there are {', '.join(DTYPES)}")

    def convert(checkpoint_dir: Path) -> MegatronExport:
        return _converted(checkpoint_dir, out, dtype, progress)

    return use_checkpoint(checkpoint, None, convert)


def _converted(
    checkpoint: Path, out: Path, dtype: str | None, progress: ConvertProgress | None
) -> MegatronExport:
    verify_files(checkpoint)
    model = checkpoint_model(checkpoint)
    arguments = arguments_of(model)
    stored = StoredTensors(checkpoint, read_index(checkpoint))
    mapping = tensor_map(model, Names())
    check_checkpoint(stored, mapping)
    formats = {
        key: stored.dtype(key) if dtype is None or key.endswith(".expert_bias") else dtype
        for key in mapping.ours
    }
    usual = DTYPES[formats["embedding.word_embeddings.weight"]]
    arguments |= {
        "params_dtype": usual,
        "bf16": usual == torch.bfloat16,
        "fp16": usual == torch.float16,
    }
    companions = companions_of(checkpoint, model)
    done, total = 0, sum(tensor_bytes(formats[key], shape) for key, shape in mapping.ours.items())
    with disk_errors(out), new_directory(out) as partial:
        (partial / RELEASE).mkdir()
        with DistWriter(partial / RELEASE) as target:
            for block in _blocks(model, mapping.ours):
                numbers = torch.empty(block.shape, dtype=DTYPES[formats[block.key]])
                if not stored.read_block(numbers, block.key, block.offset, block.shape):
                    raise ConfigError(f"{checkpoint}: parts of tensor {block.key} are missing")
                lead = (1,) * (len(block.their_shape) - len(block.shape))
                theirs = numbers.view(*lead, *block.shape)
                target.tensor(block.theirs, block.their_shape, block.their_offset, theirs)
                if block.extra_state is not None:
                    target.object(block.extra_state, [None])
                done += numbers.nbytes
                if progress:
                    progress(done, total)
            target.close(
                {
                    "args": Namespace(**arguments),
                    "checkpoint_version": 3.0,
                    "iteration": 0,
                    "content_metadata": CONTENT,
                }
            )
        notes = _write_tokenizer(companions, partial / RELEASE / TOKENIZER)
        write_text(partial / TRACKER, RELEASE)
    return MegatronExport(
        path=out,
        tensors=len(mapping.ours),
        parameters=sum(prod(shape) for shape in mapping.ours.values()),
        notes=tuple(notes),
    )


def _write_tokenizer(companions: Companions, target: Path) -> list[str]:
    """Write what turns text into tokens; returns what it lacks, a line each."""
    if companions.folder is None and companions.language is None:
        return ["no tokenizer is known of it, and none is written"]
    target.mkdir()
    return companions.write(target)


@dataclass(frozen=True)
class _Block:
    """A block of our tensor, and of theirs."""

    key: str
    offset: TensorShape
    shape: TensorShape
    theirs: str
    their_offset: TensorShape
    their_shape: TensorShape
    extra_state: str | None
    """The key of its module's extra state."""


def _blocks(model: ModelConfig, ours: dict[str, TensorShape]) -> Iterator[_Block]:
    """Yield all blocks: each tensor, and each expert of one.

    Layers that are all alike are stacked, as every version of megatron-core has them; else each
    stands under its number.
    """
    alike = len(set(model.sparse_layers)) == 1
    for key, shape in ours.items():
        match = _LAYER.fullmatch(key) if alike else None
        name = key if match is None else f"{match[1]}{match[3]}"
        lead, layers = ((), ()) if match is None else ((int(match[2]),), (model.num_layers,))
        experts = range(shape[0]) if ROUTED_EXPERTS in key else (None,)
        for expert in experts:
            offset = (0 if expert is None else expert, *(0 for _ in shape[1:]))
            state = None
            if _STATEFUL.fullmatch(key):
                own = () if expert is None else (expert,)
                at, of = (*lead, *own), (*layers, *(shape[:1] if own else ()))
                places = (".".join(map(str, numbers)) for numbers in ((at or (0,)), (of or (1,))))
                state = f"{name.removesuffix('weight')}_extra_state/shard_{'_'.join(places)}"
            yield _Block(
                key=key,
                offset=offset,
                shape=shape if expert is None else (1, *shape[1:]),
                theirs=name,
                their_offset=(*lead, *offset),
                their_shape=(*layers, *shape),
                extra_state=state,
            )
