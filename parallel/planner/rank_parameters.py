"""Parameters on one rank, counted exactly as megatron-core allocates them."""

from dataclasses import dataclass

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape, Weights
from parallel.precision.recipes import Precision


@dataclass(frozen=True, kw_only=True)
class RankParameters:
    """Parameters on each rank of one pipeline stage or chunk, by which ranks replicate them."""

    dense: int
    """Replicated on `dp * cp` ranks: attention, dense layers, routers, embeddings."""
    expert: int
    """Routed experts, replicated on `edp` ranks."""
    fp8: int
    """Of both, the weights of layers' matmuls (not routers, embeddings, LM head)."""

    @property
    def total(self) -> int:
        """All parameters of the rank."""
        return self.dense + self.expert


def rank_parameters(
    shape: ModelShape, layout: Layout, precision: Precision, stage: int
) -> RankParameters:
    """Count the parameters on each rank of one pipeline stage."""
    chunks = [
        chunk_parameters(shape, layout, precision, stage, chunk) for chunk in range(layout.vpp)
    ]
    return RankParameters(
        dense=sum(chunk.dense for chunk in chunks),
        expert=sum(chunk.expert for chunk in chunks),
        fp8=sum(chunk.fp8 for chunk in chunks),
    )


def chunk_parameters(
    shape: ModelShape, layout: Layout, precision: Precision, stage: int, chunk: int
) -> RankParameters:
    """Count the parameters on each rank of one chunk of a stage."""
    layers = layout.chunk_layers(shape.num_layers)[stage][chunk]
    kinds = [(shape.sparse_layers[layer], is_fp8(precision, shape, layer)) for layer in layers]
    is_first = stage == chunk == 0
    is_last = (stage, chunk) == (layout.pp - 1, layout.vpp - 1)
    if is_last:
        in_fp8 = is_fp8(precision, shape, shape.num_layers - 1)
        kinds += [(shape.sparse_layers[-1], in_fp8)] * shape.mtp_layers
    dense = expert = fp8 = 0
    for is_sparse, in_fp8 in kinds:
        components = [shape.attention, shape.router_and_shared if is_sparse else shape.dense_ffn]
        sharded = sum(_sharded(weights, layout.tp, precision) for weights in components)
        dense += sharded + sum(_replicated(weights, precision) for weights in components)
        experts = is_sparse * (shape.num_experts // layout.ep)
        expert_sharded = experts * (shape.expert.sharded // layout.expert_tp)
        expert += expert_sharded + experts * shape.expert.replicated
        fp8 += in_fp8 * (sharded + expert_sharded)
    if is_last:
        prediction = _sharded(shape.mtp, layout.tp, precision)
        dense += shape.mtp_layers * (prediction + _replicated(shape.mtp, precision))
        fp8 += shape.mtp_layers * prediction * is_fp8(precision, shape, shape.num_layers - 1)
        dense += shape.hidden_size
    table = shape.vocab_size * shape.hidden_size // layout.tp
    dense += _num_tables(shape, is_first=is_first, is_last=is_last) * table
    return RankParameters(dense=dense, expert=expert, fp8=fp8)


def is_fp8(precision: Precision, shape: ModelShape, layer: int) -> bool:
    """Whether a layer's matmuls run in FP8, if any do: the first and last may be kept out."""
    first, last = precision.fp8_keep_first, precision.fp8_keep_last
    return first <= layer < shape.num_layers - last


def _num_tables(shape: ModelShape, *, is_first: bool, is_last: bool) -> int:
    """Count the vocabulary-sized tables of a chunk.

    The first has the input embedding, the last the LM head; tied and in one chunk they are the
    same table. Multi-token prediction needs the input embedding in the last chunk too.
    """
    embeds = is_first or (is_last and shape.mtp_layers > 0)
    return embeds + (is_last and not (shape.tie_embeddings and is_first))


def _sharded(weights: Weights, tp: int, precision: Precision) -> int:
    mla_down = weights.mla_down if precision.kernels == "torch" else 0
    return (weights.sharded + mla_down) // tp


def _replicated(weights: Weights, precision: Precision) -> int:
    return weights.replicated + (weights.mla_down if precision.kernels == "te" else 0)
