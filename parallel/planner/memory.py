"""Device memory of one rank, by term: a model from first principles, not a measurement.

Weights, gradients and optimizer states are counted exactly, as megatron-core allocates them
(`distributed/param_and_grad_buffer.py`, `optimizer/distrib_optimizer.py`): the parameter in its
own precision, an FP32 gradient, with BF16 an FP32 master copy, Adam's two FP32 moments; master
and moments are sharded over data-parallel ranks by the distributed optimizer (ZeRO stage 1,
arXiv:1910.02054). Activations follow `activations.py` and are *modelled*. Compared with three
published runs (`tests/moe/cost/test_model_shape.py`) the sum is within 7%.
"""

from dataclasses import asdict, dataclass
from typing import Any

from parallel.layout.validation import num_micro_batches
from parallel.planner.activations import (
    layer_bytes,
    layer_gradient_bytes,
    logits_bytes,
    recomputed_bytes,
)
from parallel.planner.rank_parameters import RankParameters, rank_parameters
from parallel.planner.schedule.order import chunks_in_flight, schedule_of
from parallel.planner.workload import Workload

EXCLUDED = (
    "CUDA context and libraries (about 1 GB on an H100)",
    "NCCL and dispatcher buffers",
    "allocator fragmentation and cached blocks",
    "padding of gradient buffers",
)
"""What the model leaves out; a plan keeps a margin for it."""

FP8_COPY_BYTES = 2
"""Transformer Engine keeps each FP8 weight and its transpose beside the BF16 parameter."""


@dataclass(frozen=True, kw_only=True)
class StateBytes:
    """Bytes per parameter beside the parameter itself. The defaults are those of `moe train`."""

    gradient: int = 4
    master: int = 4
    """FP32 copy of the parameter; only for parameters of lower precision."""
    moments: int = 8
    """Both of Adam's; 4 with BF16 moments (megatron-core's precision-aware optimizer)."""


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Peak bytes on each rank of one pipeline stage. Terms add up to `total_bytes`."""

    stage: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    fp8_weight_bytes: int
    activation_bytes: int
    """What forward passes in flight save for their backward passes."""
    logits_bytes: int
    """Logits, their FP32 softmax and gradient (last stage)."""
    transient_bytes: int
    """Gradients and recomputed activations inside the widest layer, as far as they exceed the
    memory that the logits have freed."""

    @property
    def total_bytes(self) -> int:
        """The sum of all terms."""
        terms = asdict(self)
        del terms["stage"]
        return sum(terms.values())

    def as_json(self) -> dict[str, Any]:
        """Return the terms, their sum, their kind and what they exclude."""
        return asdict(self) | {
            "total_bytes": self.total_bytes,
            "kind": "modelled",
            "excluded": list(EXCLUDED),
        }


def peak_memory(work: Workload, *, state: StateBytes = StateBytes()) -> RankMemory:
    """Return the memory of the stage that needs most.

    Args:
        work: The job.
        state: Bytes of gradient and optimizer state per parameter.
    """
    stages = (stage_memory(work, stage, state=state) for stage in range(work.layout.pp))
    return max(stages, key=lambda memory: memory.total_bytes)


def stage_memory(work: Workload, stage: int, *, state: StateBytes = StateBytes()) -> RankMemory:
    """Return the memory of each rank of one stage; arguments as for `peak_memory`."""
    precision = work.precision
    parameters = rank_parameters(work.shape, work.layout, precision, stage)
    is_last = stage == work.layout.pp - 1
    logits = (1 + work.shape.mtp_layers) * logits_bytes(work) if is_last else 0
    inside_layer = layer_gradient_bytes(work) + max(
        recomputed_bytes(work, sparse=sparse) for sparse in set(work.shape.sparse_layers)
    )
    return RankMemory(
        stage=stage,
        parameter_bytes=precision.element_bytes * parameters.total,
        gradient_bytes=state.gradient * parameters.total,
        optimizer_bytes=_optimizer_bytes(parameters, work, state),
        fp8_weight_bytes=FP8_COPY_BYTES * parameters.fp8 if precision.is_native_fp8 else 0,
        activation_bytes=_activation_bytes(work, stage),
        logits_bytes=logits,
        transient_bytes=max(0, inside_layer - logits),
    )


def _activation_bytes(work: Workload, stage: int) -> int:
    shape, layout = work.shape, work.layout
    of_kind = {sparse: layer_bytes(work, sparse=sparse) for sparse in set(shape.sparse_layers)}
    schedule = schedule_of(layout, num_micro_batches(work.placement, work.batch))
    saved = sum(
        of_kind[shape.sparse_layers[layer]]
        for chunk in chunks_in_flight(schedule, stage)
        for layer in layout.chunk_layers(shape.num_layers)[stage][chunk]
    )
    if stage == layout.pp - 1:
        hidden = work.residual_tokens * shape.hidden_size * work.precision.element_bytes
        # The final norm's input and output, and each prediction layer with its two inputs.
        saved += 2 * hidden
        saved += shape.mtp_layers * (of_kind[shape.sparse_layers[-1]] + 6 * hidden)
    return saved


def _optimizer_bytes(parameters: RankParameters, work: Workload, state: StateBytes) -> int:
    placement = work.placement
    per_parameter = state.moments + (state.master if work.precision.dtype == "bf16" else 0)
    if not placement.layout.distributed_optimizer:
        return per_parameter * parameters.total
    dense = -(-parameters.dense // (placement.dp * placement.layout.cp))
    return per_parameter * (dense + -(-parameters.expert // placement.edp))
