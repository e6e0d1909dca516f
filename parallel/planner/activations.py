"""Activations that a forward pass saves for its backward pass, bytes per rank: *modelled*.

Counts the tensors that autograd saves, after Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv:2205.05198, section 4, table 2), adapted to what
these models do otherwise: no dropout (no masks), attention that saves a log-sum-exp in place of the
score matrix (FlashAttention, arXiv:2205.14135), grouped keys and values, gated feed-forward
networks, latent attention, dropless experts under even routing times an imbalance. Of what is
recomputed only the input is saved; recomputing the core of attention, an expert's activation or
shared experts is counted as saving nothing.

Per token and layer, in elements (h hidden, q, k, v, o widths of queries, keys, values and
attention's output, f inner size): inputs and outputs of two norms 4h, attention q + k + v + o, the
gated network's up and gate projections 2f and their product f; unfused activation functions save
their intermediate results too.
"""

from parallel.planner.workload import Workload

LOG_SUM_EXP_BYTES = 4
ROUTER_BYTES_PER_EXPERT = 17
"""FP32 logits, scores, balancing-loss scores and weights, and a boolean map."""
ROUTED_COPY_BYTES = 20
"""Two INT64 row indices (permutation by rank, then by expert) and an FP32 weight."""
_GATED_WIDTHS = {"te": (3, 3), "torch": (4, 5)}
"""Inner sizes saved by a dense and a routed network: fused, up, gate and product; unfused also
silu(gate), and the product before it is multiplied by the routing weight."""


def layer_bytes(work: Workload, *, sparse: bool) -> int:
    """Return what one layer saves of one micro-batch until its backward pass."""
    hidden = _hidden_bytes(work)
    layout = work.layout
    if layout.recompute == "full":
        return hidden
    modules = layout.recompute_modules if layout.recompute == "selective" else ()
    norms = (2 if "layernorm" in modules else 4) * hidden
    network = 0 if _network_module(sparse) in modules else _network_bytes(work, sparse)
    return norms + _attention_bytes(work) + network


def recomputed_bytes(work: Workload, *, sparse: bool) -> int:
    """Return what the backward pass of one layer recomputes and holds while it runs."""
    layout = work.layout
    if layout.recompute == "none":
        return 0
    if layout.recompute == "full":
        return 4 * _hidden_bytes(work) + _attention_bytes(work) + _network_bytes(work, sparse)
    return (
        _network_bytes(work, sparse) if _network_module(sparse) in layout.recompute_modules else 0
    )


def logits_bytes(work: Workload) -> int:
    """Return the bytes of logits in the model's precision, their FP32 softmax and their gradient.

    In FP32 the softmax overwrites the logits and becomes their gradient
    (`megatron/core/tensor_parallel/cross_entropy.py`).
    """
    count = work.tokens * work.shape.vocab_size // work.layout.tp
    return count * (2 + 4 + 2 if work.precision.dtype == "bf16" else 4)


def layer_gradient_bytes(work: Workload) -> int:
    """Return the most gradient bytes alive at once inside a layer's feed-forward network.

    Those of the inner product, of both projections, and of the input, which is gathered over
    tensor-parallel ranks.
    """
    shape, layout = work.shape, work.layout
    dense = work.tokens * (3 * shape.ffn_hidden_size // layout.tp + shape.hidden_size)
    inner = shape.expert_ffn_hidden_size // layout.expert_tp
    sparse = work.routed_tokens * (3 * inner + 2 * shape.hidden_size)
    return work.precision.element_bytes * max(
        sparse if any(shape.sparse_layers) else 0, dense if not all(shape.sparse_layers) else 0
    )


def _hidden_bytes(work: Workload) -> int:
    return work.residual_tokens * work.shape.hidden_size * work.precision.element_bytes


def _network_module(sparse: bool) -> str:
    """Return megatron-core's name of a feed-forward network in `recompute_modules`."""
    return "moe" if sparse else "mlp"


def _attention_bytes(work: Workload) -> int:
    """Return what attention saves between the norm's output and the output projection."""
    shape, layout = work.shape, work.layout
    queries = shape.num_heads * shape.qk_head_dim
    output = shape.num_heads * shape.v_head_dim
    # With more ranks than key-value heads each rank holds one.
    kv_heads = max(shape.num_kv_heads, layout.tp)
    keys, values = kv_heads * shape.qk_head_dim, kv_heads * shape.v_head_dim
    normalized = queries + keys if shape.normalizes_qk else 0
    elements = work.tokens * (queries + keys + values + output + normalized) // layout.tp
    if shape.kv_lora_rank:
        # Inputs and outputs of the norms on both latents, and the shared rotary key.
        latents = 2 * (shape.q_lora_rank + shape.kv_lora_rank) + shape.qk_rope_head_dim
        elements += work.residual_tokens * latents
    log_sum_exp = LOG_SUM_EXP_BYTES * work.tokens * shape.num_heads // layout.tp
    return work.precision.element_bytes * elements + log_sum_exp


def _network_bytes(work: Workload, sparse: bool) -> int:
    """Return what one layer's feed-forward network saves, without the norm before it."""
    shape, layout, width = work.shape, work.layout, work.precision.element_bytes
    dense_widths, routed_widths = _GATED_WIDTHS[work.precision.kernels]
    if not sparse:
        return width * dense_widths * work.tokens * (shape.ffn_hidden_size // layout.tp)
    shared = shape.shared_expert_ffn_hidden_size // layout.tp
    elements = dense_widths * work.tokens * shared
    inner = shape.expert_ffn_hidden_size // layout.expert_tp
    elements += work.routed_tokens * (shape.hidden_size + routed_widths * inner)
    router = ROUTER_BYTES_PER_EXPERT * work.residual_tokens * shape.num_experts
    return width * elements + router + ROUTED_COPY_BYTES * work.routed_tokens
