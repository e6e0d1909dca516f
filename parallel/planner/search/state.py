"""The least memory of weights, gradients and optimizer states: a bound, before activations."""

from collections.abc import Callable

from parallel.layout.model_shape import ModelShape
from parallel.planner.search.candidates import Candidate
from parallel.planner.software import OUR_STATE

WEIGHT_AND_GRADIENT_BYTES = 2 + OUR_STATE.gradient
"""BF16 weight and gradient, which only sharding of the model makes fewer."""
SHARED_STATE_BYTES = OUR_STATE.master + OUR_STATE.moments
"""What data-parallel ranks share."""


def least_state_bytes(shape: ModelShape) -> Callable[[Candidate], float]:
    """Return a function of candidates: bytes of the mean stage of a layout, tables left out.

    It is below what any stage of the layout needs at most, so what does not fit by it never does.
    """
    sparse = sum(shape.sparse_layers)
    dense = shape.num_layers * shape.attention.sharded
    dense += (shape.num_layers - sparse) * shape.dense_ffn.sharded
    dense += sparse * shape.router_and_shared.sharded
    expert = sparse * shape.num_experts * shape.expert.sharded

    def bytes_of(candidate: Candidate) -> float:
        own_dense = dense / (candidate.tp * candidate.pp)
        own_expert = expert / (candidate.ep * candidate.etp * candidate.pp)
        ranks = candidate.tp * candidate.cp * candidate.dp
        shards = ranks // (candidate.ep * candidate.etp)
        return (
            WEIGHT_AND_GRADIENT_BYTES * (own_dense + own_expert)
            + SHARED_STATE_BYTES * own_dense / (candidate.dp * candidate.cp)
            + SHARED_STATE_BYTES * own_expert / shards
        )

    return bytes_of
