"""The cost ledger: parameters of a model by component, and the FLOPs of one training token.

Conventions, the same in every command and report:

- **Parameters** are what an optimizer would train. `expert_bias` (a buffer) is not one.
- **Active** parameters are those that one token uses for the next-token prediction: `top_k` of
  the routed experts and everything else, the input embedding counted in full. The cards of
  Mixtral, Qwen3 and OLMoE count like this. DeepSeek's and GPT-OSS's exclude the input embedding
  (`active_parameters_without_input_embedding`), Moonlight's excludes both embeddings.
  Multi-token-prediction layers count in the total, and their training FLOPs count, but they are
  not active: cards exclude them, and inference does not need them.
- **Training FLOPs** per token are 6 per active parameter in a matmul (2 forward, 4 backward),
  including the LM head, excluding input embedding, router and shared-expert gate, plus
  6 * heads * head_dim * seq_len per layer for causal attention (half of the full square; MLA: the
  mean of query-key and value dimensions). Recomputation is not counted. Each
  multi-token-prediction layer adds one layer, its 2h x h projection and the LM head once more.
  This reproduces NVIDIA's published ratios of TFLOP/s to tokens/s (Megatron-Bridge,
  docs/performance-summary-archive.md). Attention's 6 = 12/2: PaLM, arXiv:2204.02311, appendix B.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from moe.config.model import ModelConfig, MoeConfig
from moe.cost import parameters
from moe.cost.parameters import ParameterGroup, total

BF16_BYTES = 2
TRAINING_STATE_BYTES = 18
"""BF16 parameter 2, FP32 gradient 4, FP32 master parameter 4, Adam's two FP32 moments 8."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component of a model, summed over all layers."""

    name: str
    parameters: int = 0
    active_parameters: int = 0
    active_matmul_parameters: int = 0
    training_flops_per_token: int = 0

    def __add__(self, other: "Component") -> "Component":
        """Return the sum, under this component's name."""
        return Component(
            name=self.name,
            parameters=self.parameters + other.parameters,
            active_parameters=self.active_parameters + other.active_parameters,
            active_matmul_parameters=(
                self.active_matmul_parameters + other.active_matmul_parameters
            ),
            training_flops_per_token=(
                self.training_flops_per_token + other.training_flops_per_token
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Parameters and training FLOPs of a model by component; totals are their exact sums."""

    seq_len: int
    components: tuple[Component, ...]
    embedding_parameters: int
    """Input embedding and LM head (once where they are tied)."""
    input_embedding_parameters: int
    """Those of them that no matmul uses: 0 where they are tied."""
    mtp_parameters: int
    """Of multi-token-prediction layers."""
    kv_cache_elements_per_token: int
    """Numbers that a KV cache holds for each token of the context."""

    @property
    def total_parameters(self) -> int:
        """Trainable parameters, including multi-token-prediction layers."""
        return sum(component.parameters for component in self.components)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses, input embedding counted in full."""
        return sum(component.active_parameters for component in self.components)

    @property
    def active_parameters_without_input_embedding(self) -> int:
        """Active parameters as DeepSeek and GPT-OSS count them."""
        return self.active_parameters - self.input_embedding_parameters

    @property
    def active_matmul_parameters(self) -> int:
        """Active parameters in matmuls of the main model, including the LM head."""
        return sum(component.active_matmul_parameters for component in self.components)

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward FLOPs of one training token in a sequence of `seq_len`."""
        return sum(component.training_flops_per_token for component in self.components)

    def as_json(self) -> dict[str, Any]:
        """Return the document that `moe cost --json` prints (a stable contract)."""
        return {
            "seq_len": self.seq_len,
            "total_parameters": self.total_parameters,
            "active_parameters": self.active_parameters,
            "active_parameters_without_input_embedding": (
                self.active_parameters_without_input_embedding
            ),
            "embedding_parameters": self.embedding_parameters,
            "mtp_parameters": self.mtp_parameters,
            "active_matmul_parameters": self.active_matmul_parameters,
            "training_flops_per_token": float(self.training_flops_per_token),
            "bf16_weight_bytes": BF16_BYTES * self.total_parameters,
            "bf16_training_state_bytes": TRAINING_STATE_BYTES * self.total_parameters,
            "bf16_kv_cache_bytes_per_token": BF16_BYTES * self.kv_cache_elements_per_token,
            "components": [
                asdict(component)
                | {"training_flops_per_token": float(component.training_flops_per_token)}
                for component in self.components
            ],
        }


def ledger(model: ModelConfig, seq_len: int) -> Ledger:
    """Count a model's parameters and the FLOPs of one training token.

    Args:
        model: The architecture.
        seq_len: Tokens per training sequence; may exceed the model's `max_seq_len`.

    Raises:
        ValueError: `seq_len` is not positive.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len={seq_len}: must be at least 1")
    table = model.vocab_size * model.hidden_size
    layers = zip(model.sparse_layers, model.layer_windows, strict=True)
    components = [
        Component(name="input embedding", parameters=table, active_parameters=table),
        *(
            component
            for sparse, window in layers
            for component in _layer(model, sparse=sparse, window=window, seq_len=seq_len)
        ),
        Component(name="norms", parameters=model.hidden_size, active_parameters=model.hidden_size),
        _lm_head(model, table),
    ]
    mtp = _mtp_layer(model, seq_len, table)
    components += [_renamed(mtp, f"MTP layer {i + 1}") for i in range(model.mtp_layers)]
    return Ledger(
        seq_len=seq_len,
        components=_summed_by_name(components),
        embedding_parameters=table if model.tie_embeddings else 2 * table,
        input_embedding_parameters=0 if model.tie_embeddings else table,
        mtp_parameters=model.mtp_layers * mtp.parameters,
        kv_cache_elements_per_token=model.num_layers * _cache_elements(model),
    )


def _layer(
    model: ModelConfig, *, sparse: bool, window: int | None, seq_len: int
) -> list[Component]:
    """Return the components of one Transformer layer."""
    groups = parameters.attention(model)
    core_flops = _attention_core_flops(model, window, seq_len)
    components = [
        _component("attention", groups, extra_flops=core_flops),
        _component("norms", groups),
    ]
    if sparse and model.moe is not None:
        return components + _sparse_ffn(model, model.moe)
    dense = parameters.gated_network(model, model.ffn_hidden_size or 0, "dense FFN")
    return [*components, _component("dense FFN", dense)]


def _attention_core_flops(model: ModelConfig, window: int | None, seq_len: int) -> int:
    """Return FLOPs of scores and weighted sum for the average token of a causal sequence.

    A token sees half the sequence on average, or with a window w < seq_len, w - w^2 / (2 seq_len)
    positions.
    """
    per_position = attention_flops_per_key(model)
    seen = seq_len if window is None else min(window, seq_len)
    return per_position * seen * (2 * seq_len - seen) // (2 * seq_len)


def attention_flops_per_key(model: ModelConfig) -> int:
    """Return one layer's FLOPs of scores and weighted sum for each key that a token sees.

    The forward pass takes 2 * heads * (qk_dim + v_dim), training three times that.
    """
    return 6 * model.num_heads * (model.query_head_dim + model.value_head_dim)


def _sparse_ffn(model: ModelConfig, moe: MoeConfig) -> list[Component]:
    """Return the components of one sparse layer's feed-forward network."""
    groups = parameters.router_and_shared_experts(model, moe)
    name = "routed experts"
    expert = _component(name, parameters.gated_network(model, moe.expert_ffn_hidden_size, name))
    components = [
        _component("router", groups),
        Component(
            name=name,
            parameters=moe.num_experts * expert.parameters,
            active_parameters=moe.top_k * expert.active_parameters,
            active_matmul_parameters=moe.top_k * expert.active_matmul_parameters,
            training_flops_per_token=moe.top_k * expert.training_flops_per_token,
        ),
    ]
    others = (_component(kind, groups) for kind in ("shared experts", "shared expert gate"))
    return components + [component for component in others if component.parameters]


def _lm_head(model: ModelConfig, table: int) -> Component:
    own = 0 if model.tie_embeddings else table
    return Component(
        name="LM head (tied)" if model.tie_embeddings else "LM head",
        parameters=own,
        active_parameters=own,
        active_matmul_parameters=table,
        training_flops_per_token=6 * table,
    )


def _mtp_layer(model: ModelConfig, seq_len: int, table: int) -> Component:
    """Return one multi-token-prediction layer; embedding and LM head are the main model's.

    It contains one Transformer layer like the model's last.
    """
    sparse, window = model.sparse_layers[-1], model.layer_windows[-1]
    layer = _layer(model, sparse=sparse, window=window, seq_len=seq_len)
    projection = _component("MTP layer", parameters.mtp_projection(model), extra_flops=6 * table)
    components = [*layer, projection]
    return Component(
        name="MTP layer",
        parameters=sum(component.parameters for component in components),
        training_flops_per_token=sum(
            component.training_flops_per_token for component in components
        ),
    )


def _cache_elements(model: ModelConfig) -> int:
    """Return what one layer caches per token: latent and rotary key (MLA), or keys and values."""
    if model.mla is not None:
        return model.mla.kv_lora_rank + model.mla.qk_rope_head_dim
    return model.kv_heads * (model.query_head_dim + model.value_head_dim)


def _component(name: str, groups: Iterable[ParameterGroup], *, extra_flops: int = 0) -> Component:
    """Sum the groups of component `name`; all are active, and `extra_flops` are not of weights."""
    own = [group for group in groups if group.component == name]
    matmul = total(group for group in own if group.is_matmul)
    return Component(
        name=name,
        parameters=total(own),
        active_parameters=total(own),
        active_matmul_parameters=matmul,
        training_flops_per_token=6 * matmul + extra_flops,
    )


def _renamed(component: Component, name: str) -> Component:
    return Component(name=name) + component


def _summed_by_name(components: Iterable[Component]) -> tuple[Component, ...]:
    sums: dict[str, Component] = {}
    for component in components:
        sums[component.name] = (
            sums[component.name] + component if component.name in sums else component
        )
    return tuple(sums.values())
