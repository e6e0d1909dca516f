"""The sizes of a model and its batches that layouts and the memory model need: plain numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Number of parameters of one component, by how tensor parallelism treats them."""

    sharded: int = 0
    """Sharded over tensor-parallel ranks."""
    replicated: int = 0
    """Replicated on every tensor-parallel rank: norms, routers, biases of row-parallel layers."""
    mla_down: int = 0
    """Down-projections of latent attention: sharded with kernel set `torch`, replicated with
    `te`."""

    @property
    def total(self) -> int:
        """All parameters of the component."""
        return self.sharded + self.replicated + self.mla_down


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of one decoder-only Transformer, before sharding; 0 means absent."""

    hidden_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    """Key-value heads, which tensor parallelism shards (latent attention: `num_heads`)."""
    qk_head_dim: int
    v_head_dim: int
    sparse_layers: tuple[bool, ...]
    """For each layer, whether it has routed experts."""
    layer_windows: tuple[int | None, ...] = ()
    """For each layer, the tokens that a position sees, None for all before it; empty: None each."""
    is_gated: bool = True
    """Whether feed-forward networks have a gate beside the up projection (SwiGLU)."""
    mtp_layers: int = 0
    """Multi-token-prediction layers, each of the last layer's kind, on the last stage."""
    tie_embeddings: bool = False
    normalizes_qk: bool = False
    """Whether queries and keys pass an RMSNorm, which saves its input for the backward pass."""
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    """Above 0: latent attention."""
    qk_rope_head_dim: int = 0
    ffn_hidden_size: int = 0
    num_experts: int = 0
    top_k: int = 0
    expert_groups: int = 1
    """Groups of routed experts, of which a token may reach `groups_per_token`."""
    groups_per_token: int = 1
    expert_ffn_hidden_size: int = 0
    shared_expert_ffn_hidden_size: int = 0
    capacity_factor: float | None = None

    attention: Weights
    """Attention of one layer, with the layer's norms."""
    dense_ffn: Weights = Weights()
    """Feed-forward network of one dense layer."""
    expert: Weights = Weights()
    """One routed expert (`sharded` over expert-tensor-parallel ranks)."""
    router_and_shared: Weights = Weights()
    """Router, shared experts and their gate of one sparse layer."""
    mtp: Weights = Weights()
    """One multi-token-prediction layer without its Transformer layer."""

    @property
    def num_layers(self) -> int:
        """Transformer layers, without multi-token prediction."""
        return len(self.sparse_layers)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Of each layer, resolved."""
        return self.layer_windows or (None,) * self.num_layers


@dataclass(frozen=True, kw_only=True)
class BatchSize:
    """Size of the batch of one optimizer step."""

    seq_len: int
    """Tokens per sequence."""
    micro_batch_size: int
    """Sequences per forward pass on one data-parallel rank."""
    global_batch_size: int
    """Sequences per optimizer step, over all ranks."""

    @property
    def tokens(self) -> int:
        """Tokens per optimizer step, over all ranks."""
        return self.global_batch_size * self.seq_len
