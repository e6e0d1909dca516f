"""Small models as plain numbers, and the coordinates of ranks, for tests of layouts and memory."""

from dataclasses import replace

from parallel.layout.model_shape import BatchSize, ModelShape, Weights
from parallel.layout.placement import ATTENTION_DIMENSIONS, EXPERT_DIMENSIONS, Placement

DENSE = ModelShape(
    hidden_size=8, vocab_size=48, num_heads=4, num_kv_heads=2, qk_head_dim=2, v_head_dim=2,
    sparse_layers=(False,) * 4, ffn_hidden_size=24,
    attention=Weights(sharded=192, replicated=16), dense_ffn=Weights(sharded=576),
)  # fmt: skip
SPARSE = replace(
    DENSE, sparse_layers=(False, True, True, True), num_experts=4, top_k=2,
    expert_ffn_hidden_size=6, shared_expert_ffn_hidden_size=12,
    expert=Weights(sharded=144), router_and_shared=Weights(sharded=288, replicated=32),
)  # fmt: skip
BATCH = BatchSize(seq_len=32, micro_batch_size=1, global_batch_size=16)


def coordinates(placement: Placement, rank: int) -> dict[str, int]:
    """Return a rank's coordinate along every dimension, by division with remainder."""
    result: dict[str, int] = {}
    for dimensions in (EXPERT_DIMENSIONS, ATTENTION_DIMENSIONS):
        rest = rank
        for name in dimensions:
            rest, result[name] = divmod(rest, placement.sizes[name])
    return result
