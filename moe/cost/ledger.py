"""The cost ledger: what a model's parts weigh and what one training token costs in them.

Conventions, the same in every command and report:

- **Parameters** are what an optimizer would train. `expert_bias` (a buffer) is not one.
- **Active** parameters are those one token meets on its way to the next-token prediction: `top_k`
  of the routed experts and everything else, the input embedding counted in full. This is how
  Mixtral's, Qwen3's and OLMoE's cards count. DeepSeek's and GPT-OSS's leave the input embedding
  out (`active_parameters_without_input_embedding`), Moonlight's leaves both embeddings out.
  Multi-token-prediction layers count in the total, and their training FLOPs count, but they are
  not active: cards leave them out, and inference does not need them.
- **Training FLOPs** per token are 6 per active parameter in a matrix product (2 forward,
  4 backward) with the LM head, without input embedding, router and shared-expert gate, plus
  6 * heads * head_dim * seq_len a layer for causal attention (half of the full square; MLA: the
  mean of query-key and value dimensions). Recomputation is not counted. Each
  multi-token-prediction layer adds one layer, its 2h x h projection and the LM head once more.
  This reproduces NVIDIA's published ratios of TFLOP/s to tokens/s (Megatron-Bridge,
  docs/performance-summary-archive.md). Attention's 6 = 12/2: PaLM, arXiv:2204.02311, appendix B.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from moe.config.model import MlaConfig, ModelConfig, MoeConfig

BF16_BYTES = 2
TRAINING_STATE_BYTES = 18
"""BF16 parameter 2, FP32 gradient 4, FP32 master parameter 4, Adam's two FP32 moments 8."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of a model, all layers together."""

    name: str
    parameters: int = 0
    active_parameters: int = 0
    active_matmul_parameters: int = 0
    training_flops_per_token: int = 0

    def __add__(self, other: "Component") -> "Component":
        """Return both together, under this one's name."""
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
    """Parameters and training FLOPs of a model by component; every total is their exact sum."""

    seq_len: int
    components: tuple[Component, ...]
    embedding_parameters: int
    """Input embedding and LM head (once where they are tied)."""
    input_embedding_parameters: int
    """The part of them that no matrix product uses: 0 where they are tied."""
    mtp_parameters: int
    """Multi-token-prediction layers."""
    kv_cache_elements_per_token: int
    """Numbers an inference cache keeps for each token of the context."""

    @property
    def total_parameters(self) -> int:
        """Trainable parameters, multi-token-prediction layers included."""
        return sum(part.parameters for part in self.components)

    @property
    def active_parameters(self) -> int:
        """Parameters one token meets, input embedding counted in full."""
        return sum(part.active_parameters for part in self.components)

    @property
    def active_parameters_without_input_embedding(self) -> int:
        """Active parameters as DeepSeek and GPT-OSS count them."""
        return self.active_parameters - self.input_embedding_parameters

    @property
    def active_matmul_parameters(self) -> int:
        """Active parameters in matrix products of the main model, LM head included."""
        return sum(part.active_matmul_parameters for part in self.components)

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward FLOPs of one training token in a sequence of `seq_len`."""
        return sum(part.training_flops_per_token for part in self.components)

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
                asdict(part) | {"training_flops_per_token": float(part.training_flops_per_token)}
                for part in self.components
            ],
        }


def ledger(model: ModelConfig, seq_len: int) -> Ledger:
    """Count a model's parameters and the FLOPs of one training token.

    Args:
        model: The architecture; any `seq_len` may be asked, also beyond its `max_seq_len`.
        seq_len: Tokens of the training sequences.

    Raises:
        ValueError: `seq_len` is not positive.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len={seq_len}: must be at least 1")
    table = model.vocab_size * model.hidden_size
    layers = zip(model.sparse_layers, model.layer_windows, strict=True)
    parts = [
        Component(name="input embedding", parameters=table, active_parameters=table),
        *(
            part
            for sparse, window in layers
            for part in _layer(model, sparse=sparse, window=window, seq_len=seq_len)
        ),
        _outside_flops("norms", model.hidden_size),
        _lm_head(model, table),
    ]
    mtp = _mtp_layer(model, seq_len, table)
    parts += [_renamed(mtp, f"MTP layer {i + 1}") for i in range(model.mtp_layers)]
    return Ledger(
        seq_len=seq_len,
        components=_summed_by_name(parts),
        embedding_parameters=table if model.tie_embeddings else 2 * table,
        input_embedding_parameters=0 if model.tie_embeddings else table,
        mtp_parameters=model.mtp_layers * mtp.parameters,
        kv_cache_elements_per_token=model.num_layers * _cache_elements(model),
    )


def _layer(
    model: ModelConfig, *, sparse: bool, window: int | None, seq_len: int
) -> list[Component]:
    """Return the parts of one Transformer layer."""
    parts = [_attention(model, window, seq_len), _layer_norms(model)]
    if sparse and model.moe is not None:
        return parts + _sparse_ffn(model, model.moe)
    inner = model.ffn_hidden_size or 0
    weights, bias = _ffn_weights(model, inner), _ffn_bias(model, inner)
    return [*parts, _matmul("dense FFN", weights, extra=bias)]


def _attention(model: ModelConfig, window: int | None, seq_len: int) -> Component:
    hidden, heads = model.hidden_size, model.num_heads
    if model.mla is not None:
        weights = _mla_weights(model, model.mla)
        bias = sinks = 0
    else:
        projected = (heads + 2 * model.kv_heads) * model.query_head_dim
        weights = hidden * projected + heads * model.query_head_dim * hidden
        bias = projected * (model.qkv_bias or model.linear_bias) + hidden * model.linear_bias
        sinks = heads * model.attention_sinks
    core = _attention_core_flops(model, window, seq_len)
    return _matmul("attention", weights, extra=bias + sinks, extra_flops=core)


def _mla_weights(model: ModelConfig, mla: MlaConfig) -> int:
    """Return the projections of latent attention (DeepSeek-V2, arXiv:2405.04434, appendix C)."""
    hidden, heads = model.hidden_size, model.num_heads
    queries = heads * model.query_head_dim
    rank = mla.q_lora_rank
    query = hidden * queries if rank is None else hidden * rank + rank * queries
    down = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
    up = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return query + down + up + heads * mla.v_head_dim * hidden


def _attention_core_flops(model: ModelConfig, window: int | None, seq_len: int) -> int:
    """Return FLOPs of scores and weighted sum for the average token of a causal sequence.

    A token sees half the sequence on average, or with a window w < seq_len, w - w^2 / (2 seq_len).
    Forward 2 * heads * (qk_dim + v_dim) a seen position; training is three times that.
    """
    per_position = 6 * model.num_heads * (model.query_head_dim + model.value_head_dim)
    seen = seq_len if window is None else min(window, seq_len)
    return per_position * seen * (2 * seq_len - seen) // (2 * seq_len)


def _layer_norms(model: ModelConfig) -> Component:
    width = 2 * model.hidden_size
    if model.mla is not None:
        width += model.mla.kv_lora_rank + (model.mla.q_lora_rank or 0)
    elif model.qk_norm == "head":
        width += 2 * model.query_head_dim
    elif model.qk_norm == "full":
        width += (model.num_heads + model.kv_heads) * model.query_head_dim
    return _outside_flops("norms", width)


def _ffn_weights(model: ModelConfig, inner: int) -> int:
    """Return the weights of one gated network: gate, up and down (arXiv:2002.05202)."""
    return 3 * model.hidden_size * inner


def _ffn_bias(model: ModelConfig, inner: int) -> int:
    return (2 * inner + model.hidden_size) * model.linear_bias


def _sparse_ffn(model: ModelConfig, moe: MoeConfig) -> list[Component]:
    hidden, inner = model.hidden_size, moe.expert_ffn_hidden_size
    router = moe.num_experts * (hidden + model.linear_bias)
    weights, bias = _ffn_weights(model, inner), _ffn_bias(model, inner)
    parts = [
        _outside_flops("router", router),
        Component(
            name="routed experts",
            parameters=moe.num_experts * (weights + bias),
            active_parameters=moe.top_k * (weights + bias),
            active_matmul_parameters=moe.top_k * weights,
            training_flops_per_token=6 * moe.top_k * weights,
        ),
    ]
    if moe.shared_expert_ffn_hidden_size:
        shared = _ffn_weights(model, moe.shared_expert_ffn_hidden_size)
        parts.append(_matmul("shared experts", shared))
    if moe.shared_expert_gate:
        parts.append(_outside_flops("shared expert gate", hidden))
    return parts


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

    DeepSeek-V3, arXiv:2412.19437, section 2.2: two norms, a 2h x h projection, one layer of the
    last layer's kind, a final norm.
    """
    hidden = model.hidden_size
    sparse, window = model.sparse_layers[-1], model.layer_windows[-1]
    layer = _layer(model, sparse=sparse, window=window, seq_len=seq_len)
    projection = 2 * hidden * hidden
    return Component(
        name="MTP layer",
        parameters=sum(part.parameters for part in layer) + projection + 3 * hidden,
        training_flops_per_token=(
            sum(part.training_flops_per_token for part in layer) + 6 * (projection + table)
        ),
    )


def _cache_elements(model: ModelConfig) -> int:
    """Numbers one layer caches for a token: the latent and rotary key (MLA), or keys and values."""
    if model.mla is not None:
        return model.mla.kv_lora_rank + model.mla.qk_rope_head_dim
    return model.kv_heads * (model.query_head_dim + model.value_head_dim)


def _matmul(name: str, weights: int, *, extra: int = 0, extra_flops: int = 0) -> Component:
    """Return a part whose weights multiply every token, with `extra` parameters that add none."""
    return Component(
        name=name,
        parameters=weights + extra,
        active_parameters=weights + extra,
        active_matmul_parameters=weights,
        training_flops_per_token=6 * weights + extra_flops,
    )


def _outside_flops(name: str, parameters: int) -> Component:
    """Return a part whose parameters are active but outside the FLOP convention."""
    return Component(name=name, parameters=parameters, active_parameters=parameters)


def _renamed(part: Component, name: str) -> Component:
    return Component(name=name) + part


def _summed_by_name(parts: Iterable[Component]) -> tuple[Component, ...]:
    sums: dict[str, Component] = {}
    for part in parts:
        sums[part.name] = sums[part.name] + part if part.name in sums else part
    return tuple(sums.values())
