"""Seconds of what happens once a step: gradients summed, weights updated and gathered."""

from dataclasses import dataclass

from parallel.planner.rank_parameters import RankParameters
from parallel.planner.step.clock import Clock
from parallel.planner.workload import Workload

GRADIENT_BYTES = 4
UPDATE_BYTES = 30
"""Bytes a parameter that the optimizer moves: gradient read for its norm and for the update (8),
main weight and two moments read and written (24) less what fused kernels keep."""


@dataclass(frozen=True, kw_only=True)
class StepEnds:
    """Seconds once a step that micro-batches do not hide."""

    gradients: float
    weights: float
    optimizer: float


def step_ends(
    clock: Clock, work: Workload, parameters: RankParameters, *, hidden_behind: float
) -> StepEnds:
    """Return the seconds of a stage's gradient reduction, weight gathering and update.

    Args:
        clock: Kernels and links of the card.
        work: The job.
        parameters: Of the stage.
        hidden_behind: Seconds of the last backward pass, which hides a reduction that overlaps,
            as the first forward pass hides the gathering.
    """
    placement, layout = work.placement, work.layout
    groups = (
        (parameters.dense, placement.dp * layout.cp, layout.tp),
        (parameters.expert, placement.edp, layout.expert_tp * layout.ep),
    )
    gradients = weights = update = 0.0
    for count, ranks, stride in groups:
        shards = ranks if layout.distributed_optimizer else 1
        gradients += clock.reduce_gradients(GRADIENT_BYTES * count, ranks, stride)
        if layout.distributed_optimizer:
            weights += clock.gather_weights(work.precision.element_bytes * count, ranks, stride)
        update += clock.traffic_seconds(UPDATE_BYTES * count / shards)
    if layout.overlap_grad_reduce:
        gradients = max(gradients / 8, gradients - hidden_behind)
    if layout.overlap_param_gather:
        weights = max(weights / 8, weights - hidden_behind / 2)
    return StepEnds(gradients=gradients, weights=weights, optimizer=update)
