"""Seconds of one layer's attention with its norm and residual sum, of one micro-batch on a rank.

Matrix products by megatron-core's shapes (`transformer/attention.py`,
`multi_latent_attention.py`): rows are the tokens of a rank, widths are sharded over
tensor-parallel ranks. Backward, each product is two of the same size (`Clock.product`).
"""

from parallel.planner.step.clock import Clock
from parallel.planner.step.context import add_context_exchange
from parallel.planner.step.linear import add_column_parallel, add_product, add_row_parallel
from parallel.planner.step.seconds import Parts
from parallel.planner.workload import Workload

NORM_BYTES = 4, 8
"""Bytes of traffic for each element in 16 bits: forward reads and writes it; backward reads input
and gradient, writes a gradient and adds the residual's."""
ROPE_BYTES = 4, 4
"""Rotary embedding reads and writes each element of queries and keys."""
RESIDUAL_BYTES = 6, 2
"""The residual sum reads two and writes one; backward it copies a gradient."""


def attention_block(clock: Clock, work: Workload, window: int | None) -> Parts:
    """Return the seconds of norm, projections, core attention and residual sum.

    Args:
        clock: Kernels and links of the card.
        work: The job.
        window: Tokens that a position sees; None for all before it.
    """
    shape, parts = work.shape, Parts()
    hidden = work.residual_tokens * shape.hidden_size
    parts["layernorm"].add("memory_bound", *clock.traffic(hidden, NORM_BYTES))
    parts["residual"].add("memory_bound", *clock.traffic(hidden, RESIDUAL_BYTES))
    if shape.kv_lora_rank:
        _latent_projections(clock, work, parts)
    else:
        _projections(clock, work, parts)
    parts["core_attn"].add("attention", *clock.attention(work, window))
    add_context_exchange(parts["core_attn"], clock, work)
    output = shape.num_heads * shape.v_head_dim // work.layout.tp
    add_row_parallel(parts["projections"], clock, work, shape.hidden_size, output)
    return parts


def _projections(clock: Clock, work: Workload, parts: Parts) -> None:
    """One fused product for queries, keys and values; norms on heads; rotary embedding."""
    shape, tp = work.shape, work.layout.tp
    queries = shape.num_heads * shape.qk_head_dim // tp
    keys, values = work.kv_heads * shape.qk_head_dim, work.kv_heads * shape.v_head_dim
    add_column_parallel(
        parts["projections"], clock, work, queries + keys + values, shape.hidden_size
    )
    rotated = work.tokens * (queries + keys)
    parts["rope"].add("memory_bound", *clock.traffic(rotated, ROPE_BYTES))
    if shape.normalizes_qk:
        parts["rope"].add("memory_bound", *clock.traffic(rotated, NORM_BYTES))


def _latent_projections(clock: Clock, work: Workload, parts: Parts) -> None:
    """Down and up, of queries and of keys with values (DeepSeek-V2, arXiv:2405.04434, 2.1)."""
    shape, tp = work.shape, work.layout.tp
    queries = shape.num_heads * shape.qk_head_dim // tp
    keys = shape.num_heads * (shape.qk_head_dim - shape.qk_rope_head_dim + shape.v_head_dim) // tp
    latents = shape.q_lora_rank + shape.kv_lora_rank
    # Kernel set te replicates the projections down, each rank for its own tokens.
    down = latents + shape.qk_rope_head_dim
    add_product(parts["projections"], clock, work.residual_tokens, down, shape.hidden_size)
    normalized = work.residual_tokens * latents
    parts["projections"].add("memory_bound", *clock.traffic(normalized, NORM_BYTES))
    up = parts["mla_up_proj"]
    add_column_parallel(up, clock, work, queries, shape.q_lora_rank or shape.hidden_size)
    add_column_parallel(up, clock, work, keys, shape.kv_lora_rank)
    # Rotation, and joining each head's two parts of queries and keys.
    heads = 2 * shape.num_heads * shape.qk_head_dim // tp
    up.add("memory_bound", *clock.traffic(work.tokens * heads, ROPE_BYTES))
