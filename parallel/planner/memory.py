"""Device memory of one rank, by term: a model from first principles, not a measurement.

Parameters, gradients and optimizer states are counted exactly (`state.py`); what is alive only
for a moment follows `activations.py` and `transients.py`. Compared with published peaks in
`tests/benchmarks/planning/test_published_memory.py`; their table is in docs/evidence/memory.md.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from parallel.layout.validation import num_micro_batches
from parallel.planner.activations import hidden_bytes, layer_bytes
from parallel.planner.schedule.order import chunks_in_flight, schedule_of
from parallel.planner.software import OUR_STATE, OURS, Software, StateBytes
from parallel.planner.state import rank_state
from parallel.planner.transients import transients
from parallel.planner.workload import LayerKind, Workload

EXCLUDED = (
    "CUDA context and libraries (about 1 GB on an H100)",
    "NCCL and dispatcher buffers",
    "allocator fragmentation and cached blocks",
)
"""What the sum of a `RankMemory` leaves out: `device_memory.py` estimates it."""


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Peak bytes on each rank of one pipeline stage that tensors take: PyTorch's *allocated*.

    Terms add up to `total_bytes`.
    """

    stage: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    fp8_weight_bytes: int
    activation_bytes: int
    """What forward passes in flight save for their backward passes."""
    logits_bytes: int
    """Logits, their FP32 softmax and gradient, as far as they exist at once (last stage)."""
    weight_gradient_bytes: int
    """The LM head's gradient before it is in its buffer, or, where matrix products add to the
    buffer themselves, one empty tensor for each shape of a weight."""
    transient_bytes: int
    """Gradients and recomputed activations inside the widest layer, as far as they exceed the
    memory that the LM head has freed."""

    @property
    def total_bytes(self) -> int:
        """The sum of all terms."""
        terms: dict[str, int] = vars(self)
        return sum(terms.values()) - self.stage

    def as_json(self) -> dict[str, Any]:
        """Return the terms, their sum, their kind and what they exclude."""
        return asdict(self) | {
            "total_bytes": self.total_bytes,
            "kind": "modelled",
            "excluded": list(EXCLUDED),
        }


def peak_memory(
    work: Workload, *, state: StateBytes = OUR_STATE, software: Software = OURS
) -> RankMemory:
    """Return the memory of the stage that needs most.

    Args:
        work: The job.
        state: Bytes of gradient and optimizer state per parameter.
        software: How the program computes losses and weight gradients.
    """
    stages = (
        stage_memory(work, stage, state=state, software=software)
        for stage in _different_stages(work)
    )
    return max(stages, key=lambda memory: memory.total_bytes)


def _different_stages(work: Workload) -> list[int]:
    """Return the stages of which one needs most.

    Of stages between the ends with the same layers, the first runs most passes ahead.
    """
    last = work.layout.pp - 1
    between = {_hashable(work.layer_kinds[stage]): stage for stage in reversed(range(1, last))}
    return sorted({0, last, *between.values()})


def _hashable(
    kinds: tuple[Counter[LayerKind], ...],
) -> tuple[frozenset[tuple[LayerKind, int]], ...]:
    return tuple(frozenset(chunk.items()) for chunk in kinds)


def stage_memory(
    work: Workload,
    stage: int,
    *,
    state: StateBytes = OUR_STATE,
    software: Software = OURS,
) -> RankMemory:
    """Return the memory of each rank of one stage; arguments as for `peak_memory`."""
    kept = rank_state(work, stage, state, software)
    moment = transients(work, stage, software)
    return RankMemory(
        stage=stage,
        parameter_bytes=kept.parameter_bytes,
        gradient_bytes=kept.gradient_bytes,
        optimizer_bytes=kept.optimizer_bytes,
        fp8_weight_bytes=kept.fp8_weight_bytes,
        activation_bytes=_activation_bytes(work, stage),
        logits_bytes=moment.logits_bytes,
        weight_gradient_bytes=moment.weight_gradient_bytes,
        transient_bytes=moment.layer_bytes,
    )


def _activation_bytes(work: Workload, stage: int) -> int:
    """Return what all passes in flight save.

    Where a forward runs beside a backward pass, the one saves layer by layer what the other frees:
    together they hold one pass's activations, and one layer's more.
    """
    layout, chunks = work.layout, work.layer_kinds[stage]
    schedule = schedule_of(layout, num_micro_batches(work.placement, work.batch))
    saved_by = {
        kind: layer_bytes(work, sparse=kind.sparse, in_fp8=kind.in_fp8)
        for kind in {work.last_kind}.union(*chunks)
    }
    saved = sum(
        held * count * saved_by[kind]
        for chunk, held in zip(chunks, chunks_in_flight(schedule, stage), strict=True)
        for kind, count in chunk.items()
    )
    if schedule.paired:
        saved += max(saved_by.values())
    if stage == layout.pp - 1:
        # The final norm's input and output, and each prediction layer with its two inputs.
        saved += 2 * hidden_bytes(work)
        saved += work.shape.mtp_layers * (saved_by[work.last_kind] + 6 * hidden_bytes(work))
    return saved
