"""The least memory of a candidate: a bound, much cheaper than `device_memory`.

Counted are weights, gradients, optimizer states and activations of the first two stages' layers,
and the embedding; logits, buffers and whatever is alive for a moment are left out. What does not
fit by it never does.
"""

from itertools import accumulate

from parallel.planner.activations import layer_bytes
from parallel.planner.device_memory import CUDA_CONTEXT_BYTES, FRAGMENTATION_SHARE
from parallel.planner.schedule.order import Schedule, chunks_in_flight
from parallel.planner.search.candidates import Candidate
from parallel.planner.software import OUR_STATE
from parallel.planner.workload import Workload

LOOKED_AT_STAGES = 2
"""The first holds most activations, but may have the small dense layers of a sparse model."""


class LeastMemory:
    """Bytes below which no candidate of a job stays."""

    def __init__(self, work: Workload) -> None:
        """Take the job; its placement and micro-batch do not matter."""
        shape, precision = work.shape, work.precision
        self._shape = shape
        # Weights in FP8 take one byte; their masters are in FP32 as those of BF16.
        width = 1 if precision.fp8_parameters else precision.element_bytes
        self._own = width + OUR_STATE.gradient
        self._shared = OUR_STATE.moments + (OUR_STATE.master if precision.dtype == "bf16" else 0)
        self._dense_layer = shape.attention.sharded + shape.dense_ffn.sharded
        self._sparse_layer = shape.attention.sharded + shape.router_and_shared.sharded
        self._table = shape.vocab_size * shape.hidden_size
        self._experts = shape.num_experts * shape.expert.sharded
        self._sparse_before = list(accumulate(map(int, shape.sparse_layers), initial=0))
        self._saved: dict[tuple[object, ...], tuple[int, int]] = {}

    def state_bytes(self, candidate: Candidate) -> float:
        """Return the bytes of weights, gradients and states of a mean stage."""
        total, sparse = self._shape.num_layers, self._sparse_before[-1]
        return self._states(candidate, (total - sparse) / candidate.pp, sparse / candidate.pp)

    def total_bytes(self, candidate: Candidate, work: Workload, micro_batches: int) -> float:
        """Return the bytes with activations, of the larger of the first stages.

        Args:
            candidate: Sizes.
            work: Any job of the same sizes but pipeline and data parallelism, run the same way.
            micro_batches: Of a step on one rank.
        """
        layout = work.layout
        key = (
            candidate.tp, candidate.cp, candidate.ep, candidate.etp, candidate.micro_batch_size,
            layout.recompute, layout.recompute_modules,
        )  # fmt: skip
        if key not in self._saved:
            # Layers may be in FP8 or kept out of it: whichever saves less.
            formats = {False, work.precision.is_native_fp8}
            self._saved[key] = (
                min(layer_bytes(work, sparse=False, in_fp8=one) for one in formats),
                min(layer_bytes(work, sparse=True, in_fp8=one) for one in formats),
            )
        schedule = Schedule(
            pp=candidate.pp,
            vpp=candidate.vpp,
            micro_batches=micro_batches,
            paired=layout.overlap_experts,
        )
        stages = range(min(LOOKED_AT_STAGES, candidate.pp))
        most = max(
            self._stage_bytes(candidate, stage, schedule, self._saved[key]) for stage in stages
        )
        return (1 + FRAGMENTATION_SHARE) * most + CUDA_CONTEXT_BYTES

    def _stage_bytes(
        self, candidate: Candidate, stage: int, schedule: Schedule, saved: tuple[int, int]
    ) -> float:
        in_flight = chunks_in_flight(schedule, stage)
        bounds = candidate.chunk_bounds(self._shape.num_layers)
        dense = sparse = 0
        activations = 0
        for chunk, held in enumerate(in_flight):
            number = chunk * candidate.pp + stage
            first, last = bounds[number], bounds[number + 1]
            routed = self._sparse_before[last] - self._sparse_before[first]
            plain = last - first - routed
            dense, sparse = dense + plain, sparse + routed
            activations += held * (plain * saved[0] + routed * saved[1])
        table = 0 if stage else self._table
        return self._states(candidate, dense, sparse, table) + activations

    def _states(self, candidate: Candidate, dense: float, sparse: float, table: int = 0) -> float:
        """Return the bytes of so many dense and sparse layers, and of a table, on one rank."""
        weights = dense * self._dense_layer + sparse * self._sparse_layer + table
        weights /= candidate.tp
        experts = sparse * self._experts / (candidate.ep * candidate.etp)
        ranks = candidate.tp * candidate.cp * candidate.dp
        shards = ranks / (candidate.ep * candidate.etp)
        return (
            self._own * (weights + experts)
            + self._shared * weights / (candidate.dp * candidate.cp)
            + self._shared * experts / shards
        )
