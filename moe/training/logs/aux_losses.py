"""Mean router losses (load balancing, z-loss) of training steps."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from moe.training.trainer import Trainer


def pop_mean_aux_losses(trainer: Trainer) -> dict[str, float | None]:
    """Return and clear the router losses of the steps since the last call; collective.

    Each is the mean over a layer's tokens, averaged over sparse layers, those of multi-token
    prediction included; None where the model does not have it.
    """
    model = trainer.experiment.model
    means: dict[str, float | None] = {"load_balancing_loss": None, "z_loss": None}
    if model.moe is None:
        return means
    totals = torch.zeros(model.num_layers + model.mtp_layers, 3, dtype=torch.float64)
    for index, router in _routers(trainer.chunks, model.num_layers):
        totals[index] += router.losses.pop()
    dist.all_reduce(totals)
    tokens, balancing, z = totals[totals[:, 0] > 0].T
    if model.moe.has_balancing_loss and len(tokens):
        means["load_balancing_loss"] = float((balancing / tokens).mean())
    if model.moe.z_loss_coefficient and len(tokens):
        means["z_loss"] = float((z / tokens).mean())
    return means


def _routers(chunks: Sequence[Any], num_layers: int) -> Iterator[tuple[int, Any]]:
    """Yield this rank's routers and their layers' indices; prediction layers follow the model's."""
    for chunk in chunks:
        layers = [(layer.layer_number - 1, layer) for layer in chunk.module.decoder.layers]
        layers += enumerate(chunk.module.prediction_layers, start=num_layers)
        yield from ((i, layer.mlp.router) for i, layer in layers if hasattr(layer.mlp, "router"))
