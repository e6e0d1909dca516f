"""Mean router losses (load balancing, z-loss) of training steps."""

from moe.training.trainer import Trainer
from parallel.engine.aux_losses import pop_aux_losses


def pop_mean_aux_losses(trainer: Trainer, steps: int = 1) -> dict[str, float | None]:
    """Return and clear the router losses of the `steps` since the last call; collective.

    They are means over sparse layers, micro-batches and steps; None for a dense model.
    """
    experiment, model = trainer.experiment, trainer.experiment.model
    means: dict[str, float | None] = {"load_balancing_loss": None, "z_loss": None}
    if model.moe is None:
        return means
    num_layers = model.num_layers + model.mtp_layers
    num_sparse = sum(model.sparse_layers) + model.mtp_layers
    losses = pop_aux_losses(experiment.parallel, trainer.engine.dp, num_layers)
    for name, values in losses.items():
        key = "z_loss" if name == "z_loss" else "load_balancing_loss"
        means[key] = float(values.sum()) / num_sparse / trainer.num_micro_batches / steps
    return means
