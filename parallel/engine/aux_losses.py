"""Auxiliary losses of routers (load balancing, z-loss): their values, and the right gradient.

megatron-core records the values while the forward pass runs, and its own reduction asks gloo for
averages, which gloo does not have.
"""

import torch
import torch.distributed as dist

from parallel.engine.collectives import all_gather_objects
from parallel.engine.megatron_version import (
    AUX_LOSS_GRADIENT_OMITS_TP_CP,
    AUX_LOSS_TRACKER_IN_MOE_UTILS,
)
from parallel.layout.layout import Layout


def pop_aux_losses(layout: Layout, dp: int, num_layers: int) -> dict[str, torch.Tensor]:
    """Return and clear the router losses recorded since the last call, by name; collective.

    Each is FP32 [num_layers] (zero where a layer is dense), summed over micro-batches and averaged
    over data-parallel ranks; the same on every rank.

    Args:
        layout: Its tensor- and context-parallel sizes say which ranks record the same value.
        dp: Data-parallel ranks.
        num_layers: Layers of the model.
    """
    recorded = pop_recorded_aux_losses()
    names = sorted({name for rank in all_gather_objects(sorted(recorded)) for name in rank})
    losses = {}
    for name in names:
        loss = recorded.get(name, torch.zeros(num_layers)).float().cpu()
        dist.all_reduce(loss)
        losses[name] = loss / _num_complete_values(name, layout, dp)
    return losses


def pop_recorded_aux_losses() -> dict[str, torch.Tensor]:
    """Return and clear what megatron-core recorded on this rank: sums over micro-batches."""
    if AUX_LOSS_TRACKER_IN_MOE_UTILS:
        from megatron.core.transformer.moe import moe_utils

        tracker = moe_utils.get_moe_layer_wise_logging_tracker()
        losses = {name: entry["values"].clone() for name, entry in tracker.items()}
        tracker.clear()
        return losses
    from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker

    tracker = get_moe_metrics_tracker()
    losses = {name: entry.values.clone() for name, entry in tracker.metrics.items()}
    tracker.metrics.clear()
    return losses


def aux_loss_gradient_scale(layout: Layout) -> int:
    """Return what the coefficients of router losses must be multiplied by for right gradients.

    See `AUX_LOSS_GRADIENT_OMITS_TP_CP`.
    """
    return layout.tp * layout.cp if AUX_LOSS_GRADIENT_OMITS_TP_CP else 1


def _num_complete_values(name: str, layout: Layout, dp: int) -> int:
    """Return how many ranks each record the complete loss rather than one term of its sum."""
    if name == "z_loss":
        return layout.tp * layout.cp * dp
    return 1 if name.startswith("global") else dp
