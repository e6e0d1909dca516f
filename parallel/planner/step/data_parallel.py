"""Seconds of what happens once a step: gradients summed, weights updated and gathered."""

from parallel.planner.rank_parameters import rank_parameters
from parallel.planner.schedule.seconds import ByChunk, EndSeconds
from parallel.planner.step.clock import Clock
from parallel.planner.workload import Workload

GRADIENT_BYTES = 4
UPDATE_BYTES = 34
"""Bytes a parameter that the optimizer moves: the gradient is read for its norm and for the
update (8), main weight and two moments are read and written (24), the weight is written (2)."""
BUCKET_PARAMETERS = 40_000_000
"""Parameters of a bucket (megatron-core's default for overlap)."""


def chunk_ends(clock: Clock, work: Workload) -> EndSeconds:
    """Return the seconds of gradient reduction, update and gathering of each chunk."""
    placement, layout = work.placement, work.layout
    reduce: list[tuple[float, ...]] = []
    gather: list[tuple[float, ...]] = []
    optimizer = []
    buckets = 1
    for stage in range(layout.pp):
        parameters = rank_parameters(work.shape, layout, work.precision, stage)
        dense, expert = parameters.dense / layout.vpp, parameters.expert / layout.vpp
        groups = (
            (dense, placement.dp * layout.cp, layout.tp),
            (expert, placement.edp, layout.expert_tp * layout.ep),
        )
        summed = gathered = updated = 0.0
        for count, ranks, stride in groups:
            summed += clock.scatter(GRADIENT_BYTES * count, ranks, stride)
            if layout.distributed_optimizer:
                width = work.precision.element_bytes
                gathered += clock.gather(width * count, ranks, stride)
            shards = ranks if layout.distributed_optimizer else 1
            updated += clock.traffic(count * layout.vpp / shards, (UPDATE_BYTES, 0))[0]
        reduce.append((summed,) * layout.vpp)
        gather.append((gathered,) * layout.vpp)
        optimizer.append(updated)
        buckets = max(buckets, round((dense + expert) / BUCKET_PARAMETERS))
    return EndSeconds(
        reduce=_frozen(reduce),
        gather=_frozen(gather),
        optimizer=tuple(optimizer),
        overlap_reduce=layout.overlap_grad_reduce,
        overlap_gather=layout.overlap_param_gather,
        buckets=buckets,
    )


def _frozen(seconds: list[tuple[float, ...]]) -> ByChunk:
    return tuple(seconds)
