"""Parameters on one rank, counted exactly as megatron-core allocates them."""

from collections import Counter
from dataclasses import dataclass

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape, Weights
from parallel.planner.workload import LayerKind, layer_kinds
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
    kinds = layer_kinds(shape, layout, precision)[stage]
    chunks = [
        chunk_parameters(shape, layout, precision, kinds[chunk], (stage, chunk))
        for chunk in range(layout.vpp)
    ]
    return RankParameters(
        dense=sum(chunk.dense for chunk in chunks),
        expert=sum(chunk.expert for chunk in chunks),
        fp8=sum(chunk.fp8 for chunk in chunks),
    )


def chunk_parameters(
    shape: ModelShape,
    layout: Layout,
    precision: Precision,
    kinds: Counter[LayerKind],
    place: tuple[int, int],
) -> RankParameters:
    """Count the parameters on each rank of one chunk.

    Args:
        shape: The model.
        layout: How it is distributed.
        precision: Its kernel set and FP8 layers.
        kinds: The chunk's layers (`layer_kinds`).
        place: Its stage and its number there.
    """
    is_first = place == (0, 0)
    is_last = place == (layout.pp - 1, layout.vpp - 1)
    last_kind = LayerKind(shape.sparse_layers[-1], not precision.fp8_keep_last)
    predictions = shape.mtp_layers * is_last
    dense = expert = fp8 = 0
    for kind in set(kinds) | ({last_kind} if predictions else set()):
        count = kinds[kind] + predictions * (kind == last_kind)
        components = [shape.attention, shape.router_and_shared if kind.sparse else shape.dense_ffn]
        sharded = sum(_sharded(weights, layout.tp, precision) for weights in components)
        dense += count * (sharded + sum(_replicated(weights, precision) for weights in components))
        experts = kind.sparse * (shape.num_experts // layout.ep)
        expert_sharded = experts * (shape.expert.sharded // layout.expert_tp)
        expert += count * (expert_sharded + experts * shape.expert.replicated)
        fp8 += count * kind.in_fp8 * (sharded + expert_sharded)
    prediction = _sharded(shape.mtp, layout.tp, precision)
    dense += predictions * (prediction + _replicated(shape.mtp, precision))
    fp8 += predictions * prediction * last_kind.in_fp8
    table = shape.vocab_size * shape.hidden_size // layout.tp
    dense += _num_tables(shape, is_first=is_first, is_last=is_last) * table
    # The final norm.
    dense += shape.hidden_size * is_last
    return RankParameters(dense=dense, expert=expert, fp8=fp8)


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
