"""Activations that a forward pass saves for its backward pass, bytes per rank: *modelled*.

Counts the tensors that autograd saves, after Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv:2205.05198, section 4, table 2), adapted to what
these models do otherwise: no dropout (no masks), attention that saves a log-sum-exp in place of the
score matrix (FlashAttention, arXiv:2205.14135), grouped keys and values, gated feed-forward
networks, latent attention, dropless experts under even routing times an imbalance.

Per token and layer, in elements (h hidden, q, k, v, o widths of queries, keys, values and
attention's output, f inner size): inputs and outputs of two norms 4h, attention q + k + v + o, the
gated network's up and gate projections 2f and their product f; unfused activation functions save
their intermediate results too. In FP8, Transformer Engine saves the inputs of matrix products in
FP8: norms' outputs and the products once in place of BF16, attention's output beside it.

What is recomputed, by megatron-core's names (`recompute_modules` in `transformer_config.py`), saves
nothing but inputs that are saved anyway: `layernorm` its outputs, `mla_up_proj` queries, keys and
values, `moe_act` what follows an expert's first projection, `shared_experts`, `mlp` and `moe` their
inner results; `core_attn` only a log-sum-exp. Full recomputation saves each layer's input.
"""

from parallel.planner.compute_time.imbalance import NATURAL, busiest_rank_share
from parallel.planner.state import FP8_SCALES
from parallel.planner.workload import Workload

LOG_SUM_EXP_BYTES = 4
ROUTER_BYTES_PER_EXPERT = 17
"""FP32 logits, scores, balancing-loss scores and weights, and a boolean map."""
ROUTED_COPY_BYTES = 20
"""Two INT64 row indices (permutation by rank, then by expert) and an FP32 weight."""
_AFTER_PROJECTION = {"te": (1, 1), "torch": (2, 3)}
"""Inner sizes that a dense and a routed network save beside up and gate projections: fused, the
product; unfused also silu(gate), and the product before it is multiplied by the routing weight."""
_OF_NETWORK = {
    "mlp": ("mlp",),
    "moe": ("router", "experts", "moe_act", "shared_experts"),
}
"""The parts of a layer that recomputing a whole network recomputes."""


def layer_bytes(work: Workload, *, sparse: bool, in_fp8: bool = False) -> int:
    """Return what one layer saves of one micro-batch until its backward pass.

    Args:
        work: The job.
        sparse: Whether the layer has routed experts.
        in_fp8: Whether its matrix products run in FP8.
    """
    if work.layout.recompute == "full":
        return hidden_bytes(work)
    parts = layer_parts(work, sparse=sparse, in_fp8=in_fp8)
    return sum(parts.values()) - sum(parts[name] for name in _recomputed(work, parts))


def recomputed_bytes(work: Workload, *, sparse: bool, in_fp8: bool = False) -> int:
    """Return what the backward pass of one layer recomputes and holds while it runs."""
    parts = layer_parts(work, sparse=sparse, in_fp8=in_fp8)
    if work.layout.recompute == "full":
        return sum(parts.values())
    return sum(parts[name] for name in _recomputed(work, parts))


def layer_parts(work: Workload, *, sparse: bool, in_fp8: bool = False) -> dict[str, int]:
    """Return what one layer saves without recomputation, by megatron-core's names of modules.

    `inputs` are the inputs of both norms; `attention` is what no module of that name recomputes.
    """
    width, input_width = _widths(work, in_fp8)
    hidden = work.residual_tokens * work.shape.hidden_size
    # The router and a latent projection beside the experts read the norm's output in BF16.
    attention_norm = width if work.shape.kv_lora_rank else input_width
    network_norm = width if sparse else input_width
    parts = {
        "inputs": 2 * hidden * width,
        "layernorm": round(hidden * (attention_norm + network_norm)),
    }
    parts |= _attention(work, width, input_width)
    return parts | (_experts(work, width, input_width) if sparse else _dense(work, input_width))


def layer_gradient_bytes(work: Workload) -> int:
    """Return the most gradient bytes alive at once inside a layer's feed-forward network.

    Those of the inner product, of both projections, and of the input, which is gathered over
    tensor-parallel ranks; of experts also what their dispatcher holds to send or receive.
    """
    shape, layout = work.shape, work.layout
    inners = 2 + shape.is_gated
    dense = work.tokens * (inners * shape.ffn_hidden_size // layout.tp + shape.hidden_size)
    inner = shape.expert_ffn_hidden_size // layout.expert_tp
    sparse = received_tokens(work) * (inners * inner + 2 * shape.hidden_size)
    if layout.dispatcher == "allgather":
        # All ranks' tokens instead of what is routed here.
        gathered = work.residual_tokens * layout.ep * layout.expert_tp
        sparse += max(0, gathered - received_tokens(work)) * shape.hidden_size
    return work.precision.element_bytes * max(
        sparse if any(shape.sparse_layers) else 0, dense if not all(shape.sparse_layers) else 0
    )


def received_tokens(work: Workload) -> int:
    """Return the token copies that the experts of the busiest rank receive of one micro-batch.

    Where routers choose freely it is taken to be the same rank in every layer: it may be.
    """
    shape, layout = work.shape, work.layout
    if work.execution.routing != "natural" or not work.routed_tokens:
        return work.routed_tokens
    share = busiest_rank_share(
        NATURAL,
        experts=shape.num_experts,
        top_k=shape.top_k,
        ep=layout.ep,
        tokens=work.residual_tokens * layout.ep * layout.expert_tp,
    )
    if shape.capacity_factor is not None:
        share = min(share, max(1.0, shape.capacity_factor))
    return round(work.routed_tokens * max(1.0, share / work.rank_imbalance))


def hidden_bytes(work: Workload) -> int:
    """Return the bytes of one hidden state of one micro-batch between layers."""
    return work.residual_tokens * work.shape.hidden_size * work.precision.element_bytes


def _recomputed(work: Workload, parts: dict[str, int]) -> set[str]:
    modules = work.layout.recompute_modules if work.layout.recompute == "selective" else ()
    named = {part for module in modules for part in _OF_NETWORK.get(module, (module,))}
    return named & set(parts)


def _widths(work: Workload, in_fp8: bool) -> tuple[int, float]:
    """Return bytes of an element, and of one that only a matrix product reads."""
    width, recipe = work.precision.element_bytes, work.precision.scaling
    if not (in_fp8 and work.precision.is_native_fp8 and recipe):
        return width, width
    return width, 1 + FP8_SCALES[recipe]


def _attention(work: Workload, width: int, input_width: float) -> dict[str, int]:
    """Return what attention saves between the norm's output and the output projection."""
    shape, layout = work.shape, work.layout
    queries = shape.num_heads * shape.qk_head_dim
    output = shape.num_heads * shape.v_head_dim
    # With more ranks than key-value heads each rank holds one.
    kv_heads = max(shape.num_kv_heads, layout.tp)
    keys, values = kv_heads * shape.qk_head_dim, kv_heads * shape.v_head_dim
    normalized = queries + keys if shape.normalizes_qk else 0
    projected = width * (work.tokens * (queries + keys + values + normalized) // layout.tp)
    outputs = work.tokens * output // layout.tp
    kept = width * outputs + (0 if input_width == width else round(input_width * outputs))
    parts = {"core_attn": LOG_SUM_EXP_BYTES * work.tokens * shape.num_heads // layout.tp}
    if not shape.kv_lora_rank:
        return parts | {"attention": kept + projected}
    # Inputs and outputs of the norms on both latents, and the shared rotary key.
    latents = 2 * (shape.q_lora_rank + shape.kv_lora_rank) + shape.qk_rope_head_dim
    kept += width * work.residual_tokens * latents
    return parts | {"attention": kept, "mla_up_proj": projected}


def _dense(work: Workload, input_width: float) -> dict[str, int]:
    inner = work.tokens * (work.shape.ffn_hidden_size // work.layout.tp)
    return {"mlp": _network(work, inner, input_width, routed=False)}


def _network(work: Workload, inner: int, input_width: float, *, routed: bool) -> int:
    """Return what a network of `inner` elements saves; its last product is an input."""
    width, after = work.precision.element_bytes, _AFTER_PROJECTION[work.precision.kernels][routed]
    return round(inner * ((work.shape.is_gated + after) * width + input_width))


def _experts(work: Workload, width: int, input_width: float) -> dict[str, int]:
    shape, layout = work.shape, work.layout
    shared = work.tokens * (shape.shared_expert_ffn_hidden_size // layout.tp)
    inner = received_tokens(work) * (shape.expert_ffn_hidden_size // layout.expert_tp)
    whole = _network(work, inner, input_width, routed=True)
    projected = (1 + shape.is_gated) * width * inner
    inputs = round(received_tokens(work) * shape.hidden_size * input_width)
    return {
        "router": ROUTER_BYTES_PER_EXPERT * work.residual_tokens * shape.num_experts,
        "experts": inputs + projected + ROUTED_COPY_BYTES * received_tokens(work),
        "moe_act": whole - projected,
        "shared_experts": _network(work, shared, input_width, routed=False),
    }
