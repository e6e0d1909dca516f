"""Weights that Transformer Engine keeps in FP8 alone (`precision.fp8_parameters`).

Such a parameter passes for a BF16 tensor, and consists of bytes and scales. Until the optimizer is
built it also has the BF16 numbers it was rounded from, on the CPU: FP32 masters begin with them. A
frozen parameter keeps them. No checkpoint holds anything in FP8: a weight is its master, rounded to
BF16, as where parameters are kept in BF16.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import (
    ShardedStateDict,
    ShardedTensor,
    ShardedTensorFactory,
    apply_factories,
)
from megatron.core.fp8_utils import is_float8tensor, post_all_gather_processing
from torch import Tensor, nn

MASTER = "optimizer.state.param."
"""Before a weight's name in a checkpoint: its FP32 master, from the distributed optimizer."""


def count_fp8_weights(models: Sequence[Any]) -> int:
    """Return how many parameters of this rank are kept in FP8."""
    return sum(1 for model in models for _ in _fp8_weights(model))


@contextmanager
def unquantized(model: Any) -> Iterator[None]:
    """Let FP8 parameters be plain BF16 tensors on the CPU meanwhile, and round them afterwards.

    Only before the optimizer is built, which begins with the numbers in these tensors.
    """
    weights = list(_fp8_weights(model))
    for module, name, weight in weights:
        plain = weight.get_high_precision_init_val()
        module._parameters[name] = nn.Parameter(plain, requires_grad=False)
    try:
        yield
    finally:
        for module, name, weight in weights:
            module._parameters[name] = weight
    for _, _, weight in weights:
        _round(weight, weight.get_high_precision_init_val())


def _fp8_weights(model: Any) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield modules with the names of their FP8 parameters, and these."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if is_float8tensor(weight):
                yield module, name, weight


@torch.no_grad()
def _round(weight: Any, values: Tensor) -> None:
    """Round other values into a weight; delayed scaling then knows of these values alone."""
    amax = getattr(weight._get_quantizer(), "amax", None)
    if amax is not None:
        amax.zero_()
    weight.copy_(values)


def forget_initial_values(model: Any) -> None:
    """Leave the numbers that FP8 weights were rounded from to masters; frozen weights keep theirs.

    megatron-core does so for the weights of which this rank has a part of the master.
    """
    for _, _, weight in _fp8_weights(model):
        if weight.requires_grad:
            weight.clear_high_precision_init_val()


def prepare_for_matmuls(model: Any) -> None:
    """Complete FP8 weights whose bytes were gathered outside a forward pass, by their transposes.

    megatron-core (0.16 to 0.19) does it itself where a layer waits for its gathering.
    """
    weights = [weight for _, _, weight in _fp8_weights(model)]
    if weights:
        post_all_gather_processing(weights)


def with_masters(state: ShardedStateDict) -> None:
    """Let masters, rounded to BF16, take the place of FP8 weights in what is to be saved.

    `state` has both models and the distributed optimizer.
    """
    if not _set_aside(state, torch.device("meta")):
        return
    apply_factories(state)
    shards = [value for value in nested_values(state) if isinstance(value, ShardedTensor)]
    masters = {(shard.key, shard.global_offset): shard.data for shard in shards}
    for shard in shards:
        if shard.data is not None and shard.data.is_meta:
            shard.data = masters[MASTER + shard.key, shard.global_offset].to(shard.dtype)


def with_plain_tensors(state: ShardedStateDict) -> None:
    """Let plain tensors take the place of FP8 weights in what is to be filled from a checkpoint."""
    _set_aside(state, torch.device("cpu"))


def _set_aside(state: ShardedStateDict, device: torch.device) -> bool:
    """Replace FP8 weights by empty tensors, frozen ones by their own numbers; says if any were."""
    found = False
    for entry in nested_values(state):
        if isinstance(entry, ShardedTensor | ShardedTensorFactory) and is_float8tensor(entry.data):
            found, frozen = True, _frozen_values(entry.data)
            empty = torch.empty(entry.data.shape, dtype=entry.data.dtype, device=device)
            entry.data = empty if frozen is None else frozen
    return found


def load_values(model: Any, values: dict[str, Any]) -> None:
    """Load a model's state of plain tensors, by name, once an optimizer is built."""
    model.load_state_dict(values)
    for name, weight in model.named_parameters():
        if is_float8tensor(weight) and (frozen := _frozen_values(weight)) is not None:
            frozen.copy_(values[name])


def _frozen_values(weight: Any) -> Tensor | None:
    """Return what a frozen weight was rounded from; None of one that has a master."""
    values: Tensor | None = getattr(weight, "_high_precision_init_val", None)
    return values
