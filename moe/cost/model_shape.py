"""The sizes of a model and its batches as `parallel/` takes them."""

from collections.abc import Sequence
from typing import Any

from moe.config.model import ModelConfig
from moe.config.train import TrainConfig
from moe.cost import parameters
from moe.cost.parameters import ParameterGroup, Sharding, total
from parallel.layout.model_shape import BatchSize, ModelShape, Weights


def shape_of(model: ModelConfig) -> ModelShape:
    """Return the sizes of a model that layouts and the memory model need.

    Its weights and the ledger come from the same counts.
    """
    mla, moe = model.mla, model.moe
    sizes: dict[str, Any] = {
        "hidden_size": model.hidden_size,
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
        sizes["expert_groups"] = moe.num_groups or 1
        sizes["groups_per_token"] = moe.group_top_k or 1
        sizes["expert_ffn_hidden_size"] = moe.expert_ffn_hidden_size
        sizes["shared_expert_ffn_hidden_size"] = moe.shared_expert_ffn_hidden_size
    return ModelShape(
        **sizes,
        sparse_layers=model.sparse_layers,
        layer_windows=model.layer_windows,
        tie_embeddings=model.tie_embeddings,
        normalizes_qk=model.qk_norm != "none",
        capacity_factor=None if moe is None else moe.capacity_factor,
        attention=_weights(parameters.attention(model)),
        dense_ffn=_gated_network(model, model.ffn_hidden_size or 0),
        expert=Weights() if moe is None else _gated_network(model, moe.expert_ffn_hidden_size),
        router_and_shared=(
            Weights() if moe is None else _weights(parameters.router_and_shared_experts(model, moe))
        ),
        mtp=_weights(parameters.mtp_projection(model)),
    )


def batch_of(train: TrainConfig) -> BatchSize:
    """Return the size of one optimizer step's batch."""
    return BatchSize(
        seq_len=train.seq_len,
        micro_batch_size=train.micro_batch_size,
        global_batch_size=train.global_batch_size,
    )


def _gated_network(model: ModelConfig, inner: int) -> Weights:
    return _weights(parameters.gated_network(model, inner, "gated network"))


def _weights(groups: Sequence[ParameterGroup]) -> Weights:
    """Sum groups by how tensor parallelism treats them."""

    def count(sharding: Sharding) -> int:
        return total(group for group in groups if group.sharding == sharding)

    return Weights(
        sharded=count("sharded"), replicated=count("replicated"), mla_down=count("mla_down")
    )
