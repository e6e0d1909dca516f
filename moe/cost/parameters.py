"""The parameters of a model, component by component: the one count that ledger and shape share.

Counts are of one layer (or one expert), with how tensor parallelism treats each group of tensors
and whether the FLOP convention (ledger.py) counts it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from moe.config.model import ModelConfig, MoeConfig

Sharding = Literal["sharded", "replicated", "mla_down"]
"""As in `parallel.layout.model_shape.Weights`."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Some tensors of one component that are sharded and counted alike."""

    component: str
    """The ledger's name of the component."""
    count: int
    sharding: Sharding
    is_matmul: bool = False
    """Whether its 6 FLOPs per parameter and training token count."""


def attention(model: ModelConfig) -> list[ParameterGroup]:
    """Return one layer's attention, and the norms of the layer."""
    groups = _standard_attention(model) if model.mla is None else _latent_attention(model)
    return [*groups, _replicated("norms", 2 * model.hidden_size + _attention_norms(model))]


def gated_network(model: ModelConfig, inner: int, component: str) -> list[ParameterGroup]:
    """Return one gated network of inner size `inner`: gate, up and down (arXiv:2002.05202)."""
    hidden, bias = model.hidden_size, model.linear_bias
    return [
        _matmul(component, 3 * hidden * inner),
        _sharded(component, 2 * inner * bias),
        _replicated(component, hidden * bias),
    ]


def router_and_shared_experts(model: ModelConfig, moe: MoeConfig) -> list[ParameterGroup]:
    """Return what one sparse layer has beside its routed experts; shared experts have no biases."""
    hidden = model.hidden_size
    return [
        _replicated("router", moe.num_experts * (hidden + model.linear_bias)),
        _matmul("shared experts", 3 * hidden * moe.shared_expert_ffn_hidden_size),
        _replicated("shared expert gate", hidden * moe.shared_expert_gate),
    ]


def mtp_projection(model: ModelConfig) -> list[ParameterGroup]:
    """Return one multi-token-prediction layer without its Transformer layer.

    DeepSeek-V3, arXiv:2412.19437, section 2.2: two norms, a 2h x h projection, a final norm.
    """
    hidden = model.hidden_size
    return [_matmul("MTP layer", 2 * hidden * hidden), _replicated("MTP layer", 3 * hidden)]


def total(groups: Iterable[ParameterGroup]) -> int:
    """Return the number of parameters in all groups."""
    return sum(group.count for group in groups)


def _standard_attention(model: ModelConfig) -> list[ParameterGroup]:
    """Queries, grouped keys and values, the output projection, biases and sinks."""
    hidden, queries = model.hidden_size, model.num_heads * model.query_head_dim
    projected = queries + 2 * model.kv_heads * model.query_head_dim
    has_qkv_bias = model.qkv_bias or model.linear_bias
    return [
        _matmul("attention", hidden * projected + queries * hidden),
        _sharded("attention", projected * has_qkv_bias + model.num_heads * model.attention_sinks),
        _replicated("attention", hidden * model.linear_bias),
    ]


def _latent_attention(model: ModelConfig) -> list[ParameterGroup]:
    """Projections of latent attention (DeepSeek-V2, arXiv:2405.04434, appendix C)."""
    assert model.mla is not None
    mla, hidden, heads = model.mla, model.hidden_size, model.num_heads
    query_rank = mla.q_lora_rank or 0
    query_up = (query_rank or hidden) * heads * model.query_head_dim
    up = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    down = hidden * (query_rank + mla.kv_lora_rank + mla.qk_rope_head_dim)
    return [
        _matmul("attention", query_up + up + heads * mla.v_head_dim * hidden),
        ParameterGroup(component="attention", count=down, sharding="mla_down", is_matmul=True),
    ]


def _attention_norms(model: ModelConfig) -> int:
    """Return the parameters of the norms on latents, or on queries and keys."""
    if model.mla is not None:
        return model.mla.kv_lora_rank + (model.mla.q_lora_rank or 0)
    return {
        "none": 0,
        "head": 2 * model.query_head_dim,
        "full": (model.num_heads + model.kv_heads) * model.query_head_dim,
    }[model.qk_norm]


def _matmul(component: str, count: int) -> ParameterGroup:
    return ParameterGroup(component=component, count=count, sharding="sharded", is_matmul=True)


def _sharded(component: str, count: int) -> ParameterGroup:
    return ParameterGroup(component=component, count=count, sharding="sharded")


def _replicated(component: str, count: int) -> ParameterGroup:
    return ParameterGroup(component=component, count=count, sharding="replicated")
