"""Initial weights from another run or model, and which of them are trained."""

from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import (
    ShardedTensor,
    ShardedTensorFactory,
    apply_factories,
)
from torch import nn

from moe.checkpoint.directory import find_checkpoint
from moe.checkpoint.index import read_index
from moe.checkpoint.weights import load_weights
from moe.config.experiment import Experiment
from moe.config.tensor_names import FP8_STATE
from moe.errors import ConfigError
from moe.model.fp8.primary_weights import unquantized
from parallel.engine.collectives import all_gather_objects

NOT_OF_THE_MODEL = ("optimizer.", FP8_STATE, "rng", "mtp.")
"""Prefixes of keys that a checkpoint may have beyond the model's: its optimizer, FP8 state, and
multi-token-prediction layers, which may be left behind."""


def load_initial_weights(experiment: Experiment, chunks: Sequence[Any]) -> None:
    """Fill chunks from `train.init`; a collective call.

    Raises:
        ConfigError: The checkpoint is missing or damaged, lacks a tensor of the model, or has one
            that the model does not.
    """
    assert experiment.train.init is not None
    # Its run may go on and make newer ones: every rank takes the first rank's choice.
    checkpoint = all_gather_objects(find_checkpoint(experiment.train.init))[0]
    mine = {key for chunk in chunks for key in _keys(chunk)}
    ours = {key for keys in all_gather_objects(sorted(mine)) for key in keys}
    stored = read_index(checkpoint).keys
    unused = sorted(key for key in stored - ours if not key.startswith(NOT_OF_THE_MODEL))
    if unused:
        raise ConfigError(
            f"{checkpoint}: has tensors that [model] has not: {', '.join(unused[:3])}"
            f"{f' and {len(unused) - 3} more' if len(unused) > 3 else ''}: leave [model] out, to"
            " take it from train.init"
        )
    with ExitStack() as stack:
        for chunk in chunks:
            stack.enter_context(unquantized(chunk))
        load_weights(checkpoint, chunks)


def _keys(chunk: Any) -> list[str]:
    state = chunk.sharded_state_dict()
    apply_factories(state)
    return [value.key for value in nested_values(state) if isinstance(value, ShardedTensor)]


def freeze(patterns: Sequence[str], chunks: Sequence[Any]) -> None:
    """Freeze all parameters that no pattern names; a collective call.

    A pattern names a parameter as checkpoints do, alike in all kernel sets, or as its modules do.

    Raises:
        ConfigError: A pattern matches none.
    """
    names: set[str] = set()
    for chunk in chunks:
        keys = _keys_of_parameters(chunk)
        for name, weight in whole_names(chunk):
            both = {name, keys.get(id(weight), name)}
            names |= both
            weight.requires_grad_(any(fnmatchcase(n, p) for n in both for p in patterns))
    every = sorted({name for names in all_gather_objects(sorted(names)) for name in names})
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in every):
            raise ConfigError(
                f'train.trainable: no parameter matches "{pattern}": there are {", ".join(every)}'
            )
    for chunk in chunks:
        _reach_recomputed_layers(chunk)


def _reach_recomputed_layers(chunk: Any) -> None:
    """Make gradients reach layers that are recomputed behind a frozen embedding.

    megatron-core's checkpoint, like torch's reentrant one, passes gradients on to parameters only
    where its input asks for one, too; what other stages send always does.
    """
    learns = any(weight.requires_grad for weight in chunk.decoder.parameters())
    if learns and chunk.pre_process and chunk.config.recompute_granularity is not None:
        chunk.embedding.register_forward_hook(lambda _, __, output: output.requires_grad_())


def _keys_of_parameters(chunk: Any) -> dict[int, str]:
    """Return parameters' names in checkpoints, by their identity."""
    described = nested_values(chunk.sharded_state_dict())
    tensors = (x for x in described if isinstance(x, ShardedTensor | ShardedTensorFactory))
    return {id(tensor.data): tensor.key for tensor in tensors}


def whole_names(chunk: Any) -> list[tuple[str, nn.Parameter]]:
    """Return a chunk's parameters with their modules' names in the complete model.

    Layers are counted over all pipeline stages, from 0; a tied LM head is the embedding.
    """
    global_prefixes = {
        f"decoder.layers.{i}.": f"decoder.layers.{layer.layer_number - 1}."
        for i, layer in enumerate(chunk.decoder.layers)
    }
    if chunk.share_embeddings_and_output_weights:
        global_prefixes["output_layer."] = "embedding.word_embeddings."
    named = []
    for name, weight in chunk.named_parameters():
        local = next((prefix for prefix in global_prefixes if name.startswith(prefix)), "")
        named.append((global_prefixes.get(local, "") + name.removeprefix(local), weight))
    return named
