"""A model's numbers as `parallel/` takes them."""

from moe.config.model import ModelConfig, MoeConfig
from moe.config.train import TrainConfig
from parallel.layout.model_shape import BatchSize, ModelShape, Weights


def shape_of(model: ModelConfig) -> ModelShape:
    """Return what layouts and memory models must know of a model.

    Its weights add up to the ledger's total exactly.
    """
    hidden, mla, moe = model.hidden_size, model.mla, model.moe
    sizes = {
        "hidden_size": hidden,
        "vocab_size": model.vocab_size,
        "num_heads": model.num_heads,
        "num_kv_heads": model.kv_heads,
        "qk_head_dim": model.query_head_dim,
        "v_head_dim": model.value_head_dim,
        "mtp_layers": model.mtp_layers,
        "ffn_hidden_size": model.ffn_hidden_size or 0,
    }
    if mla is not None:
        sizes["q_lora_rank"] = mla.q_lora_rank or 0
        sizes["kv_lora_rank"] = mla.kv_lora_rank
        sizes["qk_rope_head_dim"] = mla.qk_rope_head_dim
    if moe is not None:
        sizes["num_experts"] = moe.num_experts
        sizes["top_k"] = moe.top_k
        sizes["expert_ffn_hidden_size"] = moe.expert_ffn_hidden_size
        sizes["shared_expert_ffn_hidden_size"] = moe.shared_expert_ffn_hidden_size
    return ModelShape(
        **sizes,
        sparse_layers=model.sparse_layers,
        tie_embeddings=model.tie_embeddings,
        normalizes_qk=model.qk_norm != "none",
        capacity_factor=None if moe is None else moe.capacity_factor,
        attention=_attention(model),
        dense_ffn=_gated(model, model.ffn_hidden_size or 0),
        expert=Weights() if moe is None else _gated(model, moe.expert_ffn_hidden_size),
        router_and_shared=Weights() if moe is None else _beside_experts(model, moe),
        mtp=Weights(sharded=2 * hidden * hidden, replicated=3 * hidden),
    )


def batch_of(train: TrainConfig) -> BatchSize:
    """Return what one optimizer step trains on."""
    return BatchSize(
        seq_len=train.seq_len,
        micro_batch_size=train.micro_batch_size,
        global_batch_size=train.global_batch_size,
    )


def _attention(model: ModelConfig) -> Weights:
    """Return one layer's projections, biases, sinks, and the layer's norms."""
    hidden, heads, dim = model.hidden_size, model.num_heads, model.query_head_dim
    norms = 2 * hidden
    if mla := model.mla:
        queries, rank = heads * dim, mla.q_lora_rank or 0
        up = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        query_up = (rank or hidden) * queries
        return Weights(
            sharded=query_up + up + heads * mla.v_head_dim * hidden,
            mla_down=hidden * (rank + mla.kv_lora_rank + mla.qk_rope_head_dim),
            replicated=norms + rank + mla.kv_lora_rank,
        )
    projected = (heads + 2 * model.kv_heads) * dim
    biased = model.qkv_bias or model.linear_bias
    norms += {
        "none": 0,
        "head": 2 * dim,
        "full": (heads + model.kv_heads) * dim,
    }[model.qk_norm]
    return Weights(
        sharded=projected * (hidden + biased)
        + heads * dim * hidden
        + heads * model.attention_sinks,
        replicated=norms + hidden * model.linear_bias,
    )


def _gated(model: ModelConfig, inner: int) -> Weights:
    """Return one gated network; the bias after its row-parallel product is not cut."""
    bias = model.linear_bias
    return Weights(
        sharded=inner * (3 * model.hidden_size + 2 * bias), replicated=model.hidden_size * bias
    )


def _beside_experts(model: ModelConfig, moe: MoeConfig) -> Weights:
    """Return one sparse layer's shared experts, router and gate."""
    router = moe.num_experts * (model.hidden_size + model.linear_bias)
    return Weights(
        sharded=3 * model.hidden_size * moe.shared_expert_ffn_hidden_size,
        replicated=router + model.hidden_size * moe.shared_expert_gate,
    )
