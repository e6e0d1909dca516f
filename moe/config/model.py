"""The `[model]` section: architecture of a dense or sparse decoder-only Transformer."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data.frozen_model import FrozenModel

LARGEST_SIZE = 2**40
Size = Annotated[int, Field(gt=0, le=LARGEST_SIZE)]
"""A dimension; what is larger is a typing error that would only fail much later."""
MOST_LAYERS = 10_000
Count = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
"""Layers or heads, each of which is built and mapped one by one."""


class RopeConfig(FrozenModel):
    """Rotary position embedding (arXiv:2104.09864) and its length extension."""

    theta: float = Field(default=10_000.0, gt=0)
    """Rotary base."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each head's dimensions that is rotated."""
    scaling: Literal["none", "llama3", "yarn"] = "none"
    """Length extension: Llama 3.1's frequency scaling, or YaRN (arXiv:2309.00071)."""
    factor: float = Field(default=1.0, ge=1)
    """Extension factor over `original_max_seq_len`."""
    original_max_seq_len: Size = 8192
    """Context the model was first trained with."""
    mscale: float = 1.0
    """YaRN attention scale."""
    mscale_all_dim: float = 0.0
    """YaRN attention scale over all dimensions."""
    beta_fast: float = Field(default=32.0, gt=0)
    """YaRN: dimensions turning more often than this over the original context stay as they are."""
    beta_slow: float = Field(default=1.0, gt=0)
    """YaRN: dimensions that turn less often than this are interpolated in full."""
    low_frequency_factor: float = Field(default=1.0, gt=0)
    """Llama 3.1: dimensions turning less often than this over the original context are divided
    by `factor`."""
    high_frequency_factor: float = Field(default=4.0, gt=0)
    """Llama 3.1: dimensions that turn more often than this stay as they are."""
    round_correction_range: bool = True
    """YaRN: round the range between the two to whole dimensions (GPT-OSS does not)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scaling == "none" and self.factor != 1:
            raise ValueError(
                f'factor={self.factor} does nothing with scaling = "none": set scaling or drop it'
            )
        return self


class MlaConfig(FrozenModel):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1)."""

    q_lora_rank: Size | None = None
    """Rank of the query compression; none: queries are projected directly."""
    kv_lora_rank: Size
    """Rank of the joint key-value compression."""
    qk_nope_head_dim: Size
    """Head dimensions without rotary embedding."""
    qk_rope_head_dim: Size
    """Head dimensions with rotary embedding, shared by all heads on the key side."""
    v_head_dim: Size
    """Value head dimension."""
    norm_epsilon: float | None = Field(default=None, gt=0)
    """Epsilon of the norms on the compressed queries and key-values (transformers' DeepSeek-V2 and
    V3: always 1e-6). Default: the model's `norm_epsilon`."""


class MoeConfig(FrozenModel):
    """Routed experts; without this table a model is dense."""

    num_experts: int = Field(ge=2, le=100_000)
    """Routed experts a layer."""
    top_k: Size
    """Experts that see one token."""
    expert_ffn_hidden_size: Size
    """Inner size of one routed expert."""
    shared_expert_ffn_hidden_size: int = Field(default=0, ge=0)
    """Inner size of all shared experts together; 0: none."""
    shared_expert_gate: bool = False
    """Weight the shared experts by a learned sigmoid gate (Qwen2-MoE)."""
    first_dense_layers: int = Field(default=0, ge=0)
    """Leading layers that keep a dense feed-forward network."""
    layer_interval: Size = 1
    """Of the layers after those, every n-th is sparse (counted from the first)."""
    score_function: Literal["softmax", "sigmoid"] = "softmax"
    """Router score."""
    normalize_top_k: bool = True
    """Make the chosen experts' weights sum to one before scaling."""
    scaling_factor: float = Field(default=1.0, gt=0)
    """Factor on the routed experts' weights."""
    num_groups: Size | None = None
    """Group-limited routing: number of expert groups."""
    group_top_k: Size | None = None
    """Group-limited routing: groups that a token may reach."""
    group_score_experts: Size | None = None
    """Group-limited routing: best experts whose scores, summed, rank a group (DeepSeek-V2: 1).
    Default: top_k / group_top_k (DeepSeek-V3)."""
    load_balancing: Literal["aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn", "none"] = (
        "aux_loss"
    )
    """Load-balancing loss: per micro-batch, per sequence, or over the global batch (the shares of
    tokens are those of all ranks' micro-batches of the step so far); or Sinkhorn's even choice in
    training (S-BASE), with the scores as weights."""
    aux_loss_coefficient: float = Field(default=0.01, ge=0)
    """Weight of the load-balancing loss (Switch, arXiv:2101.03961, eq. 4)."""
    z_loss_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the router z-loss (ST-MoE, arXiv:2202.08906, eq. 5)."""
    expert_bias: bool = False
    """Auxiliary-loss-free balancing by a bias on the scores (arXiv:2408.15664)."""
    expert_bias_update_rate: float = Field(default=1e-3, gt=0)
    """Step of that bias."""
    capacity_factor: float | None = Field(default=None, gt=0)
    """Tokens an expert may take, times the even share; none: dropless."""
    token_drop_policy: Literal["probs", "position"] = "probs"
    """Which tokens go when capacity is exceeded: lowest weight, or last position."""
    router_dtype: Literal["fp32", "fp64", "model"] = "fp32"
    """Number format of the router's product and scores; `model`: that of the layer's input (the
    softmax is never below FP32)."""
    forced_balance: Literal[False, True, "random"] = False
    """Replace the choice of experts. For benchmarks: the model does not learn to route. true:
    every expert gets the same number of tokens; `random`: each token draws its experts evenly."""

    @field_validator("load_balancing", mode="before")
    @classmethod
    def _not_expert_choice(cls, value: object) -> object:
        if value == "expert_choice":
            raise ValueError(
                "'expert_choice': megatron-core has no such routing (arXiv:2202.09368); in a causal"
                " model it would tell a token what later tokens an expert preferred: take"
                " 'sinkhorn', or expert_bias with sigmoid scores"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k={self.top_k} exceeds num_experts={self.num_experts}: lower top_k"
            )
        if (self.num_groups is None) != (self.group_top_k is None):
            raise ValueError("num_groups and group_top_k go together: set both or neither")
        if self.num_groups is not None and self.group_top_k is not None:
            self._check_groups(self.num_groups, self.group_top_k)
        elif self.group_score_experts is not None:
            raise ValueError("group_score_experts needs num_groups and group_top_k")
        self._check_balancing()
        if self.top_k == 1 and self.normalize_top_k:
            raise ValueError(
                "top_k=1 needs normalize_top_k=false: one expert's normalized weight is always 1,"
                " and the router would learn nothing"
            )
        if self.shared_expert_gate and not self.shared_expert_ffn_hidden_size:
            raise ValueError("shared_expert_gate needs shared_expert_ffn_hidden_size > 0")
        if self.capacity_factor is not None and self.capacity_factor > self.num_experts:
            raise ValueError(
                f"capacity_factor={self.capacity_factor} exceeds num_experts={self.num_experts},"
                " from which on no token is ever dropped: remove it"
            )
        if self.expert_bias and self.score_function != "sigmoid":
            raise ValueError('expert_bias needs score_function = "sigmoid" (megatron-core)')
        return self

    def _check_balancing(self) -> None:
        """Refuse what does not go with a Sinkhorn choice."""
        if self.load_balancing != "sinkhorn":
            return
        for key in ("expert_bias", "num_groups", "capacity_factor"):
            if getattr(self, key):
                raise ValueError(f'{key} does not go with load_balancing = "sinkhorn": remove it')

    @property
    def has_balancing_loss(self) -> bool:
        """Whether routers have a load-balancing loss, whose weight is not zero."""
        return self.load_balancing.endswith("aux_loss") and self.aux_loss_coefficient > 0

    @property
    def group_score_size(self) -> int:
        """Best experts of a group whose scores make its own, resolved."""
        return self.group_score_experts or max(1, self.top_k // (self.group_top_k or self.top_k))

    def _check_groups(self, groups: int, group_top_k: int) -> None:
        if self.num_experts % groups:
            raise ValueError(
                f"num_experts={self.num_experts} is not divisible by num_groups={groups}"
            )
        if group_top_k > groups:
            raise ValueError(f"group_top_k={group_top_k} exceeds num_groups={groups}: lower it")
        if self.top_k > group_top_k * self.num_experts // groups:
            raise ValueError(
                f"top_k={self.top_k} exceeds the {self.num_experts // groups} experts of each of"
                f" group_top_k={group_top_k} groups: raise group_top_k"
            )
        if self.group_score_size > self.num_experts // groups:
            raise ValueError(
                f"group_score_experts={self.group_score_size} exceeds the"
                f" {self.num_experts // groups} experts of a group: lower it"
            )


class ModelConfig(FrozenModel):
    """The `[model]` section. `preset` names a shipped model whose keys the others override."""

    preset: str | None = None
    """Shipped model to start from; see `moe presets`."""
    num_layers: Count
    """Transformer layers (without multi-token-prediction layers)."""
    hidden_size: Size
    """Width of the residual stream."""
    num_heads: Count
    """Attention heads."""
    num_kv_heads: Count | None = None
    """Key-value heads (grouped-query attention). Default: num_heads."""
    head_dim: Size | None = None
    """Dimension of one head. Default: hidden_size / num_heads."""
    ffn_hidden_size: Size | None = None
    """Inner size of dense feed-forward networks (SwiGLU). Needed where a layer is dense."""
    vocab_size: Size
    """Rows of the embedding as built (pad it yourself for tensor parallelism)."""
    max_seq_len: Size
    """Longest sequence the model is made for."""
    tie_embeddings: bool = False
    """Use the input embedding as LM head."""
    norm_epsilon: float = Field(default=1e-6, gt=0)
    """Epsilon of RMSNorm."""
    qk_norm: Literal["none", "head", "full"] = "none"
    """RMSNorm on queries and keys: per head (Qwen3) or over all heads together (OLMoE)."""
    qkv_bias: bool = False
    """Bias on the query, key and value projections."""
    linear_bias: bool = False
    """Bias on every projection of a layer: attention, feed-forward, experts, router (GPT-OSS)."""
    activation: Literal["swiglu", "clamped_swiglu"] = "swiglu"
    """`swiglu`: silu(gate) * up (arXiv:2002.05202). `clamped_swiglu` (GPT-OSS, arXiv:2508.10925):
    gate at most 7, up within +-7, then gate * sigmoid(1.702 gate) * (up + 1)."""
    sliding_window: Size | None = None
    """Tokens that a position of a sliding-window layer sees, itself included; none: all before."""
    full_attention_interval: Size | None = None
    """With `sliding_window`: every n-th layer sees all positions; none: every layer slides."""
    attention_sinks: bool = False
    """One learned logit a head in each softmax's denominator (GPT-OSS)."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of initial weights; output projections: / sqrt(2 num_layers)."""
    mtp_layers: int = Field(default=0, ge=0, le=MOST_LAYERS)
    """Multi-token-prediction layers (DeepSeek-V3, arXiv:2412.19437, section 2.2)."""
    mtp_loss_coefficient: float = Field(default=0.1, ge=0)
    """Weight of their mean loss in the training loss."""
    rope: RopeConfig = RopeConfig()
    mla: MlaConfig | None = None
    moe: MoeConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mla is None and self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divisible by num_heads={self.num_heads}:"
                " set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not divisible by num_kv_heads={self.kv_heads}"
            )
        if self.ffn_hidden_size is None and not all(self.sparse_layers):
            raise ValueError("ffn_hidden_size is missing: this model has dense layers")
        if self.moe is not None and not any(self.sparse_layers):
            raise ValueError(
                f"moe.first_dense_layers={self.moe.first_dense_layers} leaves none of the"
                f" num_layers={self.num_layers} layers sparse: lower it or remove [model.moe]"
            )
        if self.full_attention_interval is not None and self.sliding_window is None:
            raise ValueError("full_attention_interval needs sliding_window")
        if self.full_attention_interval is not None and self.mtp_layers:
            raise ValueError("full_attention_interval does not go with mtp_layers: remove one")
        if self.mla is not None:
            self._check_mla()
        if self.linear_bias and self.moe is not None and self.moe.shared_expert_ffn_hidden_size:
            raise ValueError("linear_bias does not go with shared experts (megatron-core)")
        return self

    def _check_mla(self) -> None:
        """Refuse what latent attention would silently ignore."""
        unused = {
            "num_kv_heads": self.num_kv_heads not in {None, self.num_heads},
            "head_dim": self.head_dim is not None,
            "qk_norm": self.qk_norm != "none",
            "qkv_bias": self.qkv_bias,
            "linear_bias": self.linear_bias,
            "attention_sinks": self.attention_sinks,
            "sliding_window": self.sliding_window is not None,
            "rope.fraction": self.rope.fraction != 1,
        }
        for key in (key for key, wrong in unused.items() if wrong):
            raise ValueError(f"{key} does not go with [model.mla]: remove it")

    @property
    def kv_heads(self) -> int:
        """Key-value heads, resolved."""
        return self.num_kv_heads or self.num_heads

    @property
    def query_head_dim(self) -> int:
        """Dimension of one query/key head, resolved (MLA: without plus with rotary)."""
        if self.mla is not None:
            return self.mla.qk_nope_head_dim + self.mla.qk_rope_head_dim
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def latent_norm_epsilon(self) -> float:
        """Epsilon of latent attention's own norms, resolved."""
        own = None if self.mla is None else self.mla.norm_epsilon
        return self.norm_epsilon if own is None else own

    @property
    def value_head_dim(self) -> int:
        """Dimension of one value head, resolved."""
        return self.mla.v_head_dim if self.mla is not None else self.query_head_dim

    @property
    def sparse_layers(self) -> tuple[bool, ...]:
        """For each layer, whether it has routed experts."""
        moe = self.moe
        if moe is None:
            return (False,) * self.num_layers
        first, interval = moe.first_dense_layers, moe.layer_interval
        return tuple(i >= first and (i - first) % interval == 0 for i in range(self.num_layers))

    @property
    def layer_windows(self) -> tuple[int | None, ...]:
        """For each layer, the tokens its attention sees, or None for all."""
        full = self.full_attention_interval
        return tuple(
            None if full is not None and (i + 1) % full == 0 else self.sliding_window
            for i in range(self.num_layers)
        )
