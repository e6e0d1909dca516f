"""What megatron-core's optimizers get wrong, corrected once they are built."""

from collections.abc import Sequence
from typing import Any

from megatron.core import parallel_state


def correct_optimizers(optimizers: Sequence[Any], *, is_distributed: bool) -> None:
    """Correct built optimizers, those of a chain."""
    for optimizer in optimizers:
        if getattr(optimizer, "is_stub_optimizer", False):
            continue
        _count_experts_once(optimizer)
        if is_distributed:
            _find_fp32_first(optimizer)


def _count_experts_once(optimizer: Any) -> None:
    """Let the gradient norm tell copies of experts' weights by experts' own tensor parallelism.

    Until 0.18 megatron-core asks the dense layers'.
    """
    if any(group["is_expert_parallel"] for group in optimizer.param_groups):
        optimizer.tp_group = parallel_state.get_expert_tensor_parallel_group()


def _find_fp32_first(optimizer: Any) -> None:
    """Correct where a distributed optimizer looks for a parameter's state: those in FP32 go first.

    megatron-core (0.16 to 0.19) notes places in the order of buffers, and fails to save a group of
    both formats, such as BF16 norms and Transformer Engine's FP32 attention sinks.
    """
    groups = zip(optimizer.model_fp32_groups, optimizer.model_float16_groups, strict=True)
    for index, (in_fp32, in_bf16) in enumerate(groups):
        for place, parameter in enumerate([*in_fp32, *in_bf16]):
            optimizer.model_param_group_index_map[parameter] = (index, place)
