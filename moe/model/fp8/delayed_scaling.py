"""The state of Transformer Engine's delayed scaling in checkpoints: plain tensors, no pickle.

Its modules offer their state as pickled bytes (`_extra_state`), and would unpickle what a
checkpoint holds, which runs any code. Here nothing is pickled: scales and amax histories are
tensors of their own. Other recipes have no state.

Shapes: E experts of a module on this rank, L steps of the amax history, S quantized operands of a
matmul: 3 forward (input, weight, output), 2 backward.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.mapping import (
    LocalNonpersistentObject,
    ShardedObject,
    ShardedStateDict,
    ShardedTensor,
)
from megatron.core.fp8_utils import get_fp8_recipe
from torch import Tensor

from moe.config.tensor_names import EXTRA_STATE, FP8_STATE

_DIRECTIONS = {"fwd": "scaling_fwd", "bwd": "scaling_bwd"}


def pickle_nothing(model: Any) -> None:
    """Make a model's modules of Transformer Engine offer no state as bytes, and take none."""
    for module in model.modules():
        if hasattr(module, "fp8_meta"):
            module.get_extra_state = _nothing
            module.set_extra_state = _ignore
        if hasattr(module, "_split_extra_state"):
            # Of grouped experts, whose bytes megatron-core 0.16 reads wherever FP8 ran.
            module._split_extra_state = partial(_nothing_each, module.num_gemms)


def _nothing() -> Tensor:
    """Return what Transformer Engine's modules offer without FP8."""
    return torch.empty(0, dtype=torch.uint8)


def _nothing_each(experts: int, _: Any) -> list[Tensor]:
    return [_nothing()] * experts


def _ignore(_: Any) -> None:
    """Leave a module as it is."""


def without_extra_state(state: ShardedStateDict) -> ShardedStateDict:
    """Return a model's sharded state without entries for extra state.

    No checkpoint holds them, and loading finds them empty.
    """
    return {
        name: LocalNonpersistentObject(_nothing()) if _is_extra_state(value) else value
        for name, value in state.items()
    }


def _is_extra_state(value: Any) -> bool:
    return isinstance(value, ShardedObject) and value.key.endswith(EXTRA_STATE)


def sharded_fp8_state(model: Any, described: ShardedStateDict) -> dict[str, ShardedTensor]:
    """Return scales and amax histories of all modules that have some, by name; collective.

    Their data are those that the modules use. Amaxes noted since the last update become the largest
    of all ranks, as the next update would take them.

    Args:
        model: This rank's chunk.
        described: Its sharded state as megatron-core returns it, with extra states.
    """
    return {
        tensor.key: tensor
        for module, entry in _modules(model, described)
        for tensor in _tensors(module, entry)
    }


def start_fp8_state(model: Any, described: ShardedStateDict, stored: Collection[str]) -> None:
    """Give modules whose state is among the `stored` names of a checkpoint one to be filled."""
    for module, entry in _modules(model, described):
        if _key(entry, "scale_fwd") in stored:
            recipe = get_fp8_recipe(model.config)
            module.fp8_meta |= {"recipe": recipe, "num_gemms": getattr(module, "num_gemms", 1)}
            module.init_fp8_meta_tensors(recipe)


def _modules(model: Any, described: ShardedStateDict) -> Iterator[tuple[Any, ShardedObject]]:
    """Yield Transformer Engine's modules, each with its extra state's place in the whole model."""
    if not _is_delayed(model.config):
        return
    for name, entry in described.items():
        # Further experts of a module have names that end in a number.
        if _is_extra_state(entry) and name.endswith(EXTRA_STATE):
            module = model.get_submodule(name.removesuffix(EXTRA_STATE))
            if hasattr(module, "fp8_meta"):
                yield module, entry


def _key(entry: ShardedObject, kind: str) -> str:
    return f"{FP8_STATE}{entry.key.removesuffix(EXTRA_STATE)}.{kind}"


def _tensors(module: Any, entry: ShardedObject) -> Iterator[ShardedTensor]:
    """Yield a module's tensors: [S] and [L, S], of grouped experts [E, S] and [E, L, S].

    All ranks of a pipeline stage use the same scales: updates reduce amaxes over all of them.
    """
    experts, group = getattr(module, "num_gemms", None), module.fp8_meta.get("fp8_group")
    for direction, meta in _DIRECTIONS.items():
        if meta not in module.fp8_meta:  # no step so far, or a layer that is kept in BF16
            continue
        state = module.fp8_meta[meta]
        scale, history = state.scale, state.amax_history
        if group is not None:  # a step was made
            dist.all_reduce(history, dist.ReduceOp.MAX, group=group)
        shards = []
        if experts is not None:
            # One expert's operands lie side by side.
            scale = scale.view(experts, -1)
            history = history.view(len(history), experts, -1).transpose(0, 1)
            first, whole = entry.global_offset[-1], entry.global_shape[-1]
            shards = [(0, first // experts, whole // experts)]
        for kind, tensor in (("scale", scale), ("amax_history", history)):
            yield ShardedTensor.from_rank_offsets(
                _key(entry, f"{kind}_{direction}"), tensor, *shards, replica_id=entry.replica_id
            )


class ScalesBefore:
    """Scales and amax histories of models as they are now, to undo what passes do to them.

    Transformer Engine updates them in the passes themselves: a step without an update of weights
    would scale the steps after it, and so would an evaluation.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = models
        self._states = list(_scaling_states(models))
        self._values = [tensor.clone() for state in self._states for tensor in _of(state)]

    def restore(self) -> None:
        """Undo all changes; states that were begun since are as at their beginning."""
        if self._states:
            torch._foreach_copy_([x for s in self._states for x in _of(s)], self._values)
        known = {id(state) for state in self._states}
        for state in _scaling_states(self._models):
            if id(state) not in known:
                state.scale.fill_(1.0)
                state.amax_history.zero_()


def _of(state: Any) -> tuple[Tensor, Tensor]:
    return state.scale, state.amax_history


def _scaling_states(models: Sequence[Any]) -> Iterator[Any]:
    """Yield what Transformer Engine's modules keep for delayed scaling, forward and backward."""
    for model in models:
        if not _is_delayed(model.config):
            continue
        for module in model.modules():
            metas = getattr(module, "fp8_meta", {})
            yield from (metas[name] for name in _DIRECTIONS.values() if name in metas)


def _is_delayed(config: Any) -> bool:
    return config.fp8 is not None and config.fp8_recipe == "delayed"
