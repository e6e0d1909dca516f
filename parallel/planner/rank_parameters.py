"""Parameters on one rank, counted exactly as megatron-core allocates them."""

from dataclasses import dataclass

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape, Weights
from parallel.precision.recipes import Precision


@dataclass(frozen=True, kw_only=True)
class RankParameters:
    """Parameters on each rank of one pipeline stage, by which ranks replicate them."""

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
    layers = [layer for chunk in layout.chunk_layers(shape.num_layers)[stage] for layer in chunk]
    kinds = [shape.sparse_layers[layer] for layer in layers]
    is_first, is_last = stage == 0, stage == layout.pp - 1
    if is_last:
        kinds += [shape.sparse_layers[-1]] * shape.mtp_layers
    sparse = sum(kinds)
    components = [shape.attention] * len(kinds)
    components += [shape.router_and_shared] * sparse
    components += [shape.dense_ffn] * (len(kinds) - sparse)
    components += [shape.mtp] * (shape.mtp_layers * is_last)
    sharded = sum(_sharded(weights, layout.tp, precision) for weights in components)
    replicated = sum(_replicated(weights, precision) for weights in components)
    experts = sparse * (shape.num_experts // layout.ep)
    expert_sharded = experts * (shape.expert.sharded // layout.expert_tp)
    tables = _num_tables(shape, is_first=is_first, is_last=is_last)
    table = shape.vocab_size * shape.hidden_size // layout.tp
    return RankParameters(
        dense=sharded + replicated + tables * table + shape.hidden_size * is_last,
        expert=expert_sharded + experts * shape.expert.replicated,
        fp8=sharded + expert_sharded,
    )


def _num_tables(shape: ModelShape, *, is_first: bool, is_last: bool) -> int:
    """Count the vocabulary-sized tables of a stage.

    The first stage has the input embedding, the last the LM head; tied and on one stage they are
    the same table. Multi-token prediction needs the input embedding on the last stage too.
    """
    embeds = is_first or (is_last and shape.mtp_layers > 0)
    return embeds + (is_last and not (shape.tie_embeddings and is_first))


def _sharded(weights: Weights, tp: int, precision: Precision) -> int:
    mla_down = weights.mla_down if precision.kernels == "torch" else 0
    return (weights.sharded + mla_down) // tp


def _replicated(weights: Weights, precision: Precision) -> int:
    return weights.replicated + (weights.mla_down if precision.kernels == "te" else 0)
