"""Full recomputation of the depths of multi-token prediction, as megatron-core has it from 0.18.

Before, it gave the checkpoint what is no tensor, which fails for packed sequences, and in FP8 gave
it tensors by name, to which no gradient flows.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch.distributed as dist
from megatron.core import tensor_parallel
from megatron.core.fp8_utils import get_fp8_context
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from parallel.engine.megatron_version import PREDICTION_RECOMPUTES_TENSORS_ONLY


def correct_recomputation(depth: Any, tp_group: dist.ProcessGroup) -> None:
    """Let a depth (`MultiTokenPredictionLayer`) recompute itself with whatever it is given."""
    if PREDICTION_RECOMPUTES_TENSORS_ONLY:
        depth._checkpointed_forward = partial(_recomputed, depth.config, tp_group)


def _recomputed(
    config: TransformerConfig,
    tp_group: dist.ProcessGroup,
    forward: Callable[..., Tensor],
    **values: Any,
) -> Tensor:
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    others = {name: value for name, value in values.items() if name not in tensors}

    def run(*inputs: Tensor) -> Tensor:
        return forward(**dict(zip(tensors, inputs, strict=True)), **others)

    distributed = config.distribute_saved_activations
    if not config.fp8:
        result: Tensor = tensor_parallel.checkpoint(run, distributed, *tensors.values())
        return result
    from megatron.core.extensions.transformer_engine import te_checkpoint

    # Delayed scaling keeps the first pass's amaxes only where FP8 is on around the checkpoint.
    with get_fp8_context(config) if config.fp8_recipe == "delayed" else nullcontext():
        result = te_checkpoint(
            run,
            distributed,
            tensor_parallel.random.get_cuda_rng_tracker,
            tp_group,
            *tensors.values(),
        )
    return result
