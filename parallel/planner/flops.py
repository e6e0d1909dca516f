"""FLOPs of one training token, counted from a model's shape.

The ledger's convention (`moe/cost/ledger.py`; a test compares them): 6 per active weight of a
matmul, LM head included, router and input embedding excluded, and per layer
6 * heads * (qk_dim + v_dim) for each key that a causal token sees on average.
"""

from parallel.layout.model_shape import ModelShape

TERA = 1e12


def training_flops_per_token(shape: ModelShape, seq_len: int) -> int:
    """Return forward and backward FLOPs of one token in sequences of `seq_len` tokens."""
    table = shape.vocab_size * shape.hidden_size
    layers = list(zip(shape.sparse_layers, shape.windows, strict=True))
    main = sum(_layer(shape, sparse, window, seq_len) for sparse, window in layers)
    mtp = _layer(shape, *layers[-1], seq_len) + 6 * (2 * shape.hidden_size**2 + table)
    return main + 6 * table + shape.mtp_layers * mtp


def attention_flops_per_token(shape: ModelShape, seq_len: int) -> int:
    """Return the part of scores and weighted sums, over all layers of the main model."""
    return sum(_attention_core(shape, window, seq_len) for window in shape.windows)


def _layer(shape: ModelShape, sparse: bool, window: int | None, seq_len: int) -> int:
    weights = _attention_weights(shape)
    if sparse:
        inner = shape.top_k * shape.expert_ffn_hidden_size + shape.shared_expert_ffn_hidden_size
    else:
        inner = shape.ffn_hidden_size
    weights += (2 + shape.is_gated) * shape.hidden_size * inner
    return 6 * weights + _attention_core(shape, window, seq_len)


def _attention_weights(shape: ModelShape) -> int:
    """Return the weights of one layer's projections."""
    hidden, heads = shape.hidden_size, shape.num_heads
    output = heads * shape.v_head_dim * hidden
    if not shape.kv_lora_rank:
        keys = shape.num_kv_heads * (shape.qk_head_dim + shape.v_head_dim)
        return hidden * (heads * shape.qk_head_dim + keys) + output
    down = hidden * (shape.q_lora_rank + shape.kv_lora_rank + shape.qk_rope_head_dim)
    queries = (shape.q_lora_rank or hidden) * heads * shape.qk_head_dim
    keys = heads * (shape.qk_head_dim - shape.qk_rope_head_dim + shape.v_head_dim)
    return down + queries + shape.kv_lora_rank * keys + output


def _attention_core(shape: ModelShape, window: int | None, seq_len: int) -> int:
    per_key = 6 * shape.num_heads * (shape.qk_head_dim + shape.v_head_dim)
    seen = seq_len if window is None else min(window, seq_len)
    return per_key * seen * (2 * seq_len - seen) // (2 * seq_len)
