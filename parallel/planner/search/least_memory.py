"""The least memory of a candidate: a bound, much cheaper than `device_memory`.

Counted are weights, gradients, optimizer states and activations of the first two stages' layers,
and the embedding; logits, buffers and whatever is alive for a moment are left out. What does not
fit by it never does.
"""

from collections.abc import Hashable

from parallel.planner.activations import layer_bytes
from parallel.planner.device_memory import CUDA_CONTEXT_BYTES, FRAGMENTATION_SHARE
from parallel.planner.schedule.order import Schedule, chunks_in_flight
from parallel.planner.search.candidates import Candidate
from parallel.planner.search.stage_loads import StageLoads
from parallel.planner.search.stages import Stages
from parallel.planner.software import OUR_STATE
from parallel.planner.workload import Workload

LOOKED_AT_STAGES = 2
"""The first holds most activations, but may have the small dense layers of a sparse model."""
Saved = tuple[int, int]
"""Bytes that a dense and a sparse layer save of one micro-batch."""


class LeastMemory:
    """Bytes below which no candidate of a job stays."""

    def __init__(self, work: Workload) -> None:
        """Take the job; its placement and micro-batch do not matter."""
        shape, precision = work.shape, work.precision
        # Weights in FP8 take one byte; their masters are in FP32 as those of BF16.
        width = 1 if precision.fp8_parameters else precision.element_bytes
        self._own = width + OUR_STATE.gradient
        self._shared = OUR_STATE.moments + (OUR_STATE.master if precision.dtype == "bf16" else 0)
        self._dense_layer = shape.attention.sharded + shape.dense_ffn.sharded
        self._sparse_layer = shape.attention.sharded + shape.router_and_shared.sharded
        self._table = shape.vocab_size * shape.hidden_size
        self._experts = shape.num_experts * shape.expert.sharded
        self._layers = shape.num_layers - sum(shape.sparse_layers), sum(shape.sparse_layers)
        self._loads = StageLoads([int(sparse) for sparse in shape.sparse_layers])
        self._in_flight: dict[Hashable, list[tuple[int, int, int, int]]] = {}

    def state_bytes(self, candidate: Candidate) -> float:
        """Return the bytes of weights, gradients and states of a mean stage."""
        pp = candidate.stages.pp
        dense, sparse = self._layers
        return self._states(candidate, dense / pp, sparse / pp)

    def total_bytes(self, candidate: Candidate, saved: Saved, micro_batches: int) -> float:
        """Return the bytes with activations, of the larger of the first stages.

        Args:
            candidate: Sizes and stages.
            saved: `saved_bytes` of its sizes, run in some way.
            micro_batches: Of a step on one rank.
        """
        most = 0.0
        for stage, held in enumerate(self._held(candidate.stages, micro_batches)):
            dense, sparse, dense_passes, sparse_passes = held
            states = self._states(candidate, dense, sparse, 0 if stage else self._table)
            most = max(most, states + dense_passes * saved[0] + sparse_passes * saved[1])
        return (1 + FRAGMENTATION_SHARE) * most + CUDA_CONTEXT_BYTES

    def _held(self, stages: Stages, micro_batches: int) -> list[tuple[int, int, int, int]]:
        """Return dense and sparse layers of the first stages, and those times passes in flight.

        Where a forward runs beside a backward pass, no fewer are.
        """
        key = (stages, micro_batches)
        if key not in self._in_flight:
            schedule = Schedule(pp=stages.pp, vpp=stages.vpp, micro_batches=micro_batches)
            self._in_flight[key] = [
                self._of_stage(stages, stage, chunks_in_flight(schedule, stage))
                for stage in range(min(LOOKED_AT_STAGES, stages.pp))
            ]
        return self._in_flight[key]

    def _of_stage(
        self, stages: Stages, stage: int, in_flight: list[int]
    ) -> tuple[int, int, int, int]:
        totals = [0, 0, 0, 0]
        for counts, held in zip(self._loads.chunks(stages, stage), in_flight, strict=True):
            for kind, count in zip(self._loads.kinds, counts, strict=True):
                totals[kind] += count
                totals[2 + kind] += held * count
        dense, sparse, dense_passes, sparse_passes = totals
        return dense, sparse, dense_passes, sparse_passes

    def _states(self, candidate: Candidate, dense: float, sparse: float, table: int = 0) -> float:
        """Return the bytes of so many dense and sparse layers, and of a table, on one rank."""
        tp, cp, ep, etp, _ = candidate.sizes
        replicas = candidate.dp * cp
        weights = (dense * self._dense_layer + sparse * self._sparse_layer + table) / tp
        experts = sparse * self._experts / (ep * etp)
        shards = tp * replicas / (ep * etp)
        return (
            self._own * (weights + experts)
            + self._shared * weights / replicas
            + self._shared * experts / shards
        )


def saved_bytes(work: Workload) -> Saved:
    """Return the least bytes that layers of a job save, be they in FP8 or kept out of it."""
    formats = {False, work.precision.is_native_fp8}
    return (
        min(layer_bytes(work, sparse=False, in_fp8=one) for one in formats),
        min(layer_bytes(work, sparse=True, in_fp8=one) for one in formats),
    )
