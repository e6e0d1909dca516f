"""Device memory of one rank, by term: a model from first principles, not a measurement.

Weights, gradients and optimizer states are counted exactly, as megatron-core allocates them
(`distributed/param_and_grad_buffer.py`, `optimizer/distrib_optimizer.py`): the parameter in its
own precision, an FP32 gradient, with BF16 an FP32 master copy, Adam's two FP32 moments; master
and moments are divided over data-parallel ranks by the distributed optimizer (ZeRO stage 1,
arXiv:1910.02054). Activations follow `activations.py` and are *modelled*. Against three
published runs (`tests/moe/test_shape.py`) the sum is within 7%.
"""

from dataclasses import asdict, dataclass
from typing import Any

from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape, Weights
from parallel.layout.placement import Placement
from parallel.layout.validation import num_micro_batches
from parallel.planner.activations import (
    layer_bytes,
    layer_gradient_bytes,
    logits_bytes,
    rank_tokens,
    recomputed_bytes,
)
from parallel.precision.recipes import Precision

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
    """Bytes a parameter beside the parameter itself. The defaults are what `moe train` keeps."""

    gradient: int = 4
    master: int = 4
    """A copy in FP32; only kept for parameters of lower precision."""
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
    """What forward passes in flight keep for their backward passes."""
    logits_bytes: int
    """Logits, their FP32 softmax and gradient (last stage)."""
    transient_bytes: int
    """Gradients and recomputed activations inside the widest layer, beyond the memory that the
    logits leave behind."""

    @property
    def total_bytes(self) -> int:
        """All terms together."""
        terms = asdict(self)
        del terms["stage"]
        return sum(terms.values())

    def as_json(self) -> dict[str, Any]:
        """Return the terms, their sum, how they were found and what they leave out."""
        return asdict(self) | {
            "total_bytes": self.total_bytes,
            "kind": "modelled",
            "excluded": list(EXCLUDED),
        }


@dataclass(frozen=True, kw_only=True)
class RankParameters:
    """Parameters on each rank of one stage, by the ranks that hold a copy."""

    dense: int
    """Replicated over `dp * cp` ranks: attention, dense layers, routers, embeddings."""
    expert: int
    """Routed experts, replicated over `edp` ranks."""
    fp8: int
    """Of both, the weights of layers' matrix products (not routers, embeddings, LM head)."""

    @property
    def total(self) -> int:
        """All parameters of the rank."""
        return self.dense + self.expert


def peak_memory(
    shape: ModelShape,
    placement: Placement,
    batch: BatchSize,
    precision: Precision,
    *,
    expert_imbalance: float = 1.0,
    state: StateBytes = StateBytes(),
) -> RankMemory:
    """Return the memory of the stage that needs most.

    Args:
        shape: The model.
        placement: A layout that `layout_faults` has nothing against.
        batch: Sequence length and batch sizes.
        precision: Parameter precision, FP8 recipe and kernel set.
        expert_imbalance: Tokens of the busiest rank's experts over the mean; 1 is even routing.
        state: Bytes of gradient and optimizer state a parameter.
    """
    stages = (
        stage_memory(
            shape, placement, batch, precision, stage,
            expert_imbalance=expert_imbalance, state=state,
        )
        for stage in range(placement.layout.pp)
    )  # fmt: skip
    return max(stages, key=lambda memory: memory.total_bytes)


def stage_memory(  # noqa: PLR0913
    shape: ModelShape,
    placement: Placement,
    batch: BatchSize,
    precision: Precision,
    stage: int,
    *,
    expert_imbalance: float = 1.0,
    state: StateBytes = StateBytes(),
) -> RankMemory:
    """Return the memory of each rank of one stage; arguments as for `peak_memory`."""
    layout = placement.layout
    parameters = rank_parameters(shape, layout, precision, stage)
    is_last = stage == layout.pp - 1
    each = {
        sparse: layer_bytes(shape, layout, batch, precision, sparse, expert_imbalance)
        for sparse in set(shape.sparse_layers)
    }
    kept = sum(
        each[shape.sparse_layers[layer]]
        for chunk in chunks_in_flight(layout, stage, num_micro_batches(placement, batch))
        for layer in layout.chunk_layers(shape.num_layers)[stage][chunk]
    )
    width = precision.element_bytes
    tokens = rank_tokens(layout, batch)
    logits = 0
    if is_last:
        # The final norm's input and output, and each prediction layer with its two inputs.
        kept += 2 * tokens.residual * shape.hidden_size * width
        kept += shape.mtp_layers * each[shape.sparse_layers[-1]]
        kept += shape.mtp_layers * 6 * tokens.residual * shape.hidden_size * width
        logits = (1 + shape.mtp_layers) * logits_bytes(shape, layout, batch, precision)
    inside = layer_gradient_bytes(shape, layout, batch, precision, expert_imbalance)
    inside += max(
        recomputed_bytes(shape, layout, batch, precision, sparse, expert_imbalance)
        for sparse in each
    )
    return RankMemory(
        stage=stage,
        parameter_bytes=width * parameters.total,
        gradient_bytes=state.gradient * parameters.total,
        optimizer_bytes=_optimizer_bytes(parameters, placement, precision, state),
        fp8_weight_bytes=FP8_COPY_BYTES * parameters.fp8 if precision.is_native_fp8 else 0,
        activation_bytes=kept,
        logits_bytes=logits,
        transient_bytes=max(0, inside - logits),
    )


def rank_parameters(
    shape: ModelShape, layout: Layout, precision: Precision, stage: int
) -> RankParameters:
    """Count the parameters on each rank of one stage."""
    layers = [layer for chunk in layout.chunk_layers(shape.num_layers)[stage] for layer in chunk]
    kinds = [shape.sparse_layers[layer] for layer in layers]
    is_first, is_last = stage == 0, stage == layout.pp - 1
    if is_last:
        kinds += [shape.sparse_layers[-1]] * shape.mtp_layers
    sparse = sum(kinds)
    beside = [shape.attention] * len(kinds)
    beside += [shape.router_and_shared] * sparse + [shape.dense_ffn] * (len(kinds) - sparse)
    beside += [shape.mtp] * (shape.mtp_layers * is_last)
    cut = sum(_cut(part, layout.tp, precision) for part in beside)
    whole = sum(_whole(part, precision) for part in beside)
    experts_here = sparse * (shape.num_experts // layout.ep)
    expert_cut = experts_here * (shape.expert.sharded // layout.expert_tp)
    tables = _table_copies(shape, layout, is_first=is_first, is_last=is_last)
    table = shape.vocab_size * shape.hidden_size // layout.tp
    return RankParameters(
        dense=cut + whole + tables * table + shape.hidden_size * is_last,
        expert=expert_cut + experts_here * shape.expert.replicated,
        fp8=cut + expert_cut,
    )


def chunks_in_flight(layout: Layout, stage: int, micro_batches: int) -> list[int]:
    """Return the chunk of every forward pass whose activations a stage keeps at its peak.

    One forward, one backward: stage `s` runs `pp - s` forward passes ahead. Interleaved, it runs
    `2 (pp - s - 1) + (vpp - 1) pp + 1`, `pp` micro-batches a chunk in turn (arXiv:2104.04473,
    section 2.2; `get_pp_rank_microbatches` in megatron-core's `schedules.py`).
    """
    pp, vpp = layout.pp, layout.vpp
    if vpp == 1:
        return [0] * min(pp - stage, micro_batches)
    ahead = 2 * (pp - stage - 1) + (vpp - 1) * pp + 1
    return [(step // pp) % vpp for step in range(min(ahead, vpp * micro_batches))]


def _optimizer_bytes(
    parameters: RankParameters, placement: Placement, precision: Precision, state: StateBytes
) -> int:
    each = state.moments + (state.master if precision.dtype == "bf16" else 0)
    if not placement.layout.distributed_optimizer:
        return each * parameters.total
    dense = -(-parameters.dense // (placement.dp * placement.layout.cp))
    return each * (dense + -(-parameters.expert // placement.edp))


def _table_copies(shape: ModelShape, layout: Layout, *, is_first: bool, is_last: bool) -> int:
    """Count the vocabulary-sized tables of a stage.

    The first stage has the input embedding, the last the LM head, which is the same table where
    they are tied and on one stage. Multi-token prediction embeds on the last stage too.
    """
    embeds = is_first or (is_last and shape.mtp_layers > 0)
    return embeds + (is_last and not (shape.tie_embeddings and is_first))


def _cut(part: Weights, tp: int, precision: Precision) -> int:
    latent = part.mla_down if precision.kernels == "torch" else 0
    return (part.sharded + latent) // tp


def _whole(part: Weights, precision: Precision) -> int:
    return part.replicated + (part.mla_down if precision.kernels == "te" else 0)
