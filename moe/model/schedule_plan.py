"""A chunk's forward pass as parts, whose expert communication hides behind another micro-batch.

megatron-core's combined schedule (`parallel.overlap_experts`) runs each layer in parts: attention
with router, dispatch, experts, combine. It lets the forward parts of one micro-batch alternate with
the backward parts of the one before. Three corrections are needed: its parts take no padding to the
routers; a dense last layer has no final norm behind it; and 0.16 frees dispatched tokens that a
rank's only expert still needs.

Shapes: S sequence on this rank, B batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from megatron.core.transformer.moe.moe_layer import MoELayer
from torch import Tensor

from parallel.engine.megatron_version import PLAN_ATTENTION

Part = Callable[..., Any]
"""Of a layer's plan: called with its node, then its inputs."""


def correct_plan(plan: Any, final_norm: Any | None) -> None:
    """Correct the plan of a chunk's forward pass, before any part of it runs.

    Args:
        plan: megatron-core's, of Transformer layers only.
        final_norm: The norm behind the chunk's last layer, if there is one.
    """
    layers = [plan.get_layer(index) for index in range(plan.num_layers())]
    for layer in layers:
        if isinstance(moe := layer.layer.mlp, MoELayer):
            attention = getattr(layer, PLAN_ATTENTION)
            attention.submodule = partial(_with_padding, attention.submodule, moe.router)
            if moe.num_local_experts == 1:
                # It gets the tokens as they arrived, not a copy of them sorted by expert.
                layer.mlp.free_input = False
    if layers and final_norm is not None and not isinstance(layers[-1].layer.mlp, MoELayer):
        layers[-1].mlp.submodule = partial(_with_norm, layers[-1].mlp.submodule, final_norm)


def _with_padding(part: Part, router: Any, node: Any, *inputs: Tensor) -> Any:
    """Run attention and router of a layer, with this micro-batch's padding [B, S] for the latter.

    The plan's first part has sharded it as hidden states lie.
    """
    padding_bs = node.chunk_state.padding_mask
    router.planned_padding = None if padding_bs is None else padding_bs.transpose(0, 1)
    try:
        return part(node, *inputs)
    finally:
        router.planned_padding = None


def _with_norm(part: Part, norm: Part, node: Any, *inputs: Tensor) -> Any:
    """Run a part that returns hidden states, and normalize these."""
    return norm(part(node, *inputs))
