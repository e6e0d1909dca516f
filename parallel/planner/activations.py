"""Activations that a forward pass keeps for its backward pass, bytes a rank: *modelled*.

Counts the tensors that autograd saves, after Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv:2205.05198, section 4, table 2), for what these
models do otherwise: no dropout (no masks), attention that keeps a log-sum-exp in place of the
score matrix (FlashAttention, arXiv:2205.14135), grouped keys and values, gated feed-forward
networks, latent attention, dropless experts under even routing times an imbalance. Of what is
recomputed only the input is kept; recomputing the attention core, an expert's activation or shared
experts is counted as saving nothing.

Per token and layer, in elements (h hidden, q, k, v, o widths of queries, keys, values and
attention's output, f inner size): two norms' inputs and outputs 4h, attention q + k + v + o, the
gated network's up and gate projections 2f and its product f; unfused activation functions keep
their intermediate results too.
"""

from dataclasses import dataclass

from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.precision.recipes import Precision

LOG_SUM_EXP_BYTES = 4
ROUTER_BYTES_PER_EXPERT = 17
"""FP32 logits, scores, balance-loss scores and weights, and a boolean map."""
ROUTED_COPY_BYTES = 20
"""Two INT64 row indices (permutation by rank, then by expert) and an FP32 weight."""
_GATED_WIDTHS = {"te": (3, 3), "torch": (4, 5)}
"""Inner sizes kept by a dense and a routed network: fused, up, gate and product; unfused also
silu(gate), and before the routing weight the product."""


@dataclass(frozen=True, kw_only=True)
class RankTokens:
    """Tokens of one micro-batch that a rank keeps."""

    sequence: int
    """In attention and feed-forward networks, where heads and inner sizes are cut."""
    residual: int
    """Between them: fewer with sequence parallelism."""


def rank_tokens(layout: Layout, batch: BatchSize) -> RankTokens:
    """Return a rank's tokens of one micro-batch."""
    sequence = batch.seq_len * batch.micro_batch_size // layout.cp
    return RankTokens(sequence=sequence, residual=sequence // layout.tp if layout.sp else sequence)


def routed_tokens(shape: ModelShape, layout: Layout, batch: BatchSize, imbalance: float) -> int:
    """Return token copies that a rank's experts take in of one micro-batch.

    Each rank of the expert-parallel group sends `top_k` copies of each of its tokens and under
    even routing receives as many; ranks of an expert-tensor-parallel group pool theirs.
    """
    kept = min(1.0, shape.capacity_factor or 1.0)
    sent = rank_tokens(layout, batch).residual * shape.top_k * layout.expert_tp
    return round(sent * kept * imbalance)


def layer_bytes(  # noqa: PLR0913
    shape: ModelShape,
    layout: Layout,
    batch: BatchSize,
    precision: Precision,
    sparse: bool,
    imbalance: float = 1.0,
) -> int:
    """Return what one layer keeps of one micro-batch until its backward pass."""
    hidden = rank_tokens(layout, batch).residual * shape.hidden_size * precision.element_bytes
    if layout.recompute == "full":
        return hidden
    attention, network = _part_bytes(shape, layout, batch, precision, sparse, imbalance)
    modules = layout.recompute_modules if layout.recompute == "selective" else ()
    norms = (2 if "layernorm" in modules else 4) * hidden
    return norms + attention + (0 if _network(sparse) in modules else network)


def recomputed_bytes(  # noqa: PLR0913
    shape: ModelShape,
    layout: Layout,
    batch: BatchSize,
    precision: Precision,
    sparse: bool,
    imbalance: float = 1.0,
) -> int:
    """Return what one layer's backward pass computes again, and holds for as long as it runs."""
    if layout.recompute == "none":
        return 0
    hidden = rank_tokens(layout, batch).residual * shape.hidden_size * precision.element_bytes
    attention, network = _part_bytes(shape, layout, batch, precision, sparse, imbalance)
    if layout.recompute == "full":
        return 4 * hidden + attention + network
    return network if _network(sparse) in layout.recompute_modules else 0


def _network(sparse: bool) -> str:
    return "moe" if sparse else "mlp"


def _part_bytes(  # noqa: PLR0913
    shape: ModelShape,
    layout: Layout,
    batch: BatchSize,
    precision: Precision,
    sparse: bool,
    imbalance: float,
) -> tuple[int, int]:
    """Return what attention and feed-forward network of one layer keep, without the norms."""
    tokens = rank_tokens(layout, batch)
    width = precision.element_bytes
    attention = width * _attention_elements(shape, layout, tokens)
    attention += LOG_SUM_EXP_BYTES * tokens.sequence * shape.num_heads // layout.tp
    dense_widths, routed_widths = _GATED_WIDTHS[precision.kernels]
    if not sparse:
        inner = shape.ffn_hidden_size // layout.tp
        return attention, width * dense_widths * tokens.sequence * inner
    shared = shape.shared_expert_ffn_hidden_size // layout.tp
    elements = dense_widths * tokens.sequence * shared
    routed = routed_tokens(shape, layout, batch, imbalance)
    inner = shape.expert_ffn_hidden_size // layout.expert_tp
    elements += routed * (shape.hidden_size + routed_widths * inner)
    fixed = ROUTER_BYTES_PER_EXPERT * tokens.residual * shape.num_experts
    return attention, width * elements + fixed + ROUTED_COPY_BYTES * routed


def logits_bytes(shape: ModelShape, layout: Layout, batch: BatchSize, precision: Precision) -> int:
    """Return logits in the model's precision, their FP32 softmax, and their gradient.

    In FP32 the softmax is taken in place of the logits and becomes their gradient
    (`megatron/core/tensor_parallel/cross_entropy.py`).
    """
    count = rank_tokens(layout, batch).sequence * shape.vocab_size // layout.tp
    return count * (2 + 4 + 2 if precision.dtype == "bf16" else 4)


def layer_gradient_bytes(
    shape: ModelShape,
    layout: Layout,
    batch: BatchSize,
    precision: Precision,
    imbalance: float = 1.0,
) -> int:
    """Return gradients alive at once inside the widest layer's feed-forward network.

    The inner product's and both projections' gradients, and the input's, gathered over
    tensor-parallel ranks.
    """
    tokens = rank_tokens(layout, batch).sequence
    dense = tokens * (3 * shape.ffn_hidden_size // layout.tp + shape.hidden_size)
    routed = routed_tokens(shape, layout, batch, imbalance)
    inner = shape.expert_ffn_hidden_size // layout.expert_tp
    sparse = routed * (3 * inner + 2 * shape.hidden_size)
    return precision.element_bytes * max(
        sparse if any(shape.sparse_layers) else 0, dense if not all(shape.sparse_layers) else 0
    )


def _attention_elements(shape: ModelShape, layout: Layout, tokens: RankTokens) -> int:
    """Return elements kept between the norm's output and the output projection."""
    queries = shape.num_heads * shape.qk_head_dim
    output = shape.num_heads * shape.v_head_dim
    # With more ranks than key-value heads each rank holds one.
    kv_heads = max(shape.num_kv_heads, layout.tp)
    keys, values = kv_heads * shape.qk_head_dim, kv_heads * shape.v_head_dim
    normalized = queries + keys if shape.normalizes_qk else 0
    elements = tokens.sequence * (queries + keys + values + output + normalized) // layout.tp
    if shape.kv_lora_rank:
        # Inputs and outputs of the norms on both latents, and the shared rotary key.
        latents = 2 * (shape.q_lora_rank + shape.kv_lora_rank) + shape.qk_rope_head_dim
        elements += tokens.residual * latents
    return elements
