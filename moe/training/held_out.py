"""The held-out loss while a model trains."""

import torch
import torch.distributed as dist

from moe.runs.json_lines import finite
from moe.training.trainer import Trainer


@torch.no_grad()
def evaluate_held_out(trainer: Trainer) -> dict[str, float | None]:
    """Return the held-out `loss` and the objective's further means; a collective call.

    The loss is None where the split is smaller than a batch; so is what is not finite. Batches are
    spread evenly over the split, so that all its sources are read.
    """
    train, held_out = trainer.experiment.train, trainer.held_out
    available = held_out.num_sequences // train.global_batch_size
    steps = min(available, max(1, train.eval_sequences // train.global_batch_size))
    if steps == 0:
        return {"loss": None}
    total = torch.zeros(2 + len(trainer.objective.extras), dtype=torch.float64)
    with trainer.routing_maps.mapping():
        for number in range(steps):
            batches = held_out.step(number * available // steps)
            total += trainer.forward_backward(batches, forward_only=True)
    dist.all_reduce(total)
    return {name: finite(value) for name, value in trainer.means(total.tolist()).items()}


def missing_loss_reason(trainer: Trainer) -> str:
    """Return why `evaluate_held_out` gives no loss."""
    sequences, batch = trainer.held_out.num_sequences, trainer.experiment.train.global_batch_size
    if sequences == 0:
        return "no held-out data"
    if sequences < batch:
        return f"{sequences} held-out sequences are fewer than train.global_batch_size = {batch}"
    return "it is infinite or not a number"
